//! How committed intents, outcomes and words of operators change a run.
//!
//! Every transition is a match on the state of the step; what does not fit is ignored or refused, never guessed.

use super::clearing::heeds_done;
use super::next::Turn;
use super::settle::Settled;
use super::{Run, RunStatus, Step, StepKind, StepState, drill, rejoin};
use crate::application::Action;
use crate::effect::Effect;
use crate::entry::{Clearing, Outcome, Report};
use crate::id::{Attempt, RunId, StepId};
use crate::planted::{self, Mistake};
use crate::state::apply::{Applying, ignored, refused};
use crate::state::{Answer, Applied, order, window};

/// A step is about to be done: the only thing that lets an effect happen (S3).
pub(crate) fn intent(applying: &mut Applying<'_>, id: RunId, step: StepId, attempt: Attempt) -> Applied {
    let Some(run) = applying.state.runs.get(&id) else { return ignored("unknown run") };
    let Some((spec, progress)) = run.step(step) else { return ignored("unknown step") };
    let Some(turn) = Turn::of(run) else { return ignored("the run has ended") };
    if !turn.is_of(run, spec) {
        return ignored("it is not the step's turn");
    }
    if spec.kind == StepKind::Decide {
        return ignored("it is done by the decision itself");
    }
    if attempt != progress.attempts.next() {
        return ignored("this attempt is known");
    }
    match progress.state {
        StepState::Pending | StepState::Retrying => {}
        StepState::Running => return ignored("the step runs: it is attached to, never started twice"),
        StepState::Succeeded | StepState::FailedContinued | StepState::Stuck | StepState::Skipped => {
            return ignored("the step has ended");
        }
    }
    let (spec, application) = (spec.clone(), run.application.clone());
    let cools = run.cause.is_automatic() && promotes_first(run, &spec);
    if spec.kind == StepKind::Action(Action::Redirect)
        && !spec.is_ttl_alone()
        && let Err(rule) = redirect(applying, &application, &spec)
    {
        return stick_at(applying, id, &spec, attempt, &rule);
    }
    let (token, at) = (applying.token(), applying.at);
    if let Some(progress) = applying.state.runs.get_mut(&id).and_then(|run| run.progress_mut(step)) {
        progress.state = StepState::Running;
        progress.attempts = attempt;
        progress.token = Some(token);
        progress.started = progress.started.or(Some(at));
        progress.attempt_started = Some(at);
        progress.ended = None;
    }
    if cools && let Some(known) = applying.state.applications.get_mut(&application) {
        known.cooling_since = known.cooling_since.max(Some(at));
    }
    applying.effects.push(Effect::Dispatch(id, step));
    applying.effects.push(Effect::RunChanged(id));
    finish_if_done(applying, id);
    applying.done()
}

/// The cool-down starts with the first promotion of a run: neither a second database nor a retry puts it off.
fn promotes_first(run: &Run, spec: &Step) -> bool {
    let promotes = |step: &Step| step.kind == StepKind::Action(Action::Promote);
    promotes(spec) && !run.walk().any(|(step, progress)| promotes(step) && progress.started.is_some())
}

/// The answer flips with the commit of the step. One that would be empty is refused: a name without an address is
/// an outage of its own.
fn redirect(applying: &mut Applying<'_>, application: &crate::id::ApplicationId, step: &Step) -> Result<(), String> {
    let since = applying.token();
    let state = &mut *applying.state;
    let Some(resource) = &step.resource else { return Ok(()) };
    let endpoint = state
        .agents
        .get(&step.cluster)
        .and_then(|agent| agent.endpoints.get(application))
        .and_then(|endpoints| endpoints.get(resource));
    if endpoint.is_none_or(|endpoint| endpoint.addresses.is_empty()) {
        return Err(format!(
            "the agent of {} declares no address for {resource}; the answer would be empty",
            step.cluster
        ));
    }
    let Some(known) = state.applications.get_mut(application) else { return Ok(()) };
    let stays = planted::makes(Mistake::AnswerStays);
    if stays || known.answers.get(resource).is_some_and(|answer| answer.cluster == step.cluster) {
        return Ok(());
    }
    known.answers.insert(resource.clone(), Answer { cluster: step.cluster.clone(), since });
    state.dns_serial = state.dns_serial.wrapping_add(1);
    applying.effects.push(Effect::AnswerChanged(application.clone(), resource.clone()));
    Ok(())
}

/// A step that cannot be begun needs a human, as one that has failed does.
fn stick_at(applying: &mut Applying<'_>, id: RunId, spec: &Step, attempt: Attempt, why: &str) -> Applied {
    if let Some(run) = applying.state.runs.get_mut(&id) {
        run.status = RunStatus::Stuck;
        if let Some(progress) = run.progress_mut(spec.id) {
            progress.state = StepState::Stuck;
            progress.attempts = attempt;
            progress.failure = Some(("dns-would-be-empty".to_owned(), why.to_owned()));
        }
    }
    stick(applying, id, spec, "dns-would-be-empty", why);
    applying.effects.push(Effect::RunChanged(id));
    refused("dns-would-be-empty", why)
}

/// A step has ended, as its agent reported or the leader gave up waiting.
pub(crate) fn outcome(
    applying: &mut Applying<'_>,
    id: RunId,
    step: StepId,
    attempt: Attempt,
    outcome: &Outcome,
) -> Applied {
    let at = applying.at;
    let Some(run) = applying.state.runs.get_mut(&id) else { return ignored("unknown run") };
    if run.status.is_final() {
        return rejoin::late(applying, id, step, attempt, outcome);
    }
    let settled = match run.settle(step, attempt, outcome, at) {
        Ok(settled) => settled,
        Err(why) => return ignored(why),
    };
    let Some((spec, _)) = run.step(step) else { return ignored("unknown step") };
    let spec = spec.clone();
    if let (Settled::Stuck, Outcome::Failed { code, message, .. }) = (settled, outcome) {
        stick(applying, id, &spec, code, message);
    }
    applying.effects.push(Effect::RunChanged(id));
    if let (StepKind::Action(Action::Promote), Outcome::Succeeded(report)) = (&spec.kind, outcome) {
        note_timeline(applying, id, &spec, report.timeline);
    }
    if spec.kind == StepKind::Action(Action::Rejoin) {
        match outcome {
            Outcome::Succeeded(_) => rejoin::readmit(applying, id, &spec.cluster),
            Outcome::Failed { code, message, .. } => {
                rejoin::note_divergence(applying, id, &spec.cluster, code, message);
            }
        }
    }
    finish_if_done(applying, id);
    applying.done()
}

/// What its agent named before was the timeline that it left: a standby that stayed there is none of it any more.
fn note_timeline(applying: &mut Applying<'_>, id: RunId, spec: &Step, timeline: u64) {
    let Some(application) = applying.state.runs.get(&id).map(|run| run.application.clone()) else { return };
    let Some(known) = applying.state.applications.get_mut(&application) else { return };
    let database = known.databases.get_mut(&spec.cluster).zip(spec.resource.as_ref());
    if let Some(database) = database.and_then(|(databases, resource)| databases.get_mut(resource)) {
        database.timeline = database.timeline.max(timeline);
    }
}

fn stick(applying: &mut Applying<'_>, id: RunId, spec: &Step, code: &str, message: &str) {
    let Some(application) = applying.state.runs.get(&id).map(|run| run.application.clone()) else { return };
    // What a drill leaves half-done is a copy: the database itself is as it was, and may be promoted.
    if let (Some(resource), Some(known)) = (&spec.resource, applying.state.applications.get_mut(&application))
        && !matches!(spec.kind, StepKind::Rehearse(_))
    {
        known.stuck.entry(spec.cluster.clone()).or_default().insert(resource.clone(), id);
    }
    let what = spec.resource.as_ref().map_or_else(String::new, |resource| format!(" of {resource}"));
    let detail = format!("step {}{what} in {}: {code}: {message}", spec.id, spec.cluster);
    applying.audit("stuck", Some(&application), Some(id), "leader", detail);
}

/// A run ends when nothing of it is to be awaited.
pub(crate) fn finish_if_done(applying: &mut Applying<'_>, id: RunId) {
    let at = applying.at;
    if applying.state.runs.get(&id).is_some_and(Run::is_drill) {
        return drill::finish_if_done(applying, id);
    }
    let Some(run) = applying.state.runs.get_mut(&id) else { return };
    let undoing = run.status == RunStatus::Undoing;
    let all = |run: &Run, undo: bool| {
        let part = || run.walk().filter(|(step, _)| (step.stage == super::UNDO_STAGE) == undo);
        let last_awaited = part().filter(|(step, _)| !step.detached).map(|(step, _)| step.stage).max();
        part().all(|(step, progress)| {
            // What is not awaited had its turn beside an awaited stage, or must have been begun at least.
            let had_its_turn = Some(step.stage) <= last_awaited || progress.state != StepState::Pending;
            progress.state.is_ended() || (step.detached && had_its_turn)
        })
    };
    let status = if undoing && all(run, true) {
        RunStatus::Undone
    } else if !undoing && all(run, false) {
        RunStatus::Succeeded
    } else {
        return;
    };
    run.end(status, at);
    let application = run.application.clone();
    release(applying, id);
    window::open(applying, id);
    applying.audit("run-ended", Some(&application), Some(id), "leader", status.to_string());
}

/// The application is free for another run.
pub(crate) fn release(applying: &mut Applying<'_>, id: RunId) {
    let Some(application) = applying.state.runs.get(&id).map(|run| run.application.clone()) else { return };
    if let Some(known) = applying.state.applications.get_mut(&application) {
        if known.run == Some(id) {
            known.run = None;
        }
        known.stuck.values_mut().for_each(|stuck| stuck.retain(|_, run| *run != id));
        known.stuck.retain(|_, stuck| !stuck.is_empty());
    }
    order::run_ended(applying, &application, id);
    applying.effects.push(Effect::RunChanged(id));
}

/// An operator's word on a stuck step.
pub(crate) fn cleared(
    applying: &mut Applying<'_>,
    id: RunId,
    step: StepId,
    how: Clearing,
    by: &str,
    reason: &str,
) -> Applied {
    let at = applying.at;
    let Some(run) = applying.state.runs.get_mut(&id) else {
        return refused("unknown-run", format!("run {id} does not exist"));
    };
    let application = run.application.clone();
    let Some((spec, progress)) = run.step(step) else {
        return refused("unknown-step", format!("run {id} has no step {step}"));
    };
    if progress.state != StepState::Stuck {
        return refused("not-stuck", format!("step {step} of run {id} is not stuck"));
    }
    let spec = spec.clone();
    if how == Clearing::Done
        && let Err(rule) = heeds_done(applying.state.applications.get(&application), &spec)
    {
        return refused(&rule.code, rule.detail);
    }
    // An older release asked nobody for it.
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    if let Some(progress) = run.progress_mut(step) {
        match how {
            Clearing::Retry => {
                progress.state = StepState::Retrying;
                progress.spent = 0;
                progress.ended = None;
            }
            Clearing::Done => {
                progress.state = StepState::Succeeded;
                progress.ended = Some(at);
                progress.report =
                    Some(Report { message: format!("done by hand, says {by}{why}"), ..Report::default() });
            }
        }
    }
    let Some(run) = applying.state.runs.get_mut(&id) else { return ignored("unknown run") };
    let still = run.walk().any(|(_, progress)| progress.state == StepState::Stuck);
    if run.status == RunStatus::Stuck && !still {
        run.status = RunStatus::Running;
    }
    if let (Some(resource), Some(known)) = (&spec.resource, applying.state.applications.get_mut(&application))
        && !matches!(spec.kind, StepKind::Rehearse(_))
    {
        known.stuck.get_mut(&spec.cluster).map(|stuck| stuck.remove(resource));
        known.stuck.retain(|_, stuck| !stuck.is_empty());
    }
    let word = match how {
        Clearing::Retry => "retry",
        Clearing::Done => "done by hand",
    };
    applying.effects.push(Effect::RunChanged(id));
    applying.audit("cleared", Some(&application), Some(id), by, format!("step {step}: {word}{why}"));
    finish_if_done(applying, id);
    applying.done()
}
