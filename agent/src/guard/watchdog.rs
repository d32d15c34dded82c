//! Tells systemd's watchdog that the guard lives, where there is one: from the loop that acts at the deadlines, so that
//! a guard whose loop hangs is ended and started anew.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use crate::journal::chain;

/// Where it is told, if anywhere.
#[derive(Debug, Default)]
pub(super) struct Watchdog(Option<Told>);

#[derive(Debug)]
struct Told {
    path: PathBuf,
    /// Once it is known there that the guard is ready.
    socket: OnceLock<UnixDatagram>,
    /// How often it must be heard of; none: only that it is ready.
    every: Option<Duration>,
}

impl Watchdog {
    /// As the environment says: `NOTIFY_SOCKET`, which hears that the guard is ready, and `WATCHDOG_USEC`.
    pub(super) fn of_environment() -> Self {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET").map(PathBuf::from) else { return Self(None) };
        let micros = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
        let limit = micros.filter(|micros| *micros > 0).map(Duration::from_micros);
        Self::of(path, limit)
    }

    fn of(path: PathBuf, limit: Option<Duration>) -> Self {
        let told = Told { path, socket: OnceLock::new(), every: limit.map(|limit| limit / 3) };
        if let Err(error) = told.introduce(true) {
            let (path, error) = (told.path.display(), chain(&error));
            tracing::warn!(%path, error, "systemd cannot be told yet that the guard is ready; it is tried again");
        }
        Self(Some(told))
    }

    /// So long the loop may rest.
    pub(super) fn rest(&self, wished: Duration) -> Duration {
        let every = self.0.as_ref().and_then(|told| told.every);
        every.map_or(wished, |every| wished.min(every))
    }

    /// The loop came by. What could not be told at the start is told now: without it systemd would end a guard that lives.
    pub(super) fn tell(&self) {
        let Some(told) = &self.0 else { return };
        match told.socket.get() {
            Some(socket) if told.every.is_some() => drop(socket.send_to(b"WATCHDOG=1", &told.path)),
            Some(_) => {}
            None => {
                if told.introduce(false).is_ok() {
                    tracing::info!(path = %told.path.display(), "systemd knows that the guard is ready");
                }
            }
        }
    }
}

impl Told {
    /// Waited for at the start, since without it the unit is not up. What is told later must not hold up the loop.
    fn introduce(&self, wait: bool) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(!wait)?;
        socket.send_to(b"READY=1", &self.path)?;
        socket.set_nonblocking(true)?;
        // Nobody else is at it.
        let _ = self.socket.set(socket);
        Ok(())
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
        let watchdog = Watchdog::of(path.clone(), Some(Duration::from_secs(3)));
        assert_eq!(heard(), "READY=1");
        watchdog.tell();
        assert_eq!(heard(), "WATCHDOG=1");
        assert_eq!(watchdog.rest(Duration::from_secs(60)), Duration::from_secs(1));
        assert_eq!(watchdog.rest(Duration::from_millis(5)), Duration::from_millis(5));
        let ready = Watchdog::of(path, None);
        assert_eq!(heard(), "READY=1");
        assert_eq!(ready.rest(Duration::from_secs(60)), Duration::from_secs(60));
    }

    #[test]
    fn what_could_not_be_told_at_the_start_is_told_later() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let watchdog = Watchdog::of(path.clone(), Some(Duration::from_secs(3)));
        assert_eq!(watchdog.rest(Duration::from_secs(60)), Duration::from_secs(1));
        watchdog.tell();
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let heard = || {
            let mut text = [0; 64];
            let size = listener.recv(&mut text).unwrap();
            String::from_utf8(text[..size].to_vec()).unwrap()
        };
        watchdog.tell();
        assert_eq!(heard(), "READY=1");
        watchdog.tell();
        assert_eq!(heard(), "WATCHDOG=1");
        assert!(listener.recv(&mut [0; 64]).is_err(), "that it is ready is said once");
    }
}
