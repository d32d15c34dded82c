//! S2 across a restoration: the group goes on above every epoch in which a database was opened before it was lost,
//! though its backup knows nothing of them.

use std::collections::BTreeMap;

use super::{Invariant, Sight};
use crate::database::Effect;

#[derive(Default)]
pub(super) struct Restored {
    /// How often the group was restored, by all that was seen.
    restoration: u64,
    /// The newest epoch in which each cluster was decided on.
    decided: BTreeMap<String, u64>,
    /// By restoration: the highest epoch in which a standby was opened.
    opened: BTreeMap<u64, u64>,
}

impl Invariant for Restored {
    fn promise(&self) -> &'static str {
        "S2, a restored group goes on above all epochs"
    }

    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        for run in sight.changed.values().flat_map(|state| state.runs.values()) {
            if let Some(decided) = &run.decided {
                let newest = self.decided.entry(run.to.to_string()).or_default();
                *newest = decided.epoch.0.max(*newest);
            }
        }
        for (_, cluster, effect) in sight.effects {
            if *effect == (Effect::Promoted { standby: true }) {
                let epoch = self.decided.get(cluster).copied().unwrap_or_default();
                let highest = self.opened.entry(self.restoration).or_default();
                *highest = epoch.max(*highest);
            }
        }
        for (id, state) in sight.changed {
            self.restoration = self.restoration.max(state.restoration);
            let before = self.opened.range(..state.restoration).map(|(_, epoch)| *epoch).max().unwrap_or_default();
            for known in state.applications.values().filter(|known| known.primary.is_some()) {
                if known.epoch.0 <= before {
                    return Err(format!(
                        "coordinator {id} goes on at epoch {} after restoration {}, and a standby was opened in epoch \
                         {before} before it",
                        known.epoch, state.restoration
                    ));
                }
            }
        }
        Ok(())
    }
}
