//! `approve` steps: the run asks a human and waits.
//!
//! No agent has a part in it. The step runs from its intent on; `regentctl approve` ends it well, and so it may even after
//! the time-out has made it stuck. Silence is no yes: at the time-out the step fails, and what its line says of failures
//! counts. By default that is *stuck*; `onFailure: continue` goes on without an answer, `undo` gives up while that is
//! possible.

use super::{RunStatus, StepKind, StepState};
use crate::application::Action;
use crate::effect::Effect;
use crate::entry::Report;
use crate::id::{RunId, StepId};
use crate::state::Applied;
use crate::state::apply::{Applying, ignored, refused};

/// A human has said yes.
pub(crate) fn approved(applying: &mut Applying<'_>, id: RunId, step: StepId, by: &str, reason: &str) -> Applied {
    let at = applying.at;
    let Some(run) = applying.state.runs.get_mut(&id) else {
        return refused("unknown-run", format!("run {id} does not exist"));
    };
    let application = run.application.clone();
    let Some((spec, progress)) = run.step(step) else {
        return refused("unknown-step", format!("run {id} has no step {step}"));
    };
    if spec.kind != StepKind::Action(Action::Approve) {
        return refused("not-asked", format!("step {step} of run {id} asks nobody"));
    }
    let question = spec.question.clone();
    match progress.state {
        StepState::Running if run.status == RunStatus::Undoing => {
            return refused("not-asked", format!("run {id} is being undone: an answer to step {step} changes nothing"));
        }
        StepState::Running | StepState::Stuck => {}
        StepState::Succeeded => return ignored("it was approved before"),
        StepState::Pending | StepState::Retrying | StepState::FailedContinued | StepState::Skipped => {
            return refused("not-asked", format!("step {step} of run {id} is not waiting for an answer"));
        }
    }
    if let Some(progress) = run.progress_mut(step) {
        progress.state = StepState::Succeeded;
        progress.ended = Some(at);
        progress.failure = None;
        progress.report = Some(Report { message: format!("approved by {by}: {reason}"), ..Report::default() });
    }
    if run.status == RunStatus::Stuck && !run.walk().any(|(_, progress)| progress.state == StepState::Stuck) {
        run.status = RunStatus::Running;
    }
    applying.effects.push(Effect::RunChanged(id));
    let detail = format!("step {step}, {question:?}: {reason}");
    applying.audit("approved", Some(&application), Some(id), by, detail);
    super::apply::finish_if_done(applying, id);
    applying.done()
}
