//! Proposing without flooding: an entry of which the like is in flight, or was refused just now, is not proposed again.
//!
//! The core is asked at every change and answers with everything that should be proposed; asking again is harmless,
//! proposing again a hundred times a second is not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regent_core::entry::{Entry, FORMAT, Record};
use regent_core::id::{ApplicationId, Attempt, ClusterId, RunId, StepId, VoteNumber};
use regent_core::state::Applied;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::node::Node;
use crate::replica::ProposeError;

/// After a refusal or a failure the like is not proposed again for so long.
const PAUSE: Duration = Duration::from_millis(1000);

/// What makes two entries alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Word(ClusterId, VoteNumber),
    Start(ApplicationId),
    Decide(ApplicationId),
    Adopt(ApplicationId),
    Confirm(ApplicationId),
    Refusal(ApplicationId),
    Intent(RunId, StepId, Attempt),
    Outcome(RunId, StepId, Attempt),
    Undo(RunId),
    Commit(ApplicationId),
    Order(ApplicationId),
    Breaker,
    Members,
    Recovery(ApplicationId),
    Rogues(ApplicationId, ClusterId),
    Register(ClusterId),
}

impl Key {
    fn of(entry: &Entry) -> Option<Self> {
        Some(match entry {
            Entry::Vote { cluster, number, .. } | Entry::Withdraw { cluster, number, .. } => {
                Self::Word(cluster.clone(), *number)
            }
            Entry::RunStarted { application, .. } | Entry::DrillStarted { application, .. } => {
                Self::Start(application.clone())
            }
            Entry::Decide { application, .. } => Self::Decide(application.clone()),
            Entry::Adopt { application, .. } => Self::Adopt(application.clone()),
            Entry::TermsConfirmed { application, .. } => Self::Confirm(application.clone()),
            Entry::Refused { application, .. } => Self::Refusal(application.clone()),
            Entry::StepIntent { run, step, attempt } => Self::Intent(*run, *step, *attempt),
            Entry::StepOutcome { run, step, attempt, .. } => Self::Outcome(*run, *step, *attempt),
            Entry::Committed { application, .. } => Self::Commit(application.clone()),
            Entry::FailoverDue { application, .. }
            | Entry::OrderTimedOut { application, .. }
            | Entry::OrderClosed { application, .. } => Self::Order(application.clone()),
            Entry::UndoBegun { run, .. } | Entry::CauseGone { run, .. } => Self::Undo(*run),
            Entry::Frozen { .. } | Entry::Thawed => Self::Breaker,
            Entry::MemberChangeEnded { .. } => Self::Members,
            Entry::Recovered { application, .. } => Self::Recovery(application.clone()),
            Entry::RogueWriters { application, cluster, .. } => Self::Rogues(application.clone(), cluster.clone()),
            Entry::AgentRegistered(agent) => Self::Register(agent.cluster.clone()),
            Entry::GroupCreated { .. }
            | Entry::CoordinatorJoined(_)
            | Entry::ObserverStarted { .. }
            | Entry::InstallationReplaced { .. }
            | Entry::Applied { .. }
            | Entry::Paused { .. }
            | Entry::Resumed { .. }
            | Entry::Acknowledged { .. }
            | Entry::RejoinStarted { .. }
            | Entry::MemberChange { .. }
            | Entry::AttestedOff { .. }
            | Entry::LimitSet { .. }
            | Entry::PrimaryChosen { .. }
            | Entry::FailoverOrdered { .. }
            | Entry::OrderApproved { .. }
            | Entry::Held { .. }
            | Entry::Unheld { .. }
            | Entry::Aborted { .. }
            | Entry::Approved { .. }
            | Entry::Cleared { .. } => return None,
        })
    }
}

/// An entry, and what it is to whoever offers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// What is so, or is wanted.
    Own(Entry),
    /// What may follow from those before it: no refusal of it holds up the like, which is offered when its turn has come.
    Guess(Entry),
    /// Offered before, and perhaps still on its way: here it stands in front of what rests on it.
    Again(Entry),
}

impl Offer {
    fn into_entry(self) -> Entry {
        match self {
            Self::Own(entry) | Self::Guess(entry) | Self::Again(entry) => entry,
        }
    }
}

/// What is to be done with an offer when its result is here.
#[derive(Debug)]
enum Note {
    /// The like was held back meanwhile.
    Release(Key),
    /// The same, and a refusal is nothing to speak of.
    Forget(Key),
    Nothing,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Proposals {
    node: Node,
    held: Arc<Mutex<BTreeMap<Key, Held>>>,
}

#[derive(Debug, Clone, Copy)]
enum Held {
    InFlight,
    Until(Instant),
}

impl Proposals {
    /// Nothing in flight yet.
    #[must_use]
    pub fn new(node: Node) -> Self {
        Self { node, held: Arc::default() }
    }

    /// A record of this node, now.
    #[must_use]
    pub fn record(&self, entry: Entry) -> Record {
        Record { format: FORMAT, at: self.node.wall(), request: None, entry }
    }

    /// Proposes in a task of its own, unless the like is in flight or was refused just now.
    pub fn offer(&self, entry: Entry) {
        self.offer_in_order(vec![Offer::Own(entry)]);
    }

    /// Proposes entries that stand in the log in this order, without waiting for one before the next is proposed.
    /// The state machine ignores what an earlier one of them made wrong.
    pub fn offer_in_order(&self, offers: Vec<Offer>) {
        let (notes, entries): (Vec<Note>, Vec<Entry>) =
            offers.into_iter().filter_map(|offer| self.admit(offer)).unzip();
        if entries.is_empty() {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            let mut records: Vec<_> = entries.into_iter().map(|entry| this.record(entry)).collect();
            let results = match records.pop() {
                Some(only) if records.is_empty() => vec![this.node.replica.propose(only).await],
                last => {
                    records.extend(last);
                    this.node.replica.propose_in_order(records).await
                }
            };
            for (note, result) in notes.into_iter().zip(&results) {
                match note {
                    Note::Release(key) => this.release(&key, settled(result)),
                    Note::Forget(key) => {
                        debug!(?result, "a guess");
                        this.release(&key, true);
                    }
                    Note::Nothing => debug!(?result, "offered again"),
                }
            }
        });
    }

    /// None if the like is in flight or was refused just now.
    fn admit(&self, offer: Offer) -> Option<(Note, Entry)> {
        let note = match &offer {
            Offer::Again(_) => Note::Nothing,
            Offer::Own(entry) => match Key::of(entry) {
                None => Note::Nothing,
                Some(key) => self.take(&key).then_some(Note::Release(key))?,
            },
            Offer::Guess(entry) => match Key::of(entry) {
                None => Note::Nothing,
                Some(key) => self.take(&key).then_some(Note::Forget(key))?,
            },
        };
        Some((note, offer.into_entry()))
    }

    fn take(&self, key: &Key) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let free = match held.get(key) {
            None => true,
            Some(Held::InFlight) => false,
            Some(Held::Until(until)) => Instant::now() >= *until,
        };
        if free {
            held.insert(key.clone(), Held::InFlight);
        }
        free
    }

    fn release(&self, key: &Key, settled: bool) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if settled {
            held.remove(key);
        } else {
            held.insert(key.clone(), Held::Until(Instant::now() + PAUSE));
        }
        // What is no longer held needs no room.
        let now = Instant::now();
        held.retain(|_, held| !matches!(held, Held::Until(until) if *until < now));
    }
}

fn settled(result: &Result<Applied, ProposeError>) -> bool {
    match result {
        Ok(Applied::Done(_) | Applied::Repeated(_)) => return true,
        Ok(Applied::Ignored(why)) => debug!(why, "proposal ignored"),
        Ok(Applied::Refused { rule, detail }) => warn!(rule, detail, "proposal refused"),
        Err(error) => debug!(%error, "proposal not applied"),
    }
    false
}
