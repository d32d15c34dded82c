//! Applies committed entries to the replicated state.
//!
//! The state lives in memory; what is durable of it is the snapshot and the log behind it. A restart loads the
//! snapshot and applies the log again up to what was known to be committed, before anyone looks.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use regent_core::id::{CoordinatorId, LogIndex};
use regent_core::state::{Applied, State};

use super::ondisk::{Directory, DiskError};
use super::snapshot_file::{self, Content, SnapshotFile};
use super::types::{Answer, LogId, OtherFormat, Snapshot, SnapshotMeta, StoredMembership, Types};
use super::writer::Writing;
use crate::replica::Shared;

/// Owner of the writing side of [`Shared`].
pub(crate) struct StateMachine {
    shared: Arc<Shared>,
    file: SnapshotFile,
    writing: Writing,
    applied: Option<LogId>,
    membership: StoredMembership,
}

impl StateMachine {
    /// Loads the snapshot, which must reach to where the log begins.
    pub(crate) fn open(directory: Directory, purged: Option<LogId>, writing: Writing) -> Result<Self, DiskError> {
        let (file, content) = SnapshotFile::open(directory)?;
        let reaches = content.as_ref().and_then(|content| content.meta.last_log_id);
        if reaches.map(|id| id.index) < purged.map(|id| id.index) {
            return Err(match content {
                None => DiskError::Missing { path: file.path() },
                Some(_) => DiskError::corrupt(&file.path(), "it is older than the beginning of the log"),
            });
        }
        let (meta, state) = content.map_or_else(Default::default, |content| (content.meta, content.state));
        Ok(Self {
            shared: Shared::new(state),
            file,
            writing,
            applied: meta.last_log_id,
            membership: meta.last_membership,
        })
    }

    /// What is applied, for everyone.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }

    fn apply_one(
        &mut self,
        log_id: LogId,
        payload: EntryPayload<super::types::Proposal, u64, openraft::BasicNode>,
    ) -> Result<Answer, OtherFormat> {
        let index = LogIndex(log_id.index);
        let answer = match payload {
            EntryPayload::Blank => {
                self.shared.write(|state| {
                    state.apply_blank(index);
                    ((), Vec::new())
                });
                Answer(Applied::Done(index))
            }
            EntryPayload::Normal(proposal) => {
                let record = proposal.0?;
                Answer(self.shared.write(|state| state.apply(index, &record)))
            }
            EntryPayload::Membership(membership) => {
                let ids = |set: &std::collections::BTreeSet<u64>| set.iter().copied().map(CoordinatorId).collect();
                let voters = membership.get_joint_config().iter().map(ids).collect();
                self.membership = StoredMembership::new(Some(log_id), membership);
                self.shared.write(|state| ((), state.apply_membership(index, voters)));
                Answer(Applied::Done(index))
            }
        };
        self.applied = Some(log_id);
        Ok(answer)
    }
}

/// Reads and writes of whole files stay off the runtime's threads, unless everything is written in place.
async fn blocking<R: Send + 'static>(
    writing: Writing,
    work: impl FnOnce() -> Result<R, DiskError> + Send + 'static,
) -> io::Result<R> {
    if writing == Writing::InPlace {
        return work().map_err(DiskError::into_io);
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?.map_err(DiskError::into_io)
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let answer = self.apply_one(entry.log_id, entry.payload).map_err(io::Error::other)?;
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            file: self.file.clone(),
            writing: self.writing,
            meta: self.meta(),
            state: self.shared.read(State::clone),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> Result<(), io::Error> {
        let (file, stored) = (self.file.clone(), meta.clone());
        let content = blocking(self.writing, move || {
            // Named after where it would stand: whoever sent it, it is not written before it has been checked.
            let content = snapshot_file::decode(&file.path(), &snapshot)?;
            file.replace(&stored, &snapshot)?;
            Ok(content)
        })
        .await?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.shared.write(|state| {
            *state = content.state;
            ((), Vec::new())
        });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let file = self.file.clone();
        blocking(self.writing, move || {
            let Some(bytes) = file.read()? else { return Ok(None) };
            let meta = snapshot_file::decode(&file.path(), &bytes)?.meta;
            Ok(Some(Snapshot { meta, snapshot: bytes }))
        })
        .await
    }
}

/// Writes down the state as it was when this was made.
pub(crate) struct Builder {
    file: SnapshotFile,
    writing: Writing,
    meta: SnapshotMeta,
    state: State,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (file, meta) = (self.file.clone(), self.meta.clone());
        let content = Content { meta: self.meta.clone(), state: self.state.clone() };
        blocking(self.writing, move || {
            let path: &Path = &file.path();
            let bytes = snapshot_file::encode(path, &content)?;
            file.replace(&meta, &bytes)?;
            Ok(Snapshot { meta, snapshot: bytes })
        })
        .await
    }
}
