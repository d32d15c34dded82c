//! Writes the log. In operation one thread takes what has gathered, writes it in one durable transaction, and only
//! then says so. A simulation writes in place instead: nothing in it may happen at a moment that the machine chooses.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use openraft::storage::IOFlushed;
use redb::{Database, WriteTransaction};
use regent_core::planted::{self, Mistake};
use tokio::sync::oneshot;

use super::codec;
use super::ondisk::{self, DiskError, LOG, put};
use super::types::{Entry, LogId, Types, Vote};

/// How long a committed index may stay unwritten when nothing else is to be written. It is only a hint: after a
/// restart the leader tells it again.
const IDLE: Duration = Duration::from_millis(500);
/// Most operations that one transaction takes.
const BATCH: usize = 1024;

pub(super) type Done = oneshot::Sender<Result<(), io::Error>>;

pub(super) enum Write {
    Append(Vec<Entry>, IOFlushed<Types>),
    Vote(Vote, Done),
    /// Removes all entries from this index on.
    Truncate(u64, Done),
    /// Removes all entries up to and with this one.
    Purge(LogId, Done),
    /// May be written later.
    Committed(Option<LogId>),
    Stop(Done),
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Writing {
    /// A thread of its own: nobody waits for the disk who does not have to.
    #[default]
    ByThread,
    /// Whoever asks, at once.
    InPlace,
}

/// Takes operations.
pub(super) struct Writer {
    hand: Hand,
    path: PathBuf,
}

enum Hand {
    Thread(Sender<Write>),
    Own(Mutex<Option<Pen>>),
}

impl Writer {
    pub(super) fn start(
        database: Database,
        path: PathBuf,
        writing: Writing,
    ) -> Result<(Self, Option<JoinHandle<()>>), DiskError> {
        let pen = Pen { database, path: path.clone(), committed: None, failed: None };
        if writing == Writing::InPlace {
            return Ok((Self { hand: Hand::Own(Mutex::new(Some(pen))), path }, None));
        }
        let (sender, receiver) = channel();
        let handle = std::thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn(move || pen.run(&receiver))
            .map_err(DiskError::io(&path))?;
        Ok((Self { hand: Hand::Thread(sender), path }, Some(handle)))
    }

    pub(super) fn send(&self, write: Write) -> io::Result<()> {
        match &self.hand {
            Hand::Thread(sender) => sender.send(write).map_err(|_| self.gone()),
            Hand::Own(pen) => {
                let mut pen = pen.lock().unwrap_or_else(PoisonError::into_inner);
                if pen.as_mut().ok_or_else(|| self.gone())?.handle(vec![write], false) {
                    // Stopped: the file is closed.
                    *pen = None;
                }
                Ok(())
            }
        }
    }

    /// Waits until it is on the disk.
    pub(super) async fn durably(&self, write: impl FnOnce(Done) -> Write) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        self.send(write(done))?;
        written.await.map_err(|_| self.gone())?
    }

    fn gone(&self) -> io::Error {
        io::Error::other(format!("{} is closed", self.path.display()))
    }
}

struct Pen {
    database: Database,
    path: PathBuf,
    /// The newest committed index, if it is not written yet.
    committed: Option<Option<LogId>>,
    /// The first failure. What came after it was never written, so nothing may be written after it: a hole.
    failed: Option<String>,
}

impl Pen {
    fn run(mut self, receiver: &Receiver<Write>) {
        loop {
            let first = if self.committed.is_some() {
                match receiver.recv_timeout(IDLE) {
                    Ok(write) => Some(write),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            } else {
                match receiver.recv() {
                    Ok(write) => Some(write),
                    Err(_) => break,
                }
            };
            let idle = first.is_none();
            let batch: Vec<Write> = first.into_iter().chain(receiver.try_iter()).take(BATCH).collect();
            if self.handle(batch, idle) {
                break;
            }
        }
        // The hint is worth a last try; who closes the log has nothing left to be told.
        let _ = self.write(&[], true);
    }

    /// True if it was told to stop.
    fn handle(&mut self, batch: Vec<Write>, idle: bool) -> bool {
        let stop = batch.iter().any(|write| matches!(write, Write::Stop(_)));
        let result = self.write(&batch, idle || stop);
        for write in batch {
            let outcome = || match &result {
                Ok(()) => Ok(()),
                Err(detail) => Err(io::Error::other(detail.clone())),
            };
            match write {
                Write::Append(_, flushed) => flushed.io_completed(outcome()),
                Write::Vote(_, done) | Write::Truncate(_, done) | Write::Purge(_, done) | Write::Stop(done) => {
                    // Who no longer waits does not need to know.
                    let _ = done.send(outcome());
                }
                Write::Committed(_) => {}
            }
        }
        stop
    }

    fn write(&mut self, batch: &[Write], flush: bool) -> Result<(), String> {
        if let Some(detail) = &self.failed {
            return Err(detail.clone());
        }
        for write in batch {
            if let Write::Committed(committed) = write {
                self.committed = Some(*committed);
            }
        }
        let waits = batch.iter().any(|write| !matches!(write, Write::Committed(_) | Write::Stop(_)));
        let hint = flush && self.committed.is_some();
        if !waits && !hint {
            return Ok(());
        }
        let committed = self.committed.take();
        let written = ondisk::write(&self.database, &self.path, |transaction| {
            for write in batch {
                apply(transaction, &self.path, write)?;
            }
            match &committed {
                Some(committed) => put(transaction, &self.path, "committed", committed),
                None => Ok(()),
            }
        });
        written.map_err(|error| {
            let detail = error.into_io().to_string();
            self.failed = Some(detail.clone());
            detail
        })
    }
}

fn apply(transaction: &WriteTransaction, path: &Path, write: &Write) -> Result<(), DiskError> {
    let failed = |error: redb::Error| DiskError::redb(path, error);
    match write {
        Write::Append(..) if planted::makes(Mistake::LogNotWritten) => Ok(()),
        Write::Append(entries, _) => {
            let mut log = transaction.open_table(LOG).map_err(|error| failed(error.into()))?;
            for entry in entries {
                let bytes = codec::encode(entry).map_err(DiskError::codec(path))?;
                log.insert(entry.log_id.index, bytes.as_slice()).map_err(|error| failed(error.into()))?;
            }
            Ok(())
        }
        Write::Vote(vote, _) => put(transaction, path, "vote", vote),
        Write::Truncate(from, _) => {
            let mut log = transaction.open_table(LOG).map_err(|error| failed(error.into()))?;
            log.retain_in(*from.., |_, _| false).map_err(|error| failed(error.into()))
        }
        Write::Purge(upto, _) => {
            let mut log = transaction.open_table(LOG).map_err(|error| failed(error.into()))?;
            log.retain_in(..=upto.index, |_, _| false).map_err(|error| failed(error.into()))?;
            put(transaction, path, "purged", upto)
        }
        Write::Committed(_) | Write::Stop(_) => Ok(()),
    }
}
