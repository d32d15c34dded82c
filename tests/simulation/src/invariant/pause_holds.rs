//! A pause holds: while an application is paused, or the end of its pause is not confirmed, its primary stays.

use std::collections::BTreeMap;

use regent_core::id::{ApplicationId, ClusterId, Epoch};
use regent_core::state::{ApplicationState, Pause};
use regent_core::terms::Window;

use super::{Invariant, Sight};

/// Where an application is, as long as it is paused.
type Held = (Pause, Epoch, Option<ClusterId>);

#[derive(Default)]
pub(super) struct PauseHolds {
    last: BTreeMap<(u64, ApplicationId), Held>,
}

impl Invariant for PauseHolds {
    fn promise(&self) -> &'static str {
        "a pause holds"
    }

    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        for (id, state) in sight.changed {
            for (name, known) in &state.applications {
                let Some(now) = held(known) else {
                    self.last.remove(&(*id, name.clone()));
                    continue;
                };
                let before = self.last.insert((*id, name.clone()), now.clone());
                if let Some(before) = before.filter(|before| before.0 == now.0 && *before != now) {
                    return Err(format!(
                        "coordinator {id}: {name} went from epoch {} to {} in a pause",
                        before.1, now.1
                    ));
                }
            }
        }
        Ok(())
    }

    fn forget(&mut self, coordinator: u64) {
        self.last.retain(|(id, _), _| *id != coordinator);
    }
}

fn held(known: &ApplicationState) -> Option<Held> {
    let pause = known.paused.clone().filter(|_| Window::new(&known.terms).any_paused())?;
    Some((pause, known.epoch, known.primary.clone()))
}
