//! Tells systemd's watchdog that the guard lives, where there is one.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// Begins to tell it, if the environment names a socket and an interval.
pub(super) fn spawn() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let Ok(socket) = UnixDatagram::unbound() else { return };
    let _ = socket.send_to(b"READY=1", &path);
    let micros = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
    let Some(micros) = micros.filter(|micros| *micros > 0) else { return };
    let mut ticks = tokio::time::interval(Duration::from_micros(micros / 3));
    tokio::spawn(async move {
        loop {
            ticks.tick().await;
            let _ = socket.send_to(b"WATCHDOG=1", &path);
        }
    });
}
