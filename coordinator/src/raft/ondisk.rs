//! The data directory: what lies where, how it is made, and what is said when it is not as it should be.
//!
//! ```text
//! DIRECTORY/lock        held by the running process; names the identity once the directory is made
//! DIRECTORY/log.redb    format, identity, incarnation, vote, and the log
//! DIRECTORY/snapshot    the last snapshot, with its checksum
//! ```
//!
//! A directory is made only where there is none, or an empty one: a coordinator that lost its files must not come
//! back under its old id as if nothing had happened (safety.md, "Identity and numbers").

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::{Database, Durability, ReadableDatabase, TableDefinition, WriteTransaction};
use regent_core::entry::OLDEST_ENTRY;
use regent_core::id::{CoordinatorId, IdentityId, Incarnation};
use regent_core::planted::{self, Mistake};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::{self, CodecError};
use super::types::OtherFormat;

/// Format of the directory as a whole.
pub(crate) const DISK_FORMAT: u64 = 1;

pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

/// Cache of redb; everything that is read in operation is in memory anyway.
const CACHE_BYTES: usize = 4 << 20;

/// What is wrong with the data directory.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The operating system refuses.
    #[error("cannot use {}: check permissions and free space", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process runs on this directory.
    #[error("{} is in use by another process: stop that one first", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file is torn, altered or not what it should be.
    #[error(
        "{} is damaged ({detail}): remove this coordinator from the group, move the data directory away, \
         and add it anew under another id",
        path.display()
    )]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A file that must be there is not.
    #[error(
        "{} is missing: put it back, or remove this coordinator from the group, move the rest of the data \
         directory away, and add it anew under another id",
        path.display()
    )]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// There is something else in the directory.
    #[error("{} is neither empty nor a coordinator's data directory: it holds {found:?}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the files there.
        found: String,
    },
    /// It is a copy: of an older time, or of a directory that is in use elsewhere.
    #[error(
        "{} was copied or restored from a backup, so it may have forgotten what this coordinator acknowledged, granted \
         and voted since: remove this coordinator from the group, move the data directory away, and add it anew under \
         another id",
        path.display()
    )]
    Copied {
        /// Which file.
        path: PathBuf,
    },
    /// It was written by a newer release.
    #[error("{} has format {found}, this release reads {DISK_FORMAT}: install a newer release", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// Its log was written by an earlier build, which planned otherwise.
    #[error(
        "the log in the data directory {} has an entry of format {found}, this release reads from {OLDEST_ENTRY} on: an \
         earlier build wrote it, and what it began would be read as another plan. Run that build again and make a backup \
         (`regentctl backup`); then stop all coordinators, move their data directories away, and begin the group from the \
         backup (`regent-coordinator --restore`; deploy/GROUP.md, Upgrade)",
        path.parent().unwrap_or(path).display()
    )]
    Older {
        /// Which file.
        path: PathBuf,
        /// The entry's format.
        found: u64,
    },
    /// It belongs to another coordinator.
    #[error("{} belongs to coordinator {found}, not {own}: correct `id` or `dataDirectory`", path.display())]
    OtherCoordinator {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        found: u64,
        /// Who asks.
        own: u64,
    },
}

impl DiskError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(super) fn corrupt(path: &Path, detail: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), detail: detail.into() }
    }

    /// Of an entry that another release wrote.
    pub(super) fn entry(path: &Path, other: OtherFormat) -> Self {
        let (path, found) = (path.to_owned(), u64::from(other.found));
        if other.found < OLDEST_ENTRY { Self::Older { path, found } } else { Self::Format { path, found } }
    }

    pub(super) fn codec(path: &Path) -> impl FnOnce(CodecError) -> Self {
        let path = path.to_owned();
        move |error| match error {
            CodecError::Format { found } => Self::Format { path, found: u64::from(found) },
            CodecError::Short | CodecError::Garbled { .. } => Self::Corrupt { path, detail: error.to_string() },
        }
    }

    /// For openraft, which knows only I/O errors. Display names the file and the cause: it is all that is left.
    pub(super) fn into_io(self) -> io::Error {
        let text = match std::error::Error::source(&self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        };
        io::Error::other(text)
    }

    pub(super) fn redb(path: &Path, error: redb::Error) -> Self {
        match error {
            redb::Error::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
                Self::corrupt(path, source.to_string())
            }
            redb::Error::Io(source) => Self::Io { path: path.to_owned(), source },
            redb::Error::PreviousIo => {
                Self::Io { path: path.to_owned(), source: io::Error::other("an earlier write failed") }
            }
            redb::Error::DatabaseAlreadyOpen => Self::Locked { path: path.to_owned() },
            other => Self::corrupt(path, other.to_string()),
        }
    }
}

/// A data directory, locked for this process as long as any clone lives.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    path: PathBuf,
    _lock: Arc<File>,
}

/// What the directory says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    pub(crate) identity: IdentityId,
    pub(crate) incarnation: Incarnation,
}

impl Directory {
    pub(crate) fn log_path(&self) -> PathBuf {
        self.path.join("log.redb")
    }

    pub(crate) fn snapshot_path(&self) -> PathBuf {
        self.path.join("snapshot")
    }

    /// Makes entries of the directory durable: names, not contents.
    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        File::open(&self.path).and_then(|file| file.sync_all()).map_err(DiskError::io(&self.path))
    }

    /// As [`Self::open_now`], with some patience for a predecessor that is just ending.
    pub(crate) fn open(path: &Path, id: CoordinatorId) -> Result<(Self, Database, Owner), DiskError> {
        let begun = Instant::now();
        loop {
            match Self::open_now(path, id) {
                Err(DiskError::Locked { .. }) if begun.elapsed() < PATIENCE => std::thread::sleep(PATIENCE / 50),
                result => return result,
            }
        }
    }

    /// Locks the directory, makes it if there is none, checks it if there is one, and raises the incarnation.
    fn open_now(path: &Path, id: CoordinatorId) -> Result<(Self, Database, Owner), DiskError> {
        fs::create_dir_all(path).map_err(DiskError::io(path))?;
        let (lock, marker) = lock(path)?;
        let directory = Self { path: path.to_owned(), _lock: Arc::new(lock) };
        let log = directory.log_path();
        if !log.try_exists().map_err(DiskError::io(&log))? {
            if !marker.is_empty() {
                return Err(DiskError::Missing { path: log });
            }
            directory.refuse_strangers()?;
            directory.create(id)?;
        }
        let database = open_database(&log)?;
        let owner = directory.introduce(&database, id)?;
        directory.mark(&owner.identity)?;
        Ok((directory, database, owner))
    }

    fn refuse_strangers(&self) -> Result<(), DiskError> {
        for entry in fs::read_dir(&self.path).map_err(DiskError::io(&self.path))? {
            let name = entry.map_err(DiskError::io(&self.path))?.file_name().to_string_lossy().into_owned();
            if name == "snapshot" {
                return Err(DiskError::Missing { path: self.log_path() });
            }
            if !["lock", CREATING, "lost+found"].contains(&name.as_str()) {
                return Err(DiskError::Foreign { path: self.path.clone(), found: name });
            }
        }
        Ok(())
    }

    /// The log comes into being under another name and is moved when it is whole: a crash in between leaves a
    /// directory that is still to be made.
    fn create(&self, id: CoordinatorId) -> Result<(), DiskError> {
        let creating = self.path.join(CREATING);
        match fs::remove_file(&creating) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(DiskError::io(&creating)(error)),
            _ => {}
        }
        let identity = IdentityId(uuid::Uuid::new_v4().to_string());
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&creating)
            .map_err(|error| DiskError::redb(&creating, error.into()))?;
        write(&database, &creating, |transaction| {
            put(transaction, &creating, "format", &DISK_FORMAT)?;
            put(transaction, &creating, "identity", &identity)?;
            put(transaction, &creating, "coordinator", &id.0)?;
            put(transaction, &creating, "incarnation", &Incarnation(0))?;
            transaction.open_table(LOG).map_err(|error| DiskError::redb(&creating, error.into()))?;
            Ok(())
        })?;
        drop(database);
        let log = self.log_path();
        fs::rename(&creating, &log).map_err(DiskError::io(&log))?;
        self.sync()
    }

    fn introduce(&self, database: &Database, id: CoordinatorId) -> Result<Owner, DiskError> {
        let log = self.log_path();
        let missing = |key: &str| DiskError::corrupt(&log, format!("no {key} in it"));
        let format: u64 = get(database, &log, "format")?.ok_or_else(|| missing("format"))?;
        if format != DISK_FORMAT {
            return Err(DiskError::Format { path: log, found: format });
        }
        let found: u64 = get(database, &log, "coordinator")?.ok_or_else(|| missing("coordinator"))?;
        if found != id.0 {
            return Err(DiskError::OtherCoordinator { path: log, found, own: id.0 });
        }
        let identity: IdentityId = get(database, &log, "identity")?.ok_or_else(|| missing("identity"))?;
        let born = born(&log)?;
        let known: Option<u64> = get(database, &log, "born")?;
        if known.is_some() && born.is_some() && known != born && !planted::makes(Mistake::CopiedDiskTaken) {
            return Err(DiskError::Copied { path: log });
        }
        let last: Incarnation = get(database, &log, "incarnation")?.ok_or_else(|| missing("incarnation"))?;
        // Stored before it is used: votes of this process must be told from those of any earlier one.
        let incarnation = last.next();
        write(database, &log, |transaction| {
            if let Some(born) = born.filter(|_| known.is_none()) {
                put(transaction, &log, "born", &born)?;
            }
            put(transaction, &log, "incarnation", &incarnation)
        })?;
        Ok(Owner { identity, incarnation })
    }

    fn mark(&self, identity: &IdentityId) -> Result<(), DiskError> {
        let path = self.path.join("lock");
        let mut file = &*self._lock;
        let mut write = || -> io::Result<()> {
            file.rewind()?;
            let mut present = String::new();
            file.read_to_string(&mut present)?;
            if present.trim_end() != identity.0 {
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "{identity}")?;
                file.sync_all()?;
            }
            Ok(())
        };
        write().map_err(DiskError::io(&path))?;
        self.sync()
    }
}

/// When the file came into being: the one thing that neither a copy nor a restored backup takes along. None where the
/// file system does not say.
fn born(path: &Path) -> Result<Option<u64>, DiskError> {
    let born = fs::metadata(path).map_err(DiskError::io(path))?.created();
    Ok(born
        .ok()
        .and_then(|born| born.duration_since(std::time::UNIX_EPOCH).ok())
        .and_then(|since| u64::try_from(since.as_nanos()).ok()))
}

/// How long a lock is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
const CREATING: &str = "log.redb.creating";

fn lock(directory: &Path) -> Result<(File, String), DiskError> {
    let path = directory.join("lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(DiskError::io(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(DiskError::Locked { path: directory.to_owned() }),
        Err(TryLockError::Error(error)) => return Err(DiskError::io(&path)(error)),
    }
    let mut marker = String::new();
    file.read_to_string(&mut marker).map_err(DiskError::io(&path))?;
    Ok((file, marker))
}

/// Opens an existing log and verifies the checksum of every page. Never creates one.
fn open_database(path: &Path) -> Result<Database, DiskError> {
    // redb is careful, but an assertion in it that a damaged file trips shall end as our error, too.
    let opened = std::panic::catch_unwind(|| -> Result<(Database, bool), redb::Error> {
        let mut database = Database::builder().set_cache_size(CACHE_BYTES).open(path)?;
        let sound = database.check_integrity()?;
        Ok((database, sound))
    });
    match opened {
        Ok(Ok((database, true))) => Ok(database),
        // Repaired means: rolled back to something older. That would be forgetting what was acknowledged.
        Ok(Ok((_, false))) => Err(DiskError::corrupt(path, "its checksums do not match")),
        Ok(Err(error)) => Err(DiskError::redb(path, error)),
        Err(_) => Err(DiskError::corrupt(path, "it cannot be read")),
    }
}

/// One durable transaction: when it returns, everything in it has reached the disk.
pub(super) fn write<R>(
    database: &Database,
    path: &Path,
    change: impl FnOnce(&WriteTransaction) -> Result<R, DiskError>,
) -> Result<R, DiskError> {
    let mut transaction = database.begin_write().map_err(|error| DiskError::redb(path, error.into()))?;
    transaction.set_durability(Durability::Immediate).map_err(|error| DiskError::redb(path, error.into()))?;
    // In two phases, so that a bad checksum is known to be damage: in one phase redb would take it for a commit
    // that was never finished, and go back to the one before.
    transaction.set_two_phase_commit(true);
    let result = change(&transaction)?;
    transaction.commit().map_err(|error| DiskError::redb(path, error.into()))?;
    Ok(result)
}

pub(super) fn put<T: Serialize>(
    transaction: &WriteTransaction,
    path: &Path,
    key: &str,
    value: &T,
) -> Result<(), DiskError> {
    let bytes = codec::encode(value).map_err(DiskError::codec(path))?;
    let mut table = transaction.open_table(META).map_err(|error| DiskError::redb(path, error.into()))?;
    table.insert(key, bytes.as_slice()).map_err(|error| DiskError::redb(path, error.into()))?;
    Ok(())
}

pub(super) fn get<T: DeserializeOwned>(database: &Database, path: &Path, key: &str) -> Result<Option<T>, DiskError> {
    let read = || -> Result<Option<Vec<u8>>, redb::Error> {
        let table = database.begin_read()?.open_table(META)?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    };
    let bytes = read().map_err(|error| DiskError::redb(path, error))?;
    bytes.map(|bytes| codec::decode(&bytes).map_err(DiskError::codec(path))).transpose()
}
