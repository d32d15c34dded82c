//! Where this process reads the time. Timers are tokio's; what is measured here is how long something has lasted, and
//! what the wall says.
//!
//! It is given rather than read wherever it is needed, so that a test can say what time it is.

use std::sync::{Arc, Mutex, PoisonError};
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

/// Elapsed time as somebody may take it who waits: over every stretch, that of the clock that ran slower in it. The totals
/// of the two would not do: one that has fallen behind over weeks is the smaller for weeks more, however fast it is
/// slewed, and would shorten every wait meanwhile.
pub struct Waited {
    clock: Arc<dyn Clock>,
    anchor: Mutex<Anchor>,
}

/// Where a stretch began, and what had passed before.
struct Anchor {
    at: Elapsed,
    before: u64,
}

/// Stretches are so long, in milliseconds: rounding costs each a millisecond at most, and the rates of clocks change slowly.
const STRETCH: u64 = 1_000;

impl Waited {
    /// Begins now, at zero.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let anchor = Mutex::new(Anchor { at: clock.elapsed(), before: 0 });
        Self { clock, anchor }
    }

    /// What has passed, in milliseconds.
    #[must_use]
    pub fn millis(&self) -> u64 {
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.elapsed();
        let passed = anchor.before.saturating_add(now.waited_since(anchor.at));
        if passed.saturating_sub(anchor.before) >= STRETCH {
            *anchor = Anchor { at: now, before: passed };
        }
        passed
    }

    /// Wall clock, for humans and cool-downs.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.clock.wall()
    }
}

/// A clock that cannot be read stands still: then nothing is waited out.
fn millis(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| {
        let whole = u64::try_from(time.tv_sec()).unwrap_or(0).saturating_mul(1_000);
        whole.saturating_add(u64::try_from(time.tv_nsec()).unwrap_or(0) / 1_000_000)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Told(Mutex<Elapsed>);

    impl Clock for Told {
        fn elapsed(&self) -> Elapsed {
            *self.0.lock().unwrap()
        }

        fn wall(&self) -> Timestamp {
            Timestamp(0)
        }
    }

    #[test]
    fn each_stretch_is_measured_by_the_clock_that_ran_slower_in_it() {
        let told = Arc::new(Told(Mutex::new(Elapsed { boottime: 0, raw: 0 })));
        let waited = Waited::new(told.clone());
        let pass = |times: u64, boottime: u64, raw: u64| {
            let before = waited.millis();
            for _ in 0..times {
                let mut now = told.0.lock().unwrap();
                *now = Elapsed { boottime: now.boottime + boottime, raw: now.raw + raw };
                drop(now);
                let _ = waited.millis();
            }
            waited.millis() - before
        };
        // Over weeks one has fallen behind by a minute.
        assert_eq!(pass(10_000, 1_000, 1_006), 10_000_000);
        // Now it is slewed forward, and a wait of a minute is not over before a minute.
        let minute = pass(600, 108, 100);
        assert!((59_900..=60_000).contains(&minute), "{minute}");
        let minute = pass(600, 100, 108);
        assert!((59_900..=60_000).contains(&minute), "{minute}");
        // It goes on however often it is read, and never back.
        assert!((990..=1_000).contains(&pass(1_000, 1, 1)));
        assert_eq!(pass(10, 0, 1), 0);
    }
}
