//! What every part of a coordinator process shares.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use regent_core::evidence::Evidence;
use regent_core::id::CoordinatorId;
use regent_core::time::{Moment, Timestamp};

use crate::replica::Replica;

/// Cheap to clone.
#[derive(Clone)]
pub struct Node {
    /// This coordinator's raft id.
    pub id: CoordinatorId,
    /// The replicated state.
    pub replica: Replica,
    evidence: Arc<RwLock<Evidence>>,
    start: Instant,
}

impl Node {
    /// Without evidence yet.
    #[must_use]
    pub fn new(id: CoordinatorId, replica: Replica) -> Self {
        Self { id, replica, evidence: Arc::default(), start: Instant::now() }
    }

    /// This process' monotonic clock, in the core's terms.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    /// An instant in the core's terms; never 0, so that an age before the start of the process can be told.
    #[must_use]
    pub fn moment(&self, instant: Instant) -> Moment {
        let millis = instant.saturating_duration_since(self.start).as_millis();
        Moment(u64::try_from(millis).unwrap_or(u64::MAX).saturating_add(EPOCH_OFFSET))
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
