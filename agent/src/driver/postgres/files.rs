//! What Regent keeps in PGDATA.

use std::io;
use std::path::Path;
use std::time::Duration;

pub(super) use crate::driver::process::disk::{Durability, replace, sync};

use crate::driver::process::disk;
use crate::driver::{DriverError, Marker};

/// Makes any start of the server come up in recovery.
pub(super) const STANDBY_SIGNAL: &str = "standby.signal";

/// Says whose database this is.
pub(super) const MARKER: &str = "regent.marker";

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
