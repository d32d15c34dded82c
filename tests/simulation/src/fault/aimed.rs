//! Runs that are aimed at one rule each. What would show that it is missing takes several things at the right moments, and
//! is not drawn in thousands of runs in which everything may go wrong. Each is drawn with some room, so that no two runs are
//! the same, and every promise holds in all of them.

use super::{Fault, Ground, Planned};
use crate::dice::Dice;
use crate::network::MachineId;

/// Which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// A grant counts from the sending of the heartbeat: answers to the primary's agent take long, then nothing more is heard
    /// of it, and its database is fenced as slowly as is allowed.
    LateAnswers,
    /// What opens waits for the lease: whoever takes over hears its orders, and is heard no more.
    SilentTarget,
    /// A fence that was not confirmed does not count: a database takes too long over it in a switchover.
    SlowFence,
    /// Who has voted does not grant: the primary's agent is heard by all, hears them too late for a contact both ways, and
    /// the clusters have lost each other.
    LateContact,
    /// Nor before its withdrawal is applied: a coordinator that has voted hears the primary's agent again, and no other
    /// coordinator any more; of those, another one was the last to grant.
    Returning,
}

const ALL: [Aim; 5] = [Aim::LateAnswers, Aim::SilentTarget, Aim::SlowFence, Aim::LateContact, Aim::Returning];

impl Aim {
    /// By turns.
    pub(crate) fn of(seed: u64) -> Self {
        ALL[usize::try_from(seed % ALL.len() as u64).unwrap_or(0)]
    }

    /// D in milliseconds: what has to fit between two moments is a part of it.
    pub(crate) const fn bound(self) -> u64 {
        match self {
            Self::LateAnswers => 10_000,
            Self::Returning => 5_000,
            Self::SilentTarget | Self::SlowFence | Self::LateContact => 2_000,
        }
    }

    /// There must be somebody to take over from who has taken over.
    pub(crate) const fn needs_a_third(self) -> bool {
        match self {
            Self::SilentTarget => true,
            Self::LateAnswers | Self::SlowFence | Self::LateContact | Self::Returning => false,
        }
    }
}

pub(super) fn draw(aim: Aim, dice: &mut Dice, ground: &Ground<'_>) -> Vec<Planned> {
    let mut planned = match aim {
        Aim::LateAnswers => late_answers(dice, ground),
        Aim::SilentTarget => silent_target(dice, ground),
        Aim::SlowFence => slow_fence(dice, ground),
        Aim::LateContact => late_contact(dice, ground),
        Aim::Returning => returning(dice, ground),
    };
    planned.sort_by_key(|planned| planned.from);
    planned
}

/// Later than the clock margin, and early enough for a contact both ways: a fifth of D there and back.
fn late_answers(dice: &mut Dice, ground: &Ground<'_>) -> Vec<Planned> {
    let (bound, machine) = (ground.bound, ground.coordinators);
    let lost = dice.between(5_000, 7_000);
    let until = lost + bound + 5_000;
    let answers = Fault::SlowAnswers { machine, by: dice.between(bound / 12, bound / 8) };
    // Of the two ways to fence each may take half of the budget, a twelfth of D.
    let fence = Fault::Sluggish { cluster: ground.clusters[0].clone(), by: bound / 12 - 10 };
    // Answers that are on their way arrive.
    let silence = Fault::Partition { machines: vec![machine], outward: true, inward: false };
    vec![
        Planned { from: dice.below(1_000), until, fault: answers },
        Planned { from: lost - 100, until, fault: fence },
        Planned { from: lost, until, fault: silence },
    ]
}

/// The old side comes back before the target is missed: two lost at once would freeze everything.
fn silent_target(dice: &mut Dice, ground: &Ground<'_>) -> Vec<Planned> {
    let bound = ground.bound;
    let (old, new) = (ground.coordinators, ground.coordinators + 1);
    let lost = dice.between(500, 1_500);
    let region = Fault::Partition { machines: vec![old], outward: true, inward: true };
    let back = lost + bound + dice.between(250, 600);
    // A decision is due at D after the loss; the orders go out some tens of milliseconds later.
    let from = lost + bound + dice.below(300) - 200;
    let silence = Fault::Partition { machines: vec![new], outward: true, inward: false };
    vec![
        Planned { from: lost, until: back, fault: region },
        Planned { from, until: from + dice.between(3, 5) * bound, fault: silence },
    ]
}

/// From within the switchover's own wait: it begins with a database that works as usual.
fn slow_fence(dice: &mut Dice, ground: &Ground<'_>) -> Vec<Planned> {
    let begun = dice.between(1_000, 4_000);
    let to = ground.clusters[1].clone();
    let from = begun + dice.below(900);
    let slow = Fault::Sluggish { cluster: ground.clusters[0].clone(), by: ground.bound / 12 + dice.between(50, 500) };
    vec![
        Planned { from: begun, until: begun, fault: Fault::Switchover { to } },
        Planned { from, until: from + dice.between(3_000, 8_000), fault: slow },
    ]
}

/// In two steps: a stream that falls silent at once would be dropped.
fn late_contact(dice: &mut Dice, ground: &Ground<'_>) -> Vec<Planned> {
    let (bound, machine) = (ground.bound, ground.coordinators);
    let from = dice.between(500, 2_000);
    let missed = from + 1_500;
    let until = missed + 3 * bound + dice.below(bound);
    let mut planned = vec![
        Planned { from, until, fault: Fault::SlowAnswers { machine, by: bound / 7 } },
        Planned {
            from: missed,
            until,
            fault: Fault::SlowAnswers { machine, by: dice.between(bound * 6 / 25, bound * 3 / 10) },
        },
    ];
    for other in other_clusters(ground) {
        planned.extend(apart(machine, other, missed, until));
    }
    planned
}

/// The first coordinator leads. The primary's agent loses it and `voter`, and keeps `granter` for a while.
fn returning(dice: &mut Dice, ground: &Ground<'_>) -> Vec<Planned> {
    let (bound, old, leader) = (ground.bound, ground.coordinators, 0);
    let (voter, granter) = if dice.percent(50) { (1, 2) } else { (2, 1) };
    let lost = dice.between(1_500, 3_000);
    let end = lost + 2 * bound;
    // Early enough that nobody who is heard has heard of it lately when D is over, and late enough for the lease.
    let last = lost + bound * 3 / 5 + dice.below(bound / 12);
    // Who was heard within three heartbeats still counts as a voter.
    let cut = lost + bound * 3 / 4 + dice.below(bound / 8);
    let back = cut + dice.below(200);
    let mut planned = vec![Planned { from: 0, until: 0, fault: Fault::Transfer { to: 1 } }];
    planned.extend(apart(old, leader, lost, end));
    planned.extend(apart(old, voter, lost, back));
    planned.extend(apart(old, granter, last, end));
    planned.extend(apart(voter, leader, cut, end));
    planned.extend(apart(voter, granter, cut, end));
    for other in other_clusters(ground) {
        planned.extend(apart(old, other, lost, end));
    }
    planned
}

fn other_clusters(ground: &Ground<'_>) -> std::ops::Range<MachineId> {
    ground.coordinators + 1..ground.machines()
}

/// Two machines lose each other.
fn apart(one: MachineId, other: MachineId, from: u64, until: u64) -> [Planned; 2] {
    [(one, other), (other, one)].map(|(at, to)| Planned { from, until, fault: Fault::Link { from: at, to } })
}
