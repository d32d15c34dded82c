//! What a backup says of itself, in a line that people can read, before the state.

use serde::{Deserialize, Serialize};

/// How a backup begins.
pub const MAGIC: &str = "REGENT BACKUP 1\n";

/// Longest line that is looked for.
const LINE_LIMIT: usize = 1 << 20;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// The group's UUID.
    pub group: String,
    /// How often the group was restored before.
    pub restoration: u64,
    /// Up to which entry the state reaches.
    pub index: u64,
    /// Format of the state.
    pub format: u16,
    /// When it was made: milliseconds since 1970, by the wall clock of the coordinator.
    pub made_ms: i64,
    /// Which coordinator made it.
    pub coordinator: u64,
    /// Where each application was.
    pub applications: Vec<Placed>,
    /// Of the state, in bytes.
    pub length: u64,
    /// Of the state.
    pub sha256: String,
}

/// An application when the backup was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placed {
    /// Its name.
    pub name: String,
    /// 0: not adopted.
    pub epoch: u64,
    /// Empty: none.
    pub primary: String,
    /// The group had been restored before, and its agents had not all reported.
    pub recovering: bool,
}

impl Header {
    /// The line that stands behind [`MAGIC`], with its end.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        serde_json::to_string(self).ok().map(|line| line + "\n")
    }

    /// What a file says of itself, and the state behind it, whose checksum is not looked at here.
    ///
    /// # Errors
    /// What is wrong with the file, for humans.
    pub fn split(bytes: &[u8]) -> Result<(Self, &[u8]), String> {
        let rest = bytes.strip_prefix(MAGIC.as_bytes()).ok_or("it does not begin as a backup does")?;
        let end = rest.iter().take(LINE_LIMIT).position(|byte| *byte == b'\n').ok_or("its first line is cut off")?;
        let (line, body) = rest.split_at(end);
        let header = serde_json::from_slice(line).map_err(|error| format!("its first line says: {error}"))?;
        Ok((header, body.get(1..).unwrap_or_default()))
    }
}
