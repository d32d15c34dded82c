//! The handle to the replicated state: read what is applied, propose entries, hear what was applied when.
//!
//! Everything in the process goes through it. Behind it stands raft, or in unit tests a single copy in memory.

use regent_proto::watch;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use regent_core::effect::Effect;
use regent_core::entry::Record;
use regent_core::id::{CoordinatorId, LogIndex};
use regent_core::state::{Applied, State};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Why a proposal did not come back applied.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// There is no leader, or it cannot reach a majority. Whether the entry will be applied is not known.
    #[error("no quorum: the entry may or may not be applied later")]
    NoQuorum,
    /// This node cannot write its log.
    #[error("storage failed: {0}")]
    Storage(String),
    /// The leader answered something that makes no sense.
    #[error("the leader's answer could not be understood: {0}")]
    Garbled(String),
}

/// Turns a record into an applied entry, wherever the leader is.
pub trait Propose: Send + Sync {
    /// Resolves when the entry is applied at the leader, or will not be known to be.
    fn propose(&self, record: Record) -> BoxFuture<'_, Result<Applied, ProposeError>>;
    /// The same for records that stand in the log in this order, with as few rounds as can be. One result for each.
    fn propose_in_order(&self, records: Vec<Record>) -> BoxFuture<'_, Vec<Result<Applied, ProposeError>>> {
        Box::pin(async move {
            let mut results = Vec::with_capacity(records.len());
            for record in records {
                results.push(self.propose(record).await);
            }
            results
        })
    }
    /// Resolves when everything committed before the call is applied here (`ReadIndex`).
    fn linearize(&self) -> BoxFuture<'_, Result<(), ProposeError>>;
}

/// An entry was applied in this process.
#[derive(Debug, Clone)]
pub struct AppliedEvent {
    /// Its index.
    pub index: LogIndex,
    /// When this process applied it.
    pub at: Instant,
    /// What it asks of the shell.
    pub effects: Vec<Effect>,
}

/// What raft says of leadership, as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leadership {
    /// This node's own id.
    pub me: CoordinatorId,
    /// Raft term.
    pub term: u64,
    /// The leader this node knows of.
    pub leader: Option<CoordinatorId>,
    /// Leader only: when each voter last acknowledged.
    pub heard: BTreeMap<CoordinatorId, Instant>,
    /// When a majority was last known to be in contact; none if never since the start.
    pub quorum_at: Option<Instant>,
    /// How long a call to each other coordinator and back takes, but for the slowest in a hundred.
    pub round_trips: BTreeMap<CoordinatorId, Duration>,
    /// The configured heartbeat of raft: within it a leader must be answered.
    pub heartbeat: Option<Duration>,
}

impl Leadership {
    /// True if this node leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leader == Some(self.me)
    }

    /// Whether a majority is in contact, at an instant of this process. A group of one is its own majority; and what raft
    /// last said of a leader counts no longer than its word is fresh.
    #[must_use]
    pub fn quorum(&self, voters: &[BTreeSet<CoordinatorId>], now: Instant) -> Quorum {
        let alone = self.is_leader() && voters.iter().all(|set| set.len() <= 1);
        let heard = self.quorum_at.map(|at| now.saturating_duration_since(at));
        let age = if alone { Some(Duration::ZERO) } else { heard };
        Quorum { held: self.leader.is_some() && age.is_some_and(|age| age <= self.patience()), age }
    }

    /// News that is older than this is none: three heartbeats, and three seconds at least.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.heartbeat.map_or(Duration::ZERO, |heartbeat| heartbeat * 3).max(Duration::from_secs(3))
    }

    /// Coordinators whose answers take a heartbeat or longer: leadership between them and this one does not last.
    pub fn too_far(&self) -> impl Iterator<Item = (CoordinatorId, Duration)> + '_ {
        let far = |took: &Duration| self.heartbeat.is_some_and(|heartbeat| *took >= heartbeat);
        self.round_trips.iter().filter(move |(_, took)| far(took)).map(|(id, took)| (*id, *took))
    }
}

/// Whether a majority of coordinators is in contact, as far as is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    /// A leader is known, and a majority answered it just now.
    pub held: bool,
    /// Since a majority was last known to be in contact: so old may be what is seen here. None: never since the start.
    pub age: Option<Duration>,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Replica {
    shared: Arc<Shared>,
    proposer: Arc<dyn Propose>,
}

/// The applied state and who wants to know of changes. The state machine owns the writing side.
pub struct Shared {
    state: RwLock<State>,
    applied: watch::Sender<LogIndex>,
    leadership: watch::Sender<Leadership>,
    listeners: Mutex<Vec<mpsc::UnboundedSender<AppliedEvent>>>,
}

impl Shared {
    /// Starts from a state that was loaded.
    #[must_use]
    pub fn new(state: State) -> Arc<Self> {
        let applied = watch::Sender::new(state.applied);
        Arc::new(Self {
            state: RwLock::new(state),
            applied,
            leadership: watch::Sender::new(Leadership::default()),
            listeners: Mutex::new(Vec::new()),
        })
    }

    /// Reads the applied state. The closure must not block.
    pub fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state and tells everyone. Called by the state machine only.
    pub fn write<R>(&self, change: impl FnOnce(&mut State) -> (R, Vec<Effect>)) -> R {
        let (result, event) = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let (result, effects) = change(&mut state);
            (result, AppliedEvent { index: state.applied, at: Instant::now(), effects })
        };
        self.applied.send_replace(event.index);
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.send(event.clone()).is_ok());
        result
    }

    /// Tells what raft says of leadership. Called by the raft shell only.
    pub fn lead(&self, leadership: Leadership) {
        self.leadership.send_replace(leadership);
    }
}

impl Replica {
    /// Joins the applied state with a way to propose.
    #[must_use]
    pub fn new(shared: Arc<Shared>, proposer: Arc<dyn Propose>) -> Self {
        Self { shared, proposer }
    }

    /// A single copy in memory that leads itself: for unit tests of what stands on a replica.
    #[must_use]
    pub fn in_memory(me: CoordinatorId) -> Self {
        let shared = Shared::new(State::default());
        shared.lead(Leadership {
            me,
            term: 1,
            leader: Some(me),
            heard: BTreeMap::new(),
            quorum_at: Some(Instant::now()),
            ..Leadership::default()
        });
        Self { proposer: Arc::new(InMemory { shared: shared.clone() }), shared }
    }

    /// Reads the applied state. The closure must not block.
    pub fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        self.shared.read(look)
    }

    /// Proposes an entry and waits until it is applied at the leader.
    ///
    /// # Errors
    /// If there is no quorum; then the entry may or may not be applied later.
    pub async fn propose(&self, record: Record) -> Result<Applied, ProposeError> {
        self.proposer.propose(record).await
    }

    /// Proposes entries that stand in the log in this order; one result for each, as of [`Replica::propose`].
    pub async fn propose_in_order(&self, records: Vec<Record>) -> Vec<Result<Applied, ProposeError>> {
        self.proposer.propose_in_order(records).await
    }

    /// Waits until everything committed before the call is applied here.
    ///
    /// # Errors
    /// If there is no quorum.
    pub async fn linearize(&self) -> Result<(), ProposeError> {
        self.proposer.linearize().await
    }

    /// Index of the last applied entry; changes with each.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<LogIndex> {
        self.shared.applied.subscribe()
    }

    /// What raft says of leadership.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.subscribe()
    }

    /// Every entry applied from now on, in order.
    #[must_use]
    pub fn listen(&self) -> mpsc::UnboundedReceiver<AppliedEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.shared.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }
}

struct InMemory {
    shared: Arc<Shared>,
}

impl Propose for InMemory {
    fn propose(&self, record: Record) -> BoxFuture<'_, Result<Applied, ProposeError>> {
        Box::pin(async move {
            Ok(self.shared.write(|state| {
                let index = state.applied.next();
                state.apply(index, &record)
            }))
        })
    }

    fn linearize(&self) -> BoxFuture<'_, Result<(), ProposeError>> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_a_leader_and_fresh_word_of_a_majority() {
        let now = Instant::now() + Duration::from_secs(60);
        let three = [(1..=3).map(CoordinatorId).collect()];
        let led = |age: u64| Leadership {
            me: CoordinatorId(1),
            leader: Some(CoordinatorId(2)),
            quorum_at: Some(now - Duration::from_millis(age)),
            ..Leadership::default()
        };
        assert!(led(3_000).quorum(&three, now).held);
        assert_eq!(led(3_001).quorum(&three, now), Quorum { held: false, age: Some(Duration::from_millis(3_001)) });
        assert!(!Leadership { leader: None, ..led(0) }.quorum(&three, now).held);
        let slow = Leadership { heartbeat: Some(Duration::from_secs(2)), ..led(6_000) };
        assert!(slow.quorum(&three, now).held, "three of its heartbeats");
        // A group of one hears itself, however long ago raft said so.
        let one = [[CoordinatorId(1)].into()];
        let alone = Leadership { leader: Some(CoordinatorId(1)), ..led(60_000) };
        assert_eq!(alone.quorum(&one, now), Quorum { held: true, age: Some(Duration::ZERO) });
        assert!(!alone.quorum(&three, now).held);
        assert_eq!(Leadership::default().quorum(&three, now), Quorum { held: false, age: None });
    }
}
