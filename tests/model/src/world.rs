//! The worlds: each the same protocol, with some of its parts and some faults switched on, and small bounds.
//!
//! One world with everything in it could not be searched. What a world leaves out it replaces by something that allows
//! more: where a promotion needs no lease, a target opens at once when the decision is committed; where answers are not
//! in flight, a grant arrives in the instant of its heartbeat's sending, which is the longest lease it could give.
//!
//! Coordinators differ in nothing but their names, so each has a part of its own: c1 leads and votes, c3 grants, c2 does
//! both. Nothing is lost by it. A lease needs two grants and a decision two votes, so one coordinator at least does both.
//! Were they the same two, then c3 in the place of one of them could grant as that one did, bound by no vote of its own.
//! And since c1 never hears the primary, its vote may stand from the beginning, old enough for any decision.

use super::entry::Change;
use super::id::{Cluster, EAST, Few, NORTH, SUSPICION, Ticks, WEST};

/// What is in a world.
#[derive(Clone, Debug)]
pub struct World {
    /// For the command line.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Listed at the beginning.
    pub clusters: Few,
    /// Those that coordinators may vote on.
    pub watched: Few,
    /// D at the beginning.
    pub bound: Ticks,
    /// The largest D that occurs.
    pub longest: Ticks,
    /// V at the beginning.
    pub voters: Few,
    /// How it begins.
    pub start: Start,
    /// The old primary's second database is open, and not guarded.
    pub second: bool,
    /// Changes that an operator may make.
    pub changes: &'static [Change],
    /// Coordinators that may lead. One is enough where they differ in nothing but their names.
    pub leaders: Few,
    /// Coordinators that hear the primary's agent.
    pub hearing: Few,
    /// Coordinators that vote.
    pub voting: Few,
    /// Coordinators that may apply entries later than they are committed.
    pub lag: Few,
    /// Votes and withdrawals take time, and may be lost, doubled and overtake; else they are committed at once.
    pub proposals: bool,
    /// The same for decisions.
    pub decisions: bool,
    /// Coordinators withdraw votes.
    pub withdrawals: bool,
    /// Heartbeats and grants take time, and may be lost, doubled and overtake.
    pub in_flight: bool,
    /// A target needs the lease of its epoch.
    pub leased: bool,
    /// Agents of other clusters promise.
    pub promises: bool,
    /// Signs of life hold a decision.
    pub evidence: bool,
    /// Fences are commanded.
    pub commands: bool,
    /// Self-fences are lifted.
    pub lifts: bool,
    /// A commit is held by two coordinators, and the third learns of it later.
    pub replicas: bool,
    /// Each state is asked whether the application goes on from it (L1).
    pub live: bool,
    /// It is asked with c3 gone for good: the two that are left are the majority, and do everything.
    pub two_left: bool,
    /// How often what may go wrong.
    pub faults: Faults,
    /// Entries with an effect.
    pub most_entries: u8,
    /// Proposals in flight.
    pub most_pending: usize,
    /// The highest epoch.
    pub most_epoch: u8,
    /// Words of one coordinator on one cluster.
    pub most_words: u8,
    /// Steps asked for.
    pub most_intents: usize,
}

/// How a world begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// West is open under a lease that all coordinators have just granted, and its terms are confirmed.
    Leased,
    /// As before, in a confirmed pause.
    Paused,
    /// West is open and adopted; it has no lease yet and nothing is confirmed.
    Adopted,
    /// West is gone; east was decided on and has opened nothing yet.
    Decided,
}

/// How often what may go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// Clocks that run slow or fast by M. Within one D one may; what happens in one D is what matters to a lease and
    /// the wait for its end.
    pub drifts: u8,
    /// Coordinator processes.
    pub coordinators: u8,
    /// Agent processes.
    pub agents: u8,
    /// Guard processes.
    pub guards: u8,
    /// Machines of clusters.
    pub machines: u8,
    /// Disks of coordinators.
    pub disks: u8,
    /// Restorations of the group from a backup.
    pub restorations: u8,
    /// Entries that are committed twice, heartbeats that are heard twice, grants that arrive twice.
    pub doubles: u8,
}

const NOTHING: World = World {
    name: "",
    about: "",
    clusters: Few::first(2),
    watched: Few::first(1),
    bound: 4,
    longest: 4,
    voters: Few::first(3),
    start: Start::Leased,
    second: false,
    changes: &[],
    leaders: Few::first(1),
    hearing: Few(0b110),
    voting: Few(0b011),
    lag: Few(0),
    proposals: false,
    decisions: false,
    withdrawals: false,
    in_flight: false,
    leased: false,
    promises: false,
    evidence: false,
    commands: false,
    lifts: false,
    replicas: false,
    live: false,
    two_left: false,
    faults: Faults {
        drifts: 1,
        coordinators: 0,
        agents: 0,
        guards: 0,
        machines: 0,
        disks: 0,
        restorations: 0,
        doubles: 0,
    },
    most_entries: 4,
    most_pending: 2,
    most_epoch: 2,
    most_words: 1,
    most_intents: 2,
};

const NO_FAULTS: Faults = NOTHING.faults;

impl World {
    /// All of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        vec![
            Self {
                name: "votes",
                about: "votes late, doubled and overtaken by their withdrawals; a coordinator restarts",
                lag: Few(0b010),
                proposals: true,
                withdrawals: true,
                faults: Faults { coordinators: 1, doubles: 1, drifts: 0, ..NO_FAULTS },
                most_entries: 6,
                most_pending: 3,
                most_words: 3,
                live: true,
                two_left: true,
                ..NOTHING
            },
            Self {
                name: "decisions",
                about: "decisions late, while the votes they rest on are withdrawn and cast anew",
                decisions: true,
                lifts: true,
                withdrawals: true,
                most_entries: 7,
                most_words: 5,
                live: true,
                ..NOTHING
            },
            Self {
                name: "lease",
                about: "heartbeats and grants in flight and doubled, clocks that drift, an agent and a guard that die",
                in_flight: true,
                faults: Faults { agents: 1, guards: 1, doubles: 1, ..NO_FAULTS },
                ..NOTHING
            },
            Self {
                name: "across",
                about: "terms change while a decision is in flight",
                decisions: true,
                lifts: true,
                changes: &[Change::Voters(Few(0b100))],
                most_entries: 3,
                live: true,
                ..NOTHING
            },
            Self {
                name: "lowered",
                about: "failoverAfter is lowered and raised, step by step",
                longest: 6,
                changes: &[Change::Bound(4), Change::Bound(6)],
                most_entries: 6,
                live: true,
                ..NOTHING
            },
            Self {
                name: "voters",
                about: "voters leave one by one, before the primary's agent has confirmed",
                changes: &[Change::Voters(Few(0b110)), Change::Voters(Few(0b100))],
                most_entries: 5,
                hearing: Few(0b011),
                voting: Few(0b110),
                leaders: Few(0b100),
                lag: Few(0b010),
                live: true,
                ..NOTHING
            },
            Self {
                name: "joining",
                about: "voters join one by one, before the primary's agent has confirmed",
                voters: Few(0b100),
                changes: &[Change::Voters(Few(0b110)), Change::Voters(Few(0b111))],
                most_entries: 5,
                lag: Few(0b010),
                live: true,
                ..NOTHING
            },
            Self {
                name: "pause",
                about: "a confirmed pause is lifted, and begins again",
                start: Start::Paused,
                changes: &[Change::Pause(false), Change::Pause(true)],
                most_entries: 6,
                live: true,
                ..NOTHING
            },
            Self {
                name: "resources",
                about: "a database that the primary's agent does not guard yet",
                second: true,
                changes: &[Change::GuardSecond],
                most_entries: 5,
                live: true,
                ..NOTHING
            },
            Self {
                name: "adoption",
                about: "the first lease of a primary that nobody guards yet",
                start: Start::Adopted,
                most_entries: 4,
                faults: Faults { agents: 1, ..NO_FAULTS },
                live: true,
                ..NOTHING
            },
            Self {
                name: "promises",
                about: "the lease goes on by the promises of other agents, while the decision falls",
                promises: true,
                longest: 6,
                bound: 6,
                changes: &[Change::Bound(4), Change::Bound(6)],
                most_entries: 4,
                faults: Faults { drifts: 0, ..NO_FAULTS },
                ..NOTHING
            },
            Self {
                name: "clusters",
                about: "a cluster is listed that the primary has asked for no promise",
                promises: true,
                changes: &[Change::List(NORTH)],
                most_entries: 3,
                faults: Faults { drifts: 0, ..NO_FAULTS },
                live: true,
                ..NOTHING
            },
            Self {
                name: "evidence",
                about: "signs of life hold a decision, and a fenced agent gives none",
                promises: true,
                evidence: true,
                live: true,
                ..NOTHING
            },
            Self {
                name: "numbers",
                about: "votes on two clusters at once",
                watched: Few::first(2),
                proposals: true,
                withdrawals: true,
                live: true,
                most_entries: 5,
                most_pending: 4,
                most_words: 2,
                faults: Faults { drifts: 0, ..NO_FAULTS },
                ..NOTHING
            },
            Self {
                name: "promotion",
                about: "a target stops before it opens, is voted lost, and wakes",
                clusters: Few::first(3),
                watched: Few(0b010),
                start: Start::Decided,
                leased: true,
                most_entries: 6,
                most_epoch: 3,
                most_intents: 3,
                faults: Faults { drifts: 0, ..NO_FAULTS },
                live: true,
                two_left: true,
                ..NOTHING
            },
            Self {
                name: "fences",
                about: "fences and their undoing, commanded and not; steps late and doubled",
                commands: true,
                lifts: true,
                most_entries: 6,
                most_intents: 4,
                faults: Faults { agents: 1, drifts: 0, ..NO_FAULTS },
                live: true,
                ..NOTHING
            },
            Self {
                name: "machines",
                about: "machines die and come back, with and without their agents",
                lifts: true,
                faults: Faults { machines: 1, ..NO_FAULTS },
                promises: true,
                live: true,
                ..NOTHING
            },
            Self {
                name: "disks",
                about: "a coordinator loses its disk",
                replicas: true,
                proposals: true,
                hearing: Few::first(3),
                lag: Few(0b100),
                lifts: true,
                most_entries: 3,
                faults: Faults { disks: 1, drifts: 0, ..NO_FAULTS },
                ..NOTHING
            },
            Self {
                name: "restoration",
                about: "the group is restored from a backup that knows less than the agents",
                longest: 6,
                changes: &[Change::Bound(6)],
                most_entries: 6,
                most_epoch: 4,
                faults: Faults { restorations: 1, ..NO_FAULTS },
                live: true,
                ..NOTHING
            },
            Self {
                name: "backup",
                about: "the group is restored from a backup that does not know that another cluster has taken over",
                lifts: true,
                most_epoch: 4,
                faults: Faults { restorations: 1, drifts: 0, ..NO_FAULTS },
                live: true,
                ..NOTHING
            },
        ]
    }

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|world| world.name == name)
    }

    /// The same with wider bounds: minutes or hours instead of seconds.
    #[must_use]
    pub fn deeper(mut self) -> Self {
        self.most_entries += 2;
        self.most_pending += 1;
        self.most_words += 1;
        self.faults.drifts += 1;
        self.leaders = Few::first(3);
        self.hearing = Few::first(3);
        self.voting = Few::first(3);
        self
    }

    /// The same without faults and narrow bounds, for what follows when all heals. Where those that vote are no majority
    /// of the voters, or one of them may be lost for good, every coordinator does everything; where c3 is gone, the two
    /// others hear.
    #[must_use]
    pub fn healed(&self) -> Self {
        let apart = self.faults.disks == 0 && self.all_voters().all(|voters| self.voting.is_majority_of(voters));
        Self {
            changes: &[],
            lifts: self.lifts || self.leased,
            leaders: if apart { self.leaders } else { Few::first(3) },
            voting: if apart { self.voting } else { Few::first(3) },
            hearing: if self.two_left { Few::first(3) } else { self.hearing },
            most_entries: 100,
            most_pending: 20,
            most_words: 100,
            most_epoch: 100,
            most_intents: 100,
            ..self.clone()
        }
    }

    /// V at the beginning, and as it may become.
    fn all_voters(&self) -> impl Iterator<Item = Few> {
        let changed = self.changes.iter().filter_map(|change| match change {
            Change::Voters(voters) => Some(*voters),
            Change::Bound(_) | Change::List(_) | Change::GuardSecond | Change::Pause(_) => None,
        });
        std::iter::once(self.voters).chain(changed)
    }

    /// The largest age that is told from older ones.
    #[must_use]
    pub const fn oldest(&self) -> Ticks {
        if self.evidence { self.longest + EVIDENCE } else { self.longest }
    }

    /// The first primary.
    #[must_use]
    pub const fn first(&self) -> Cluster {
        match self.start {
            Start::Leased | Start::Paused | Start::Adopted => WEST,
            Start::Decided => EAST,
        }
    }
}

/// Three intervals: so much longer than D signs of life may hold a decision.
pub const EVIDENCE: Ticks = 3 * SUSPICION;
