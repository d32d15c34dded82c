//! Where this process reads the time. Timers are tokio's; what is measured here is how long something has lasted, and
//! what the wall says.
//!
//! It is given rather than read wherever it is needed, so that a test can say what time it is.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use regent_core::time::Timestamp;

/// What a coordinator reads.
pub trait Clock: Send + Sync {
    /// Both elapsed clocks, now.
    fn elapsed(&self) -> Elapsed;
    /// Wall clock, for humans and cool-downs.
    fn wall(&self) -> Timestamp;
}

/// The clocks of this machine.
#[must_use]
pub fn of_this_machine() -> Arc<dyn Clock> {
    Arc::new(Machine)
}

struct Machine;

impl Clock for Machine {
    fn elapsed(&self) -> Elapsed {
        let boottime = millis(ClockId::CLOCK_BOOTTIME);
        let suspended = boottime.saturating_sub(millis(ClockId::CLOCK_MONOTONIC));
        Elapsed { boottime, raw: millis(ClockId::CLOCK_MONOTONIC_RAW).saturating_add(suspended) }
    }

    fn wall(&self) -> Timestamp {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Timestamp(i64::try_from(millis).unwrap_or(i64::MAX))
    }
}

/// Two elapsed clocks at one instant, in milliseconds since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed {
    /// CLOCK_BOOTTIME.
    pub boottime: u64,
    /// CLOCK_MONOTONIC_RAW plus the time the machine was suspended.
    pub raw: u64,
}

impl Elapsed {
    /// Between two readings, by the clock that ran slower: for somebody who waits (safety.md, "Clocks").
    #[must_use]
    pub fn waited_since(self, earlier: Self) -> u64 {
        let boottime = self.boottime.saturating_sub(earlier.boottime);
        boottime.min(self.raw.saturating_sub(earlier.raw))
    }
}

/// A clock that cannot be read stands still: then nothing is waited out.
fn millis(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| {
        let whole = u64::try_from(time.tv_sec()).unwrap_or(0).saturating_mul(1_000);
        whole.saturating_add(u64::try_from(time.tv_nsec()).unwrap_or(0) / 1_000_000)
    })
}
