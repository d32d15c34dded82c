//! The durable memory of one agent: what it must still know when it wakes up.
//!
//! One thread of its own appends and calls fsync, so that nothing else ever waits for a disk; least of all the fence
//! (safety.md, "Fences that last"). [`Journal::view`] shows only what is on the disk. The data directory is locked.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regent_core::id::{Incarnation, InstallationId};
use tokio::sync::{mpsc, oneshot};

mod file;
mod record;

pub use file::{JournalError, JournalFile};
pub use record::{ApplicationView, Begun, Hold, Outcome, Peer, Record, ResourceView, Stale, StepRecord, View};

/// From this length on the file is rewritten at the start.
const COMPACT_AT: u64 = 1 << 20;
/// With less room left on the disk than this, promises are refused.
const ROOM_NEEDED: u64 = 64 << 10;

/// Name of the journal in the data directory.
pub const FILE: &str = "journal";

struct Append {
    records: Vec<Record>,
    done: oneshot::Sender<Result<(), JournalError>>,
}

/// A handle to the journal.
#[derive(Clone)]
pub struct Journal {
    directory: PathBuf,
    to_writer: mpsc::UnboundedSender<Append>,
    view: Arc<Mutex<View>>,
    failing: Arc<AtomicBool>,
    room: Arc<AtomicBool>,
    revision: Arc<AtomicU64>,
}

impl Journal {
    /// Locks the data directory, reads the journal, gives the directory its identity if it has none, and raises and
    /// stores the incarnation. If that cannot be stored the error says so: no heartbeat may be sent then.
    ///
    /// # Errors
    /// If the directory is locked, the journal damaged, or the disk full.
    pub fn open(directory: &Path) -> Result<Self, JournalError> {
        let io = |action| move |source| JournalError::Io { action, path: directory.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io("create"))?;
        let lock = lock(directory)?;
        let (mut file, mut view, torn) = JournalFile::open(&directory.join(FILE))?;
        if torn > 0 {
            tracing::warn!(bytes = torn, "dropped a torn record that was never acknowledged");
        }
        if file.length() > COMPACT_AT {
            file.compact(&view)?;
        }
        let mut records = Vec::new();
        if view.installation == InstallationId::default() {
            let installation = InstallationId(uuid::Uuid::new_v4().to_string());
            records.push(Record::Installed { installation });
        }
        let incarnation = Incarnation(view.incarnation.0 + 1);
        records.push(Record::Started { incarnation });
        file.append(&records)?;
        records.iter().for_each(|record| view.apply(record));

        let (to_writer, appends) = mpsc::unbounded_channel();
        let view = Arc::new(Mutex::new(view));
        let failing = Arc::new(AtomicBool::new(false));
        let (room, revision) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let journal = Self { directory: directory.to_owned(), to_writer, view, failing, room, revision };
        journal.look_for_room();
        journal.spawn_writer(file, lock, appends)?;
        Ok(journal)
    }

    /// Appends; done when it is on the disk. The order of calls is the order of records.
    pub fn append(
        &self,
        records: Vec<Record>,
    ) -> impl Future<Output = Result<(), JournalError>> + Send + 'static + use<> {
        let (done, stored) = oneshot::channel();
        let gone = JournalError::Broken { path: self.directory.join(FILE) };
        let sent = self.to_writer.send(Append { records, done });
        async move {
            match sent {
                Ok(()) => stored.await.unwrap_or(Err(gone)),
                Err(_) => Err(gone),
            }
        }
    }

    /// What is on the disk.
    pub fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes with the view.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// True if a record can be expected to reach the disk: the last one did, and there was room lately.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.failing.load(Ordering::Relaxed) && self.room.load(Ordering::Relaxed)
    }

    /// Looks how much room is left. Asks the file system, and may wait for it.
    pub fn look_for_room(&self) {
        let room = nix::sys::statvfs::statvfs(&self.directory)
            .map(|disk| disk.blocks_available().saturating_mul(disk.fragment_size()));
        self.room.store(room.is_ok_and(|room| room >= ROOM_NEEDED), Ordering::Relaxed);
    }

    fn spawn_writer(
        &self,
        mut file: JournalFile,
        lock: File,
        mut appends: mpsc::UnboundedReceiver<Append>,
    ) -> Result<(), JournalError> {
        let (view, failing, revision) = (self.view.clone(), self.failing.clone(), self.revision.clone());
        let writer = move || {
            let _held = lock;
            while let Some(Append { records, done }) = appends.blocking_recv() {
                let result = file.append(&records);
                failing.store(result.is_err(), Ordering::Relaxed);
                match &result {
                    Ok(()) => {
                        let mut view = view.lock().unwrap_or_else(PoisonError::into_inner);
                        records.iter().for_each(|record| view.apply(record));
                        revision.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => tracing::error!(error = chain(error), "the journal cannot be written"),
                }
                let _ = done.send(result);
            }
        };
        let spawned = std::thread::Builder::new().name("journal".to_owned()).spawn(writer);
        let path = self.directory.join(FILE);
        spawned.map(drop).map_err(|source| JournalError::Io { action: "start the writer of", path, source })
    }
}

fn lock(directory: &Path) -> Result<File, JournalError> {
    let path = directory.join("lock");
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(|source| JournalError::Io { action: "open", path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(JournalError::Locked { path }),
        Err(std::fs::TryLockError::Error(source)) => Err(JournalError::Io { action: "lock", path, source }),
    }
}

/// An error with its causes in one line, for a log field.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
