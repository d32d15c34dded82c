//! Files beside a database: replaced whole, with the owner they had, durable where a crash must find them.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::driver::DriverError;

/// Whether a file must have reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Written and synced, with its folder: a crash finds it.
    Synced,
    /// Written: the fence never waits for a disk.
    Written,
}

tokio::task_local! {
    static AT_WORK: Arc<()>;
}

/// Holds `at_work` as long as `look` or any file operation that it began: one that was given up, because the disk did not answer
/// in time, keeps its thread until the disk does.
pub async fn holding<F: Future>(at_work: Arc<()>, look: F) -> F::Output {
    AT_WORK.scope(at_work, look).await
}

/// Runs file operations off the async threads, bounded: a hanging disk must not hold the agent.
///
/// # Errors
/// With this code, if the work failed or the disk did not answer in time.
pub async fn bounded<T: Send + 'static>(
    code: &'static str,
    limit: Duration,
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, DriverError> {
    let at_work = AT_WORK.try_with(Arc::clone).ok();
    let work = move || {
        let _at_work = at_work;
        work()
    };
    match tokio::time::timeout(limit, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(error))) => Err(DriverError::retryable(code, format!("{what}: {error}"))),
        Ok(Err(_)) => Err(DriverError::retryable(code, format!("{what}: was interrupted"))),
        Err(_) => Err(DriverError::retryable(code, format!("{what}: the disk did not answer in {limit:?}"))),
    }
}

/// Replaces a file as a whole; owner and mode stay as they were, or become those of the folder's owner and 0600.
///
/// # Errors
/// If it could not be written; then the file is as it was.
pub fn replace(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("a path without a folder"))?;
    let name = path.file_name().ok_or_else(|| io::Error::other("a path without a name"))?;
    let temporary = folder.join(format!(".{}.regent-{}", name.to_string_lossy(), std::process::id()));
    let (owner, mode) = match std::fs::metadata(path) {
        Ok(metadata) => (metadata.clone(), metadata.mode() & 0o7777),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (std::fs::metadata(folder)?, 0o600),
        Err(error) => return Err(error),
    };
    let written = (|| {
        // Left behind by another process of this number, or a link that somebody laid: never written through.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        if nix::unistd::geteuid().is_root() {
            fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
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
///
/// # Errors
/// If the disk says so.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_place_of_the_half_written_file_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("file"), folder.path().join("other"));
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        std::fs::write(&other, "another's").unwrap();
        std::fs::set_permissions(&other, Permissions::from_mode(0o604)).unwrap();
        let temporary = folder.path().join(format!(".file.regent-{}", std::process::id()));
        std::os::unix::fs::symlink(&other, &temporary).unwrap();
        replace(&path, b"new", Durability::Synced).unwrap();
        let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("new", 0o640));
        assert!(std::fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!((std::fs::read_to_string(&other).unwrap().as_str(), mode(&other)), ("another's", 0o604));
        assert!(std::fs::symlink_metadata(&temporary).is_err());
    }
}
