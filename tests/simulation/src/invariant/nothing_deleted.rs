//! S5: no row of a database is set aside without an attempt at making this cluster follow another one, and by each attempt
//! once.

use regent_core::application::Action;
use regent_core::entry::Cause;

use super::permits::Permits;
use super::{Invariant, Sight};
use crate::database::Effect;

#[derive(Default)]
pub(super) struct NothingDeleted {
    rejoins: Permits,
    /// Those that a human asked for, or that follow a switchover: no other may set rows aside.
    rewinds: Permits,
}

impl Invariant for NothingDeleted {
    fn promise(&self) -> &'static str {
        "S5, nothing is deleted"
    }

    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        self.rejoins.learn(sight, Action::Rejoin, |_, _| true);
        self.rewinds.learn(sight, Action::Rejoin, |run, step| {
            matches!(run.cause, Cause::Rejoin { .. } | Cause::Switchover { .. }) && step.cluster == run.from
        });
        for (at, cluster, effect) in sight.effects {
            let Effect::Followed { without } = effect else { continue };
            // A repeat that has nothing left to set aside is one all the same.
            let asked = if *without > 0 { self.rewinds.take(cluster) } else { self.rejoins.any(cluster) };
            if !asked {
                return Err(format!("{cluster} set {without} rows aside at {at}, and nobody told it to follow"));
            }
        }
        Ok(())
    }
}
