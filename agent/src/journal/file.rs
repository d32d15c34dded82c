//! The file: framed lines, each with its length and checksum.
//!
//! ```text
//!  regent-agent-journal 2\n
//!  000000061 1f3a9c0b72d4e655 {"record":"started",…}\n
//! ```
//!
//! A record that the file ends in the middle of was never acknowledged and is dropped. Anything else that does not
//! read back is damage, and an error: the file may have held what a promise or a fence rests on. So is a file that came
//! into being at another time than it says: a copy of an older time has forgotten just that.
//!
//! The format rises with every new kind of record, so that an older release says that it does not know the format, and not
//! that the file is damaged. A file of an older format is raised before anything is appended to it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use aws_lc_rs::digest;

use crate::journal::record::{Record, View};

const HEADER: &[u8] = b"regent-agent-journal 2\n";
/// Without records of when the file came into being, and of how far a restore has come. As long as the other.
const FORMER_HEADER: &[u8] = b"regent-agent-journal 1\n";
const NAME: &[u8] = b"regent-agent-journal ";
/// Nine digits, a space, 16 hex digits, a space.
const FRAME: usize = 27;
const DIGITS: usize = 9;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It could not be read or written at all.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process uses the data directory.
    #[error("{path} is locked: another agent runs on this data directory; stop it, or give this one its own")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Written by another release.
    #[error("{path} has a format this release does not know ({found:?}); run the release that wrote it")]
    Format {
        /// The journal.
        path: PathBuf,
        /// Its first line.
        found: String,
    },
    /// Damaged.
    #[error(
        "{path} is damaged at byte {offset}: {reason}; make sure the databases here are off, move the data directory \
         aside, start the agent anew and let an operator run `regentctl rejoin APP CLUSTER --installation` with its new id"
    )]
    Corrupt {
        /// The journal.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// It is a copy: of an older time, or of a directory that is in use elsewhere.
    #[error(
        "{path} was copied or restored from a backup, so this agent may have forgotten fences, promises and epochs; make \
         sure the databases here are off, move the data directory aside, start the agent anew and let an operator run \
         `regentctl rejoin APP CLUSTER --installation` with its new id"
    )]
    Copied {
        /// The journal.
        path: PathBuf,
    },
    /// No room.
    #[error("{path}: the disk is full; free some space: until then steps and promises are refused")]
    Full {
        /// The journal.
        path: PathBuf,
    },
    /// An earlier failure left it unknown what is on the disk.
    #[error("{path} failed to reach the disk earlier; look after the disk, then restart the agent")]
    Broken {
        /// The journal.
        path: PathBuf,
    },
}

/// The open file.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    file: File,
    /// Everything up to here is on the disk.
    length: u64,
    broken: bool,
    /// When it came into being by its own word; none if it does not say.
    recorded: Option<u64>,
}

impl JournalFile {
    /// Opens or creates it, and reads it back. The second value says how many bytes of a torn record were dropped.
    ///
    /// # Errors
    /// If it cannot be read, is damaged or a copy, or another release wrote it.
    pub fn open(path: &Path) -> Result<(Self, View, u64), JournalError> {
        let io = |action| move |source| JournalError::Io { action, path: path.to_owned(), source };
        let existed = path.exists();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path).map_err(io("open"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("read"))?;
        let Read { view, length, born: recorded, former } = read(path, &bytes)?;
        refuse_copy(path, &file, recorded)?;
        let mut journal = Self { path: path.to_owned(), file, length, broken: false, recorded };
        let torn = bytes.len() as u64 - length;
        if torn > 0 {
            journal.file.set_len(length).map_err(io("cut the torn record off"))?;
        }
        if length == 0 {
            journal.write(HEADER)?;
        } else if former {
            journal.raise_format()?;
        }
        if !existed {
            sync_directory(path).map_err(io("create"))?;
        }
        Ok((journal, view, torn))
    }

    /// Reads without lock and without changing anything.
    ///
    /// # Errors
    /// As [`JournalFile::open`].
    pub fn peek(path: &Path) -> Result<View, JournalError> {
        let io = |action| move |source| JournalError::Io { action, path: path.to_owned(), source };
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(View::default()),
            Err(source) => return Err(io("open")(source)),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("read"))?;
        let Read { view, born: recorded, .. } = read(path, &bytes)?;
        refuse_copy(path, &file, recorded)?;
        Ok(view)
    }

    /// When it came into being, to be appended where it does not say so yet and the file system does.
    ///
    /// # Errors
    /// If the file system cannot be asked.
    pub fn birth(&self) -> Result<Option<Record>, JournalError> {
        let failed = |source| JournalError::Io { action: "look at", path: self.path.clone(), source };
        let found = born(&self.file).map_err(failed)?;
        Ok(found.filter(|_| self.recorded.is_none()).map(|nanos| Record::Born { nanos }))
    }

    /// Appends and brings to the disk. On failure nothing of it counts.
    ///
    /// # Errors
    /// If the disk is full, or failed.
    pub fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        self.write(&frame_all(records))
    }

    /// Writes the whole view into a new file that takes this one's place. A crash leaves the one or the other.
    ///
    /// # Errors
    /// If the disk is full, or failed; the old file stays, or nothing more is written.
    pub fn compact(&mut self, view: &View) -> Result<(), JournalError> {
        let path = self.path.clone();
        let io = |action| move |source| JournalError::Io { action, path, source };
        if self.broken {
            return Err(JournalError::Broken { path: self.path.clone() });
        }
        let new = self.path.with_extension("new");
        let replaced = write_new(&new, view).and_then(|written| std::fs::rename(&new, &self.path).map(|()| written));
        let (file, length, born) = match replaced {
            Ok(written) => written,
            Err(source) => {
                // What it takes of a full disk is needed for records.
                let _ = std::fs::remove_file(&new);
                return Err(io("write the successor of")(source));
            }
        };
        (self.file, self.length, self.recorded) = (file, length, born);
        // Which of the two a crash leaves is not known until the folder is on the disk, and records in the one would be
        // lost with the other.
        sync_directory(&self.path).map_err(|source| {
            self.broken = true;
            io("replace")(source)
        })
    }

    /// Bytes on the disk.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// In place: it changes one byte.
    fn raise_format(&mut self) -> Result<(), JournalError> {
        let written = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.write_all(HEADER));
        let raised = written.and_then(|()| self.file.sync_data());
        raised.map_err(|source| JournalError::Io { action: "raise the format of", path: self.path.clone(), source })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        if self.broken {
            return Err(JournalError::Broken { path: self.path.clone() });
        }
        let start = self.length;
        let written = self.file.seek(SeekFrom::Start(start)).and_then(|_| self.file.write_all(bytes));
        if let Err(source) = written {
            // What stands there in part must not be in front of the next record.
            self.broken = self.file.set_len(start).is_err();
            let full = matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge
            );
            return Err(match full {
                true => JournalError::Full { path: self.path.clone() },
                false => JournalError::Io { action: "write", path: self.path.clone(), source },
            });
        }
        if let Err(source) = self.file.sync_data() {
            // After a failed fsync nobody knows what is on the disk, and a second one may lie.
            self.broken = true;
            return Err(JournalError::Io { action: "bring to the disk", path: self.path.clone(), source });
        }
        self.length = start + bytes.len() as u64;
        Ok(())
    }
}

/// Writes a new file, and says how long it is and when it came into being, as it says itself.
fn write_new(path: &Path, view: &View) -> std::io::Result<(File, u64, Option<u64>)> {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let born = born(&file)?;
    let mut bytes = HEADER.to_vec();
    bytes.extend(frame_all(&born.map(|nanos| Record::Born { nanos }).into_iter().collect::<Vec<_>>()));
    bytes.extend(frame_all(&view.records()));
    file.write_all(&bytes)?;
    file.sync_all()?;
    Ok((file, bytes.len() as u64, born))
}

/// When the file came into being: the one thing that neither a copy nor a restored backup takes along, and a file that is
/// moved keeps. None where the file system does not say.
fn born(file: &File) -> std::io::Result<Option<u64>> {
    let born = file.metadata()?.created();
    let since = born.ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    Ok(since.and_then(|since| u64::try_from(since.as_nanos()).ok()))
}

/// One that came into being at another time than it says is a copy, and may be an old one.
fn refuse_copy(path: &Path, file: &File, recorded: Option<u64>) -> Result<(), JournalError> {
    let failed = |source| JournalError::Io { action: "look at", path: path.to_owned(), source };
    let found = born(file).map_err(failed)?;
    if recorded.is_some() && found.is_some() && recorded != found {
        return Err(JournalError::Copied { path: path.to_owned() });
    }
    Ok(())
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory).and_then(|directory| directory.sync_all()))
}

fn checksum(text: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, text);
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn frame_all(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        // A record is plain data: it always serializes.
        let Ok(text) = serde_json::to_vec(record) else { continue };
        bytes.extend(format!("{:09} {} ", text.len(), checksum(&text)).bytes());
        bytes.extend(text);
        bytes.push(b'\n');
    }
    bytes
}

/// What a file says.
#[derive(Default)]
struct Read {
    view: View,
    /// So many bytes of it stand whole.
    length: u64,
    born: Option<u64>,
    /// It has the format before this one.
    former: bool,
}

fn read(path: &Path, bytes: &[u8]) -> Result<Read, JournalError> {
    let mut said = Read::default();
    let known = [HEADER, FORMER_HEADER];
    if known.iter().any(|header| bytes.len() < header.len() && header.starts_with(bytes)) {
        return Ok(said);
    }
    said.former = bytes.starts_with(FORMER_HEADER);
    if !known.iter().any(|header| bytes.starts_with(header)) {
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let found = String::from_utf8_lossy(first.get(..first.len().min(40)).unwrap_or_default()).into_owned();
        let path = path.to_owned();
        return Err(match first.starts_with(NAME) {
            true => JournalError::Format { path, found },
            false => JournalError::Corrupt { path, offset: 0, reason: "it does not begin like a journal".to_owned() },
        });
    }
    let mut offset = HEADER.len();
    while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
        match read_record(rest) {
            Ok(Some((record, length))) => {
                said.view.apply(&record);
                if let Record::Born { nanos } = record {
                    said.born = Some(nanos);
                }
                offset += length;
            }
            Ok(None) => break,
            Err(reason) => return Err(JournalError::Corrupt { path: path.to_owned(), offset: offset as u64, reason }),
        }
    }
    said.length = offset as u64;
    Ok(said)
}

/// None: the file ends in the middle of it. A whole record has its only line feed at its end, so what was torn off
/// has none; a length that leads beyond the end, but over line feeds, is damage.
fn read_record(rest: &[u8]) -> Result<Option<(Record, usize)>, String> {
    // A crash may leave the file grown and its end unwritten: zeros, which no record contains.
    let zeros = rest.iter().rev().take_while(|byte| **byte == 0).count();
    let solid = rest.get(..rest.len() - zeros).unwrap_or_default();
    if !solid.contains(&b'\n') {
        return Ok(None);
    }
    let digits = solid.get(..DIGITS).and_then(|digits| std::str::from_utf8(digits).ok());
    let length: usize = digits.and_then(|digits| digits.parse().ok()).ok_or("a record has no length")?;
    let whole = FRAME + length + 1;
    let text = solid.get(FRAME..FRAME + length).ok_or("a record is longer than the file")?;
    let head = format!("{length:09} {} ", checksum(text));
    if !solid.starts_with(head.as_bytes()) || solid.get(whole - 1) != Some(&b'\n') {
        return Err("a record does not match its checksum".to_owned());
    }
    let record = serde_json::from_slice(text).map_err(|error| format!("a record cannot be read: {error}"))?;
    Ok(Some((record, whole)))
}
