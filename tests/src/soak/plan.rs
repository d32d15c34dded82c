//! What a seed stands for: the same seed, the same faults in the same order for the same time.

use std::collections::BTreeMap;
use std::time::Duration;

use regent_deploy::config::{CACHE, DATABASE};
use regent_deploy::net::Link;
use regent_deploy::world::REGIONS;

use crate::stage::{CENTRAL, NORTH, WEST};

/// A disk of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disk {
    /// The coordinator's.
    Coordinator,
    /// The agent's.
    Agent,
    /// PostgreSQL's.
    Postgres,
    /// Redis's.
    Redis,
}

impl Disk {
    /// Its folder in the world, and its megabytes: room for what a round writes there.
    #[must_use]
    pub fn of(self, region: usize) -> (String, u32) {
        let region = REGIONS[region].0;
        match self {
            Self::Coordinator => (format!("{region}/coordinator"), 48),
            Self::Agent => (format!("{region}/agent"), 16),
            Self::Postgres => (format!("{region}/{DATABASE}/data"), 320),
            Self::Redis => (format!("{region}/{CACHE}/data"), 64),
        }
    }
}

/// A fault of a process, a disk or a clock; each names its region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to the coordinator.
    KillCoordinator(usize),
    /// SIGSTOP to the coordinator.
    FreezeCoordinator(usize),
    /// SIGKILL to the agent; its guard lives.
    KillAgent(usize),
    /// SIGSTOP to the agent; its guard lives.
    FreezeAgent(usize),
    /// SIGKILL to the guard.
    KillGuard(usize),
    /// SIGSTOP to the guard.
    FreezeGuard(usize),
    /// SIGKILL to PostgreSQL, which cannot be started until the end of the fault.
    KillPostgres(usize),
    /// SIGKILL to Redis, which cannot be started until the end of the fault.
    KillRedis(usize),
    /// SIGSTOP to PostgreSQL; in the end what does not run is started.
    FreezePostgres(usize),
    /// SIGSTOP to Redis; in the end what does not run is started.
    FreezeRedis(usize),
    /// SIGSTOP to PostgreSQL; in the end it is resumed, and what was ended meanwhile stays so for a while.
    SuspendPostgres(usize),
    /// The same with Redis.
    SuspendRedis(usize),
    /// SIGKILL to everything in the region.
    LoseRegion(usize),
    /// No free byte on a disk.
    FillDisk(usize, Disk),
    /// The wall clock of the region, by so many seconds.
    StepClock(usize, i64),
}

impl Fault {
    /// Where.
    #[must_use]
    pub const fn region(self) -> usize {
        match self {
            Self::KillCoordinator(region)
            | Self::FreezeCoordinator(region)
            | Self::KillAgent(region)
            | Self::FreezeAgent(region)
            | Self::KillGuard(region)
            | Self::FreezeGuard(region)
            | Self::KillPostgres(region)
            | Self::KillRedis(region)
            | Self::FreezePostgres(region)
            | Self::FreezeRedis(region)
            | Self::SuspendPostgres(region)
            | Self::SuspendRedis(region)
            | Self::LoseRegion(region)
            | Self::FillDisk(region, _)
            | Self::StepClock(region, _) => region,
        }
    }

    /// What it is called in a tally.
    #[must_use]
    pub fn kind(self) -> String {
        let text = format!("{self:?}");
        let kind = text.split('(').next().unwrap_or_default();
        if let Self::FillDisk(_, disk) = self { format!("{kind} {disk:?}") } else { kind.to_owned() }
    }
}

/// In which direction a fault of the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ways {
    /// Both.
    Both,
    /// Away from the region: nobody hears it, and it hears everybody.
    Out,
    /// Towards the region: it hears nobody, and everybody hears it.
    In,
}

/// Everything around a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Which.
    pub region: usize,
    /// What its links to the others are like.
    pub link: Link,
    /// In which direction.
    pub ways: Ways,
}

impl Network {
    /// What it is called in a tally.
    #[must_use]
    pub fn kind(self) -> String {
        match self.ways {
            Ways::Both => format!("{:?}", self.link),
            Ways::Out | Ways::In => format!("{:?} {:?}", self.link, self.ways),
        }
    }
}

/// What fails together, how long, and how long nothing fails after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act {
    /// A process, a disk or a clock.
    pub fault: Option<Fault>,
    /// The network.
    pub network: Option<Network>,
    /// How long.
    pub lasts: Duration,
    /// How long nothing fails then.
    pub rest: Duration,
    /// The primary is moved by plan then, if the pair is protected.
    pub switchover: bool,
}

/// One round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// D.
    pub failover_after: Duration,
    /// In order.
    pub acts: Vec<Act>,
}

impl Plan {
    /// The plan that a seed stands for.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let failover_after = Duration::from_secs(2 + dice.below(4));
        let acts = (0..3 + dice.below(3)).map(|_| Act::drawn(&mut dice, failover_after)).collect();
        Self { failover_after, acts }
    }

    /// Folders that have to be disks of their own, and their megabytes.
    pub fn disks(&self) -> impl Iterator<Item = (String, u32)> {
        let filled = self.acts.iter().filter_map(|act| match act.fault {
            Some(Fault::FillDisk(region, disk)) => Some(disk.of(region)),
            Some(_) | None => None,
        });
        filled.collect::<BTreeMap<_, _>>().into_iter()
    }

    /// Some wall clock is stepped.
    #[must_use]
    pub fn steps_a_clock(&self) -> bool {
        self.acts.iter().any(|act| matches!(act.fault, Some(Fault::StepClock(..))))
    }
}

impl Act {
    fn drawn(dice: &mut Dice, failover_after: Duration) -> Self {
        let kind = dice.below(4);
        let fault = (kind != 0).then(|| drawn(dice));
        let network = (kind <= 1).then(|| {
            let region = [WEST, CENTRAL, NORTH][dice.index(3)];
            let (link, ways) = match dice.below(6) {
                0 => (Link::Lossy { percent: 30 }, Ways::Both),
                1 => (Link::Slow { millis: 150, percent: 5 }, Ways::Both),
                2 => (Link::Cut, Ways::Out),
                3 => (Link::Cut, Ways::In),
                _ => (Link::Cut, Ways::Both),
            };
            Network { region, link, ways }
        });
        // From a blink to long enough for a failover.
        let lasts = failover_after.mul_f64(f64::from(dice.small(25)) / 10.0) + Duration::from_millis(100);
        let rest = failover_after.mul_f64(f64::from(dice.small(15)) / 10.0) + Duration::from_millis(100);
        let switchover = dice.below(3) == 0;
        Self { fault, network, lasts, rest, switchover }
    }
}

fn drawn(dice: &mut Dice) -> Fault {
    let (any, cluster) = ([WEST, CENTRAL, NORTH][dice.index(3)], [WEST, CENTRAL][dice.index(2)]);
    match dice.below(17) {
        0 => Fault::KillCoordinator(any),
        1 => Fault::FreezeCoordinator(any),
        2 => Fault::KillAgent(cluster),
        3 => Fault::FreezeAgent(cluster),
        4 => Fault::KillGuard(cluster),
        5 => Fault::FreezeGuard(cluster),
        6 => Fault::KillPostgres(cluster),
        7 => Fault::KillRedis(cluster),
        8 => Fault::FreezePostgres(cluster),
        9 => Fault::FreezeRedis(cluster),
        10 => Fault::SuspendPostgres(cluster),
        11 => Fault::SuspendRedis(cluster),
        12 => Fault::FillDisk(any, Disk::Coordinator),
        13 => Fault::FillDisk(cluster, Disk::Agent),
        14 => Fault::FillDisk(cluster, [Disk::Postgres, Disk::Redis][dice.index(2)]),
        // More than any margin for clocks, and little enough that the oracle can still tell reigns by their time.
        15 => Fault::StepClock(any, [-5, 5][dice.index(2)]),
        _ => Fault::LoseRegion(any),
    }
}

/// SplitMix64: small, and the same on every machine.
struct Dice(u64);

impl Dice {
    const fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    const fn below(&mut self, limit: u64) -> u64 {
        self.throw() % limit
    }

    fn index(&mut self, limit: u64) -> usize {
        usize::try_from(self.below(limit)).unwrap_or_default()
    }

    fn small(&mut self, limit: u64) -> u32 {
        u32::try_from(self.below(limit)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_is_a_plan_and_seeds_reach_every_fault() {
        assert_eq!(Plan::of(7), Plan::of(7));
        assert_ne!(Plan::of(7), Plan::of(8));
        let acts: Vec<Act> = (0..200).flat_map(|seed| Plan::of(seed).acts).collect();
        let kinds: BTreeSet<String> = acts.iter().filter_map(|act| act.fault).map(Fault::kind).collect();
        assert_eq!(kinds.len(), 18, "{kinds:?}");
        let networks: BTreeSet<String> = acts.iter().filter_map(|act| act.network).map(Network::kind).collect();
        assert_eq!(networks.len(), 5, "{networks:?}");
        let switchovers = acts.iter().filter(|act| act.switchover).count();
        assert!(switchovers > 0 && switchovers < acts.len());
    }

    #[test]
    fn a_plan_names_the_disks_and_clocks_that_it_needs() {
        let act = |fault| Act { fault: Some(fault), ..Plan::of(1).acts[0] };
        let disks = [Fault::FillDisk(WEST, Disk::Agent), Fault::FillDisk(WEST, Disk::Agent), Fault::KillAgent(WEST)];
        let mut plan = Plan { failover_after: Duration::from_secs(2), acts: disks.map(act).to_vec() };
        assert_eq!(plan.disks().collect::<Vec<_>>(), [("eu-west/agent".to_owned(), 16)]);
        assert!(!plan.steps_a_clock());
        plan.acts.push(act(Fault::StepClock(NORTH, 5)));
        assert!(plan.steps_a_clock());
    }
}
