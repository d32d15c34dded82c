//! A coordinator that is given an old disk takes no part: it has forgotten what it granted, voted and acknowledged.

use super::{Invariant, Sight};

#[derive(Default)]
pub(super) struct OldDisk;

impl Invariant for OldDisk {
    fn promise(&self) -> &'static str {
        "an old disk is refused"
    }

    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        match sight.old_disks.iter().find(|id| sight.changed.contains_key(id)) {
            Some(id) => Err(format!("coordinator {id} runs on a disk that was copied before")),
            None => Ok(()),
        }
    }
}
