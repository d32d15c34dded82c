//! A state of a world.

use super::agent::{Agent, Door};
use super::entry::Entry;
use super::group::Group;
use super::id::{Cluster, EAST, Few, MANY, Number, Observer, RESOURCES, WEST};
use super::mistake::Mistake;
use super::observer::Coordinator;
use super::terms::{Terms, lease};
use super::world::{Faults, Start, World};

/// Everything that can be told apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// With every committed entry applied.
    pub head: Group,
    /// Committed entries that some coordinator has not applied; the last is the newest.
    pub tail: Vec<Entry>,
    /// Proposals in flight, in order.
    pub pending: Vec<Entry>,
    /// By their numbers.
    pub coordinators: [Coordinator; MANY],
    /// By cluster.
    pub agents: [Agent; MANY],
    /// Heartbeats and grants in flight, in order.
    pub network: Vec<Message>,
    /// What may still go wrong.
    pub faults: Faults,
    /// An epoch fell, or somebody acted for one below the highest he had seen.
    pub fell: bool,
}

/// A message in flight. One that is never received is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// A heartbeat, to the coordinators that have not heard it.
    Beat {
        /// Of whose agent.
        cluster: Cluster,
        /// Of which start.
        incarnation: u8,
        /// Of this start.
        number: u8,
        /// That the agent knows.
        epoch: u8,
        /// By whom.
        unheard: Few,
    },
    /// A grant for it.
    Grant {
        /// To whose agent.
        cluster: Cluster,
        /// For the heartbeat of which start.
        incarnation: u8,
        /// For which.
        number: u8,
        /// At which epoch.
        epoch: u8,
        /// By whom.
        by: Observer,
    },
}

impl State {
    /// The beginning of a world.
    #[must_use]
    pub fn first(world: &World, mistake: Option<Mistake>) -> Self {
        let first = Terms {
            number: Number::default(),
            epoch: 1,
            primary: WEST,
            bound: world.bound,
            clusters: world.clusters,
            resources: Few::first(1),
            voters: world.voters,
            paused: world.start == Start::Paused,
        };
        let mut head = Group {
            restoration: 0,
            index: 0,
            epoch: 1,
            primary: WEST,
            by_fence: false,
            promotable: Few::first(1),
            terms: vec![first],
            confirmed: world.start != Start::Adopted,
            observers: [1; MANY],
            ballots: Default::default(),
            intents: Vec::new(),
            recovering: false,
        };
        let oldest = world.oldest();
        let mut agents = [(); MANY].map(|()| Agent::new(first, oldest));
        agents[WEST.at()].doors = [Door::Open, if world.second { Door::Open } else { Door::Closed }];
        match world.start {
            Start::Leased | Start::Paused => {
                let west = &mut agents[WEST.at()];
                west.lead();
                for observer in Observer::ALL.into_iter().filter(|one| world.hearing.has(one.0)) {
                    west.granted(WEST, observer.at(), west.fresh(mistake));
                }
            }
            Start::Adopted => {}
            Start::Decided => {
                let number = Number { restoration: 0, index: 1 };
                let clusters = first.clusters.without(WEST.0);
                let terms = Terms { number, epoch: 2, primary: EAST, clusters, ..first };
                head.terms.push(terms);
                (head.index, head.epoch, head.primary) = (1, 2, EAST);
                agents[WEST.at()].lose_power();
                agents[EAST.at()].store(EAST, terms, mistake);
            }
        }
        let running = matches!(world.start, Start::Leased | Start::Paused);
        let deaf = Observer::ALL.into_iter().filter(|one| world.voting.has(one.0) && !world.hearing.has(one.0));
        let deaf: Vec<Observer> = deaf.filter(|_| running).collect();
        for observer in &deaf {
            let silence = if world.faults.coordinators > 0 { oldest } else { 0 };
            head.stand(WEST, *observer, silence);
        }
        let mut coordinators = [(); MANY].map(|()| Coordinator::new(head.clone(), oldest));
        for (observer, coordinator) in Observer::ALL.into_iter().zip(&mut coordinators) {
            for deaf in deaf.iter().filter(|_| world.leaders.has(observer.0)) {
                coordinator.waited[WEST.at()][deaf.at()] = oldest;
            }
            if deaf.contains(&observer) {
                coordinator.watches[WEST.at()].number = 1;
            }
            if running {
                let granted = if world.hearing.has(observer.0) { 0 } else { oldest };
                coordinator.watches[WEST.at()].granted = granted;
            }
            if matches!(world.start, Start::Adopted | Start::Decided) {
                coordinator.at_epoch = 0;
            }
        }
        debug_assert!(lease(world.bound, mistake) > 0);
        Self {
            head,
            tail: Vec::new(),
            pending: Vec::new(),
            coordinators,
            agents,
            network: Vec::new(),
            faults: world.faults,
            fell: false,
        }
    }

    /// One coordinator.
    #[must_use]
    pub const fn coordinator(&self, observer: Observer) -> &Coordinator {
        &self.coordinators[observer.0 as usize]
    }

    /// One agent.
    #[must_use]
    pub const fn agent(&self, cluster: Cluster) -> &Agent {
        &self.agents[cluster.0 as usize]
    }

    /// Entries that a coordinator has not applied.
    #[must_use]
    pub fn behind(&self, observer: Observer) -> usize {
        usize::from(self.head.index.saturating_sub(self.coordinator(observer).view.index))
    }

    /// S1: at most one cluster acknowledges writes of each database.
    #[must_use]
    pub fn has_one_writer(&self) -> bool {
        (0..RESOURCES).all(|resource| {
            let open = |agent: &&Agent| agent.machine && agent.doors[resource] == Door::Open;
            self.agents.iter().filter(open).count() <= 1
        })
    }

    /// Puts a proposal in flight.
    pub fn propose(&mut self, entry: Entry) {
        if let Err(at) = self.pending.binary_search(&entry) {
            self.pending.insert(at, entry);
        }
    }

    /// Puts a message in flight.
    pub fn send(&mut self, message: Message) {
        if let Err(at) = self.network.binary_search(&message) {
            self.network.insert(at, message);
        }
    }

    /// A word that was overtaken, a start that was, and a decision that has become invalid stay so: epochs, numbers and
    /// terms only rise. Only a mistake revives them.
    fn forget_proposals(&mut self, mistake: Option<Mistake>) {
        if !mistake.is_some_and(Mistake::revives) {
            let head = &self.head;
            self.pending.retain(|entry| entry.has_effect(head, mistake));
        }
    }

    /// Forgets what can no longer have an effect, so that states that differ in nothing else are one.
    pub fn tidy(&mut self, mistake: Option<Mistake>) {
        self.forget_proposals(mistake);
        let most = Observer::ALL.into_iter().map(|one| self.behind(one)).max().unwrap_or(0);
        let done = self.tail.len().saturating_sub(most);
        self.tail.drain(..done);
        let agents = &self.agents;
        self.network.retain(|message| {
            let (cluster, incarnation, number) = match *message {
                Message::Beat { cluster, incarnation, number, .. } => (cluster, incarnation, number),
                Message::Grant { cluster, incarnation, number, .. } => (cluster, incarnation, number),
            };
            let agent = &agents[cluster.at()];
            let known = agent.beats.iter().any(|beat| beat.number == number);
            let coming = number >= agent.next_beat;
            incarnation == agent.incarnation && (known || coming)
        });
        for (cluster, agent) in (0..).zip(&mut self.agents) {
            let mut mine = self.network.iter().filter(|message| match message {
                Message::Beat { cluster: of, .. } | Message::Grant { cluster: of, .. } => of.0 == cluster,
            });
            if agent.beats.is_empty() && mine.next().is_none() {
                agent.next_beat = 0;
            }
        }
    }
}
