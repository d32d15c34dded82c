//! How often things are said and tried: by the smallest D of all applications, and the round trips seen.

use std::time::Duration;

use regent_core::lease::heartbeat;
use regent_core::time::Span;

/// The times of the uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Smallest D; the default before any terms are known.
    pub fail_over_after: Span,
    /// Largest round trip lately.
    pub round_trip: Span,
}

impl Default for Pace {
    fn default() -> Self {
        Self { fail_over_after: Span::from_secs(10), round_trip: Span::ZERO }
    }
}

impl Pace {
    /// Between two heartbeats: min(1 s, D/10).
    #[must_use]
    pub fn heartbeat(self) -> Duration {
        duration(heartbeat(self.fail_over_after))
    }

    /// A stream silent for three heartbeats is dropped; one round trip is not silence.
    #[must_use]
    pub fn silence(self) -> Duration {
        self.heartbeat() * 3 + duration(self.round_trip)
    }

    /// max(1 s, 4 RTT).
    #[must_use]
    pub fn dial_timeout(self) -> Duration {
        duration(self.round_trip.times(4)).max(Duration::from_secs(1))
    }

    /// From one dialling to the next: a heartbeat, and never above D/20.
    #[must_use]
    pub fn pause(self) -> Duration {
        self.heartbeat().min(duration(self.fail_over_after.divided(20)))
    }

    /// The least between two heartbeats on one stream, however much there is to say.
    #[must_use]
    pub fn least(self) -> Duration {
        (self.heartbeat() / 10).min(Duration::from_millis(10))
    }
}

const fn duration(span: Span) -> Duration {
    Duration::from_millis(span.millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_the_default_and_of_the_smallest_setting() {
        let slow = Pace { fail_over_after: Span::from_secs(60), round_trip: Span::from_millis(300) };
        assert_eq!(slow.heartbeat(), Duration::from_secs(1));
        assert_eq!((slow.dial_timeout(), slow.pause()), (Duration::from_millis(1_200), Duration::from_secs(1)));
        assert_eq!(slow.silence(), Duration::from_millis(3_300));
        let fast = Pace { fail_over_after: Span::from_secs(2), round_trip: Span::ZERO };
        assert_eq!(fast.heartbeat(), Duration::from_millis(200));
        assert_eq!((fast.dial_timeout(), fast.pause()), (Duration::from_secs(1), Duration::from_millis(100)));
    }
}
