//! What a seed stands for: the same seed, the same faults in the same order for the same time.

use std::time::Duration;

use regent_deploy::net::Link;

use crate::stage::{CENTRAL, NORTH, WEST};

/// A fault of a process; each names its region.
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
    /// SIGSTOP to PostgreSQL.
    FreezePostgres(usize),
    /// SIGSTOP to Redis.
    FreezeRedis(usize),
    /// SIGKILL to everything in the region.
    LoseRegion(usize),
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
            | Self::LoseRegion(region) => region,
        }
    }

    /// What it is called in a tally.
    #[must_use]
    pub fn kind(self) -> String {
        let text = format!("{self:?}");
        text.split('(').next().unwrap_or_default().to_owned()
    }
}

/// What fails together, how long, and how long nothing fails after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act {
    /// A process.
    pub process: Option<Fault>,
    /// Everything around a region, both ways.
    pub network: Option<(usize, Link)>,
    /// How long.
    pub lasts: Duration,
    /// How long nothing fails then.
    pub rest: Duration,
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
}

impl Act {
    fn drawn(dice: &mut Dice, failover_after: Duration) -> Self {
        let kind = dice.below(4);
        let process = (kind != 0).then(|| drawn(dice));
        let network = (kind <= 1).then(|| {
            let region = [WEST, CENTRAL, NORTH][dice.index(3)];
            let link = match dice.below(4) {
                0 => Link::Lossy { percent: 30 },
                1 => Link::Slow { millis: 150, percent: 5 },
                _ => Link::Cut,
            };
            (region, link)
        });
        // From a blink to long enough for a failover.
        let lasts = failover_after.mul_f64(f64::from(dice.small(25)) / 10.0) + Duration::from_millis(100);
        let rest = failover_after.mul_f64(f64::from(dice.small(15)) / 10.0) + Duration::from_millis(100);
        Self { process, network, lasts, rest }
    }
}

fn drawn(dice: &mut Dice) -> Fault {
    let (any, cluster) = ([WEST, CENTRAL, NORTH][dice.index(3)], [WEST, CENTRAL][dice.index(2)]);
    match dice.below(11) {
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
        let kinds: BTreeSet<String> = acts.iter().filter_map(|act| act.process).map(Fault::kind).collect();
        assert_eq!(kinds.len(), 11, "{kinds:?}");
        assert!(acts.iter().any(|act| matches!(act.network, Some((_, Link::Cut)))));
        assert!(acts.iter().any(|act| matches!(act.network, Some((_, Link::Lossy { .. })))));
        assert!(acts.iter().any(|act| matches!(act.network, Some((_, Link::Slow { .. })))));
    }
}
