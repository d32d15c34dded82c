//! Whether the cause of a run that fences first still holds.
//!
//! Such a run is begun by an entry, and an entry that was proposed just before the quorum was lost may commit minutes
//! later: applying it reads no clock and no evidence. A database that failed then may serve now, and trouble of the
//! coordinators alone must not stop a healthy primary (S6). So before the first intent of such a run the leader looks
//! again:
//!
//! ```text
//!  RunStarted applied ── cause seen ──────────────► fence → Decide{Fenced} → …
//!                   ├── looked, and gone ─────────► CauseGone: nothing was done, so it ends at once
//!                   └── not looked for yet ───────► waits, three intervals at most
//! ```
//!
//! A switchover touches nothing before the first step that keeps writes out: it waits until clients hold no answer of before,
//! and its runbook may ask a human. So it is asked until then, and a pause or a hold ends it, too. While a step of it is under
//! way only what a failover may be due for ends it; the look that counts is the one right before the next step, and it is
//! repeated for three intervals.
//!
//! From the first intent on (of a switchover: the first that keeps writes out) it is not asked again: a fence hides
//! what it was begun for (a database that refuses writes by command can no longer show that it would have taken them),
//! and to open and fence in turns would be worse than a failover. What is fenced is followed by the decision, or opened
//! again: after D, and at once in a pause, which forbids every decision. With one exception: the *intent* of the first
//! fences may itself have been proposed just before the quorum was lost, and commit late. Such a run is noted by the leader
//! that applies it ([`crate::evidence::Evidence::late_runs`]): nothing of it is dispatched before its cause was seen once
//! more, as if nothing had begun. If it is gone, they are undone: `CauseGone` is ignored where anything has begun.

use crate::application::Action;
use crate::breaker::is_frozen;
use crate::decide::Viewpoint;
use crate::entry::Cause;
use crate::evidence::Evidence;
use crate::id::{Attempt, RunId};
use crate::run::{Progress, Run, RunStatus, Step, StepKind, StepState};
use crate::state::State;
use crate::switchover;
use crate::terms::Window;
use crate::time::Timestamp;
use crate::verdict::{Failure, Scene};

/// What the leader sees of a run's cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is as it was, or it is not to be asked any more.
    Holds,
    /// It may hold or not: what would tell has not been looked for yet.
    NotLookedFor,
    /// It is gone; why, for humans.
    Gone(String),
}

/// Nothing is begun in a pause.
const PAUSED: &str = "it was paused before anything was done";

/// What came between and holds all automatic action: nothing has been touched yet, and nothing could be decided.
fn held(scene: &Scene<'_>) -> Option<&'static str> {
    if is_frozen(scene.state) {
        Some("several clusters stand lost at once; nothing is decided until that is over")
    } else {
        is_paused(scene).then_some(PAUSED)
    }
}

/// It is paused, or the end of a pause is not confirmed: no decision would be taken.
pub(crate) fn is_paused(scene: &Scene<'_>) -> bool {
    let known = scene.known;
    known.paused.is_some() || scene.state.paused.is_some() || Window::new(&known.terms).any_paused()
}

/// Fences of the old side are all that was begun, and not one of them has an outcome: nothing is known to have been done.
#[must_use]
pub fn is_only_fencing(run: &Run) -> bool {
    let open = run.decided.is_none() && run.status == RunStatus::Running;
    // A TTL that was shortened is no reason either to go on without a look.
    let begun = || {
        run.walk().filter(|(step, progress)| step.kind.touches() && !step.is_ttl_alone() && progress.token.is_some())
    };
    let fence = |step: &Step| step.kind == StepKind::Action(Action::Fence) && step.cluster == run.from;
    let untold = |(step, progress): (&Step, &Progress)| {
        fence(step) && progress.state == StepState::Running && progress.attempts == Attempt(1)
    };
    open && begun().next().is_some() && begun().all(untold)
}

/// A step of it is being done.
fn is_busy(run: &Run) -> bool {
    run.walk().any(|(_, progress)| progress.state == StepState::Running)
}

/// Its last step ended within three intervals.
fn has_just_waited(scene: &Scene<'_>, run: &Run, wall: Timestamp) -> bool {
    let last = run.walk().filter_map(|(_, progress)| progress.ended).max();
    last.is_some_and(|ended| wall.since(ended) < scene.interval().times(3))
}

/// True if what was noted as late may be dispatched: its cause was looked at and holds.
#[must_use]
pub fn holds(state: &State, evidence: &Evidence, view: Viewpoint, run: RunId) -> bool {
    let Some(run) = state.runs.get(&run) else { return false };
    let scene = Scene::new(state, evidence, view.now, view.me, &run.application);
    scene.is_some_and(|scene| of(&scene, run, view.wall) == Standing::Holds)
}

/// Looks at the cause of a run that has not begun to act.
pub(crate) fn of(scene: &Scene<'_>, run: &Run, wall: Timestamp) -> Standing {
    if run.hides_its_cause() && !(is_only_fencing(run) && scene.evidence.late_runs.contains(&run.id)) {
        return Standing::Holds;
    }
    let automatic = match &run.cause {
        Cause::RegionLost | Cause::ResourceFailed { .. } | Cause::AgentUnreachable | Cause::SelfFenced => true,
        // What an operator ordered is not begun either once nothing can be decided.
        Cause::Forced { .. } => true,
        Cause::Switchover { .. } | Cause::Rejoin { .. } | Cause::Recovered | Cause::Drill { .. } => false,
    };
    if automatic && let Some(held) = held(scene) {
        return Standing::Gone(held.to_owned());
    }
    if run.cause.is_planned() {
        if is_paused(scene) {
            return Standing::Gone(PAUSED.to_owned());
        }
        if let Some(hold) = &scene.known.held {
            return Standing::Gone(format!("held by {} before anything was done: {}", hold.by, hold.reason));
        }
    }
    let (holds, gone) = match &run.cause {
        Cause::ResourceFailed { resource, .. } => {
            let counts = |failure: Failure| failure.confirmed_by_standby && failure.ripe <= scene.now;
            let failed = scene.failure().is_some_and(counts);
            (failed, format!("{resource} in {} is not known to have failed any more", run.from))
        }
        Cause::AgentUnreachable => {
            (scene.loss().is_some(), format!("a majority of coordinators hears the agent of {} again", run.from))
        }
        Cause::SelfFenced => {
            let due = scene.self_fenced_due().is_some_and(|due| due <= scene.now);
            (due, format!("the agent of {} holds its lease again", run.from))
        }
        // While it waits or asks, only what a failover may be due for ends it: a standby that links anew is no reason.
        Cause::Switchover { .. } if is_busy(run) && !run.hides_its_cause() => (
            scene.failure().is_none() && scene.agent_reachable(),
            format!("{} does not serve as it did when this was asked for", run.from),
        ),
        // It was asked for when both sides were well; the leader is who sees whether they are.
        Cause::Switchover { .. } => match switchover::readiness(scene, &run.to) {
            Ok(_) => (true, String::new()),
            // Nothing is closed yet, so a moment is given to what may be a moment's trouble.
            Err(_) if has_just_waited(scene, run, wall) => return Standing::NotLookedFor,
            Err(rule) => (false, format!("{}: {}", rule.code, rule.detail)),
        },
        // Who does not answer is not told to fence; the order goes another way.
        Cause::Forced { .. } => {
            (scene.agent_reachable(), format!("the agent of {} does not answer any more", run.from))
        }
        Cause::RegionLost | Cause::Rejoin { .. } | Cause::Recovered | Cause::Drill { .. } => return Standing::Holds,
    };
    if holds {
        Standing::Holds
    } else if scene.not_looked_for().is_some() {
        Standing::NotLookedFor
    } else {
        Standing::Gone(gone)
    }
}
