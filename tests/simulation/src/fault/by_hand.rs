//! A standby that somebody opens by hand. The run has hardly any other fault: what is promised is that the agent of
//! that cluster ends it, so that agent must run.

use super::{Fault, Ground, Planned, SPAN};
use crate::dice::Dice;

/// So many of a hundred runs in which everything might go wrong without a spare coordinator are of this kind.
const OFTEN: u64 = 4;

pub(super) fn is_drawn(seed: u64) -> bool {
    Dice::of(seed, "by-hand").percent(OFTEN)
}

pub(super) fn draw(dice: &mut Dice, ground: &Ground<'_>) -> Vec<Planned> {
    let index = 1 + usize::try_from(dice.below(ground.clusters.len() as u64 - 1)).unwrap_or(0);
    let cluster = ground.clusters[index].clone();
    let from = dice.between(2_000, SPAN / 2);
    let opened = |from| Planned { from, until: from, fault: Fault::PromotedByHand { cluster: cluster.clone() } };
    let mut planned = vec![opened(from)];
    // The agent needs nobody to see it; it is told when it is heard again.
    if dice.percent(50) {
        let machine = ground.coordinators + index;
        let severed = from - dice.below(1_500);
        planned.push(Planned {
            from: severed,
            until: from + dice.between(500, 2_500),
            fault: Fault::Severed { machine },
        });
    }
    if dice.percent(60) {
        let from = from + dice.between(5_000, 8_000);
        planned.push(Planned { from, until: from, fault: Fault::Rejoin { cluster: cluster.clone() } });
    } else if dice.percent(50) {
        // With the block of the fence put away: it does not follow yet.
        planned.push(opened(from + dice.between(5_000, 8_000)));
    }
    planned.sort_by_key(|planned| planned.from);
    planned
}
