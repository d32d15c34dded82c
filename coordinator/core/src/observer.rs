//! What one coordinator grants, and when it votes (safety.md, "The quorum lease").
//!
//! Volatile: it begins anew with each process, and grants nothing before `ObserverStarted` of its incarnation is
//! applied. A coordinator grants to a cluster only while nothing of a vote of its own can be standing or in flight.
//!
//! **Another boot.** A machine that was restarted cannot be told from a copy of one that runs and holds a lease. So where
//! another boot was registered in this very epoch, each coordinator grants to it only D after its own last grant to the
//! one before, and of an older process of its own it knows only that it had granted by the start of this one. Two
//! majorities have a coordinator in common, so the lease before has lapsed and, but in a pause, its fence is done; a lease
//! that no coordinator grants is not waited for, unless others are asked for its promises. What is not waited for:
//! - an epoch that began after the boot was registered: none was granted to any other in it, by anybody. So a first
//!   lease, a failover, or coordinators that are all started anew cost no time;
//! - a boot that was heard to hold the lease: a majority has waited for it before, and none of them goes back to the
//!   other. So coordinators may be restarted one after the other, or all, however often the machine of the primary was, as
//!   long as they hear of the lease while it runs: if all were away until it had lapsed, they wait D from their start.
//!
//! What is left to wait is an outage already: the agent was started anew with its machine, and holds no lease.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::entry::Entry;
use crate::id::{ApplicationId, ClusterId, CoordinatorId, Epoch, Incarnation, InstallationId, VoteNumber};
use crate::lease;
use crate::planted::{self, Mistake};
use crate::state::State;
use crate::terms::Window;
use crate::time::{Moment, Span};

/// Receipts of one cluster that are remembered; at one a heartbeat they cover many times D/4.
const RECEIPT_LIMIT: usize = 256;
/// Round trips of one cluster that are remembered.
const TRIP_LIMIT: usize = 200;
/// With fewer nothing is said of them: one slow answer would be the slowest in a hundred.
const TRIPS_ENOUGH: usize = 100;

/// One coordinator process as an observer.
#[derive(Debug)]
pub struct Observer {
    me: CoordinatorId,
    incarnation: Incarnation,
    started: Moment,
    last_tick: Option<Moment>,
    /// Since when this process has ticked without a gap and has known of a leader.
    attentive_since: Option<Moment>,
    watches: BTreeMap<ClusterId, Watch>,
    epochs: BTreeMap<ApplicationId, (Epoch, Moment)>,
}

/// What is remembered of one cluster.
#[derive(Debug, Default)]
struct Watch {
    receipts: VecDeque<(u64, Moment)>,
    trips: VecDeque<Span>,
    next_receipt: u64,
    two_way: Option<Moment>,
    granted: Option<Moment>,
    /// The boot of the process that grants went to.
    boot: String,
    /// The last moment at which the boot before may have been granted; see the module.
    other_granted: Option<Moment>,
    /// Applications of which this boot was heard to hold the lease.
    leased: BTreeSet<ApplicationId>,
    number: VoteNumber,
    /// The last word proposed, until it is applied; a retry repeats its number.
    outstanding: Option<(VoteNumber, Word)>,
    /// The last word of this incarnation that was proposed.
    last: Option<(VoteNumber, Word)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Vote(Span),
    Withdraw,
}

/// A heartbeat as the observer needs it.
pub struct Heard<'a> {
    /// Whose.
    pub cluster: &'a ClusterId,
    /// By which installation.
    pub installation: &'a InstallationId,
    /// By which process of it.
    pub incarnation: Incarnation,
    /// In which boot of its machine.
    pub boot: &'a str,
    /// The last receipt of this coordinator that the agent had heard; 0: none.
    pub receipt: u64,
    /// The epoch that the agent has stored, by application.
    pub epochs: &'a BTreeMap<ApplicationId, Epoch>,
    /// Applications of which the agent holds the lease, by its own word.
    pub leased: &'a BTreeSet<ApplicationId>,
    /// When an agent of this cluster was last seen to live on promises, if ever.
    pub asked: Option<Moment>,
}

/// What to send back at once, and what to propose.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The receipt's number; it gives no right. 0: what was heard does not count.
    pub receipt: u64,
    /// The contact is two-way.
    pub two_way: bool,
    /// Rights: application and epoch.
    pub grants: Vec<(ApplicationId, Epoch)>,
    /// Applications whose applied epoch is above the agent's.
    pub higher: Vec<(ApplicationId, Epoch)>,
    /// A withdrawal to propose.
    pub proposal: Option<Entry>,
}

impl Observer {
    /// A process that starts now. It must propose [`Observer::start`] and will grant nothing before that is applied.
    #[must_use]
    pub const fn new(me: CoordinatorId, incarnation: Incarnation, now: Moment) -> Self {
        Self {
            me,
            incarnation,
            started: now,
            last_tick: None,
            attentive_since: None,
            watches: BTreeMap::new(),
            epochs: BTreeMap::new(),
        }
    }

    /// The entry that makes it an observer. A read could not flush what an older incarnation has in flight; this
    /// write does.
    #[must_use]
    pub const fn start(&self) -> Entry {
        Entry::ObserverStarted { observer: self.me, incarnation: self.incarnation }
    }

    /// True once its start is applied here, and it is a voter.
    #[must_use]
    pub fn is_started(&self, state: &State) -> bool {
        state.observers.get(&self.me) == Some(&self.incarnation) && state.is_voter(self.me)
    }

    /// A heartbeat arrived. Receipts go to the registered process of every agent; grants to the primary's only, and only
    /// while no vote of this coordinator on the cluster can be out. Of any other process nothing is noted.
    pub fn heard(&mut self, state: &State, now: Moment, heard: &Heard<'_>) -> Answer {
        self.note_epochs(state, now);
        let agent = state.agents.get(heard.cluster).filter(|agent| agent.installation == *heard.installation);
        let Some(agent) = agent.filter(|agent| agent.speaks(heard.incarnation, heard.boot)) else {
            return Answer::default();
        };
        let started = self.is_started(state);
        let suspicion = smallest_bound(state, heard.cluster).divided(4);
        let (me, incarnation, since) = (self.me, self.incarnation, self.started);
        let watch = self.watches.entry(heard.cluster.clone()).or_default();
        let sent = watch.receipts.iter().find(|(receipt, _)| *receipt == heard.receipt).map(|(_, at)| *at);
        let two_way = sent.is_some_and(|sent| now.since(sent) < suspicion);
        // Never back: `now` was read before anything was locked, and two streams of one agent may overtake each other. A
        // vote would else claim more silence than there was.
        if two_way {
            watch.two_way = watch.two_way.max(Some(now));
        }
        if let Some(sent) = sent {
            watch.note_trip(now.since(sent).minus(lease::heartbeat(suspicion.times(4))));
        }
        watch.next_receipt += 1;
        watch.receipts.push_back((watch.next_receipt, now));
        if watch.receipts.len() > RECEIPT_LIMIT {
            watch.receipts.pop_front();
        }
        watch.settle(state, heard.cluster, me, incarnation);
        watch.note_boot(&agent.boot, since);
        watch.leased.extend(heard.leased.iter().cloned());
        // One that lives on promises has asked for them; who granted it before says nothing of that.
        let other = watch.other_granted.map(|granted| granted.max(heard.asked.unwrap_or(granted)));
        let mut answer = Answer { receipt: watch.next_receipt, two_way, ..Answer::default() };
        let beside = planted::makes(Mistake::GrantBesideVote);
        let silent = started && (beside || watch.no_vote_out(state, heard.cluster, me, incarnation));
        for (application, epoch) in heard.epochs {
            let Some(known) = state.applications.get(application) else { continue };
            // What the other boot may hold of it ends by its own D: one with a longer D has nothing to do with it.
            let bound = Window::new(&known.terms).fail_over_after();
            let held = other.is_some_and(|other| now < other.after(bound));
            if known.epoch > *epoch {
                answer.higher.push((application.clone(), known.epoch));
            } else if silent
                && (!held || known.rebooted != known.epoch || watch.leased.contains(application))
                && known.epoch == *epoch
                && known.primary.as_ref() == Some(heard.cluster)
            {
                answer.grants.push((application.clone(), *epoch));
            }
        }
        if !answer.grants.is_empty() && !planted::makes(Mistake::GrantNotNoted) {
            watch.granted = watch.granted.max(Some(now));
        }
        let withdraws = !planted::makes(Mistake::NeverWithdrawn);
        if withdraws && started && two_way && watch.outstanding.is_none() && state.standing(heard.cluster, me).is_some()
        {
            answer.proposal = Some(watch.propose(me, incarnation, heard.cluster, Word::Withdraw));
        }
        answer
    }

    /// How long the way to the cluster's agent and back takes, but for the slowest in a hundred; none while too little
    /// was measured. See [`crate::measured`] for how it is reckoned.
    #[must_use]
    pub fn round_trip(&self, cluster: &ClusterId) -> Option<Span> {
        let trips = &self.watches.get(cluster)?.trips;
        if trips.len() < TRIPS_ENOUGH {
            return None;
        }
        let mut sorted: Vec<Span> = trips.iter().copied().collect();
        sorted.sort_unstable();
        sorted.iter().rev().nth(sorted.len().div_ceil(100)).copied()
    }

    /// Time has passed. `led` is true if this coordinator knows of a leader. Returns votes, and words that were
    /// proposed and have not been applied yet.
    pub fn tick(&mut self, state: &State, now: Moment, led: bool) -> Vec<Entry> {
        self.note_epochs(state, now);
        let clusters: Vec<ClusterId> = state.agents.keys().cloned().collect();
        let shortest = clusters
            .iter()
            .map(|cluster| smallest_bound(state, cluster))
            .min()
            .unwrap_or(lease::DEFAULT_FAIL_OVER_AFTER);
        let gap = self.last_tick.is_none_or(|last| now.since(last) > lease::heartbeat(shortest).times(3));
        self.last_tick = Some(now);
        if !led {
            self.attentive_since = None;
        } else if gap || self.attentive_since.is_none() {
            // A start or a gap begins the count anew: a process that did not run has not listened.
            self.attentive_since = Some(now);
        }
        if !self.is_started(state) {
            return Vec::new();
        }
        clusters.iter().filter_map(|cluster| self.look(state, now, cluster)).collect()
    }

    fn look(&mut self, state: &State, now: Moment, cluster: &ClusterId) -> Option<Entry> {
        let listed = state
            .applications
            .values()
            .any(|known| known.document.clusters.contains(cluster) && known.primary.is_some());
        let silent_since = self.silent_since(state, cluster);
        let (me, incarnation, attentive) = (self.me, self.incarnation, self.attentive_since);
        let watch = self.watches.entry(cluster.clone()).or_default();
        watch.settle(state, cluster, me, incarnation);
        if let Some((number, word)) = watch.outstanding {
            return Some(entry(me, incarnation, cluster, number, word));
        }
        if !listed || state.standing(cluster, me).is_some() {
            return None;
        }
        let suspicion = smallest_bound(state, cluster).divided(4);
        let unheard_since = watch.two_way.unwrap_or(self.started).max(self.started);
        let due = attentive.is_some_and(|attentive| now.since(unheard_since.max(attentive)) >= suspicion);
        due.then(|| watch.propose(me, incarnation, cluster, Word::Vote(now.since(silent_since))))
    }

    /// The latest moment at which this coordinator may have granted: what a vote's silence counts from.
    fn silent_since(&self, state: &State, cluster: &ClusterId) -> Moment {
        let watch = self.watches.get(cluster);
        let granted = watch.and_then(|watch| watch.granted);
        let two_way = watch.and_then(|watch| watch.two_way);
        let epoch_applied = state
            .applications
            .iter()
            .filter(|(_, known)| known.primary.as_ref() == Some(cluster))
            .filter_map(|(id, known)| self.epochs.get(id).filter(|(epoch, _)| *epoch == known.epoch).map(|(_, at)| *at))
            .max();
        let is_primary = epoch_applied.is_some();
        let heard = if is_primary { granted } else { two_way.max(granted) };
        self.started.max(heard.unwrap_or(self.started)).max(epoch_applied.unwrap_or(self.started))
    }

    fn note_epochs(&mut self, state: &State, now: Moment) {
        for (id, known) in &state.applications {
            if self.epochs.get(id).is_none_or(|(epoch, _)| *epoch != known.epoch) {
                self.epochs.insert(id.clone(), (known.epoch, now));
            }
        }
    }
}

impl Watch {
    /// A process in another boot has registered, or this process of the coordinator hears of it for the first time.
    fn note_boot(&mut self, boot: &str, started: Moment) {
        if self.boot == boot {
            return;
        }
        self.other_granted = Some(self.granted.unwrap_or(started));
        self.leased.clear();
        boot.clone_into(&mut self.boot);
    }

    fn note_trip(&mut self, took: Span) {
        self.trips.push_back(took);
        if self.trips.len() > TRIP_LIMIT {
            self.trips.pop_front();
        }
    }

    /// Forgets the outstanding word once the state holds it, or holds a later one of this incarnation.
    fn settle(&mut self, state: &State, cluster: &ClusterId, me: CoordinatorId, incarnation: Incarnation) {
        let Some((number, _)) = self.outstanding else { return };
        let ballot = state.votes.get(cluster).and_then(|ballots| ballots.get(&me));
        if ballot.is_some_and(|ballot| ballot.incarnation == incarnation && ballot.number >= number) {
            self.outstanding = None;
        }
    }

    /// The applied state holds the entry that was proposed last and that is a withdrawal, or this incarnation never
    /// voted on the cluster and nothing stands.
    fn no_vote_out(&self, state: &State, cluster: &ClusterId, me: CoordinatorId, incarnation: Incarnation) -> bool {
        let unapplied = planted::makes(Mistake::WithdrawalUnapplied);
        if unapplied && matches!(self.last, Some((_, Word::Withdraw))) {
            return true;
        }
        if state.standing(cluster, me).is_some() {
            return false;
        }
        match self.last {
            None => true,
            Some((_, Word::Vote(_))) => false,
            Some((number, Word::Withdraw)) => state
                .votes
                .get(cluster)
                .and_then(|ballots| ballots.get(&me))
                .is_some_and(|ballot| ballot.incarnation == incarnation && ballot.number == number),
        }
    }

    fn propose(&mut self, me: CoordinatorId, incarnation: Incarnation, cluster: &ClusterId, word: Word) -> Entry {
        self.number = self.number.next();
        self.outstanding = Some((self.number, word));
        self.last = self.outstanding;
        entry(me, incarnation, cluster, self.number, word)
    }
}

fn entry(me: CoordinatorId, incarnation: Incarnation, cluster: &ClusterId, number: VoteNumber, word: Word) -> Entry {
    match word {
        Word::Vote(silence) => Entry::Vote { observer: me, incarnation, cluster: cluster.clone(), number, silence },
        Word::Withdraw => Entry::Withdraw { observer: me, incarnation, cluster: cluster.clone(), number },
    }
}

/// The smallest D that concerns a cluster's agent: of applications whose terms are confirmed, the largest of the terms in
/// question, since an agent beats by what it has stored. One that nobody counts by yet, because its document waits to be
/// adopted or confirmed, must not make an agent look silent that beats as it was told (S6). A later vote is always safe:
/// its silence counts from the last grant.
#[must_use]
pub fn smallest_bound(state: &State, cluster: &ClusterId) -> Span {
    state
        .applications
        .values()
        .filter(|known| known.confirmed && known.document.clusters.contains(cluster))
        .map(|known| Window::new(&known.terms).fail_over_after())
        .min()
        .unwrap_or(lease::DEFAULT_FAIL_OVER_AFTER)
}
