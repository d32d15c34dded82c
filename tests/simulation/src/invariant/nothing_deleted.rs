//! S5: no row of a database is set aside without a step that makes this cluster follow another one.

use std::collections::BTreeSet;

use regent_core::application::Action;
use regent_core::run::StepKind;

use super::{Invariant, Sight};
use crate::database::Effect;

#[derive(Default)]
pub(super) struct NothingDeleted {
    /// Clusters for which the intent to rejoin was seen applied somewhere.
    told: BTreeSet<String>,
}

impl Invariant for NothingDeleted {
    fn promise(&self) -> &'static str {
        "S5, nothing is deleted"
    }

    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        for run in sight.changed.values().flat_map(|state| state.runs.values()) {
            let rejoins = run
                .walk()
                .filter(|(step, progress)| step.kind == StepKind::Action(Action::Rejoin) && progress.token.is_some());
            self.told.extend(rejoins.map(|(step, _)| step.cluster.to_string()));
        }
        for (at, cluster, effect) in sight.effects {
            if let Effect::Followed { without } = effect
                && !self.told.contains(cluster)
            {
                return Err(format!("{cluster} set {without} rows aside at {at}, and nobody told it to follow"));
            }
        }
        Ok(())
    }
}
