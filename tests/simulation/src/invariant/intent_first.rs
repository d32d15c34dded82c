//! S3: no standby is opened before the entry that asks for it is committed.

use std::collections::BTreeSet;

use super::{Invariant, Sight, promotions};
use crate::database::Effect;

#[derive(Default)]
pub(super) struct IntentFirst {
    /// Clusters for which the intent to promote was seen applied somewhere.
    intended: BTreeSet<String>,
}

impl Invariant for IntentFirst {
    fn promise(&self) -> &'static str {
        "S3, intent before effect"
    }

    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        self.intended.extend(promotions(sight).map(|(_, cluster)| cluster));
        for (at, cluster, effect) in sight.effects {
            if *effect == (Effect::Promoted { standby: true }) && !self.intended.contains(cluster) {
                return Err(format!("the standby of {cluster} was promoted at {at} and no coordinator had it applied"));
            }
        }
        Ok(())
    }
}
