//! What can be set, with defaults for coordinators some tens of milliseconds apart.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use regent_core::id::CoordinatorId;

/// Settings of raft on one coordinator.
#[derive(Debug, Clone)]
pub struct RaftOptions {
    /// This coordinator's id.
    pub id: CoordinatorId,
    /// host:port of every coordinator known from the configuration, this one included.
    pub peers: BTreeMap<CoordinatorId, String>,
    /// Where log and snapshots lie.
    pub data_directory: PathBuf,
    /// May create the group if no peer has one.
    pub bootstrap: bool,
    /// The leader speaks at least this often. It must be answered within it, too: it bounds the round trip.
    pub heartbeat: Duration,
    /// After a silence of `election_max`, a follower waits for a random time between `election_min` and
    /// `election_max` and then stands for election. A leader that no majority answered for `election_max` takes
    /// no proposals.
    pub election_min: Duration,
    /// See `election_min`.
    pub election_max: Duration,
    /// For a connection to a peer, with its handshake.
    pub connect_timeout: Duration,
    /// For one call of raft that carries entries or a vote.
    pub rpc_timeout: Duration,
    /// For a whole snapshot on its way to a peer.
    pub snapshot_timeout: Duration,
    /// A snapshot is taken after this many entries.
    pub snapshot_every: u64,
    /// This many entries stay behind a snapshot, for peers that lag a little.
    pub keep_entries: u64,
    /// A proposal or a read that is not done in this time ends as "no quorum".
    pub propose_timeout: Duration,
}

/// Settings that contradict each other.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// This coordinator is not in the list.
    #[error("coordinator {id} is not in the list of peers")]
    NotAPeer {
        /// Which.
        id: CoordinatorId,
    },
    /// Raft refuses the times.
    #[error("the times of raft do not fit together: {detail}")]
    Times {
        /// What does not fit.
        detail: String,
    },
}

impl RaftOptions {
    /// Defaults for everything that has one.
    #[must_use]
    pub fn new(id: CoordinatorId, peers: BTreeMap<CoordinatorId, String>, data_directory: PathBuf) -> Self {
        Self {
            id,
            peers,
            data_directory,
            bootstrap: false,
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(250),
            election_max: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(1),
            rpc_timeout: Duration::from_secs(2),
            snapshot_timeout: Duration::from_secs(60),
            snapshot_every: 5000,
            keep_entries: 1000,
            propose_timeout: Duration::from_secs(5),
        }
    }

    pub(super) fn config(&self) -> Result<Config, OptionsError> {
        if !self.peers.contains_key(&self.id) {
            return Err(OptionsError::NotAPeer { id: self.id });
        }
        let election_max = millis(self.election_max);
        let config = Config {
            cluster_name: "regent".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: election_max,
            install_snapshot_timeout: millis(self.snapshot_timeout),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.keep_entries,
            replication_lag_threshold: self.snapshot_every.saturating_add(self.keep_entries),
            // The disk writes while the peers are told, not before.
            broadcast_submitted_on_append: Some(true),
            // Pre-Vote: who comes back from a partition does not depose a leader that the others hear.
            enable_pre_vote: Some(true),
            // CheckQuorum: a leader that no majority answers takes no proposals, and falls silent for as long as
            // the others need to elect another one.
            quorum_loss_probe_interval: Some(election_max * 2),
            // Dialling goes on every heartbeat (safety.md, "One knob").
            backoff: format!("{}ms", millis(self.heartbeat)),
            ..Config::default()
        };
        config.validate().map_err(|error| OptionsError::Times { detail: error.to_string() })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
