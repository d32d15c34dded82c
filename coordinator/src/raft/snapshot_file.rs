//! The snapshot file: the state at one index, with a checksum, replaced as a whole.
//!
//! ```text
//! "REGENTSN" · SHA-256 of the rest · format number · CBOR of (meta, state)
//! ```
//!
//! These very bytes also travel to a coordinator that lags behind, which checks them as if they came from its disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use regent_core::entry;
use regent_core::state::State;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::codec;
use super::ondisk::{Directory, DiskError};
use super::types::SnapshotMeta;

const MAGIC: &[u8; 8] = b"REGENTSN";
const HEAD: usize = MAGIC.len() + 32;

/// What a snapshot holds.
#[derive(Serialize, Deserialize)]
pub(super) struct Content {
    pub(super) meta: SnapshotMeta,
    pub(super) state: State,
}

/// Writes and reads the file. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    directory: Directory,
    /// Index up to which the file on disk reaches. A snapshot that was begun before another one was installed
    /// must not replace it.
    newest: Arc<Mutex<Option<u64>>>,
}

impl SnapshotFile {
    /// Reads the snapshot, if there is one.
    pub(super) fn open(directory: Directory) -> Result<(Self, Option<Content>), DiskError> {
        let leftover = new_path(&directory);
        match fs::remove_file(&leftover) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(DiskError::io(&leftover)(error)),
            _ => {}
        }
        let file = Self { directory, newest: Arc::default() };
        let content = match file.read()? {
            Some(bytes) => Some(decode(&file.path(), &bytes)?),
            None => None,
        };
        *file.lock() = content.as_ref().and_then(|content| content.meta.last_log_id).map(|id| id.index);
        Ok((file, content))
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.snapshot_path()
    }

    /// The file as it is, if there is one.
    pub(super) fn read(&self) -> Result<Option<Bytes>, DiskError> {
        let path = self.path();
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DiskError::io(&path)(error)),
        }
    }

    /// Replaces the file durably: a crash leaves the old or the new one, whole.
    pub(super) fn replace(&self, meta: &SnapshotMeta, bytes: &[u8]) -> Result<(), DiskError> {
        let mut newest = self.lock();
        let index = meta.last_log_id.map(|id| id.index);
        if index < *newest {
            return Ok(());
        }
        let (path, new) = (self.path(), new_path(&self.directory));
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        if let Err(error) = write() {
            // Gives the space back; the error that counts is the one above.
            let _ = fs::remove_file(&new);
            return Err(DiskError::io(&path)(error));
        }
        self.directory.sync()?;
        *newest = index;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn new_path(directory: &Directory) -> PathBuf {
    directory.snapshot_path().with_extension("new")
}

pub(super) fn encode(path: &Path, content: &Content) -> Result<Bytes, DiskError> {
    let body = codec::encode(content).map_err(DiskError::codec(path))?;
    let mut bytes = Vec::with_capacity(HEAD + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&Sha256::digest(&body));
    bytes.extend_from_slice(&body);
    Ok(Bytes::from(bytes))
}

pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<Content, DiskError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| DiskError::corrupt(path, "it is not a snapshot"))?;
    let (checksum, body) = rest.split_first_chunk::<32>().ok_or_else(|| DiskError::corrupt(path, "it is cut off"))?;
    if Sha256::digest(body).as_slice() != checksum {
        return Err(DiskError::corrupt(path, "its checksum does not match"));
    }
    let content = codec::decode::<Content>(body);
    // A state of a newer form may not be readable at all: its number is looked for by itself.
    let found = match &content {
        Ok(content) => content.state.format,
        Err(_) => codec::decode::<Numbered>(body).map_or(entry::FORMAT, |numbered| numbered.state.format),
    };
    if found > entry::FORMAT {
        return Err(DiskError::Format { path: path.to_owned(), found: u64::from(found) });
    }
    let mut content = content.map_err(DiskError::codec(path))?;
    // What an older form lacks has its default by now.
    content.state.format = entry::FORMAT;
    Ok(content)
}

/// Of a snapshot only the number of its form.
#[derive(Deserialize)]
struct Numbered {
    state: Format,
}

#[derive(Deserialize)]
struct Format {
    format: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Newer {
        meta: SnapshotMeta,
        state: NewerState,
    }

    #[derive(Serialize)]
    struct NewerState {
        format: u16,
        regions: Vec<String>,
    }

    #[test]
    fn a_state_of_an_older_form_is_taken_up() {
        let path = Path::new("/data/snapshot");
        let state = State { format: 1, restoration: 3, ..State::default() };
        let body = codec::encode(&Content { meta: SnapshotMeta::default(), state }).unwrap();
        let bytes = [MAGIC.as_slice(), Sha256::digest(&body).as_slice(), &body].concat();
        let read = decode(path, &bytes).unwrap().state;
        assert_eq!((read.format, read.restoration), (entry::FORMAT, 3));
    }

    #[test]
    fn a_state_of_a_newer_form_is_no_damage() {
        let path = Path::new("/data/snapshot");
        let written = |format| {
            let state = NewerState { format, regions: vec!["north".to_owned()] };
            let body = codec::encode(&Newer { meta: SnapshotMeta::default(), state }).unwrap();
            [MAGIC.as_slice(), Sha256::digest(&body).as_slice(), &body].concat()
        };
        let newer = entry::FORMAT + 1;
        let refused = decode(path, &written(newer)).err().unwrap();
        assert!(matches!(refused, DiskError::Format { found, .. } if found == u64::from(newer)), "{refused}");
        let damaged = decode(path, &written(entry::FORMAT)).err().unwrap();
        assert!(matches!(damaged, DiskError::Corrupt { .. }), "{damaged}");
    }
}
