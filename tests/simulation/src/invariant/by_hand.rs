//! A database that somebody opened by hand where the terms say standby is fenced by its agent, whoever else is reached,
//! and told to the coordinators (SAFETY.md, "What is not covered").

use std::collections::BTreeSet;

use regent_core::id::ClusterId;
use regent_core::state::State;

use super::{Invariant, Sight};
use crate::database::Databases;

/// From the opening to the fence: two intervals of the probe, and half a second for a second look and the fence.
const WITHIN: u64 = 1_500;

#[derive(Default)]
pub(super) struct RogueWriter {
    opened: BTreeSet<String>,
    told: BTreeSet<String>,
}

impl Invariant for RogueWriter {
    fn promise(&self) -> &'static str {
        "a rogue writer is fenced and told"
    }

    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        for known in sight.changed.values().flat_map(|state| state.applications.values()) {
            self.told.extend(known.rogues.keys().map(ClusterId::to_string));
        }
        for (cluster, since) in sight.databases.by_hand() {
            let open = sight.now.saturating_sub(since);
            if open > WITHIN {
                return Err(format!("{cluster} was opened by hand at {since} and accepts writes after {open} ms"));
            }
            self.opened.insert(cluster);
        }
        Ok(())
    }

    fn conclude(&mut self, _state: &State, _databases: &Databases) -> Result<(), String> {
        match self.opened.difference(&self.told).next() {
            Some(cluster) => Err(format!("{cluster} was opened by hand, and no coordinator was told")),
            None => Ok(()),
        }
    }
}
