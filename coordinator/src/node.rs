//! What every part of a coordinator process shares.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};

use regent_core::evidence::Evidence;
use regent_core::id::CoordinatorId;
use regent_core::time::{Moment, Span, Timestamp};
use tokio::time::Instant;

use crate::clock::{self, Clock, Waited};
use crate::replica::Replica;

/// Cheap to clone.
#[derive(Clone)]
pub struct Node {
    /// This coordinator's raft id.
    pub id: CoordinatorId,
    /// The replicated state.
    pub replica: Replica,
    evidence: Arc<RwLock<Evidence>>,
    clock: Arc<Waited>,
    turns: Turns,
}

/// Turns of the loops without which a coordinator does nothing: one that stands still hangs.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    /// Of the observation post, which receipts and votes come from.
    pub post: Arc<AtomicU64>,
    /// Of the engine, which decides and dispatches where this coordinator leads.
    pub engine: Arc<AtomicU64>,
}

impl Node {
    /// Without evidence yet, by the clocks of this machine.
    #[must_use]
    pub fn new(id: CoordinatorId, replica: Replica) -> Self {
        Self::with_clock(id, replica, clock::of_this_machine())
    }

    /// As [`Self::new`], by another clock.
    #[must_use]
    pub fn with_clock(id: CoordinatorId, replica: Replica, clock: Arc<dyn Clock>) -> Self {
        Self { id, replica, evidence: Arc::default(), clock: Arc::new(Waited::new(clock)), turns: Turns::default() }
    }

    /// Time elapsed in this process, in the core's terms. A coordinator only ever waits rights of others out, so of two
    /// elapsed clocks it takes the one that ran slower: NTP slews one of them by some per cent, and the other stands
    /// still while the machine sleeps (safety.md, "Clocks").
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment(self.clock.millis().saturating_add(EPOCH_OFFSET))
    }

    /// An instant of the recent past in the core's terms.
    #[must_use]
    pub fn moment(&self, instant: Instant) -> Moment {
        let ago = u64::try_from(instant.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.now().before(Span::from_millis(ago))
    }

    /// What shows that the loops go on.
    #[must_use]
    pub const fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Wall clock, for humans and cool-downs.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    /// Reads what this coordinator sees. The closure must not block.
    pub fn see<R>(&self, look: impl FnOnce(&Evidence) -> R) -> R {
        look(&self.evidence.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes what this coordinator sees. Called by observer and engine only, and once at the start.
    pub fn note<R>(&self, change: impl FnOnce(&mut Evidence) -> R) -> R {
        change(&mut self.evidence.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Room before the start of the process for ages that others report: a day.
const EPOCH_OFFSET: u64 = 86_400_000;
