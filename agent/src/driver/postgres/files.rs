//! What Regent keeps in PGDATA.

use std::io;
use std::path::Path;
use std::time::Duration;

pub(super) use crate::driver::process::disk::{Durability, replace, sync};

use serde::{Deserialize, Serialize};

use crate::driver::process::disk;
use crate::driver::{DriverError, Marker};

/// Makes any start of the server come up in recovery.
pub(super) const STANDBY_SIGNAL: &str = "standby.signal";

/// Says whose database this is.
pub(super) const MARKER: &str = "regent.marker";

/// What closing at rest and marking leave in an empty PGDATA.
const OWN: [&str; 2] = [STANDBY_SIGNAL, MARKER];

/// Asks for a promotion: PostgreSQL's own.
const PROMOTE: &str = "promote";

/// Says whose history this database follows.
pub(super) const FOLLOWING: &str = "regent.following";

/// Written before a server is first started as a standby by this history, and gone before it can have one of its own: where
/// it stands, everything here came from that upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Following {
    /// Whose database this is.
    pub(super) cluster: String,
    /// Whose history it is.
    pub(super) upstream: String,
    /// Identity of the database.
    pub(super) system_id: String,
    /// Of the history.
    pub(super) timeline: u32,
    /// Of the upstream's timeline.
    pub(super) history: String,
}

/// Runs file operations off the async threads, bounded.
pub(super) async fn blocking<T: Send + 'static>(
    limit: Duration,
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, DriverError> {
    disk::bounded("postgres-files", limit, what, work).await
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

/// Whether PGDATA holds anything but what the agent puts there where it finds no database.
pub(super) fn holds_something(data: &Path) -> io::Result<bool> {
    let entries = match std::fs::read_dir(data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        if !OWN.iter().any(|own| name == *own) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes away what the agent has put where there is no database.
pub(super) fn remove_own(data: &Path) -> io::Result<()> {
    for name in OWN {
        match std::fs::remove_file(data.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
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

/// Whose history is followed; none if that is not known.
pub(super) fn following(data: &Path) -> Option<Following> {
    serde_json::from_slice(&std::fs::read(data.join(FOLLOWING)).ok()?).ok()
}

/// On the disk before the server is started.
pub(super) fn note_following(data: &Path, following: &Following) -> io::Result<()> {
    replace(&data.join(FOLLOWING), &serde_json::to_vec(following)?, Durability::Synced)
}

/// Gone from the disk before the server may write a history of its own.
pub(super) fn forget_following(data: &Path) -> io::Result<()> {
    match std::fs::remove_file(data.join(FOLLOWING)) {
        Ok(()) => sync(data),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Somebody has asked for a promotion, and the server has not taken notice.
pub(super) fn is_asked(data: &Path) -> bool {
    data.join(PROMOTE).exists()
}

/// What asks for a promotion is gone. A crash brings it back at most with the machine, and PostgreSQL ignores it at its start.
pub(super) fn unask(data: &Path) -> io::Result<()> {
    match std::fs::remove_file(data.join(PROMOTE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_puts_there_is_no_database() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        assert!(!holds_something(&data).unwrap(), "it is absent");
        std::fs::create_dir(&data).unwrap();
        assert!(!holds_something(&data).unwrap());
        close_at_rest(&data).unwrap();
        std::fs::write(data.join(MARKER), "{}").unwrap();
        assert!(!holds_something(&data).unwrap());
        std::fs::write(data.join("PG_VERSION"), "17").unwrap();
        assert!(holds_something(&data).unwrap());
        std::fs::remove_file(data.join("PG_VERSION")).unwrap();
        remove_own(&data).unwrap();
        remove_own(&data).unwrap();
        std::fs::remove_dir(&data).unwrap();
    }
}
