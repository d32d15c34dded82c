//! What Redis's files say of themselves: the number of the append-only file's base, and when the snapshot was saved.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where its files are, if they are on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    /// Of the append-only file.
    pub(super) manifest: PathBuf,
    pub(super) snapshot: PathBuf,
}

/// What its files say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Files {
    /// The number of the append-only file's base.
    pub(super) base: Option<u64>,
    /// When the snapshot was saved, in milliseconds since 1970.
    pub(super) saved: Option<u64>,
}

impl Files {
    pub(super) fn at(places: &Places) -> Self {
        let text = std::fs::read_to_string(&places.manifest).unwrap_or_default();
        let saved = std::fs::metadata(&places.snapshot).and_then(|file| file.modified()).ok();
        Self { base: base(&text), saved: saved.and_then(millis) }
    }
}

/// The number of the base by the manifest: `file appendonly.aof.2.base.rdb seq 2 type b`.
fn base(manifest: &str) -> Option<u64> {
    let line = manifest.lines().find(|line| line.trim_end().ends_with(" type b"))?;
    line.split_ascii_whitespace().skip_while(|word| *word != "seq").nth(1)?.parse().ok()
}

/// Since 1970.
pub(super) fn millis(time: SystemTime) -> Option<u64> {
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_the_one_that_the_manifest_names() {
        let manifest = "file appendonly.aof.2.base.rdb seq 2 type b\nfile appendonly.aof.7.incr.aof seq 7 type i\n";
        assert_eq!(base(manifest), Some(2));
        assert_eq!((base("file a.1.incr.aof seq 1 type i\n"), base("")), (None, None));
    }
}
