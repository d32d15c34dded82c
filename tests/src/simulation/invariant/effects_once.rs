//! S4: a standby becomes a primary once, however often the step is repeated; nothing of this release makes it a standby
//! again.

use std::collections::BTreeSet;

use super::{Invariant, Sight};
use crate::simulation::database::Effect;

#[derive(Default)]
pub(super) struct EffectsOnce {
    promoted: BTreeSet<String>,
}

impl Invariant for EffectsOnce {
    fn promise(&self) -> &'static str {
        "S4, every effect once"
    }

    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        for (at, cluster, effect) in sight.effects {
            if *effect == (Effect::Promoted { standby: true }) && !self.promoted.insert(cluster.clone()) {
                return Err(format!("{cluster} was promoted a second time at {at}"));
            }
        }
        Ok(())
    }
}
