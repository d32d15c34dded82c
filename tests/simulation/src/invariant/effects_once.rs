//! S4: a standby becomes a primary once for each run that asks for it, however often the step is repeated, and however
//! late: who has followed another one since is not promoted again for an old run.

use std::collections::{BTreeMap, BTreeSet};

use regent_core::id::RunId;

use super::{Invariant, Sight, promotions};
use crate::database::Effect;

#[derive(Default)]
pub(super) struct EffectsOnce {
    /// By cluster: the runs that have asked for its promotion.
    asked: BTreeMap<String, BTreeSet<RunId>>,
    promoted: BTreeMap<String, usize>,
}

impl Invariant for EffectsOnce {
    fn promise(&self) -> &'static str {
        "S4, every effect once"
    }

    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        for (run, cluster) in promotions(sight) {
            self.asked.entry(cluster).or_default().insert(run);
        }
        for (at, cluster, effect) in sight.effects {
            if *effect == (Effect::Promoted { standby: true }) {
                let promoted = self.promoted.entry(cluster.clone()).or_default();
                *promoted += 1;
                let asked = self.asked.get(cluster).map_or(0, BTreeSet::len);
                // That there was one at all is another promise.
                if *promoted > asked.max(1) {
                    return Err(format!(
                        "{cluster} was promoted for the time {promoted} at {at}, and {asked} runs asked"
                    ));
                }
            }
        }
        Ok(())
    }
}
