//! A data directory made from a backup: a log that begins behind it, and a snapshot that holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use openraft::vote::RaftLeaderIdExt;
use openraft::{BasicNode, Membership};
use regent_core::id::{CoordinatorId, LogIndex};
use regent_core::restore::restored;
use regent_core::state::State;
use regent_core::time::Timestamp;

use super::ondisk::{self, Directory, DiskError, put};
use super::snapshot_file::{self, Content, SnapshotFile};
use super::types::{LogId, SnapshotMeta, StoredMembership, Types};

/// The term in which the log of a restored group begins.
const TERM: u64 = 1;

/// Why no data directory was made.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is one already.
    #[error("{} holds something: a group is restored into an empty data directory; move the old one away", .0.display())]
    Occupied(PathBuf),
    /// Exactly one coordinator begins, and the others find it.
    #[error(
        "coordinator {first} has the lowest id of `peers`: restore there, and start the others with empty directories"
    )]
    NotTheFirst {
        /// Who it is.
        first: CoordinatorId,
    },
    /// The directory cannot be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What was given makes no membership.
    #[error("the coordinators in `peers` make no group: {0}")]
    Members(String),
}

/// Makes the data directory of the coordinator that begins a restored group of all these. Gives the state that it
/// begins with.
///
/// # Errors
/// If there is a data directory already, or it cannot be written.
pub fn restore(
    directory: &Path,
    me: CoordinatorId,
    peers: &BTreeMap<CoordinatorId, String>,
    backup: &State,
    at: Timestamp,
) -> Result<State, RestoreError> {
    if let Some(first) = peers.keys().next().filter(|first| **first != me) {
        return Err(RestoreError::NotTheFirst { first: *first });
    }
    let occupied = std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        return Err(RestoreError::Occupied(directory.to_owned()));
    }
    let voters: BTreeSet<CoordinatorId> = peers.keys().copied().collect();
    let state = restored(backup, voters.clone(), at);
    let last = log_id(me, state.applied);
    let nodes: BTreeMap<u64, BasicNode> = peers.iter().map(|(id, address)| (id.0, BasicNode::new(address))).collect();
    let config = vec![voters.iter().map(|id| id.0).collect()];
    let membership = Membership::new(config, nodes).map_err(|error| RestoreError::Members(error.to_string()))?;
    let meta = SnapshotMeta { last_log_id: Some(last), last_membership: StoredMembership::new(Some(last), membership) };

    let (directory, database, _) = Directory::open(directory, me)?;
    let log = directory.log_path();
    let (file, _) = SnapshotFile::open(directory)?;
    let bytes = snapshot_file::encode(&file.path(), &Content { meta: meta.clone(), state: state.clone() })?;
    // The snapshot first: a log that begins behind one that is not there would be taken for damaged.
    file.replace(&meta, &bytes)?;
    ondisk::write(&database, &log, |transaction| {
        put(transaction, &log, "purged", &last)?;
        put(transaction, &log, "committed", &Some(last))
    })?;
    Ok(state)
}

fn log_id(me: CoordinatorId, index: LogIndex) -> LogId {
    LogId::new(openraft::alias::LeaderIdOf::<Types>::new_committed(TERM, me.0), index.0)
}
