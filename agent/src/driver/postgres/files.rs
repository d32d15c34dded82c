//! Files in PGDATA: replaced whole, owned by whoever owns PGDATA, durable where a crash must find them.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use crate::driver::{DriverError, Marker};

/// Makes any start of the server come up in recovery.
pub(super) const STANDBY_SIGNAL: &str = "standby.signal";

/// Says whose database this is.
pub(super) const MARKER: &str = "regent.marker";

/// Whether a file must have reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// Written and synced, with its folder: a crash finds it.
    Synced,
    /// Written: the fence never waits for a disk.
    Written,
}

/// Runs file operations off the async threads, bounded: a hanging disk must not hold the agent.
pub(super) async fn blocking<T: Send + 'static>(
    limit: Duration,
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, DriverError> {
    match tokio::time::timeout(limit, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(error))) => Err(DriverError::retryable("postgres-files", format!("{what}: {error}"))),
        Ok(Err(_)) => Err(DriverError::retryable("postgres-files", format!("{what}: was interrupted"))),
        Err(_) => {
            Err(DriverError::retryable("postgres-files", format!("{what}: the disk did not answer in {limit:?}")))
        }
    }
}

/// Replaces a file as a whole; owner and mode stay as they were, or become those of the folder's owner and 0600.
pub(super) fn replace(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("a path without a folder"))?;
    let name = path.file_name().ok_or_else(|| io::Error::other("a path without a name"))?;
    let temporary = folder.join(format!(".{}.regent-{}", name.to_string_lossy(), std::process::id()));
    let (owner, mode) = match std::fs::metadata(path) {
        Ok(metadata) => (metadata.clone(), metadata.mode() & 0o7777),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (std::fs::metadata(folder)?, 0o600),
        Err(error) => return Err(error),
    };
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        if nix::unistd::geteuid().is_root() {
            chown(&temporary, Some(owner.uid()), Some(owner.gid()))?;
        }
        file.write_all(content)?;
        if durability == Durability::Synced {
            file.sync_all()?;
        }
        std::fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    if durability == Durability::Synced {
        sync(folder)?;
    }
    Ok(())
}

/// Syncs a file or a folder.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes the database closed at rest; false if it already was.
pub(super) fn close_at_rest(data: &Path) -> io::Result<bool> {
    let signal = data.join(STANDBY_SIGNAL);
    if signal.exists() {
        return Ok(false);
    }
    replace(&signal, b"", Durability::Synced)?;
    Ok(true)
}

/// The marker; none if there is none or if it cannot be read.
pub(super) fn marker(data: &Path) -> Option<Marker> {
    serde_json::from_slice(&std::fs::read(data.join(MARKER)).ok()?).ok()
}

/// Writes the marker; false if it was there already.
pub(super) fn mark(data: &Path, marker: &Marker) -> io::Result<bool> {
    if self::marker(data).as_ref() == Some(marker) {
        return Ok(false);
    }
    let mut text = serde_json::to_vec(marker)?;
    text.push(b'\n');
    replace(&data.join(MARKER), &text, Durability::Synced)?;
    Ok(true)
}
