//! S3: no standby is opened before the entry that asks for it is committed.

use std::collections::BTreeSet;

use regent_core::application::Action;
use regent_core::run::StepKind;

use super::{Invariant, Sight};
use crate::simulation::database::Effect;

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
        for run in sight.changed.values().flat_map(|state| state.runs.values()) {
            let promotes = run
                .walk()
                .filter(|(step, progress)| step.kind == StepKind::Action(Action::Promote) && progress.token.is_some());
            self.intended.extend(promotes.map(|(step, _)| step.cluster.to_string()));
        }
        for (at, cluster, effect) in sight.effects {
            if *effect == (Effect::Promoted { standby: true }) && !self.intended.contains(cluster) {
                return Err(format!("the standby of {cluster} was promoted at {at} and no coordinator had it applied"));
            }
        }
        Ok(())
    }
}
