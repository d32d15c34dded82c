//! A backup of the group: the replicated state at one index, in one file. There is no secret in it.
//!
//! ```text
//! "REGENT BACKUP 1\n" · a line of JSON that says what it is, with the SHA-256 of the rest · the state
//! ```
//!
//! A group is made from it only where the old one is lost for good (`--restore`); then nothing is granted or decided
//! before the agents have said what they have stored ([`regent_core::restore`]).

use std::path::{Path, PathBuf};

use regent_core::backup::{Header, MAGIC, Placed};
use regent_core::entry;
use regent_core::id::CoordinatorId;
use regent_core::state::State;
use regent_core::time::Timestamp;
use sha2::{Digest, Sha256};

use crate::raft::codec;

/// Why a file is no backup that could be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is something else, cut off, or altered.
    #[error("{} is no whole backup: {detail}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A newer release wrote it.
    #[error(
        "{} has a state of format {found}, this release reads up to {}: install the release that made it",
        path.display(),
        entry::FORMAT
    )]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its format.
        found: u16,
    },
    /// The state cannot be written down, which would be a fault of the build.
    #[error("the state cannot be encoded: {0}")]
    Encode(String),
}

/// Writes down a state.
///
/// # Errors
/// If it cannot be encoded.
pub fn write(state: &State, by: CoordinatorId, at: Timestamp) -> Result<Vec<u8>, BackupError> {
    let body = codec::encode(state).map_err(|error| BackupError::Encode(error.to_string()))?;
    let header = Header {
        group: state.group.0.clone(),
        restoration: state.restoration,
        index: state.applied.0,
        format: state.format,
        made_ms: at.0,
        coordinator: by.0,
        applications: state
            .applications
            .iter()
            .map(|(name, known)| Placed {
                name: name.to_string(),
                epoch: known.epoch.0,
                primary: known.primary.as_ref().map(ToString::to_string).unwrap_or_default(),
                recovering: known.recovering.is_some(),
            })
            .collect(),
        length: body.len() as u64,
        sha256: hex(&Sha256::digest(&body)),
    };
    let line = header.line().ok_or_else(|| BackupError::Encode("its first line".to_owned()))?;
    let mut file = MAGIC.as_bytes().to_vec();
    file.extend_from_slice(line.as_bytes());
    file.extend_from_slice(&body);
    Ok(file)
}

/// Reads a backup, and checks it.
///
/// # Errors
/// If it is damaged, of a newer release, or not there.
pub fn read(path: &Path) -> Result<State, BackupError> {
    let bytes = std::fs::read(path).map_err(|source| BackupError::Read { path: path.to_owned(), source })?;
    let damaged = |detail: &str| BackupError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
    let (header, body) = Header::split(&bytes).map_err(|detail| damaged(&detail))?;
    if body.len() as u64 != header.length || hex(&Sha256::digest(body)) != header.sha256 {
        return Err(damaged("its checksum does not match"));
    }
    if header.format > entry::FORMAT {
        return Err(BackupError::Newer { path: path.to_owned(), found: header.format });
    }
    codec::decode(body).map_err(|error| damaged(&error.to_string()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use regent_core::id::{GroupId, LogIndex};

    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_was_altered_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        let state = State { group: GroupId("g".to_owned()), applied: LogIndex(7), ..State::default() };
        let bytes = write(&state, CoordinatorId(2), Timestamp(5)).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path).unwrap(), state);
        for at in [3, 40, bytes.len() - 1] {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            std::fs::write(&path, &altered).unwrap();
            let refused = read(&path).unwrap_err();
            assert!(matches!(refused, BackupError::Damaged { .. }), "byte {at}: {refused}");
        }
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(read(&path).unwrap_err(), BackupError::Damaged { .. }));
        let newer = State { format: entry::FORMAT + 1, ..state };
        std::fs::write(&path, write(&newer, CoordinatorId(2), Timestamp(5)).unwrap()).unwrap();
        assert!(matches!(read(&path).unwrap_err(), BackupError::Newer { .. }));
    }
}
