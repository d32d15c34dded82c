//! Trouble in the moments after a decision: whoever is to open loses the coordinators, its database takes its time, and
//! the old side comes back, so that the next failover goes the other way.

use super::{Fault, Ground, Planned};
use crate::dice::Dice;

/// So many of a hundred runs in which everything might go wrong are of this kind.
const OFTEN: u64 = 12;

pub(super) fn is_drawn(seed: u64) -> bool {
    Dice::of(seed, "handover").percent(OFTEN)
}

pub(super) fn draw(dice: &mut Dice, ground: &Ground<'_>) -> Vec<Planned> {
    let (old, new) = (ground.coordinators, ground.coordinators + 1);
    let lost = dice.between(500, 3_000);
    let back = lost + dice.between(2 * ground.bound, 4 * ground.bound);
    let fault = match dice.below(3) {
        0 => Fault::PowerOff { machines: vec![old] },
        1 => Fault::Crash { cluster: ground.clusters[0].clone() },
        _ => Fault::Partition { machines: vec![old], outward: true, inward: true },
    };
    let mut planned = vec![Planned { from: lost, until: back, fault }];
    // A decision is due at D after the loss; the orders go out some tens of milliseconds later.
    let at = lost + ground.bound + dice.below(ground.bound / 4);
    let slow = Fault::SlowOpening { cluster: ground.clusters[1].clone(), by: dice.between(50, 1_500) };
    planned.push(Planned { from: lost, until: at + 2 * ground.bound, fault: slow });
    let long = dice.between(ground.bound, 5 * ground.bound);
    let cut = match dice.below(3) {
        0 => Fault::Partition { machines: vec![new], outward: true, inward: dice.percent(50) },
        _ => Fault::Severed { machine: new },
    };
    planned.push(Planned { from: at, until: at + long, fault: cut });
    if dice.percent(25) {
        let process = format!("agent-{}", ground.clusters[1]);
        let from = at + dice.below(1_000);
        planned.push(Planned { from, until: from + dice.between(100, 2_000), fault: Fault::Stop { process } });
    }
    planned.sort_by_key(|planned| planned.from);
    planned
}
