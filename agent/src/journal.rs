//! The durable memory of one agent: what it must still know when it wakes up.
//!
//! One thread of its own appends and calls fsync, so that nothing else ever waits for a disk; least of all the fence
//! (safety.md, "Fences that last"). A simulation writes in place instead: nothing in it may happen at a moment that the
//! machine chooses. [`Journal::view`] shows only what is on the disk. The data directory is locked. What records have
//! superseded is left out when the file has grown by them: in a new file, that then takes its place. A file that was
//! copied, or restored from a backup, is refused: it has forgotten what was stored since.

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
pub use record::{
    ApplicationView, Begun, Hold, KnownCoordinator, Outcome, Peer, Record, ResourceView, RestoreProgress, Stale,
    StepRecord, View,
};

/// Up to this length the file is never rewritten.
const COMPACT_AT: u64 = 1 << 20;
/// It is rewritten when it has grown to so many times what was left of it the last time.
const MOSTLY_DEAD: u64 = 4;
/// With less room left on the disk than this, promises are refused.
const ROOM_NEEDED: u64 = 64 << 10;

/// Name of the journal in the data directory.
pub const FILE: &str = "journal";

struct Append {
    records: Vec<Record>,
    done: oneshot::Sender<Result<(), JournalError>>,
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Writing {
    /// A thread of its own.
    #[default]
    ByThread,
    /// Whoever appends, at once.
    InPlace,
}

#[derive(Clone)]
enum Hand {
    Thread(mpsc::UnboundedSender<Append>),
    Own(Arc<Mutex<Pen>>),
}

/// The open file, and what shows whether it can be written.
struct Pen {
    file: JournalFile,
    /// It is rewritten when it is longer than this.
    compact_at: u64,
    _lock: File,
    view: Arc<Mutex<View>>,
    failing: Arc<AtomicBool>,
    revision: Arc<AtomicU64>,
}

/// A handle to the journal.
#[derive(Clone)]
pub struct Journal {
    directory: PathBuf,
    hand: Hand,
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
    /// If the directory is locked, the journal damaged or a copy, or the disk full.
    pub fn open(directory: &Path) -> Result<Self, JournalError> {
        Self::open_with(directory, Writing::ByThread)
    }

    /// As [`Self::open`], and says who writes.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(directory: &Path, writing: Writing) -> Result<Self, JournalError> {
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
        let compact_at = next_compaction(file.length());
        let mut records: Vec<Record> = file.birth()?.into_iter().collect();
        if view.installation == InstallationId::default() {
            let installation = InstallationId(uuid::Uuid::new_v4().to_string());
            records.push(Record::Installed { installation });
        }
        let incarnation = Incarnation(view.incarnation.0 + 1);
        records.push(Record::Started { incarnation });
        file.append(&records)?;
        records.iter().for_each(|record| view.apply(record));

        let view = Arc::new(Mutex::new(view));
        let failing = Arc::new(AtomicBool::new(false));
        let (room, revision) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let pen = Pen {
            compact_at,
            file,
            _lock: lock,
            view: view.clone(),
            failing: failing.clone(),
            revision: revision.clone(),
        };
        let hand = match writing {
            Writing::ByThread => Hand::Thread(spawn_writer(pen, &directory.join(FILE))?),
            Writing::InPlace => Hand::Own(Arc::new(Mutex::new(pen))),
        };
        let journal = Self { directory: directory.to_owned(), hand, view, failing, room, revision };
        journal.look_for_room();
        Ok(journal)
    }

    /// Appends; done when it is on the disk. The order of calls is the order of records.
    pub fn append(
        &self,
        records: Vec<Record>,
    ) -> impl Future<Output = Result<(), JournalError>> + Send + 'static + use<> {
        let (done, stored) = oneshot::channel();
        let gone = JournalError::Broken { path: self.directory.join(FILE) };
        let append = Append { records, done };
        match &self.hand {
            // A thread that is gone drops what it is sent, and with it the promise to say so.
            Hand::Thread(thread) => drop(thread.send(append)),
            Hand::Own(pen) => pen.lock().unwrap_or_else(PoisonError::into_inner).append(append),
        }
        async move { stored.await.unwrap_or(Err(gone)) }
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

    /// As [`Self::look_for_room`], by whoever writes: not on the runtime's threads.
    pub async fn look_again(&self) {
        if matches!(self.hand, Hand::Own(_)) {
            return self.look_for_room();
        }
        let journal = self.clone();
        let _ = tokio::task::spawn_blocking(move || journal.look_for_room()).await;
    }

    /// Looks how much room is left. Asks the file system, and may wait for it.
    pub fn look_for_room(&self) {
        let room = nix::sys::statvfs::statvfs(&self.directory)
            .map(|disk| disk.blocks_available().saturating_mul(disk.fragment_size()));
        self.room.store(room.is_ok_and(|room| room >= ROOM_NEEDED), Ordering::Relaxed);
    }
}

fn spawn_writer(mut pen: Pen, path: &Path) -> Result<mpsc::UnboundedSender<Append>, JournalError> {
    let (to_writer, mut appends) = mpsc::unbounded_channel();
    let writer = move || {
        while let Some(append) = appends.blocking_recv() {
            pen.append(append);
        }
    };
    let spawned = std::thread::Builder::new().name("journal".to_owned()).spawn(writer);
    let failed = |source| JournalError::Io { action: "start the writer of", path: path.to_owned(), source };
    spawned.map(|_| to_writer).map_err(failed)
}

impl Pen {
    fn append(&mut self, Append { records, done }: Append) {
        let result = self.file.append(&records);
        self.failing.store(result.is_err(), Ordering::Relaxed);
        match &result {
            Ok(()) => {
                let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
                records.iter().for_each(|record| view.apply(record));
                self.revision.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => tracing::error!(error = chain(error), "the journal cannot be written"),
        }
        let _ = done.send(result);
        if self.file.length() > self.compact_at {
            self.compact();
        }
    }

    /// From what is on the disk: this pen alone changes the view.
    fn compact(&mut self) {
        let whole = self.view.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match self.file.compact(&whole) {
            Ok(()) => tracing::info!(bytes = self.file.length(), "the journal was rewritten"),
            Err(error) => tracing::error!(error = chain(&error), "the journal cannot be rewritten"),
        }
        // After a failure, too: not at every record.
        self.compact_at = next_compaction(self.file.length());
    }
}

const fn next_compaction(length: u64) -> u64 {
    let grown = length.saturating_mul(MOSTLY_DEAD);
    if grown > COMPACT_AT { grown } else { COMPACT_AT }
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
mod birth_tests;
#[cfg(test)]
mod tests;
