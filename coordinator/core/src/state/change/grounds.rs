//! What a change of primary must rest on, and what a run that begins must find. Each check reads the applied state and nothing
//! else, so every coordinator comes to the same.

use std::collections::BTreeSet;

use super::{Broken, Decide, is_ordered};
use crate::application::Action;
use crate::blast;
use crate::entry::{Cause, Finding, Ground};
use crate::id::{ApplicationId, ClusterId, CoordinatorId, LogIndex, ResourceId, RunId};
use crate::plan::{self, SWITCHOVER};
use crate::planted::{self, Mistake};
use crate::run::{Run, RunStatus, StepKind, StepState};
use crate::state::apply::Applying;
use crate::state::{ApplicationState, order};
use crate::switchover::{Purpose, no_window};
use crate::terms::Window;

pub(super) fn check(applying: &Applying<'_>, known: &ApplicationState, decide: &Decide<'_>) -> Result<(), Broken> {
    let window = Window::new(&known.terms);
    if known.terms.last().map(|terms| terms.number) != Some(decide.terms) {
        return Err(Broken("newer-terms", "the terms have changed since it was proposed".to_owned()));
    }
    check_target(applying, known, &window, decide.to)?;
    match decide.ground {
        Ground::Lost { votes } => {
            check_confirmed(known)?;
            check_databases(known, &window)?;
            check_frozen(applying)?;
            check_pause(known, &window)?;
            // An operator's order is no automatic failover: the limit is there so that a human looks, and one has.
            let ordered = is_ordered(order::for_decision(known, decide.ground, decide.to).as_ref());
            check_radius(applying, decide.application, known.primary.as_ref(), !ordered)?;
            check_votes(applying, known, &window, votes)
        }
        Ground::Fenced { run } => {
            check_confirmed(known)?;
            check_databases(known, &window)?;
            check_frozen(applying)?;
            check_pause(known, &window)?;
            check_fences(applying, known, &window, *run, decide.to, &[Action::Fence])?;
            check_plan(applying, *run, decide.finding)
        }
        Ground::Switched { run } => {
            check_confirmed(known)?;
            check_databases(known, &window)?;
            check_pause(known, &window)?;
            check_fences(applying, known, &window, *run, decide.to, &[Action::Fence, Action::CatchUp])?;
            check_positions(applying, &window, *run)
        }
        // It stands where the reports were weighed, and nowhere else.
        Ground::Recovered => Err(Broken("not-recovering", "a decision rests on no recovery".to_owned())),
        Ground::Forced { .. } => order::check_forced(known, decide.ground, decide.to),
    }
}

/// A switchover follows its own runbook, and promises that nothing is lost: every database must be movable.
pub(super) fn check_plannable(
    known: &ApplicationState,
    window: &Window<'_>,
    cause: &Cause,
    to: &ClusterId,
) -> Result<(), Broken> {
    match cause {
        Cause::Switchover { purpose, .. } => {
            if let Some(hold) = &known.held {
                return Err(Broken("held", format!("by {}: {}", hold.by, hold.reason)));
            }
            check_purpose(known, *purpose, to)?;
            if !known.document.runbooks.contains_key(SWITCHOVER) {
                let detail = format!("{} has no runbook named {SWITCHOVER}", known.document.name);
                return Err(Broken("no-switchover-runbook", detail));
            }
            check_confirmed(known)?;
            check_databases(known, window)
        }
        Cause::RegionLost
        | Cause::ResourceFailed { .. }
        | Cause::AgentUnreachable
        | Cause::SelfFenced
        | Cause::Forced { .. }
        | Cause::Rejoin { .. }
        | Cause::Recovered
        | Cause::Drill { .. } => Ok(()),
    }
}

/// A rollback goes back to where it was, while its window is open.
fn check_purpose(known: &ApplicationState, purpose: Purpose, to: &ClusterId) -> Result<(), Broken> {
    match purpose {
        Purpose::Switchover | Purpose::Failback => Ok(()),
        Purpose::Rollback { of } => match &known.window {
            Some(window) if window.run == of && window.back_to == *to => Ok(()),
            Some(_) | None => {
                let rule = no_window(&known.document.name);
                Err(Broken("no-commit-window", rule.detail))
            }
        },
    }
}

fn check_confirmed(known: &ApplicationState) -> Result<(), Broken> {
    if known.confirmed {
        return Ok(());
    }
    Err(Broken("nothing-confirmed", "the primary's agent has confirmed no terms; it may count by none".to_owned()))
}

/// A database that some unconfirmed terms do not guard may still be written by the old primary: it cannot be promoted,
/// and an application is not moved by halves.
fn check_databases(known: &ApplicationState, window: &Window<'_>) -> Result<(), Broken> {
    let agreed = window.guarded_in_each();
    match known.document.guarded().into_iter().find(|resource| !agreed.contains(resource)) {
        None => Ok(()),
        Some(resource) => {
            let detail = format!("{resource} was added and the primary's agent has not confirmed that it guards it");
            Err(Broken("unconfirmed-database", detail))
        }
    }
}

fn check_frozen(applying: &Applying<'_>) -> Result<(), Broken> {
    match &applying.state.frozen {
        Some(clusters) if !applying.state.thawed_by_hand(clusters) => {
            Err(Broken("frozen", "several clusters were lost at once; look, then `regentctl ack`".to_owned()))
        }
        Some(_) | None => Ok(()),
    }
}

/// What begins by itself is counted; beyond the limit a human looks first.
pub(super) fn check_radius(
    applying: &Applying<'_>,
    application: &ApplicationId,
    lost: Option<&ClusterId>,
    automatic: bool,
) -> Result<(), Broken> {
    match blast::exceeded(applying.state, application, lost, applying.at).filter(|_| automatic) {
        Some(rule) => Err(Broken("blast-radius", rule.detail)),
        None => Ok(()),
    }
}

pub(super) fn check_pause(known: &ApplicationState, window: &Window<'_>) -> Result<(), Broken> {
    if (window.any_paused() || known.paused.is_some()) && !planted::makes(Mistake::PauseIgnored) {
        return Err(Broken(
            "paused",
            "paused, or the end of a pause is not confirmed by the primary's agent".to_owned(),
        ));
    }
    Ok(())
}

pub(super) fn check_target(
    applying: &Applying<'_>,
    known: &ApplicationState,
    window: &Window<'_>,
    to: &ClusterId,
) -> Result<(), Broken> {
    if known.primary.as_ref() == Some(to) {
        return Err(Broken("same-cluster", format!("{to} is the primary")));
    }
    let installation = applying.state.agents.get(to).map(|agent| &agent.installation);
    if !installation.is_some_and(|installation| window.lists(to, installation)) {
        return Err(Broken(
            "not-a-target",
            format!("{to} is not listed with its present agent, or is quarantined, in every unconfirmed terms"),
        ));
    }
    Ok(())
}

/// `Lost`: the named votes still stand, on this primary, from a majority of every set of voters in question.
fn check_votes(
    applying: &Applying<'_>,
    known: &ApplicationState,
    window: &Window<'_>,
    votes: &BTreeSet<LogIndex>,
) -> Result<(), Broken> {
    let Some(primary) = &known.primary else { return Err(Broken("not-adopted", "no primary is known".to_owned())) };
    if has_remote_fence(applying, known, primary) {
        return Err(Broken(
            "remote-fence",
            "a fence acts on another machine: silence of the agent proves nothing".to_owned(),
        ));
    }
    let ballots = applying.state.votes.get(primary);
    let standing = |index: &LogIndex| -> Option<CoordinatorId> {
        let ballot = ballots?.iter().find(|(_, ballot)| ballot.standing.is_some_and(|vote| vote.index == *index))?;
        Some(*ballot.0)
    };
    let mut observers = BTreeSet::new();
    for index in votes {
        let Some(observer) = standing(index) else {
            return Err(Broken("vote-withdrawn", format!("vote {index} on {primary} does not stand")));
        };
        observers.insert(observer);
    }
    if !window.is_majority(&observers) {
        return Err(Broken(
            "no-majority",
            format!("{} votes are no majority of the voters in every unconfirmed terms", observers.len()),
        ));
    }
    Ok(())
}

fn has_remote_fence(applying: &Applying<'_>, known: &ApplicationState, cluster: &ClusterId) -> bool {
    let endpoints = applying.state.agents.get(cluster).and_then(|agent| agent.endpoints.get(&known.document.name));
    endpoints.is_some_and(|endpoints| endpoints.values().any(|endpoint| endpoint.remote_fence))
}

/// `Fenced`: commanded fences with committed success cover every database that any unconfirmed terms guard, and no
/// later intent touched them. A fence that the agent began by itself never counts.
fn check_fences(
    applying: &Applying<'_>,
    known: &ApplicationState,
    window: &Window<'_>,
    run: RunId,
    to: &ClusterId,
    actions: &[Action],
) -> Result<(), Broken> {
    let Some(run) = applying.state.runs.get(&run) else {
        return Err(Broken("unknown-run", format!("run {run} does not exist")));
    };
    let fits = run.application == known.document.name
        && run.status == RunStatus::Running
        && run.decided.is_none()
        && run.epoch_before == known.epoch
        && Some(&run.from) == known.primary.as_ref()
        && run.to == *to;
    if !fits {
        return Err(Broken("run-moved-on", format!("run {} does not stand before this decision", run.id)));
    }
    for resource in window.guarded_in_any() {
        for action in actions {
            if let Some(why) = not_done(applying, run, &resource, *action) {
                return Err(Broken("fence-not-confirmed", why));
            }
        }
    }
    Ok(())
}

/// A plan stands from when its run began: it must still be right to restore, or to promote as it is, what it does so.
fn check_plan(applying: &Applying<'_>, run: RunId, finding: &Finding) -> Result<(), Broken> {
    match applying.state.runs.get(&run).and_then(|run| plan::outdated(run, &finding.gaps)) {
        Some(why) => Err(Broken("plan-changed", why)),
        None => Ok(()),
    }
}

/// `Switched`: what the old side reported after its fence is what the new side has, of each database.
fn check_positions(applying: &Applying<'_>, window: &Window<'_>, run: RunId) -> Result<(), Broken> {
    let Some(run) = applying.state.runs.get(&run) else {
        return Err(Broken("unknown-run", format!("run {run} does not exist")));
    };
    for resource in window.guarded_in_any() {
        let (last, reached) = (run.final_position(&resource), run.caught_up_to(&resource));
        if last.is_none() || reached < last {
            let word = |position: Option<u64>| position.map_or_else(|| "unknown".to_owned(), |known| known.to_string());
            let detail = format!("{resource}: its final position is {}, reached is {}", word(last), word(reached));
            return Err(Broken("not-caught-up", detail));
        }
    }
    Ok(())
}

fn not_done(applying: &Applying<'_>, run: &Run, resource: &ResourceId, action: Action) -> Option<String> {
    let found = run.walk().find(|(step, progress)| {
        step.kind == StepKind::Action(action)
            && step.resource.as_ref() == Some(resource)
            && progress.state == StepState::Succeeded
    });
    let Some((step, progress)) = found else { return Some(format!("{action:?} of {resource} has not succeeded")) };
    let later = applying.state.runs.values().filter(|other| other.application == run.application).any(|other| {
        other.walk().any(|(touching, theirs)| {
            touching.resource == step.resource
                && touching.cluster == step.cluster
                && theirs.token > progress.token
                && touching.kind != step.kind
        })
    });
    later.then(|| format!("a later step touched {resource} in {}", step.cluster))
}
