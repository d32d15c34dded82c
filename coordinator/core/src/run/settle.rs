//! What an outcome makes of the step that runs, and of its run.

use super::{CLEAN_UP_STAGE, Run, RunStatus, Step, StepKind, StepState, UNDO_STAGE};
use crate::application::{Action, OnFailure};
use crate::entry::Outcome;
use crate::id::{Attempt, StepId};
use crate::time::Timestamp;

/// What a human must be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Nothing.
    Quiet,
    /// The step is stuck.
    Stuck,
}

impl Run {
    /// Takes the outcome of the attempt that runs.
    ///
    /// # Errors
    /// Why it does not fit; nothing has changed then.
    pub(crate) fn settle(
        &mut self,
        step: StepId,
        attempt: Attempt,
        outcome: &Outcome,
        at: Timestamp,
    ) -> Result<Settled, &'static str> {
        let settled = self.take(step, attempt, outcome, at)?;
        if self.status == RunStatus::Undoing {
            self.leave_at_rest();
        }
        Ok(settled)
    }

    fn take(
        &mut self,
        step: StepId,
        attempt: Attempt,
        outcome: &Outcome,
        at: Timestamp,
    ) -> Result<Settled, &'static str> {
        if self.status.is_final() {
            return Err("the run has ended");
        }
        let Some((spec, progress)) = self.step(step) else { return Err("unknown step") };
        let late = matches!(outcome, Outcome::Succeeded(_)) && self.hears(spec, progress);
        if !(progress.state == StepState::Running || late) || progress.attempts != attempt {
            return Err("not the attempt that runs");
        }
        // What was under way when the undo began needs no human: the undo is what deals with it.
        let given_up = self.status == RunStatus::Undoing && spec.stage != UNDO_STAGE && !self.is_drill();
        let cleans_up = self.is_drill() && spec.stage != CLEAN_UP_STAGE;
        let goes_on = spec.on_failure == OnFailure::Continue;
        let exhausted = if given_up || cleans_up { StepState::FailedContinued } else { exhausted(spec) };
        // A drill has nothing to undo: it has a clean-up, and one that fails needs a human.
        let undoes = spec.on_failure == OnFailure::Undo
            && self.decided.is_none()
            && self.status != RunStatus::Undoing
            && !self.is_drill();
        let retries = spec.retries;
        let has_time = self.has_time(spec, progress.started, at);
        let Some(progress) = self.progress_mut(step) else { return Err("unknown step") };
        progress.ended = Some(at);
        match outcome {
            Outcome::Succeeded(report) => {
                progress.state = StepState::Succeeded;
                progress.report = Some(report.clone());
                progress.failure = None;
            }
            Outcome::Failed { code, message, retryable } => {
                progress.failure = Some((code.clone(), message.clone()));
                progress.spent += 1;
                let again = *retryable && (progress.spent <= retries || has_time);
                progress.state = if again { StepState::Retrying } else { exhausted };
                if cleans_up && !again && !goes_on {
                    self.clean_up_only();
                    return Ok(Settled::Quiet);
                }
                let Some(progress) = self.progress_mut(step) else { return Err("unknown step") };
                if progress.state == StepState::Stuck && undoes {
                    self.give_up();
                } else if progress.state == StepState::Stuck {
                    if self.status != RunStatus::Undoing || self.is_drill() {
                        self.status = RunStatus::Stuck;
                    }
                    return Ok(Settled::Stuck);
                }
            }
        }
        Ok(Settled::Quiet)
    }

    /// True while a step is tried again however often it failed. Behind the point of no return a promotion is all that
    /// ends the outage, and attempts that fail at once would use up any number of retries before a full disk or a server
    /// that is just starting has had its time (safety.md, "Execution": until the step's deadline).
    fn has_time(&self, spec: &Step, started: Option<Timestamp>, at: Timestamp) -> bool {
        let promotes = spec.kind == StepKind::Action(Action::Promote) && self.decided.is_some();
        promotes && started.is_some_and(|started| at.since(started) < spec.timeout)
    }
}

/// The state of a step whose attempts are used up.
fn exhausted(spec: &Step) -> StepState {
    if spec.detached || (spec.on_failure == OnFailure::Continue && !is_fence(spec.kind)) {
        StepState::FailedContinued
    } else {
        StepState::Stuck
    }
}

/// A fence is confirmed or not: no document can make a failed one count.
pub(super) const fn is_fence(kind: StepKind) -> bool {
    matches!(kind, StepKind::Action(Action::Fence))
}
