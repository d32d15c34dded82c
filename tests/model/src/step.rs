//! What an action makes of a state.

use super::action::{Action, Drift, Fault};
use super::agent::{Beat, Door, Promised, Right};
use super::entry::Entry;
use super::id::{Cluster, Few, Observer};
use super::mistake::Mistake;
use super::observer::{Answer, Coordinator};
use super::state::{Message, State};
use super::terms::lease;
use super::world::World;

/// Carries out an action that was offered.
#[must_use]
pub fn step(world: &World, mistake: Option<Mistake>, before: &State, action: &Action) -> State {
    let mut next = Next { world, mistake, state: before.clone() };
    next.carry_out(action);
    next.state.tidy(mistake);
    next.state
}

struct Next<'a> {
    world: &'a World,
    mistake: Option<Mistake>,
    state: State,
}

impl Next<'_> {
    fn carry_out(&mut self, action: &Action) {
        match *action {
            Action::Tick(drift) => self.tick(drift),
            Action::Contact(observer, cluster) => self.contact(observer, cluster),
            Action::Beat(cluster) => self.beat(cluster),
            Action::Hear(observer, message) => {
                self.take(message, observer);
                self.hear(observer, message);
            }
            Action::Receive(message) => {
                self.state.network.retain(|other| *other != message);
                self.receive(message);
            }
            Action::HearDoubled(observer, message) => {
                self.state.faults.doubles -= 1;
                self.hear(observer, message);
            }
            Action::ReceiveDoubled(message) => {
                self.state.faults.doubles -= 1;
                self.receive(message);
            }
            Action::Learn(observer, cluster) => {
                let terms = *self.state.coordinator(observer).view.newest();
                self.state.agents[cluster.at()].store(cluster, terms, self.mistake);
            }
            Action::Name(cluster) => {
                let agent = &mut self.state.agents[cluster.at()];
                agent.has_named(cluster);
                let terms = agent.terms.number;
                self.commit(&Entry::TermsConfirmed { terms, cluster });
            }
            Action::Lead(cluster) => self.state.agents[cluster.at()].lead(),
            Action::Vote(observer, cluster) => {
                let entry = self.coordinator(observer).vote(observer, cluster);
                self.propose(entry);
            }
            Action::Withdraw(observer, cluster) => {
                let entry = self.coordinator(observer).withdraw(observer, cluster);
                self.propose(entry);
            }
            Action::Retry(observer, cluster) => {
                let entry = self.coordinator(observer).retry(observer, cluster);
                entry.into_iter().for_each(|entry| self.propose(entry));
            }
            Action::Start(observer) => {
                let incarnation = self.coordinator(observer).incarnation;
                self.propose(Entry::ObserverStarted { observer, incarnation });
            }
            Action::Decide(_, ref entry) => self.propose(entry.clone()),
            Action::Commit(ref entry) => {
                self.state.pending.retain(|other| other != entry);
                self.commit(entry);
            }
            Action::Double(ref entry) => {
                self.state.faults.doubles -= 1;
                self.commit(entry);
            }
            Action::CommitBy(ref entry, holders) => {
                self.state.pending.retain(|other| other != entry);
                self.commit(entry);
                holders.iter().for_each(|one| self.catch_up(Observer(one)));
            }
            Action::Apply(observer) => self.apply(observer),
            Action::Operate(change) => self.commit(&Entry::Change(change)),
            Action::Command(step, cluster, epoch) => self.commit(&Entry::Intent { step, cluster, epoch }),
            Action::Report(_, intent) => self.commit(&Entry::Outcome { intent }),
            Action::Dispatch(observer, intent) => {
                let promotable = self.state.coordinator(observer).view.promotable;
                let agent = &mut self.state.agents[intent.cluster.at()];
                self.state.fell |= intent.epoch < agent.seen;
                agent.begin(&intent, promotable);
            }
            Action::Opens(cluster) => {
                for door in &mut self.state.agents[cluster.at()].doors {
                    *door = if *door == Door::Opening { Door::Open } else { *door };
                }
            }
            Action::Promote(observer, cluster) => self.promote(observer, cluster),
            Action::Lift(cluster) => {
                let agent = &mut self.state.agents[cluster.at()];
                agent.open(agent.terms.resources, Door::Open);
            }
            Action::Promise(asker, other) => self.promise(asker, other),
            Action::Fail(fault) => self.fail(fault),
        }
    }

    fn fail(&mut self, fault: Fault) {
        match fault {
            Fault::Crash(observer) => {
                self.state.faults.coordinators -= 1;
                let coordinator = self.coordinator(observer);
                // Nothing in memory outlives it; only equal states must be equal.
                let (incarnation, view) = (coordinator.incarnation, coordinator.view.clone());
                *coordinator = Coordinator { up: false, started: false, incarnation, ..Coordinator::new(view, 0) };
            }
            Fault::Restart(observer) => {
                // A read could not flush what the older incarnation has in flight; the start entry does.
                let read = self.mistake == Some(Mistake::ReadBarrier);
                let (oldest, leader) = (self.world.oldest(), self.leads(observer));
                self.coordinator(observer).restart(oldest, leader, read);
                if !self.world.lag.has(observer.0) || read {
                    self.catch_up(observer);
                }
            }
            Fault::Wipe(observer) => {
                self.state.faults.disks -= 1;
                let back = self.mistake == Some(Mistake::WipedCoordinator);
                let coordinator = self.coordinator(observer);
                coordinator.up = false;
                coordinator.wiped = back;
            }
            Fault::Elect(voters) => self.elect(voters),
            Fault::CrashAgent(cluster) => {
                self.state.faults.agents -= 1;
                self.state.agents[cluster.at()].crash();
            }
            Fault::RestartAgent(cluster) => self.state.agents[cluster.at()].restart(self.mistake),
            Fault::CrashGuard(cluster) => {
                self.state.faults.guards -= 1;
                self.state.agents[cluster.at()].guard = false;
            }
            Fault::RestartGuard(cluster) => {
                let agent = &mut self.state.agents[cluster.at()];
                agent.guard = true;
                agent.rearm(cluster);
            }
            Fault::LosePower(cluster) => {
                self.state.faults.machines -= 1;
                self.state.agents[cluster.at()].lose_power();
            }
            Fault::Boot(cluster) => self.state.agents[cluster.at()].boot(self.mistake),
            Fault::Restore => self.restore(),
            Fault::Recover => {
                // By mistake the first one that reports ends it: the agent of the primary that the backup knows.
                let reports = if self.mistake == Some(Mistake::RecoveredEarly) { 1 } else { self.state.agents.len() };
                let reported = self.state.agents.iter().take(reports);
                let highest = reported.map(|agent| agent.terms).max_by_key(|terms| terms.epoch);
                if let Some(terms) = highest {
                    self.commit(&Entry::Recovered { epoch: terms.epoch, primary: terms.primary });
                }
            }
        }
    }

    fn coordinator(&mut self, observer: Observer) -> &mut Coordinator {
        &mut self.state.coordinators[observer.at()]
    }

    const fn leads(&self, observer: Observer) -> bool {
        self.world.leaders.has(observer.0)
    }

    fn tick(&mut self, drift: Drift) {
        let oldest = self.world.oldest();
        self.state.faults.drifts -= u8::from(drift != Drift::None);
        for observer in Observer::ALL {
            let ticks = if drift == Drift::Hasty(observer) { 2 } else { 1 };
            let leader = self.leads(observer);
            let coordinator = self.coordinator(observer);
            if coordinator.up {
                (0..ticks).for_each(|_| coordinator.pass(oldest, leader));
            }
        }
        for cluster in [0, 1, 2].map(Cluster) {
            let ticks = match drift {
                Drift::Slow(slow) if slow == cluster => 0,
                Drift::Fast(fast) if fast == cluster => 2,
                Drift::None | Drift::Slow(_) | Drift::Fast(_) | Drift::Hasty(_) => 1,
            };
            let exempt = !self.world.leased && cluster != self.world.first();
            let agent = &mut self.state.agents[cluster.at()];
            (0..ticks).for_each(|_| agent.pass(cluster, exempt, oldest, self.mistake));
        }
    }

    fn contact(&mut self, observer: Observer, cluster: Cluster) {
        let mistake = self.mistake;
        let epoch = self.state.agent(cluster).seen;
        let answer = self.coordinator(observer).hear(observer, cluster, epoch, mistake);
        let agent = &mut self.state.agents[cluster.at()];
        match answer {
            Answer::Receipt => {}
            Answer::Grant => agent.granted(cluster, observer.at(), agent.fresh(mistake)),
            Answer::Higher(epoch) => agent.see(epoch),
        }
    }

    fn beat(&mut self, cluster: Cluster) {
        let agent = &mut self.state.agents[cluster.at()];
        let number = agent.next_beat;
        agent.next_beat += 1;
        agent.beats.retain(|beat| beat.number != number);
        agent.beats.push(Beat { number, right: agent.fresh(self.mistake) });
        let (incarnation, epoch) = (agent.incarnation, agent.seen);
        self.state.send(Message::Beat { cluster, incarnation, number, epoch, unheard: self.world.hearing });
    }

    /// A heartbeat is no longer in flight to one coordinator.
    fn take(&mut self, message: Message, by: Observer) {
        let Message::Beat { cluster, incarnation, number, epoch, unheard } = message else { return };
        self.state.network.retain(|other| *other != message);
        let unheard = unheard.without(by.0);
        if unheard != Few(0) {
            self.state.send(Message::Beat { cluster, incarnation, number, epoch, unheard });
        }
    }

    fn hear(&mut self, by: Observer, message: Message) {
        let Message::Beat { cluster, incarnation, number, epoch, .. } = message else { return };
        let mistake = self.mistake;
        match self.coordinator(by).hear(by, cluster, epoch, mistake) {
            Answer::Receipt => {}
            Answer::Grant => self.state.send(Message::Grant { cluster, incarnation, number, epoch, by }),
            Answer::Higher(epoch) => self.state.agents[cluster.at()].see(epoch),
        }
    }

    fn receive(&mut self, message: Message) {
        let Message::Grant { cluster, incarnation, number, epoch, by } = message else { return };
        let agent = &mut self.state.agents[cluster.at()];
        let Some(beat) = agent.beats.iter().find(|beat| beat.number == number).copied() else { return };
        if incarnation != agent.incarnation || epoch != agent.seen {
            return;
        }
        // From the agent's own memory of its sending, never from the arrival.
        let age = if self.mistake == Some(Mistake::CountedFromReceipt) { 0 } else { beat.right.age };
        agent.granted(cluster, by.at(), Right { age, ..beat.right });
    }

    fn commit(&mut self, entry: &Entry) {
        let epoch = self.state.head.epoch;
        if !self.state.head.apply(entry, self.mistake) {
            return;
        }
        self.state.fell |= self.state.head.epoch < epoch;
        self.state.tail.push(entry.clone());
        if self.world.faults.coordinators == 0 {
            self.state.head.forget_silence();
        }
        for observer in Observer::ALL {
            if !self.world.lag.has(observer.0) && self.state.coordinator(observer).up {
                self.catch_up(observer);
            }
        }
    }

    fn propose(&mut self, entry: Entry) {
        let takes_time = match entry {
            Entry::Decide { .. } => self.world.decisions,
            Entry::ObserverStarted { .. } | Entry::Vote { .. } | Entry::Withdraw { .. } => self.world.proposals,
            Entry::Change(_) | Entry::TermsConfirmed { .. } | Entry::Intent { .. } => false,
            Entry::Outcome { .. } | Entry::Recovered { .. } => false,
        };
        if takes_time {
            self.state.propose(entry);
        } else {
            self.commit(&entry);
        }
    }

    fn apply(&mut self, observer: Observer) {
        let behind = self.state.behind(observer);
        let next = self.state.tail.len().checked_sub(behind).and_then(|at| self.state.tail.get(at));
        if let Some(entry) = next {
            let leader = self.leads(observer);
            let coordinator = &mut self.state.coordinators[observer.at()];
            coordinator.apply(observer, entry, leader, self.mistake);
            if self.world.faults.coordinators == 0 {
                coordinator.view.forget_silence();
            }
        }
    }

    fn catch_up(&mut self, observer: Observer) {
        while self.state.behind(observer) > 0 {
            let before = self.state.behind(observer);
            self.apply(observer);
            if self.state.behind(observer) == before {
                return;
            }
        }
    }

    /// In worlds without the lease of the new epoch: everything that is promised by the decision happens at once.
    fn promote(&mut self, observer: Observer, cluster: Cluster) {
        let view = &self.state.coordinators[observer.at()].view;
        let (terms, promotable) = (*view.newest(), view.promotable);
        let agent = &mut self.state.agents[cluster.at()];
        self.state.fell |= terms.epoch < agent.seen;
        if terms.number > agent.terms.number {
            agent.store(cluster, terms, self.mistake);
        }
        agent.lead();
        agent.open(promotable, Door::Open);
    }

    /// The asker counts T from asking; the promiser holds for the larger of both D.
    fn promise(&mut self, asker: Cluster, other: Cluster) {
        let asking = self.state.agent(asker).terms.bound;
        let promiser = &mut self.state.agents[other.at()];
        let own = promiser.terms.bound;
        let left = match self.mistake {
            Some(Mistake::PromiseForLease) => lease(asking.max(own), self.mistake),
            Some(Mistake::PromisersOwnBound) => own,
            Some(_) | None => asking.max(own),
        };
        let left = promiser.promised.map_or(left, |known| known.left.max(left));
        promiser.promised = Some(Promised { epoch: promiser.terms.epoch, left });
        let agent = &mut self.state.agents[asker.at()];
        agent.promises[other.at()] = Some(agent.fresh(self.mistake));
        agent.drop_carried(asker);
        if self.world.evidence {
            agent.asked = 0;
        }
        agent.rearm(asker);
    }

    /// A coordinator without its disk has forgotten what it acknowledged: with one that never knew it, it is a majority.
    fn elect(&mut self, voters: Few) {
        let holders: Vec<Observer> =
            voters.iter().map(Observer).filter(|one| self.state.coordinator(*one).up).collect();
        let Some(holder) = holders.first() else { return };
        if !voters.iter().any(|one| self.state.coordinators[usize::from(one)].wiped) {
            return;
        }
        let oldest = self.world.oldest();
        let view = self.state.coordinator(*holder).view.clone();
        self.state.fell |= view.epoch < self.state.head.epoch;
        self.state.head = view.clone();
        self.state.tail.clear();
        self.state.pending.clear();
        for observer in Observer::ALL {
            let coordinator = self.coordinator(observer);
            if coordinator.wiped && voters.has(observer.0) {
                *coordinator = Coordinator { running: 0, at_epoch: 0, ..Coordinator::new(view.clone(), oldest) };
            } else if !voters.has(observer.0) {
                coordinator.up = false;
            }
        }
    }

    /// The backup is the beginning of the world.
    fn restore(&mut self) {
        self.state.faults.restorations -= 1;
        let mut head = State::first(self.world, self.mistake).head;
        head.restoration = 1;
        head.recovering = true;
        head.confirmed = false;
        let oldest = self.world.oldest();
        for coordinator in &mut self.state.coordinators {
            let fresh = Coordinator::new(head.clone(), oldest);
            *coordinator = Coordinator { running: 0, at_epoch: 0, ..fresh };
        }
        self.state.head = head;
        self.state.tail.clear();
        self.state.pending.clear();
    }
}
