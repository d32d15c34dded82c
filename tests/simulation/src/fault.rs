//! What goes wrong, and when: drawn from the seed before the run begins.

use std::fmt;

use crate::dice::Dice;
use crate::network::MachineId;

mod aimed;
mod by_hand;
mod handover;
mod kind;

pub use kind::Kind;

pub use aimed::Aim;

/// One thing that goes wrong for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing passes between these machines and all others. One way: only what leaves them is lost.
    Partition {
        /// These.
        machines: Vec<MachineId>,
        /// Only what they send.
        outward: bool,
        /// Only what they are sent.
        inward: bool,
    },
    /// As a partition, on and off every so many milliseconds.
    Flapping {
        /// These.
        machines: Vec<MachineId>,
        /// Half a period.
        every: u64,
    },
    /// A cluster's machine and the coordinators lose each other; the clusters do not.
    Severed {
        /// Which.
        machine: MachineId,
    },
    /// Between two machines.
    Link {
        /// From.
        from: MachineId,
        /// To.
        to: MachineId,
    },
    /// Everything from and to this machine takes longer.
    Slow {
        /// Which.
        machine: MachineId,
        /// By so many milliseconds.
        by: u64,
    },
    /// Only what is sent to this machine takes longer: what it says is heard at once.
    SlowAnswers {
        /// Which.
        machine: MachineId,
        /// By so many milliseconds.
        by: u64,
    },
    /// kill -9; something starts it again at the end.
    Kill {
        /// Which process.
        process: String,
    },
    /// SIGSTOP, and SIGCONT at the end.
    Stop {
        /// Which process.
        process: String,
    },
    /// The machine loses power, and boots at the end.
    PowerOff {
        /// Which.
        machines: Vec<MachineId>,
    },
    /// The database server crashes, and is started again at the end.
    Crash {
        /// Of which cluster.
        cluster: String,
    },
    /// Somebody opens a standby's database by hand, behind the product's back.
    PromotedByHand {
        /// Of which cluster.
        cluster: String,
    },
    /// The database server takes longer over everything.
    Sluggish {
        /// Of which cluster.
        cluster: String,
        /// By so many milliseconds.
        by: u64,
    },
    /// To open it takes the database server longer, and nothing else does.
    SlowOpening {
        /// Of which cluster.
        cluster: String,
        /// By so many milliseconds.
        by: u64,
    },
    /// The wall clock is set.
    WallClock {
        /// Of which machine.
        machine: MachineId,
        /// By so many milliseconds.
        by: i64,
    },
    /// Leadership is handed to another coordinator.
    Transfer {
        /// To whom.
        to: u64,
    },
    /// A coordinator's disk is lost with the machine; it comes back empty under its old id.
    DiskLoss {
        /// Which.
        coordinator: u64,
    },
    /// A coordinator's disk is copied now; its machine dies and comes back with the copy at the end.
    OldDisk {
        /// Which.
        coordinator: u64,
    },
    /// An operator makes a backup of the group.
    Backup,
    /// All coordinators lose what they had; at the end the group is restored from the backup.
    Restored,
    /// An operator pauses the application, and resumes it at the end.
    Paused,
    /// An operator asks for a planned switchover.
    Switchover {
        /// To which cluster.
        to: String,
    },
    /// An operator takes a cluster back that is not the primary.
    Rejoin {
        /// Which.
        cluster: String,
    },
    /// An operator adds the spare coordinator, and then removes another.
    Replace {
        /// Whom.
        leaves: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A fault with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// From then on, in milliseconds since the faults began.
    pub from: u64,
    /// Until then.
    pub until: u64,
    /// What.
    pub fault: Fault,
}

/// What may go wrong in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Everything.
    Any,
    /// Coordinators only, and the links between them and everyone: nothing may come of it (S6).
    CoordinatorsOnly,
    /// The primary's region is lost for good, and other things happen beside it.
    RegionLost,
    /// Nothing but the loss of the primary's region.
    Plain,
    /// The primary is far away, its database fences as slowly as is allowed, and then nobody reaches its machine: a lease
    /// that ended late would show.
    Late,
    /// Somebody opens a standby by hand, and nothing else happens to its machine but that it loses the coordinators.
    ByHand,
    /// Whoever is to open loses the coordinators in that very moment, and the old side comes back.
    Handover,
    /// What would show that one rule is missing.
    Aimed(Aim),
}

impl Manner {
    /// Draws one. What came later is drawn from streams of its own, so that the runs before it stay what they were.
    pub(super) fn draw(dice: &mut Dice, seed: u64, spare: bool) -> Self {
        match dice.below(10) {
            0 => Self::Plain,
            1 => Self::CoordinatorsOnly,
            2..=4 => Self::RegionLost,
            5 => Self::Late,
            _ if !spare && by_hand::is_drawn(seed) => Self::ByHand,
            _ if handover::is_drawn(seed) => Self::Handover,
            _ => Self::Any,
        }
    }
}

/// Which machines there are.
pub(super) struct Ground<'a> {
    /// Coordinators stand on the machines before the clusters'.
    pub(super) coordinators: usize,
    /// The last of them is a spare one that does not belong to the group yet.
    pub(super) spare: bool,
    /// Their names, in the order of their machines.
    pub(super) clusters: &'a [String],
    /// D, in milliseconds.
    pub(super) bound: u64,
}

impl Ground<'_> {
    fn region(&self, index: usize) -> Vec<MachineId> {
        let cluster = (index < self.clusters.len()).then_some(self.coordinators + index);
        std::iter::once(index).chain(cluster).collect()
    }

    fn machines(&self) -> usize {
        self.coordinators + self.clusters.len()
    }

    /// The highest id of those that form the group in the beginning.
    fn members(&self) -> u64 {
        self.coordinators as u64 - u64::from(self.spare)
    }
}

/// Until then faults begin.
const SPAN: u64 = 16_000;

/// Draws the faults of a run.
pub(super) fn plan(dice: &mut Dice, manner: Manner, ground: &Ground<'_>) -> Vec<Planned> {
    match manner {
        Manner::Late => return late(dice, ground),
        Manner::ByHand => return by_hand::draw(dice, ground),
        Manner::Handover => return handover::draw(dice, ground),
        Manner::Aimed(aim) => return aimed::draw(aim, dice, ground),
        Manner::Any | Manner::CoordinatorsOnly | Manner::RegionLost | Manner::Plain => {}
    }
    let mut planned = Vec::new();
    if matches!(manner, Manner::RegionLost | Manner::Plain) {
        let from = if manner == Manner::Plain { 500 } else { dice.below(SPAN / 2) };
        let machines = if dice.percent(60) { ground.region(0) } else { vec![ground.coordinators] };
        planned.push(Planned { from, until: u64::MAX, fault: Fault::PowerOff { machines } });
    }
    if manner == Manner::Plain {
        return planned;
    }
    // Whoever fences is one of two: they do not fail together.
    let mut helpers = vec![0; ground.clusters.len()];
    let mut lost_disk = false;
    if ground.spare {
        let (from, leaves) = (dice.below(SPAN / 2), dice.between(1, ground.members()));
        planned.push(Planned { from, until: from, fault: Fault::Replace { leaves } });
    }
    for _ in 0..dice.between(1, 7) {
        let from = dice.below(SPAN);
        let long = match dice.below(10) {
            0..=3 => dice.between(50, 900),
            4..=7 => dice.between(900, 4_000),
            _ => dice.between(4_000, 12_000),
        };
        let fault = match manner {
            Manner::CoordinatorsOnly => among_coordinators(dice, ground),
            Manner::Any
            | Manner::RegionLost
            | Manner::Plain
            | Manner::Late
            | Manner::ByHand
            | Manner::Handover
            | Manner::Aimed(_) => anywhere(dice, ground),
        };
        match &fault {
            Fault::Kill { process } | Fault::Stop { process } if !process.starts_with("coordinator") => {
                let cluster = ground.clusters.iter().position(|name| process.ends_with(&format!("-{name}")));
                let Some(busy) = cluster.and_then(|index| helpers.get_mut(index)) else { continue };
                if from < *busy {
                    continue;
                }
                *busy = from + long + 4_000;
            }
            Fault::DiskLoss { .. } | Fault::OldDisk { .. } if std::mem::replace(&mut lost_disk, true) => continue,
            _ => {}
        }
        planned.push(Planned { from, until: from + long, fault });
    }
    planned.sort_by_key(|planned| planned.from);
    planned
}

/// Each of the two ways to fence may take half of the budget, a twelfth of D.
fn late(dice: &mut Dice, ground: &Ground<'_>) -> Vec<Planned> {
    let machine = ground.coordinators;
    let by = dice.between(ground.bound / 20, ground.bound / 12 - 35);
    let sluggish = Fault::Sluggish { cluster: ground.clusters[0].clone(), by };
    let mut faults = vec![(0, sluggish)];
    if dice.percent(50) {
        faults.push((dice.below(2_000), Fault::SlowAnswers { machine, by: dice.between(20, ground.bound / 3) }));
    }
    let from = dice.between(3_000, SPAN / 2);
    let outward = dice.percent(80);
    faults.push((from, Fault::Partition { machines: vec![machine], outward, inward: !outward || dice.percent(50) }));
    let until = from + dice.between(2 * ground.bound, 2 * ground.bound + 4_000);
    faults.into_iter().map(|(from, fault)| Planned { from, until, fault }).collect()
}

fn among_coordinators(dice: &mut Dice, ground: &Ground<'_>) -> Fault {
    let id = dice.between(1, ground.coordinators as u64);
    let machine = usize::try_from(id - 1).unwrap_or(0);
    match dice.below(8) {
        0 | 1 => Fault::Kill { process: format!("coordinator-{id}") },
        2 => Fault::Stop { process: format!("coordinator-{id}") },
        3 => Fault::Partition { machines: vec![machine], outward: true, inward: true },
        4 => Fault::PowerOff { machines: vec![machine] },
        5 => Fault::PowerOff { machines: (0..ground.coordinators).collect() },
        6 => Fault::Transfer { to: id },
        _ => Fault::Link { from: machine, to: usize::try_from(dice.below(ground.coordinators as u64)).unwrap_or(0) },
    }
}

fn anywhere(dice: &mut Dice, ground: &Ground<'_>) -> Fault {
    let all = ground.machines() as u64;
    let machine = |dice: &mut Dice| usize::try_from(dice.below(all)).unwrap_or(0);
    let cluster = |dice: &mut Dice| {
        // The primary of the beginning is the most worthwhile.
        let index =
            if dice.percent(60) { 0 } else { usize::try_from(dice.below(ground.clusters.len() as u64)).unwrap_or(0) };
        (index, ground.clusters[index].clone())
    };
    if dice.percent(20) {
        return by_operator(dice, ground);
    }
    match dice.below(24) {
        20 | 21 => Fault::Severed { machine: ground.coordinators + cluster(dice).0 },
        22 => Fault::Severed { machine: ground.coordinators },
        0 | 1 => {
            let region = ground.region(usize::try_from(dice.below(ground.coordinators as u64)).unwrap_or(0));
            Fault::Partition { machines: region, outward: true, inward: true }
        }
        2 => Fault::Partition { machines: ground.region(0), outward: dice.percent(50), inward: true },
        3 => {
            let (index, _) = cluster(dice);
            let outward = dice.percent(70);
            Fault::Partition {
                machines: vec![ground.coordinators + index],
                outward,
                inward: !outward || dice.percent(60),
            }
        }
        4 => {
            let (index, _) = cluster(dice);
            Fault::Flapping { machines: vec![ground.coordinators + index], every: dice.between(100, 1_500) }
        }
        5 | 6 => Fault::Link { from: machine(dice), to: machine(dice) },
        7 => Fault::Slow { machine: machine(dice), by: dice.between(50, 400) },
        8 => Fault::Kill { process: format!("agent-{}", cluster(dice).1) },
        9 => Fault::Stop { process: format!("agent-{}", cluster(dice).1) },
        10 => Fault::Kill { process: format!("guard-{}", cluster(dice).1) },
        11 => Fault::Stop { process: format!("guard-{}", cluster(dice).1) },
        12 => Fault::PowerOff { machines: vec![ground.coordinators + cluster(dice).0] },
        13 => Fault::Crash { cluster: cluster(dice).1 },
        14 => Fault::Sluggish { cluster: cluster(dice).1, by: dice.between(20, 600) },
        15 => {
            let by = i64::try_from(dice.between(1, 600_000)).unwrap_or(1);
            Fault::WallClock { machine: machine(dice), by: if dice.percent(50) { by } else { -by } }
        }
        16 if dice.percent(30) => Fault::DiskLoss { coordinator: dice.between(1, ground.members()) },
        17 if dice.percent(30) => Fault::OldDisk { coordinator: dice.between(1, ground.members()) },
        _ => among_coordinators(dice, ground),
    }
}

fn by_operator(dice: &mut Dice, ground: &Ground<'_>) -> Fault {
    let cluster = dice.one(ground.clusters).clone();
    match dice.below(6) {
        0 => Fault::Paused,
        1..=3 => Fault::Switchover { to: cluster },
        _ => Fault::Rejoin { cluster },
    }
}
