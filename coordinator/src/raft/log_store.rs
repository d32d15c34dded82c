//! The log as raft sees it: whole in memory for reading, on the disk before anything is acknowledged.
//!
//! Compaction bounds the copy in memory. An append is readable at once and acknowledged by its callback when the
//! [`writer`](super::writer) has made it durable; vote, truncation and purge return when they are durable. All go
//! through one queue, so the disk sees them in the order in which raft asked for them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend, entry::RaftEntry};
use redb::{Database, ReadableDatabase, ReadableTable};

use super::codec;
use super::ondisk::{DiskError, LOG, get};
use super::types::{Entry, LogId, OtherFormat, Types, Vote};
use super::writer::{Write, Writer, Writing};

/// The log of one coordinator. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: Arc<RwLock<Log>>,
    writer: Arc<Writer>,
}

/// What the log holds.
#[derive(Default)]
pub(super) struct Log {
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// The last entry that was removed because a snapshot holds it.
    pub(super) purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

impl LogStore {
    /// Begins to write behind what was loaded.
    pub(super) fn start(
        database: Database,
        path: PathBuf,
        loaded: Log,
        writing: Writing,
    ) -> Result<(Self, Option<JoinHandle<()>>), DiskError> {
        let (writer, thread) = Writer::start(database, path, writing)?;
        Ok((Self { log: Arc::new(RwLock::new(loaded)), writer: Arc::new(writer) }, thread))
    }

    /// Writes what is left, and closes the file.
    pub(crate) async fn close(&self) -> io::Result<()> {
        self.writer.durably(Write::Stop).await
    }

    /// True if this coordinator has never been part of a group.
    pub(crate) fn is_empty(&self) -> bool {
        self.read(|log| log.entries.is_empty() && log.purged.is_none())
    }

    fn read<R>(&self, look: impl FnOnce(&Log) -> R) -> R {
        look(&self.log.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<R>(&self, change: impl FnOnce(&mut Log) -> R) -> R {
        change(&mut self.log.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Loads everything and checks that it fits together.
pub(super) fn load(database: &Database, path: &Path) -> Result<Log, DiskError> {
    let raw = || -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
        let table = database.begin_read()?.open_table(LOG)?;
        let mut raw = Vec::new();
        for row in table.iter()? {
            let (index, bytes) = row?;
            raw.push((index.value(), bytes.value().to_vec()));
        }
        Ok(raw)
    };
    let purged: Option<LogId> = get(database, path, "purged")?;
    let mut entries = BTreeMap::new();
    let first = purged.map_or(0, |purged| purged.index + 1);
    let rows = raw().map_err(|error| DiskError::redb(path, error))?;
    for (expected, (index, bytes)) in (first..).zip(rows) {
        let entry: Entry = codec::decode(&bytes).map_err(DiskError::codec(path))?;
        if index != expected || entry.log_id.index != index {
            return Err(DiskError::corrupt(path, format!("entry {expected} is missing")));
        }
        if let Some(other) = other(&entry) {
            return Err(DiskError::entry(path, other));
        }
        entries.insert(index, entry);
    }
    let committed: Option<Option<LogId>> = get(database, path, "committed")?;
    Ok(Log { vote: get(database, path, "vote")?, committed: committed.flatten(), purged, entries })
}

/// Word that another release wrote it, whose entries are not known: it is not taken, and a log that has it is not begun with.
fn other(entry: &Entry) -> Option<OtherFormat> {
    match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.0.as_ref().err().copied(),
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        if is_empty(&range) {
            return Ok(Vec::new());
        }
        Ok(self.read(|log| log.entries.range(range).map(|(_, entry)| entry.clone()).collect()))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.read(|log| log.vote))
    }
}

/// `BTreeMap::range` panics on a range that ends before it begins.
fn is_empty(range: &impl RangeBounds<u64>) -> bool {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    match range.end_bound() {
        Bound::Included(end) => *end < start,
        Bound::Excluded(end) => *end <= start,
        Bound::Unbounded => false,
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        Ok(self.read(|log| {
            let last = log.entries.values().next_back().map(|entry| entry.log_id);
            LogState { last_purged_log_id: log.purged, last_log_id: last.or(log.purged) }
        }))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.writer.durably(|done| Write::Vote(*vote, done)).await?;
        self.change(|log| log.vote = Some(*vote));
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.change(|log| log.committed = committed);
        self.writer.send(Write::Committed(committed))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.read(|log| log.committed))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        if let Some(other) = entries.iter().find_map(other) {
            return Err(io::Error::other(other));
        }
        self.change(|log| {
            for entry in &entries {
                log.entries.insert(entry.index(), entry.clone());
            }
        });
        self.writer.send(Write::Append(entries, callback))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index + 1);
        self.change(|log| log.entries.split_off(&from));
        self.writer.durably(|done| Write::Truncate(from, done)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.change(|log| {
            log.entries = log.entries.split_off(&(upto.index + 1));
            log.purged = log.purged.max(Some(upto));
        });
        self.writer.durably(|done| Write::Purge(upto, done)).await
    }
}
