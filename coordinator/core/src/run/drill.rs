//! A drill: a failover rehearsed with copies. Its last stage takes away what it made, whatever came before.
//!
//! ```text
//!  copies promoted, restored, verified … ─┬─ all well ──────────────────────► clean-up ─► succeeded
//!                                         ├─ a step failed, the rest skipped ► clean-up ─► failed
//!                                         ├─ given up by an operator ────────► clean-up ─► undone
//!                                         └─ a failover began, not waiting ──► clean-up ─► superseded
//! ```
//!
//! A clean-up that does not succeed is stuck, by name; it holds up nothing but the next drill.

use serde::{Deserialize, Serialize};

use super::{Run, RunStatus, Step, StepKind, StepState, apply};
use crate::application::{Action, OnFailure};
use crate::entry::Cause;
use crate::id::RunId;
use crate::state::apply::Applying;
use crate::state::drill::note_success;
use crate::time::Span;

/// Stage of the steps that clean up: the last of every drill.
pub const CLEAN_UP_STAGE: u32 = u32::MAX - 1;

/// What a step of a drill does, with copies and never with the real thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Rehearsal {
    /// An isolated copy of the standby is promoted and written to.
    Promote,
    /// The newest backup is restored beside the database.
    Restore,
    /// The copies are looked at; of other resources, the resource itself, which is only read.
    Verify,
    /// A listed command.
    Run,
    /// What the drill made is taken away.
    CleanUp,
}

impl Rehearsal {
    /// As operators read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Promote => "promoteCopy",
            Self::Restore => "restoreCopy",
            Self::Verify => "verifyCopy",
            Self::Run => "run",
            Self::CleanUp => "cleanUp",
        }
    }
}

impl Run {
    /// It rehearses; nothing it does concerns the real databases.
    #[must_use]
    pub const fn is_drill(&self) -> bool {
        matches!(self.cause, Cause::Drill { .. })
    }

    /// A drill of which only the clean-up is left.
    #[must_use]
    pub fn is_cleaning_up(&self) -> bool {
        let rest = || self.walk().filter(|(step, _)| step.stage != CLEAN_UP_STAGE);
        self.is_drill() && !self.status.is_final() && rest().all(|(_, progress)| progress.state.is_ended())
    }

    /// What has not ended is given up, and what was made is taken away.
    pub(crate) fn clean_up_only(&mut self) {
        self.status = RunStatus::Undoing;
        for (step, progress) in self.steps.iter().zip(&mut self.progress) {
            if step.stage != CLEAN_UP_STAGE && !progress.state.is_ended() {
                progress.state = StepState::Skipped;
            }
        }
    }

    /// How long a failover would have taken by what was rehearsed: the time bound, and of each stage its longest step.
    /// A human's answer is no part of it. None unless the drill succeeded.
    #[must_use]
    pub fn rehearsed_time(&self, fail_over_after: Span) -> Option<Span> {
        if !self.is_drill() || self.status != RunStatus::Succeeded {
            return None;
        }
        let mut stages = std::collections::BTreeMap::new();
        for (step, progress) in self.walk().filter(|(step, _)| counts(step)) {
            let whole = progress.started.zip(progress.ended).map(|(from, to)| to.since(from));
            let rehearsed = progress.report.as_ref().and_then(|report| report.rehearsed);
            let took = rehearsed.or(whole).unwrap_or(Span::ZERO);
            let longest = stages.entry(step.stage).or_insert(Span::ZERO);
            *longest = took.max(*longest);
        }
        Some(stages.into_values().fold(fail_over_after, Span::plus))
    }
}

fn counts(step: &Step) -> bool {
    step.stage != CLEAN_UP_STAGE && step.kind != StepKind::Action(Action::Approve)
}

/// A drill ends when its clean-up has.
pub(super) fn finish_if_done(applying: &mut Applying<'_>, id: RunId) {
    let at = applying.at;
    let Some(run) = applying.state.runs.get_mut(&id) else { return };
    if run.status.is_final() || !run.walk().all(|(_, progress)| progress.state.is_ended()) {
        return;
    }
    let application = run.application.clone();
    let rest = || run.walk().filter(|(step, _)| step.stage != CLEAN_UP_STAGE);
    let failed = rest()
        .any(|(step, progress)| progress.state == StepState::FailedContinued && step.on_failure != OnFailure::Continue);
    let given_up = rest().any(|(_, progress)| progress.state == StepState::Skipped);
    let current = applying.state.applications.get(&application).is_some_and(|known| known.run == Some(id));
    let status = match (failed, given_up, current) {
        (true, _, _) => RunStatus::Failed,
        (false, true, true) => RunStatus::Undone,
        (false, true, false) => RunStatus::Superseded,
        (false, false, _) => RunStatus::Succeeded,
    };
    run.end(status, at);
    if status == RunStatus::Succeeded {
        note_success(applying, id);
    }
    apply::release(applying, id);
    applying.audit("run-ended", Some(&application), Some(id), "leader", format!("{status:?}").to_lowercase());
}
