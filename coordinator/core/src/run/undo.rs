//! Giving up before the point of no return; after it there is only forward.

use std::collections::BTreeSet;

use super::apply::{finish_if_done, release};
use super::{Progress, Run, RunStatus, Step, StepKind, StepState, UNDO_STAGE};
use crate::application::Action;
use crate::effect::Effect;
use crate::id::{Attempt, ResourceId, RunId};
use crate::state::Applied;
use crate::state::apply::{Applying, ignored, refused};

/// The leader gives a run up.
pub(crate) fn undo_begun(applying: &mut Applying<'_>, id: RunId, reason: &str) -> Applied {
    let Some(run) = applying.state.runs.get(&id) else { return ignored("unknown run") };
    if run.decided.is_some() {
        return refused("point-of-no-return", "the decision is committed; the run only goes forward");
    }
    match run.status {
        RunStatus::Running | RunStatus::Stuck => {}
        RunStatus::Undoing => return ignored("undoing"),
        RunStatus::Succeeded | RunStatus::Undone | RunStatus::Superseded | RunStatus::Aborted | RunStatus::Failed => {
            return ignored("the run has ended");
        }
    }
    let application = run.application.clone();
    applying.audit("undo", Some(&application), Some(id), "leader", reason);
    begin(applying, id)
}

/// Nothing was done, and nothing will be. The leader looked before its own intents, or those of the leader before it, were
/// applied here: a run that has begun by now is not undone for a cause that it hides itself.
pub(crate) fn cause_gone(applying: &mut Applying<'_>, id: RunId, reason: &str) -> Applied {
    match applying.state.runs.get(&id) {
        Some(run) if run.hides_its_cause() => ignored("the run has begun"),
        Some(_) | None => undo_begun(applying, id, reason),
    }
}

/// Turns an undecided run that goes on to its undo.
pub(super) fn begin(applying: &mut Applying<'_>, id: RunId) -> Applied {
    let at = applying.at;
    let Some(run) = applying.state.runs.get_mut(&id) else { return ignored("unknown run") };
    // What was never touched needs no undoing: an open database is not opened once more.
    let untouched = if run.is_drill() { !run.has_begun() } else { !run.has_touched() };
    if untouched {
        run.end(RunStatus::Undone, at);
    } else if run.is_drill() {
        run.clean_up_only();
    } else {
        run.give_up();
    }
    let application = run.application.clone();
    applying.effects.push(Effect::RunChanged(id));
    if untouched {
        release(applying, id);
        return applying.done();
    }
    if let Some(known) = applying.state.applications.get_mut(&application) {
        known.stuck.values_mut().for_each(|stuck| stuck.retain(|_, run| *run != id));
        known.stuck.retain(|_, stuck| !stuck.is_empty());
    }
    finish_if_done(applying, id);
    applying.done()
}

impl Run {
    /// From now on only the undo counts: what is stuck before it needs no human any more. Of a run that has touched nothing
    /// there is none, and the run is over: an open database is not opened once more. Nor is it where only TTLs were shortened;
    /// those are restored.
    pub(super) fn give_up(&mut self) {
        let untouched = !self.has_touched_more_than_ttls();
        let shortened: BTreeSet<ResourceId> = self
            .walk()
            .filter(|(step, progress)| step.is_ttl_alone() && step.stage != UNDO_STAGE && progress.token.is_some())
            .filter_map(|(step, _)| step.resource.clone())
            .collect();
        self.status = RunStatus::Undoing;
        for (step, progress) in self.steps.iter().zip(&mut self.progress) {
            if step.stage != UNDO_STAGE && progress.state == StepState::Stuck {
                progress.state = StepState::FailedContinued;
            } else if step.stage == UNDO_STAGE {
                let needless = if step.is_ttl_alone() {
                    step.resource.as_ref().is_none_or(|resource| !shortened.contains(resource))
                } else {
                    untouched
                };
                if needless {
                    progress.state = StepState::Skipped;
                }
            }
        }
        self.leave_at_rest();
    }

    /// A service that this run has not stopped is not started by its undo: its stopping never began, or found it at rest.
    pub(super) fn leave_at_rest(&mut self) {
        let starts = |step: &Step| step.stage == UNDO_STAGE && step.kind == StepKind::Action(Action::Activate);
        let stops = |step: &Step| {
            step.stage != UNDO_STAGE && matches!(step.kind, StepKind::Action(Action::Quiesce | Action::Deactivate))
        };
        let rested: Vec<bool> = self
            .steps
            .iter()
            .map(|undo| {
                let same = |step: &Step| step.resource == undo.resource && step.cluster == undo.cluster;
                starts(undo)
                    && self
                        .walk()
                        .filter(|(step, _)| stops(step) && same(step))
                        .all(|(_, progress)| progress.found_so())
            })
            .collect();
        for (progress, rested) in self.progress.iter_mut().zip(rested) {
            if rested && progress.state == StepState::Pending {
                progress.state = StepState::Skipped;
            }
        }
    }
}

impl Progress {
    /// Nothing was done: it never began, or its only attempt found everything as asked. What a second attempt finds may be
    /// the work of the first.
    fn found_so(&self) -> bool {
        let found = self.report.as_ref().is_some_and(|report| report.already);
        self.token.is_none() || (self.state == StepState::Succeeded && self.attempts == Attempt(1) && found)
    }
}
