//! What every part of a coordinator process shares.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use regent_core::evidence::Evidence;
use regent_core::id::CoordinatorId;
use regent_core::time::{Moment, Span, Timestamp};

use crate::replica::Replica;

/// Cheap to clone.
#[derive(Clone)]
pub struct Node {
    /// This coordinator's raft id.
    pub id: CoordinatorId,
    /// The replicated state.
    pub replica: Replica,
    evidence: Arc<RwLock<Evidence>>,
    start: Elapsed,
}

impl Node {
    /// Without evidence yet.
    #[must_use]
    pub fn new(id: CoordinatorId, replica: Replica) -> Self {
        Self { id, replica, evidence: Arc::default(), start: Elapsed::read() }
    }

    /// Time elapsed in this process, in the core's terms. A coordinator only ever waits rights of others out, so of two
    /// elapsed clocks it takes the one that ran slower: NTP slews one of them by some per cent, and the other stands
    /// still while the machine sleeps (safety.md, "Clocks").
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment(self.start.waited_millis().saturating_add(EPOCH_OFFSET))
    }

    /// An instant of the recent past in the core's terms.
    #[must_use]
    pub fn moment(&self, instant: Instant) -> Moment {
        let ago = u64::try_from(instant.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.now().before(Span::from_millis(ago))
    }

    /// Wall clock, for humans and cool-downs.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Timestamp(i64::try_from(millis).unwrap_or(i64::MAX))
    }

    /// Reads what this coordinator sees. The closure must not block.
    pub fn see<R>(&self, look: impl FnOnce(&Evidence) -> R) -> R {
        look(&self.evidence.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes what this coordinator sees. Called by observer and engine only.
    pub fn note<R>(&self, change: impl FnOnce(&mut Evidence) -> R) -> R {
        change(&mut self.evidence.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Room before the start of the process for ages that others report: a day.
const EPOCH_OFFSET: u64 = 86_400_000;

/// Two elapsed clocks at one instant.
#[derive(Debug, Clone, Copy)]
struct Elapsed {
    boottime: u64,
    raw: u64,
}

impl Elapsed {
    fn read() -> Self {
        let boottime = millis(ClockId::CLOCK_BOOTTIME);
        let suspended = boottime.saturating_sub(millis(ClockId::CLOCK_MONOTONIC));
        Self { boottime, raw: millis(ClockId::CLOCK_MONOTONIC_RAW).saturating_add(suspended) }
    }

    /// Since this reading, by the clock that ran slower.
    fn waited_millis(self) -> u64 {
        let now = Self::read();
        now.boottime.saturating_sub(self.boottime).min(now.raw.saturating_sub(self.raw))
    }
}

/// A clock that cannot be read stands still: then nothing is waited out.
fn millis(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| {
        let whole = u64::try_from(time.tv_sec()).unwrap_or(0).saturating_mul(1_000);
        whole.saturating_add(u64::try_from(time.tv_nsec()).unwrap_or(0) / 1_000_000)
    })
}
