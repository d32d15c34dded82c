//! An operator ends a run that is under way: `regentctl abort`.
//!
//! ```text
//!  before the point of no return ─► what was done is undone, the old primary serves again
//!  after it, service not yet back ─► refused: only forward
//!  only a side still follows      ─► it ends where it is; that side stays quarantined until a rejoin
//! ```
//!
//! In the last case an agent may be in the middle of a rewind or a copy. It is not told to stop: half a rewind is worth less
//! than a whole one. It finishes that step, and its word counts no more; a step of a later rejoin waits for the
//! resource, and one of a higher epoch ends it.

use serde::{Deserialize, Serialize};

use super::apply::release;
use super::{RunStatus, undo};
use crate::id::RunId;
use crate::state::Applied;
use crate::state::apply::{Applying, ignored, refused};
use crate::time::Timestamp;

/// An operator's word that ended a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// Ends a run as far as that can be done without losing a write.
pub(crate) fn aborted(applying: &mut Applying<'_>, id: RunId, by: &str, reason: &str) -> Applied {
    let at = applying.at;
    let Some(run) = applying.state.runs.get_mut(&id) else {
        return refused("unknown-run", format!("run {id} does not exist"));
    };
    match run.status {
        RunStatus::Running | RunStatus::Stuck => {}
        RunStatus::Undoing => return ignored("it is being undone already"),
        RunStatus::Succeeded | RunStatus::Undone | RunStatus::Superseded | RunStatus::Aborted | RunStatus::Failed => {
            return refused("run-ended", format!("run {id} has ended: {}", run.status));
        }
    }
    // A drill ends by its clean-up.
    let undoes = run.decided.is_none() && (run.cause.moves_primary() || run.is_drill());
    if !undoes && !run.gives_way() {
        let epoch = run.decided.as_ref().map_or(run.epoch_before, |decided| decided.epoch);
        let detail = format!(
            "epoch {epoch} is decided and {} may have acknowledged writes; let run {id} go on, clear what is stuck, and \
             move the application back once it has ended",
            run.to
        );
        return refused("point-of-no-return", detail);
    }
    run.abort = Some(Abort { by: by.to_owned(), reason: reason.to_owned(), at });
    let (application, automatic) = (run.application.clone(), run.cause.is_automatic());
    applying.audit("aborted", Some(&application), Some(id), by, reason);
    if undoes {
        // Its cause may still be there: without this the leader would begin the same at once.
        if let Some(known) = applying.state.applications.get_mut(&application).filter(|_| automatic) {
            known.cooling_since = known.cooling_since.max(Some(at));
        }
        return undo::begin(applying, id);
    }
    if let Some(run) = applying.state.runs.get_mut(&id) {
        run.end(RunStatus::Aborted, at);
    }
    release(applying, id);
    applying.done()
}
