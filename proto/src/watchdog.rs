//! Tells systemd that a process is ready and that it lives, where systemd asks for it: what sd_notify(3) does, without
//! its library. It is told from the loops that matter, so that a process whose loop hangs is ended and started anew.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Between two looks at loops, unless systemd wants to hear sooner.
const LOOK: Duration = Duration::from_secs(1);

/// Where it is told, if anywhere.
#[derive(Debug, Default)]
pub struct Watchdog(Option<Told>);

#[derive(Debug)]
struct Told {
    path: PathBuf,
    /// Once it is known there that the process is ready.
    socket: OnceLock<UnixDatagram>,
    /// How often it must be heard of; none: only that it is ready.
    every: Option<Duration>,
}

/// What came of telling.
#[derive(Debug)]
pub enum Telling {
    /// Nobody asks, or it was known before that the process is ready.
    Nothing,
    /// It is known from now on that the process is ready.
    Ready,
    /// It cannot be told yet that it is ready. The next telling tries again: without it systemd ends a process that lives.
    NotYet(io::Error),
}

impl Watchdog {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. Nothing is told yet.
    pub fn of_environment() -> Self {
        let text = |name| std::env::var(name).ok();
        // It may be meant for the process that started this one.
        let mine = text("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let micros = text("WATCHDOG_USEC").and_then(|text| text.parse::<u64>().ok());
        let limit = micros.filter(|micros| mine && *micros > 0).map(Duration::from_micros);
        std::env::var_os("NOTIFY_SOCKET").map_or_else(Self::default, |path| Self::of(path.into(), limit))
    }

    fn of(path: PathBuf, limit: Option<Duration>) -> Self {
        Self(Some(Told { path, socket: OnceLock::new(), every: limit.map(|limit| limit / 3) }))
    }

    /// So long a loop may rest.
    pub fn rest(&self, wished: Duration) -> Duration {
        let every = self.0.as_ref().and_then(|told| told.every);
        every.map_or(wished, |every| wished.min(every))
    }

    /// A loop came by. Never waits.
    pub fn tell(&self) -> Telling {
        let Some(told) = &self.0 else { return Telling::Nothing };
        let Some(socket) = told.socket.get() else {
            return match told.introduce() {
                Ok(()) => Telling::Ready,
                Err(error) => Telling::NotYet(error),
            };
        };
        if told.every.is_some() {
            // One that gets lost is followed by two more in time.
            let _ = socket.send_to(b"WATCHDOG=1", &told.path);
        }
        Telling::Nothing
    }

    /// Tells for loops that count their turns, as long as every one of them goes on. Does not end.
    pub async fn follow(self, loops: Vec<Arc<AtomicU64>>, mut said: impl FnMut(Telling)) {
        let mut before = vec![0; loops.len()];
        loop {
            if let Some(telling) = self.look(&loops, &mut before) {
                said(telling);
            }
            tokio::time::sleep(self.rest(LOOK)).await;
        }
    }

    /// Tells if every loop has come by since the last telling.
    fn look(&self, loops: &[Arc<AtomicU64>], before: &mut Vec<u64>) -> Option<Telling> {
        let now: Vec<u64> = loops.iter().map(|turns| turns.load(Ordering::Relaxed)).collect();
        let all = now.iter().zip(before.iter()).all(|(now, before)| now != before);
        all.then(|| {
            *before = now;
            self.tell()
        })
    }
}

impl Told {
    fn introduce(&self) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to(b"READY=1", &self.path)?;
        // Nobody else is at it.
        let _ = self.socket.set(socket);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(path: &std::path::Path) -> UnixDatagram {
        let listener = UnixDatagram::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    }

    fn heard(listener: &UnixDatagram) -> Option<String> {
        let mut text = [0; 64];
        let size = listener.recv(&mut text).ok()?;
        Some(String::from_utf8(text[..size].to_vec()).unwrap())
    }

    #[test]
    fn the_loop_tells_that_it_came_by_and_rests_no_longer_than_it_may() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let listener = listener(&path);
        let watchdog = Watchdog::of(path.clone(), Some(Duration::from_secs(3)));
        assert!(matches!(watchdog.tell(), Telling::Ready));
        assert_eq!(heard(&listener).as_deref(), Some("READY=1"));
        assert!(matches!(watchdog.tell(), Telling::Nothing));
        assert_eq!(heard(&listener).as_deref(), Some("WATCHDOG=1"));
        assert_eq!(watchdog.rest(Duration::from_secs(60)), Duration::from_secs(1));
        assert_eq!(watchdog.rest(Duration::from_millis(5)), Duration::from_millis(5));
        // Without a watchdog it is told once.
        let ready = Watchdog::of(path, None);
        assert!(matches!(ready.tell(), Telling::Ready) && matches!(ready.tell(), Telling::Nothing));
        assert_eq!((heard(&listener).as_deref(), heard(&listener)), (Some("READY=1"), None));
        assert_eq!(ready.rest(Duration::from_secs(60)), Duration::from_secs(60));
        assert!(matches!(Watchdog::default().tell(), Telling::Nothing));
    }

    #[test]
    fn what_could_not_be_told_at_the_start_is_told_later() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let watchdog = Watchdog::of(path.clone(), Some(Duration::from_secs(3)));
        assert!(matches!(watchdog.tell(), Telling::NotYet(_)));
        let listener = listener(&path);
        assert!(matches!(watchdog.tell(), Telling::Ready));
        watchdog.tell();
        let all: Vec<_> = std::iter::from_fn(|| heard(&listener)).collect();
        assert_eq!(all, ["READY=1", "WATCHDOG=1"], "that it is ready is said once");
    }

    #[test]
    fn one_loop_that_hangs_silences_the_process() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let listener = listener(&path);
        let watchdog = Watchdog::of(path, Some(Duration::from_secs(3)));
        let loops = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
        let mut before = vec![0; 2];
        let mut after = |turning: &[usize]| {
            for at in turning {
                loops[*at].fetch_add(1, Ordering::Relaxed);
            }
            watchdog.look(&loops, &mut before);
            heard(&listener).unwrap_or_default()
        };
        assert_eq!(after(&[]), "", "it is not ready before its loops run");
        assert_eq!(after(&[0]), "");
        assert_eq!(after(&[1]), "READY=1");
        assert_eq!(after(&[0, 1]), "WATCHDOG=1");
        assert_eq!(after(&[0]), "", "the other one hangs");
        assert_eq!(after(&[0]), "");
        assert_eq!(after(&[1]), "WATCHDOG=1");
    }
}
