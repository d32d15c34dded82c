//! The time bound: every duration of the protocol, derived from the one knob `failoverAfter` (safety.md, "One knob").
//!
//! ```text
//!  last grant            lease lapses        fence done      margin        earliest promotion
//!  |<------- T ---------->|<------ F -------->|<---- M ----->|
//!  |<------------------------- D = T + F + M --------------->|
//! ```

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// Smallest accepted `failoverAfter`.
pub const SMALLEST_FAIL_OVER_AFTER: Span = Span::from_secs(2);
/// Default `failoverAfter`.
pub const DEFAULT_FAIL_OVER_AFTER: Span = Span::from_secs(60);

/// The durations of one application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeBound {
    /// D: from the last contact with the primary's agent to the earliest promotion.
    pub fail_over_after: Span,
    /// F: within it a fence is done.
    pub fence_budget: Span,
}

impl TimeBound {
    /// Derives F = D/6.
    #[must_use]
    pub const fn new(fail_over_after: Span) -> Self {
        Self { fail_over_after, fence_budget: fail_over_after.divided(6) }
    }

    /// M = max(250 ms, D/100): covers the rates of two clocks.
    #[must_use]
    pub fn margin(self) -> Span {
        self.fail_over_after.divided(100).max(Span::from_millis(250))
    }

    /// T = D − F − M: a grant runs for so long from the sending of its heartbeat.
    #[must_use]
    pub fn lease(self) -> Span {
        self.fail_over_after.minus(self.fence_budget).minus(self.margin())
    }

    /// min(1 s, D/10): between two heartbeats.
    #[must_use]
    pub fn heartbeat(self) -> Span {
        heartbeat(self.fail_over_after)
    }

    /// D/4: after so much silence an observer votes, and an agent asks for promises.
    #[must_use]
    pub fn suspicion(self) -> Span {
        self.fail_over_after.divided(4)
    }
}

/// min(1 s, D/10): between two heartbeats, for the smallest D that concerns the sender.
#[must_use]
pub fn heartbeat(fail_over_after: Span) -> Span {
    fail_over_after.divided(10).min(Span::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_sum_to_the_whole() {
        for millis in [2_000, 2_001, 7_777, 10_000, 60_000, 3_600_000] {
            let bound = TimeBound::new(Span::from_millis(millis));
            let sum = bound.lease().plus(bound.fence_budget).plus(bound.margin());
            assert_eq!(sum, bound.fail_over_after);
        }
    }

    #[test]
    fn the_smallest_setting_leaves_four_heartbeats_of_lease() {
        let bound = TimeBound::new(SMALLEST_FAIL_OVER_AFTER);
        assert!(bound.lease() >= bound.heartbeat().times(4));
    }

    #[test]
    fn a_43_second_partition_fits_the_default_lease() {
        let bound = TimeBound::new(DEFAULT_FAIL_OVER_AFTER);
        assert!(bound.lease() >= Span::from_secs(48));
    }
}
