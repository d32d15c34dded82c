//! A planned switchover: whether it may start, and when it is given up. A refusal costs nothing; once writes are kept
//! out, every moment is an outage, so what can be seen before is looked at before.
//!
//! ```text
//!  preflight ─► RunStarted ─► leader looks again ─► quiesce, fence, catchUp ─► Decide{Switched} ─► promote …
//!     refusal                   nothing was done        undone within maxWriteOutage │ only forward
//! ```

use crate::application::Action;
use crate::entry::{Cause, Finding, Gap};
use crate::evidence::{Health, LeaseState};
use crate::id::ClusterId;
use crate::plan::SWITCHOVER;
use crate::run::{Run, RunStatus, StepKind, StepState};
use crate::target::{self, Candidate};
use crate::terms::Window;
use crate::time::{Span, Timestamp, Waits};
use crate::verdict::{Scene, rule};
use crate::why::Rule;

/// Without a decision so long after writes were first kept out, everything is undone, unless the operator says else.
pub const MAX_WRITE_OUTAGE: Span = Span::from_secs(30);

/// Whether a switchover may start now; with the cluster it would go to. Without a wish that is the first fit one.
///
/// # Errors
/// The rule that refuses it.
pub fn preflight(scene: &Scene<'_>, wish: Option<&ClusterId>) -> Result<Candidate, Rule> {
    let known = scene.known;
    if !known.document.runbooks.contains_key(SWITCHOVER) {
        let detail = format!("{} has no runbook named {SWITCHOVER}; add it to the document", known.document.name);
        return Err(rule("no-switchover-runbook", detail));
    }
    let under_way = known.run.and_then(|run| scene.state.runs.get(&run)).filter(|run| !run.gives_way());
    if let Some(run) = under_way {
        return Err(rule("run-under-way", format!("run {} is under way", run.id)));
    }
    if known.paused.is_some() || scene.state.paused.is_some() || Window::new(&known.terms).any_paused() {
        return Err(rule("paused", "paused, or the end of a pause is not confirmed by the primary's agent"));
    }
    if !known.confirmed {
        return Err(rule("nothing-confirmed", "the primary's agent has confirmed no terms yet"));
    }
    let agreed = Window::new(&known.terms).guarded_in_each();
    if let Some(resource) = known.document.guarded().into_iter().find(|resource| !agreed.contains(resource)) {
        let detail = format!("{resource} was added and the primary's agent has not confirmed that it guards it");
        return Err(rule("unconfirmed-database", detail));
    }
    match wish {
        Some(to) => readiness(scene, to),
        None => {
            let fit = target::rank(scene).into_iter().flatten().next().map(|candidate| candidate.cluster);
            match fit {
                Some(to) => readiness(scene, &to),
                None => Err(rule("no-target", "no other cluster can take over; name one with --to to see why")),
            }
        }
    }
}

/// Both sides are well: the primary serves under its lease, and the target follows it in every database.
pub(crate) fn readiness(scene: &Scene<'_>, to: &ClusterId) -> Result<Candidate, Rule> {
    if to == scene.primary {
        return Err(rule("same-cluster", format!("{to} is the primary")));
    }
    if !scene.known.document.clusters.contains(to) {
        return Err(rule("unlisted-cluster", format!("{to} is not listed")));
    }
    primary_serves(scene)?;
    let judged = target::rank(scene).into_iter().find(|judged| match judged {
        Ok(candidate) => candidate.cluster == *to,
        Err(unfit) => unfit.cluster == *to,
    });
    let candidate = match judged {
        Some(Ok(candidate)) => candidate,
        Some(Err(unfit)) => return Err(rule(unfit.code, format!("{to}: {}", unfit.detail))),
        None => return Err(rule("unlisted-cluster", format!("{to} is not listed"))),
    };
    for resource in scene.known.document.guarded() {
        let upstream =
            scene.evidence.sighting(to, scene.application, &resource).and_then(|seen| seen.upstream.as_ref());
        if upstream.is_none_or(|upstream| !upstream.connected) {
            let detail = format!("{resource} in {to} does not receive from {} just now", scene.primary);
            return Err(rule("not-following", detail));
        }
    }
    Ok(candidate)
}

fn primary_serves(scene: &Scene<'_>) -> Result<(), Rule> {
    let primary = scene.primary;
    if !scene.agent_reachable() {
        return Err(rule("primary-not-ready", format!("the agent of {primary} is not heard just now")));
    }
    let lease = scene.evidence.beat(primary, scene.application).filter(|beat| beat.epoch == scene.known.epoch);
    if lease.is_none_or(|beat| beat.lease != LeaseState::Held) {
        return Err(rule("primary-not-ready", format!("the agent of {primary} holds no lease")));
    }
    for resource in scene.known.document.guarded() {
        let seen = scene.evidence.sighting(primary, scene.application, &resource);
        let serves =
            seen.is_some_and(|seen| seen.is_fresh(scene.now) && seen.health == Health::Healthy && seen.writable);
        if !serves {
            let detail = format!("{resource} in {primary} is not seen to accept writes; a failover may be what is due");
            return Err(rule("primary-not-ready", detail));
        }
    }
    Ok(())
}

/// Why a switchover that is not decided yet is to be undone, if it is.
pub(crate) fn gives_up(scene: &Scene<'_>, run: &Run, waits: Waits) -> Option<String> {
    let Cause::Switchover { max_write_outage, .. } = run.cause else { return None };
    let open = run.decided.is_none() && matches!(run.status, RunStatus::Running | RunStatus::Stuck);
    if !open || !run.has_begun() {
        return None;
    }
    let since = kept_out_since(run)?;
    let lasted = waits.since(since);
    if lasted > max_write_outage {
        return Some(format!("not caught up and decided within maxWriteOutage, {max_write_outage}"));
    }
    if scene.known.paused.is_some() || scene.state.paused.is_some() {
        return Some("paused: nothing is decided".to_owned());
    }
    // A fence that had to go hard, or met a database that does not run, tells no final position.
    let told = |resource: &_| {
        let fenced = |step: &crate::run::Step| {
            step.kind == StepKind::Action(Action::Fence) && step.resource.as_ref() == Some(resource)
        };
        let done = run.walk().any(|(step, progress)| fenced(step) && progress.state == StepState::Succeeded);
        !done || run.final_position(resource).is_some()
    };
    let silent = scene.known.document.guarded().into_iter().find(|resource| !told(resource))?;
    Some(format!("{silent} in {} is fenced and tells no final position", run.from))
}

/// Since when the old side has been told to take no more.
fn kept_out_since(run: &Run) -> Option<Timestamp> {
    let keeps_out = |kind| matches!(kind, StepKind::Action(Action::Quiesce | Action::Deactivate | Action::Fence));
    run.walk().filter(|(step, _)| keeps_out(step.kind)).filter_map(|(_, progress)| progress.started).min()
}

/// What the run's own steps reported: the last position of the old side, and that the new side has it.
pub(crate) fn finding(scene: &Scene<'_>, run: &Run) -> Finding {
    let gap = |resource| {
        let (last, reached) = (run.final_position(&resource), run.caught_up_to(&resource));
        let text = format!(
            "{} → {}",
            last.map_or_else(|| "?".to_owned(), |last| last.to_string()),
            reached.map_or_else(|| "?".to_owned(), |reached| reached.to_string())
        );
        let gap = Gap { primary: last, primary_age: Some(Span::ZERO), candidate: reached, lag: Some(Span::ZERO), text };
        (resource, gap)
    };
    Finding { gaps: scene.known.document.guarded().into_iter().map(gap).collect(), ..run.finding.clone() }
}
