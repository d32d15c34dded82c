//! What a killed server leaves in the kernel: a small segment of shared memory, by which a second start is noticed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::keeper::Keeper;
use crate::place;

/// Removes it with the last description of the server, unless that was left running.
pub(super) struct Remains {
    pub(super) keeper: Arc<Keeper>,
    pub(super) data: PathBuf,
}

impl Drop for Remains {
    fn drop(&mut self) {
        if !self.keeper.is_detached() {
            remove(&self.data);
        }
    }
}

/// Removes the segment of the server whose data directory this is; one that still runs keeps it until its end.
pub(crate) fn remove(data: &Path) {
    let Ok(text) = std::fs::read_to_string(data.join("postmaster.pid")) else { return };
    // Its seventh line is the key and the number of the segment.
    let Some(id) = text.lines().nth(6).and_then(|line| line.split_ascii_whitespace().nth(1)) else { return };
    let Ok(program) = place::program("ipcrm") else { return };
    // A segment that is gone already is what was wanted.
    let _gone = Command::new(program).args(["-m", id]).stdout(Stdio::null()).stderr(Stdio::null()).status();
}
