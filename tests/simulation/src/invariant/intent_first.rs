//! S3: no standby is opened before the entry that asks for it is committed, and by each attempt once.

use regent_core::application::Action;

use super::permits::Permits;
use super::{Invariant, Sight};
use crate::database::Effect;

#[derive(Default)]
pub(super) struct IntentFirst {
    promotions: Permits,
}

impl Invariant for IntentFirst {
    fn promise(&self) -> &'static str {
        "S3, intent before effect"
    }

    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        self.promotions.learn(sight, Action::Promote, |_, _| true);
        for (at, cluster, effect) in sight.effects {
            if *effect == (Effect::Promoted { standby: true }) && !self.promotions.take(cluster) {
                return Err(format!(
                    "the standby of {cluster} was promoted at {at}, and no coordinator had applied an attempt at that \
                     without an outcome"
                ));
            }
        }
        Ok(())
    }
}
