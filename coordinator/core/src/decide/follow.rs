//! What a run that goes on needs: its next intents, time-outs, its decision, or its undo.

use super::Viewpoint;
use crate::application::Action;
use crate::breaker::is_frozen;
use crate::cause::{self, Standing};
use crate::entry::{Cause, Entry, FORMAT, Ground, Record};
use crate::plan;
use crate::run::{self, Proposal, Run, RunStatus};
use crate::state::Applied;
use crate::switchover;
use crate::target::{self, Candidate};
use crate::verdict::Scene;

/// A run's next intents, time-outs and decision.
pub(super) fn of_run(scene: &Scene<'_>, run: &Run, view: Viewpoint) -> Vec<Entry> {
    let mut entries = Vec::new();
    match cause::of(scene, run, view.wall) {
        Standing::Holds => {}
        Standing::NotLookedFor => return entries,
        // Fences that came late have begun in the applied state itself: nothing but an undo takes them back.
        Standing::Gone(reason) if run.hides_its_cause() => return vec![Entry::UndoBegun { run: run.id, reason }],
        Standing::Gone(reason) => return vec![Entry::CauseGone { run: run.id, reason }],
    }
    if let Some(reason) = switchover::gives_up(scene, run, scene.waits(view.wall)) {
        return vec![Entry::UndoBegun { run: run.id, reason }];
    }
    for proposal in run::next(run, scene.waits(view.wall)) {
        match proposal {
            Proposal::Entry(entry) => entries.push(*entry),
            Proposal::Decide => entries.extend(decision(scene, run, view)),
        }
    }
    // A decision that is proposed and refused is none: it is tried on a copy, once D has passed and not before.
    if lapsed(scene, run, view) && entries.iter().all(|entry| is_refused(scene, entry, view)) {
        let reason = "fenced, and no decision followed within failoverAfter".to_owned();
        return vec![Entry::UndoBegun { run: run.id, reason }];
    }
    entries
}

/// What was fenced does not stay closed for nothing: D after the newest confirmed fence without a decision, because
/// the target is no longer fit or another fence is stuck, everything is opened again (safety.md, "Decision").
fn lapsed(scene: &Scene<'_>, run: &Run, view: Viewpoint) -> bool {
    let open = run.decided.is_none() && matches!(run.status, RunStatus::Running | RunStatus::Stuck);
    let newest = run
        .walk()
        .filter(|(step, _)| step.kind == run::StepKind::Action(Action::Fence))
        .filter(|(_, progress)| progress.state == run::StepState::Succeeded)
        .filter_map(|(_, progress)| progress.ended)
        .max();
    open && !run.cause.is_planned()
        && newest.is_some_and(|at| scene.waits(view.wall).since(at) > scene.fail_over_after())
}

/// True for a decision that the state would refuse as it stands.
fn is_refused(scene: &Scene<'_>, entry: &Entry, view: Viewpoint) -> bool {
    if !matches!(entry, Entry::Decide { .. }) {
        return false;
    }
    let mut copy = scene.state.clone();
    let record = Record { format: FORMAT, at: view.wall, request: None, entry: entry.clone() };
    let (applied, _) = copy.apply(copy.applied.next(), &record);
    !matches!(applied, Applied::Done(_))
}

/// The clean-up of a drill that a failover replaced goes on beside it.
pub(super) fn of_clean_ups(scene: &Scene<'_>, view: Viewpoint) -> Vec<Entry> {
    let replaced =
        scene.state.runs.values().filter(|run| {
            run.application == *scene.application && run.is_cleaning_up() && scene.known.run != Some(run.id)
        });
    let proposals = replaced.flat_map(|run| run::next(run, scene.waits(view.wall)));
    let entries = proposals.filter_map(|proposal| match proposal {
        Proposal::Entry(entry) => Some(*entry),
        Proposal::Decide => None,
    });
    entries.collect()
}

fn decision(scene: &Scene<'_>, run: &Run, view: Viewpoint) -> Option<Entry> {
    if run.cause.is_planned() { decide_switched(scene, run) } else { decide_fenced(scene, run, view) }
}

/// It rests on what the run's own steps reported, not on what probes last saw.
pub(super) fn decide_switched(scene: &Scene<'_>, run: &Run) -> Option<Entry> {
    Some(Entry::Decide {
        application: scene.application.clone(),
        from: scene.known.epoch,
        to: run.to.clone(),
        terms: scene.known.terms.last()?.number,
        ground: Ground::Switched { run: run.id },
        finding: switchover::finding(scene, run),
    })
}

fn decide_fenced(scene: &Scene<'_>, run: &Run, view: Viewpoint) -> Option<Entry> {
    let terms = scene.known.terms.last()?.number;
    let candidate = candidate(scene, run)?;
    if is_frozen(scene.state) || cause::is_paused(scene) {
        return None;
    }
    // What was fenced is opened again, and the next plan is made for what is there now.
    if let Some(reason) = plan::outdated(run, &candidate.gaps) {
        return Some(Entry::UndoBegun { run: run.id, reason });
    }
    let reasons = run.finding.reasons.clone();
    let mut finding = target::finding(scene, &candidate, reasons, view.wall);
    finding.last_contact = run.finding.last_contact;
    Some(Entry::Decide {
        application: scene.application.clone(),
        from: scene.known.epoch,
        to: run.to.clone(),
        terms,
        ground: Ground::Fenced { run: run.id },
        finding,
    })
}

/// The target as its run's cause lets it be judged: only an operator's order may go to where nothing is but a backup.
fn candidate(scene: &Scene<'_>, run: &Run) -> Option<Candidate> {
    match run.cause {
        Cause::Forced { .. } => {
            let allowed = scene.known.order.as_ref().is_some_and(|order| order.allows_loss_in(&run.to));
            target::judge_for(scene, &run.to, allowed).ok()
        }
        Cause::RegionLost
        | Cause::ResourceFailed { .. }
        | Cause::AgentUnreachable
        | Cause::SelfFenced
        | Cause::Switchover { .. }
        | Cause::Rejoin { .. }
        | Cause::Recovered
        | Cause::Drill { .. } => {
            target::rank(scene).into_iter().flatten().find(|candidate| candidate.cluster == run.to)
        }
    }
}
