//! What the coordinators agree on is one thing: whoever has applied the same entries has the same state.

use std::collections::BTreeMap;

use regent_core::id::LogIndex;
use regent_core::state::State;

use super::{Invariant, Sight};

/// So many states are remembered.
const KEPT: usize = 64;

#[derive(Default)]
pub(super) struct ReplicasAgree {
    states: BTreeMap<LogIndex, State>,
}

impl Invariant for ReplicasAgree {
    fn promise(&self) -> &'static str {
        "replicas agree"
    }

    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        for (id, state) in sight.changed {
            match self.states.get(&state.applied) {
                Some(known) if known != state => {
                    return Err(format!("coordinator {id} has another state than the others at {}", state.applied));
                }
                Some(_) => {}
                None => {
                    self.states.insert(state.applied, state.clone());
                }
            }
        }
        while self.states.len() > KEPT {
            self.states.pop_first();
        }
        Ok(())
    }
}
