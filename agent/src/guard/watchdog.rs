//! Tells systemd's watchdog that the guard lives, where there is one: from the loop that acts at the deadlines, so that
//! a guard whose loop hangs is ended and started anew.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where it is told, if anywhere.
#[derive(Debug, Default)]
pub(super) struct Watchdog(Option<Told>);

#[derive(Debug)]
struct Told {
    socket: UnixDatagram,
    path: PathBuf,
    every: Duration,
}

impl Watchdog {
    /// As the environment says: `NOTIFY_SOCKET`, which hears that the guard is ready, and `WATCHDOG_USEC`.
    pub(super) fn of_environment() -> Self {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET").map(PathBuf::from) else { return Self(None) };
        let micros = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
        let limit = micros.filter(|micros| *micros > 0).map(Duration::from_micros);
        Self::of(&path, limit).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "systemd cannot be told that the guard lives");
            Self(None)
        })
    }

    fn of(path: &Path, limit: Option<Duration>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // Waited for: without it the unit is not up. What is told later must not hold up the loop.
        socket.send_to(b"READY=1", path)?;
        socket.set_nonblocking(true)?;
        Ok(Self(limit.map(|limit| Told { socket, path: path.to_owned(), every: limit / 3 })))
    }

    /// So long the loop may rest.
    pub(super) fn rest(&self, wished: Duration) -> Duration {
        self.0.as_ref().map_or(wished, |told| wished.min(told.every))
    }

    /// The loop came by.
    pub(super) fn tell(&self) {
        if let Some(told) = &self.0 {
            let _ = told.socket.send_to(b"WATCHDOG=1", &told.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_tells_that_it_came_by_and_rests_no_longer_than_it_may() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let heard = || {
            let mut text = [0; 64];
            let size = listener.recv(&mut text).unwrap();
            String::from_utf8(text[..size].to_vec()).unwrap()
        };
        let watchdog = Watchdog::of(&path, Some(Duration::from_secs(3))).unwrap();
        assert_eq!(heard(), "READY=1");
        watchdog.tell();
        assert_eq!(heard(), "WATCHDOG=1");
        assert_eq!(watchdog.rest(Duration::from_secs(60)), Duration::from_secs(1));
        assert_eq!(watchdog.rest(Duration::from_millis(5)), Duration::from_millis(5));
        let ready = Watchdog::of(&path, None).unwrap();
        assert_eq!(heard(), "READY=1");
        assert_eq!(ready.rest(Duration::from_secs(60)), Duration::from_secs(60));
        assert!(Watchdog::of(&place.path().join("nobody"), None).is_err());
    }
}
