//! What can happen next in a state.

use super::action::{Action, Drift, Fault};
use super::agent::{Door, Fence};
use super::entry::{Entry, Ground, Named, Step};
use super::group::Group;
use super::id::{Cluster, Few, MANY, Observer, Ticks};
use super::mistake::Mistake;
use super::observer::Coordinator;
use super::state::{Message, State};
use super::world::{EVIDENCE, Start, World};

/// At most so many heartbeats are remembered.
const REMEMBERED: usize = 2;
/// At most so many messages are in flight.
const IN_FLIGHT: usize = 3;

/// A world with or without a mistake, looked at in one state.
pub struct Offer<'a> {
    world: &'a World,
    mistake: Option<Mistake>,
    state: &'a State,
    actions: &'a mut Vec<Action>,
}

impl<'a> Offer<'a> {
    /// Gathers every action that is possible.
    pub fn gather(world: &'a World, mistake: Option<Mistake>, state: &'a State, actions: &'a mut Vec<Action>) {
        let mut offer = Self { world, mistake, state, actions };
        offer.contacts();
        offer.terms();
        offer.words();
        offer.log();
        offer.decisions();
        offer.steps();
        offer.promises();
        offer.faults();
        offer.time();
    }

    fn may_commit(&self) -> bool {
        self.state.head.index < self.world.most_entries
    }

    fn clusters(&self) -> impl Iterator<Item = Cluster> + use<> {
        let listed = self.state.head.newest().clusters.with(self.world.first().0).with(0);
        listed.iter().map(Cluster)
    }

    fn live(&self) -> impl Iterator<Item = (Observer, &'a Coordinator)> + use<'a> {
        let state = self.state;
        Observer::ALL.into_iter().map(|one| (one, state.coordinator(one))).filter(|(_, one)| one.up)
    }

    fn time(&mut self) {
        self.actions.push(Action::Tick(Drift::None));
        if self.state.faults.drifts == 0 {
            return;
        }
        for cluster in self.clusters() {
            let agent = self.state.agent(cluster);
            if agent.is_ajar() && agent.machine {
                self.actions.push(Action::Tick(Drift::Slow(cluster)));
            }
            if agent.promised.is_some() && agent.machine {
                self.actions.push(Action::Tick(Drift::Fast(cluster)));
            }
        }
        for (observer, _) in self.live() {
            self.actions.push(Action::Tick(Drift::Hasty(observer)));
        }
    }

    fn contacts(&mut self) {
        for cluster in self.clusters() {
            let agent = self.state.agent(cluster);
            if !agent.up {
                continue;
            }
            if self.world.in_flight {
                let now = agent.beats.iter().any(|beat| beat.right.age == 0);
                if agent.is_primary(cluster) && !now && agent.next_beat < 4 && agent.beats.len() <= REMEMBERED {
                    self.actions.push(Action::Beat(cluster));
                }
            } else {
                for (observer, coordinator) in self.live().filter(|(one, _)| self.world.hearing.has(one.0)) {
                    if agent.is_primary(cluster) || coordinator.view.epoch > agent.seen {
                        self.actions.push(Action::Contact(observer, cluster));
                    }
                }
            }
        }
        for message in &self.state.network {
            match *message {
                Message::Beat { unheard, .. } => {
                    let room = self.state.network.len() < IN_FLIGHT;
                    for (observer, _) in
                        self.live().filter(|(one, _)| room && unheard.has(one.0) && self.world.hearing.has(one.0))
                    {
                        self.actions.push(Action::Hear(observer, *message));
                        if self.state.faults.doubles > 0 {
                            self.actions.push(Action::HearDoubled(observer, *message));
                        }
                    }
                }
                Message::Grant { cluster, .. } => {
                    if self.state.agent(cluster).up {
                        self.actions.push(Action::Receive(*message));
                        if self.state.faults.doubles > 0 {
                            self.actions.push(Action::ReceiveDoubled(*message));
                        }
                    }
                }
            }
        }
    }

    fn terms(&mut self) {
        for cluster in self.clusters() {
            let agent = self.state.agent(cluster);
            let mut known = agent.terms.number;
            let heeded = agent.is_ajar() || self.world.leased || self.world.promises || self.world.lifts;
            for (observer, coordinator) in self.live() {
                // One coordinator for each newer terms is enough: who tells makes no difference.
                let newest = coordinator.view.newest();
                if heeded && agent.up && newest.number > agent.terms.number && newest.number != known {
                    known = newest.number;
                    self.actions.push(Action::Learn(observer, cluster));
                }
            }
            if agent.names(cluster, self.mistake) && self.may_commit() && self.live().next().is_some() {
                let entry = Entry::TermsConfirmed { terms: agent.terms.number, cluster };
                if entry.has_effect(&self.state.head, self.mistake) {
                    self.actions.push(Action::Name(cluster));
                }
            }
            if agent.may_lead(cluster) {
                self.actions.push(Action::Lead(cluster));
            }
        }
        for change in self.world.changes {
            if self.may_commit() && Entry::Change(*change).has_effect(&self.state.head, self.mistake) {
                self.actions.push(Action::Operate(*change));
            }
        }
    }

    fn words(&mut self) {
        let room = self.state.pending.len() < self.world.most_pending;
        if !room || !self.may_commit() || self.state.head.epoch >= self.world.most_epoch {
            return;
        }
        for (observer, coordinator) in self.live() {
            let start = Entry::ObserverStarted { observer, incarnation: coordinator.incarnation };
            if !coordinator.started && !self.state.pending.contains(&start) {
                self.actions.push(Action::Start(observer));
            }
            if !self.world.voting.has(observer.0) {
                continue;
            }
            for cluster in self.world.watched.iter().map(Cluster) {
                let more = coordinator.watches[cluster.at()].number < self.world.most_words;
                if more && coordinator.may_vote(observer, cluster, self.mistake) {
                    self.actions.push(Action::Vote(observer, cluster));
                }
                if self.world.withdrawals
                    && more
                    && self.world.hearing.has(observer.0)
                    && coordinator.may_withdraw(observer, cluster)
                {
                    self.actions.push(Action::Withdraw(observer, cluster));
                }
                let again = coordinator.retry(observer, cluster);
                if again.is_some_and(|entry| !self.state.pending.contains(&entry)) {
                    self.actions.push(Action::Retry(observer, cluster));
                }
            }
        }
    }

    fn log(&mut self) {
        for entry in &self.state.pending {
            let counts = entry.has_effect(&self.state.head, self.mistake);
            if counts && !self.may_commit() {
                continue;
            }
            if self.world.replicas {
                for pair in [Few(0b011), Few(0b101), Few(0b110)] {
                    if pair.iter().all(|one| self.state.coordinators[usize::from(one)].up) {
                        self.actions.push(Action::CommitBy(entry.clone(), pair));
                    }
                }
            } else {
                self.actions.push(Action::Commit(entry.clone()));
                if counts && self.state.faults.doubles > 0 {
                    self.actions.push(Action::Double(entry.clone()));
                }
            }
        }
        for (observer, _) in self.live().filter(|(one, _)| self.state.behind(*one) > 0) {
            self.actions.push(Action::Apply(observer));
        }
    }

    fn decisions(&mut self) {
        let room = self.state.pending.len() < self.world.most_pending;
        if !room || !self.may_commit() || self.state.head.epoch >= self.world.most_epoch {
            return;
        }
        let mut known: Vec<Entry> = Vec::new();
        for (observer, coordinator) in self.live().filter(|(one, _)| self.world.leaders.has(one.0)) {
            for entry in self.grounds(coordinator) {
                let new = !known.contains(&entry) && !self.state.pending.contains(&entry);
                if new && entry.has_effect(&coordinator.view, self.mistake) {
                    known.push(entry.clone());
                    self.actions.push(Action::Decide(observer, entry));
                }
            }
        }
    }

    /// Decisions that this coordinator would propose as a leader.
    fn grounds(&self, coordinator: &Coordinator) -> Vec<Entry> {
        let view = &coordinator.view;
        let ripe = self.ripe(coordinator);
        let window = view.window(self.mistake);
        let mut grounds = Vec::new();
        for votes in (1..8).map(Few) {
            let all = votes.iter().all(|one| ripe.has(one));
            // Naming more votes than are needed only makes a decision easier to refuse.
            let spare = votes.iter().any(|one| window.is_majority(votes.without(one)));
            if all && !spare && window.is_majority(votes) {
                grounds.push(Ground::Lost(named(view, votes)));
            }
        }
        grounds.extend(view.fence().map(Ground::Fenced));
        let targets = view.newest().clusters.without(view.primary.0);
        let entry = |to: u8, ground: &Ground| Entry::Decide {
            epoch: view.epoch,
            to: Cluster(to),
            terms: view.newest().number,
            ground: ground.clone(),
        };
        targets.iter().flat_map(|to| grounds.iter().map(move |ground| entry(to, ground))).collect()
    }

    /// Votes for which D has passed by this coordinator's clock, and that nothing holds.
    fn ripe(&self, coordinator: &Coordinator) -> Few {
        let view = &coordinator.view;
        let bound = view.window(self.mistake).bound();
        let mut ripe = Few(0);
        for observer in Observer::ALL {
            if view.standing(view.primary, observer).is_none() {
                continue;
            }
            let waited = coordinator.waited[view.primary.at()][observer.at()];
            if waited >= bound && !self.held(view.primary, bound, waited - bound) {
                ripe = ripe.with(observer.0);
            }
        }
        ripe
    }

    /// Living evidence holds a decision, until D + 3 intervals or for as long as promises are asked for.
    fn held(&self, primary: Cluster, bound: Ticks, over: Ticks) -> bool {
        if !self.world.evidence {
            return false;
        }
        let agent = self.state.agent(primary);
        let signs = agent.holds(primary) || (self.mistake == Some(Mistake::SigningWhileFenced) && agent.up);
        let asked = agent.asked < EVIDENCE.min(bound / 2);
        (signs || asked) && (over < EVIDENCE || agent.asked < bound)
    }

    fn steps(&mut self) {
        self.commands();
        for cluster in self.clusters() {
            let agent = self.state.agent(cluster);
            if self.world.leased || self.world.commands {
                self.dispatches(cluster);
            }
            if agent.machine && agent.doors.contains(&Door::Opening) {
                self.actions.push(Action::Opens(cluster));
            }
            if self.world.lifts && agent.may_lift(cluster) {
                self.actions.push(Action::Lift(cluster));
            }
            if !self.world.leased && cluster != self.world.first() && !agent.is_open() && agent.up {
                let told = self.live().find(|(_, one)| {
                    let view = &one.view;
                    let above = view.epoch > self.first_epoch() && view.epoch >= agent.seen && !view.recovering;
                    above && view.primary == cluster && (view.by_fence || !agent.refuses(view.epoch))
                });
                self.actions.extend(told.map(|(observer, _)| Action::Promote(observer, cluster)));
            }
        }
    }

    const fn first_epoch(&self) -> u8 {
        match self.world.start {
            Start::Leased | Start::Paused | Start::Adopted => 1,
            Start::Decided => 2,
        }
    }

    fn commands(&mut self) {
        let head = &self.state.head;
        if !self.may_commit() || head.intents.len() >= self.world.most_intents {
            return;
        }
        let mut offered = Vec::new();
        if self.world.commands && head.epoch < self.world.most_epoch {
            offered.push((Step::Fence, head.primary, head.epoch));
        }
        if self.world.commands {
            offered.extend(head.intents.last().map(|last| (Step::Unfence, last.cluster, last.epoch)));
        }
        if self.world.leased {
            offered.push((Step::Promote, head.primary, head.epoch));
        }
        for (step, cluster, epoch) in offered {
            if (Entry::Intent { step, cluster, epoch }).has_effect(head, self.mistake) {
                self.actions.push(Action::Command(step, cluster, epoch));
            }
        }
    }

    fn dispatches(&mut self, cluster: Cluster) {
        let agent = self.state.agent(cluster);
        let mut known = Vec::new();
        for (observer, coordinator) in self.live() {
            for intent in &coordinator.view.intents {
                let fits = agent.accepts(cluster, intent, coordinator.view.by_fence, self.mistake);
                if fits && !known.contains(&intent.number) {
                    known.push(intent.number);
                    self.actions.push(Action::Dispatch(observer, *intent));
                }
            }
        }
        let own = agent.fence == Fence::Own && self.mistake == Some(Mistake::SelfFenceConfirms);
        let head = &self.state.head;
        let may = agent.up && self.may_commit();
        for intent in head.intents.iter().filter(|intent| may && intent.cluster == cluster && !intent.done) {
            if agent.done == Some(intent.number) || (own && intent.step == Step::Fence) {
                self.actions.push(Action::Report(cluster, intent.number));
            }
        }
    }

    /// From D/4 without a majority of fresh grants; only while the lease runs and the primaries are healthy.
    fn promises(&mut self) {
        if !self.world.promises {
            return;
        }
        for asker in self.clusters() {
            let agent = self.state.agent(asker);
            if !agent.holds(asker) || !agent.is_open() {
                continue;
            }
            for other in agent.terms.clusters.without(asker.0).iter().map(Cluster) {
                let asked = self.state.agent(other);
                let same = asked.terms.epoch == agent.terms.epoch && asked.seen == agent.seen;
                if asked.up && same && !asked.is_ajar() {
                    self.actions.push(Action::Promise(asker, other));
                }
            }
        }
    }

    fn fail(&mut self, fault: Fault) {
        self.actions.push(Action::Fail(fault));
    }

    fn faults(&mut self) {
        let left = self.state.faults;
        let both = self.world.hearing.and(self.world.voting);
        for observer in Observer::ALL {
            let coordinator = self.state.coordinator(observer);
            if coordinator.up && left.coordinators > 0 && both.has(observer.0) {
                self.fail(Fault::Crash(observer));
            }
            if !coordinator.up && self.world.faults.disks == 0 {
                self.fail(Fault::Restart(observer));
            }
            if coordinator.up && left.disks > 0 {
                self.fail(Fault::Wipe(observer));
            }
        }
        if self.state.coordinators.iter().any(|one| one.wiped) {
            self.actions.extend([Few(0b011), Few(0b101), Few(0b110)].map(|voters| Action::Fail(Fault::Elect(voters))));
        }
        for cluster in self.clusters() {
            let agent = self.state.agent(cluster);
            // Agent and guard dead at once, and neither started again, is what no protocol covers.
            if agent.up && agent.guard {
                if left.agents > 0 {
                    self.fail(Fault::CrashAgent(cluster));
                }
                if left.guards > 0 {
                    self.fail(Fault::CrashGuard(cluster));
                }
            }
            if agent.machine && !agent.up {
                self.fail(Fault::RestartAgent(cluster));
            }
            if agent.machine && !agent.guard {
                self.fail(Fault::RestartGuard(cluster));
            }
            if agent.machine && left.machines > 0 {
                self.fail(Fault::LosePower(cluster));
            }
            if !agent.machine && self.world.faults.machines > 0 {
                self.fail(Fault::Boot(cluster));
            }
        }
        if left.restorations > 0 {
            self.fail(Fault::Restore);
        }
        if self.state.head.recovering && self.clusters().all(|cluster| self.state.agent(cluster).up) {
            self.fail(Fault::Recover);
        }
    }
}

fn named(view: &Group, votes: Few) -> [Option<Named>; MANY] {
    Observer::ALL.map(|observer| view.vote(view.primary, observer).filter(|_| votes.has(observer.0)))
}
