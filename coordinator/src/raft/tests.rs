//! The storage by openraft's own suite, killed at any moment, damaged, and without space.

mod certificates;
mod cluster;
mod damage;
mod full_disk;
mod group;
mod kill;
mod newer;
mod restored;
mod suite;

use std::path::Path;

use openraft::RaftLogReader;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::vote::RaftLeaderIdExt;
use regent_core::entry::{Entry as CoreEntry, FORMAT, Record};
use regent_core::id::{CoordinatorId, RequestId};
use regent_core::time::Timestamp;

use super::ondisk::DiskError;
use super::store::Store;
use super::types::{Entry, LogId, Proposal, Types};
use super::writer::Writing;

impl Store {
    fn of(path: &Path) -> Result<Self, DiskError> {
        Self::open(path, CoordinatorId(1), Writing::ByThread)
    }

    pub(super) async fn append(&mut self, entries: Vec<Entry>) -> std::io::Result<()> {
        let (done, written) = <Types as TypeConfigExt>::oneshot();
        self.log.append(entries, IOFlushed::signal(done)).await?;
        written.await.unwrap()
    }

    pub(super) async fn entries(&mut self) -> Vec<Entry> {
        self.log.try_get_log_entries(..).await.unwrap()
    }

    pub(super) async fn close(self) {
        self.log.close().await.unwrap();
        self.writer.unwrap().join().unwrap();
    }
}

pub(super) fn log_id(term: u64, index: u64) -> LogId {
    let leader = openraft::alias::LeaderIdOf::<Types>::new_committed(term, 1);
    LogId::new(leader, index)
}

/// An entry that can be told from any other.
pub(super) fn entry(index: u64) -> Entry {
    let record = record(&format!("r{index}"), &"x".repeat(usize::try_from(index % 300).unwrap()));
    Entry::new_normal(log_id(1, index), Proposal(Ok(record)))
}

pub(super) fn record(request: &str, by: &str) -> Record {
    Record {
        format: FORMAT,
        at: Timestamp(0),
        request: Some(RequestId(request.to_owned())),
        entry: CoreEntry::Paused { application: None, by: by.to_owned(), reason: request.to_owned() },
    }
}
