//! The two elapsed clocks (safety.md, "Clocks").
//!
//! NTP slews CLOCK_BOOTTIME by some per cent, and CLOCK_MONOTONIC_RAW stands still while the machine sleeps. So both
//! are read, and each question takes the answer that cannot hurt: who *holds* a right counts by the clock that ran
//! faster, who *waits* one out by the clock that ran slower.

use regent_core::time::{Moment, Span};
use serde::{Deserialize, Serialize};

/// Both clocks at one instant, in milliseconds since boot. Comparable between processes of one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Reading {
    /// CLOCK_BOOTTIME.
    pub boottime: Moment,
    /// CLOCK_MONOTONIC_RAW plus the time the machine was suspended.
    pub raw: Moment,
}

impl Reading {
    /// How long ago `earlier` was for somebody who holds a right since then: the larger.
    #[must_use]
    pub fn held_since(self, earlier: Self) -> Span {
        self.boottime.since(earlier.boottime).max(self.raw.since(earlier.raw))
    }

    /// How long ago `earlier` was for somebody who waits since then: the smaller.
    #[must_use]
    pub fn waited_since(self, earlier: Self) -> Span {
        self.boottime.since(earlier.boottime).min(self.raw.since(earlier.raw))
    }

    /// The moment a span later, on both clocks.
    #[must_use]
    pub const fn after(self, span: Span) -> Deadline {
        Deadline { boottime: self.boottime.after(span).0, raw: self.raw.after(span).0 }
    }
}

/// A moment to come, on both clocks, in milliseconds since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Deadline {
    /// On CLOCK_BOOTTIME.
    pub boottime: u64,
    /// On CLOCK_MONOTONIC_RAW plus suspended time.
    pub raw: u64,
}

impl Deadline {
    /// What is left for the holder of a right that ends here: by the clock that is further on.
    #[must_use]
    pub fn left_for_holder(self, now: Reading) -> Span {
        let (boottime, raw) = self.left(now);
        boottime.min(raw)
    }

    /// What is left for somebody who waits until here: by the clock that is further back.
    #[must_use]
    pub fn left_for_waiter(self, now: Reading) -> Span {
        let (boottime, raw) = self.left(now);
        boottime.max(raw)
    }

    /// True from the moment on at which a right that ends here may no longer be used.
    #[must_use]
    pub fn passed(self, now: Reading) -> bool {
        self.left_for_holder(now) == Span::ZERO
    }

    /// The same moment a span later.
    #[must_use]
    pub const fn plus(self, span: Span) -> Self {
        Self { boottime: self.boottime.saturating_add(span.millis()), raw: self.raw.saturating_add(span.millis()) }
    }

    /// The same moment a span earlier.
    #[must_use]
    pub const fn minus(self, span: Span) -> Self {
        Self { boottime: self.boottime.saturating_sub(span.millis()), raw: self.raw.saturating_sub(span.millis()) }
    }

    /// The earlier of two on each clock by itself.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        Self { boottime: self.boottime.min(other.boottime), raw: self.raw.min(other.raw) }
    }

    /// The moment as a reading, for a right that began then.
    #[must_use]
    pub const fn as_reading(self) -> Reading {
        Reading { boottime: Moment(self.boottime), raw: Moment(self.raw) }
    }

    fn left(self, now: Reading) -> (Span, Span) {
        (Moment(self.boottime).since(now.boottime), Moment(self.raw).since(now.raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boottime: u64, raw: u64) -> Reading {
        Reading { boottime: Moment(boottime), raw: Moment(raw) }
    }

    #[test]
    fn holders_and_waiters_read_different_clocks() {
        let start = at(1_000, 900);
        let now = at(2_000, 1_850);
        assert_eq!(now.held_since(start), Span::from_millis(1_000));
        assert_eq!(now.waited_since(start), Span::from_millis(950));
        let end = start.after(Span::from_millis(1_000));
        assert!(end.passed(now), "the faster clock ends a right");
        assert_eq!(end.left_for_waiter(now), Span::from_millis(50), "the slower clock ends a wait");
    }
}
