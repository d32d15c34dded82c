//! S2: epochs only rise, in each coordinator and in the group as a whole; and whatever else must hold of a state.

use std::collections::BTreeMap;

use regent_core::id::{ClusterId, Epoch};
use regent_core::invariant;
use regent_core::state::State;

use super::{Invariant, Sight};

#[derive(Default)]
pub(super) struct EpochsRise {
    last: BTreeMap<u64, State>,
    /// By restoration of the group: who is primary at which epoch, one answer for the whole group, for ever. An epoch
    /// that nobody had heard of when the group was lost may be given again.
    primaries: BTreeMap<(u64, Epoch), ClusterId>,
}

impl Invariant for EpochsRise {
    fn promise(&self) -> &'static str {
        "S2, epochs only rise"
    }

    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        for (id, state) in sight.changed {
            if let Some(violation) = invariant::of_state(state).into_iter().next() {
                return Err(format!("coordinator {id}: {violation}"));
            }
            if let Some(before) = self.last.get(id)
                && let Some(violation) = invariant::of_change(before, state).into_iter().next()
            {
                return Err(format!("coordinator {id}: {violation}"));
            }
            for known in state.applications.values() {
                let Some(primary) = known.primary.clone() else { continue };
                let said = self.primaries.entry((state.restoration, known.epoch)).or_insert_with(|| primary.clone());
                if *said != primary {
                    return Err(format!("epoch {} has the primaries {said} and {primary}", known.epoch));
                }
            }
            self.last.insert(*id, state.clone());
        }
        Ok(())
    }

    fn forget(&mut self, coordinator: u64) {
        self.last.remove(&coordinator);
    }
}
