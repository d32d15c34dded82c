//! The clocks of this machine. They are given to whoever reads them, so that a test can say what time it is.

use std::fmt;
use std::sync::Arc;

use nix::time::{ClockId, clock_gettime};
use regent_core::time::{Moment, Timestamp};

use crate::lease::Reading;

/// What agent and guard read. Both must be given clocks of one machine.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Both elapsed clocks, now.
    fn reading(&self) -> Reading;
    /// The wall clock, only to see it jump and to date things for humans.
    fn wall(&self) -> Timestamp;
    /// Identity of this boot of the machine; empty if the kernel does not tell.
    fn boot_id(&self) -> String;
}

/// The clocks of this machine.
#[must_use]
pub fn of_this_machine() -> Arc<dyn Clock> {
    Arc::new(Machine)
}

#[derive(Debug)]
struct Machine;

impl Clock for Machine {
    fn reading(&self) -> Reading {
        let boottime = millis(ClockId::CLOCK_BOOTTIME);
        let suspended = boottime.saturating_sub(millis(ClockId::CLOCK_MONOTONIC));
        let raw = millis(ClockId::CLOCK_MONOTONIC_RAW).saturating_add(suspended);
        Reading { boottime: Moment(boottime), raw: Moment(raw) }
    }

    fn wall(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now().as_millisecond())
    }

    fn boot_id(&self) -> String {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.trim().to_owned()
    }
}

/// A clock that cannot be read counts as far ahead: every right has ended then.
fn millis(clock: ClockId) -> u64 {
    clock_gettime(clock).ok().map_or(u64::MAX, |time| {
        let whole = u64::try_from(time.tv_sec()).unwrap_or(u64::MAX).saturating_mul(1_000);
        whole.saturating_add(u64::try_from(time.tv_nsec()).unwrap_or(0) / 1_000_000)
    })
}
