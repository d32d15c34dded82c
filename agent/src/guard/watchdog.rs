//! Tells systemd's watchdog that the guard lives, where there is one: from the loop that acts at the deadlines, so that
//! a guard whose loop hangs is ended and started anew.

use std::time::Duration;

use regent_proto::watchdog::{self, Telling};

use crate::journal::chain;

/// Where it is told, if anywhere.
#[derive(Debug, Default)]
pub(super) struct Watchdog(watchdog::Watchdog);

impl Watchdog {
    /// As the environment says: `NOTIFY_SOCKET`, which hears that the guard is ready, and `WATCHDOG_USEC`.
    pub(super) fn of_environment() -> Self {
        let told = watchdog::Watchdog::of_environment();
        if let Telling::NotYet(error) = told.tell() {
            tracing::warn!(
                error = chain(&error),
                "systemd cannot be told yet that the guard is ready; it is tried again"
            );
        }
        Self(told)
    }

    /// So long the loop may rest.
    pub(super) fn rest(&self, wished: Duration) -> Duration {
        self.0.rest(wished)
    }

    /// The loop came by. What could not be told at the start is told now.
    pub(super) fn tell(&self) {
        if let Telling::Ready = self.0.tell() {
            tracing::info!("systemd knows that the guard is ready");
        }
    }
}
