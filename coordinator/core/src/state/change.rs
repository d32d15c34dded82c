//! The change of primary: the grounds are checked here, at apply, whoever proposed it (safety.md, "Decision").

use std::collections::BTreeSet;

use super::apply::{Applying, ignored, refused};
use super::recovery::refuse_recovering;
use super::register::renew_terms;
use super::{ApplicationState, Applied, Order, RUN_LIMIT, order, rejoin, window};
use crate::application::Action;
use crate::blast;
use crate::effect::Effect;
use crate::entry::{Cause, Finding, Ground};
use crate::id::{ApplicationId, ClusterId, CoordinatorId, Epoch, LogIndex, ResourceId, RunId, Token};
use crate::plan::{self, Begins, Digest, SWITCHOVER};
use crate::planted::{self, Mistake};
use crate::run::{self, Decided, Opening, Run, RunStatus, StepKind, StepState};
use crate::switchover::{Purpose, no_window};
use crate::terms::Window;

/// A proposed change of primary.
pub(super) struct Decide<'a> {
    pub(super) application: &'a ApplicationId,
    pub(super) from: Epoch,
    pub(super) to: &'a ClusterId,
    pub(super) terms: Token,
    pub(super) ground: &'a Ground,
    pub(super) finding: &'a Finding,
}

/// A run that is proposed.
pub(super) struct Start<'a> {
    pub(super) application: &'a ApplicationId,
    pub(super) epoch: Epoch,
    pub(super) cause: &'a Cause,
    pub(super) to: &'a ClusterId,
    pub(super) finding: &'a Finding,
    /// The plan that was shown; no other may be begun.
    pub(super) seen: Option<&'a Digest>,
}

/// A rule that a proposal broke.
pub(super) struct Broken(pub(super) &'static str, pub(super) String);

/// Begins a run that fences first, at the present epoch. It changes no primary by itself.
pub(super) fn run_started(applying: &mut Applying<'_>, start: &Start<'_>) -> Applied {
    let Start { application, epoch, cause, to, finding, seen } = *start;
    let Some(known) = applying.state.applications.get(application) else {
        return refused("unknown-application", format!("{application} does not exist"));
    };
    if let Err(not) = refuse_recovering(known) {
        return not;
    }
    if known.epoch != epoch {
        return ignored("the epoch has moved on");
    }
    let window = Window::new(&known.terms);
    let sound = check_target(applying, known, &window, to)
        .and_then(|()| check_pause(known, &window))
        .and_then(|()| check_plannable(known, &window, cause, to))
        .and_then(|()| check_radius(applying, application, None, cause.is_automatic()));
    if let Err(Broken(rule, detail)) = sound {
        return refused(rule, detail);
    }
    let Some(from) = known.primary.clone() else { return ignored("not adopted") };
    let order = match order::for_start(known, cause, to) {
        Ok(order) => order,
        Err(why) => return refused("no-order", why),
    };
    let Some(steps) = plan::of(known, cause, to, Begins::Before, &finding.gaps) else { return ignored("not adopted") };
    let digest = Digest::of(application, epoch, &from, to, &steps);
    if let Some(seen) = seen.filter(|seen| **seen != digest) {
        let detail = format!("plan {seen} was seen; now it would be {digest}: look again with `regentctl plan`");
        return refused("plan-changed", detail);
    }
    if let Err(not) = rejoin::give_way(applying, application, cause) {
        return not;
    }
    let by = match cause {
        Cause::Switchover { by, .. } | Cause::Forced { by, .. } => by.as_str(),
        Cause::RegionLost
        | Cause::ResourceFailed { .. }
        | Cause::AgentUnreachable
        | Cause::SelfFenced
        | Cause::Rejoin { .. }
        | Cause::Recovered
        | Cause::Drill { .. } => "leader",
    };
    let id = RunId(applying.index.0);
    let opening = Opening {
        application: application.clone(),
        cause: cause.clone(),
        from: from.clone(),
        to: to.clone(),
        epoch,
        finding: finding.clone(),
        at: applying.at,
    };
    if cause.is_automatic() {
        blast::note(applying.state, application, None, applying.at);
    }
    let mut run = Run::begin(id, steps, opening);
    run.order.clone_from(&order);
    begin(applying, run);
    let standing = applying.state.applications.get_mut(application).and_then(|known| known.order.as_mut());
    if let Some(standing) = standing.filter(|standing| Some(standing.id) == order.as_ref().map(|order| order.id)) {
        standing.run = Some(id);
    }
    applying.audit("run-started", Some(application), Some(id), by, format!("from {from} to {to}"));
    applying.done()
}

/// Changes the primary, or says which rule forbids it. Valid only in exactly the situation it was proposed for.
pub(super) fn decide(applying: &mut Applying<'_>, decide: &Decide<'_>) -> Applied {
    let Some(known) = applying.state.applications.get(decide.application) else {
        return refused("unknown-application", format!("{} does not exist", decide.application));
    };
    if let Err(not) = refuse_recovering(known) {
        return not;
    }
    if known.epoch != decide.from {
        return ignored("the epoch has moved on");
    }
    if let Err(Broken(rule, detail)) = check(applying, known, decide) {
        return refused(rule, detail);
    }
    let Some(from) = known.primary.clone() else { return ignored("not adopted") };
    let order = order::for_decision(known, decide.ground, decide.to);
    let cause = cause_of(decide.ground, order.as_ref());
    let gaps = &decide.finding.gaps;
    let Some(steps) = plan::of(known, &cause, decide.to, Begins::Decided, gaps) else { return ignored("not adopted") };
    let epoch = if planted::makes(Mistake::EpochStays) { decide.from } else { decide.from.next() };
    let continued = match decide.ground {
        Ground::Fenced { run } | Ground::Switched { run } => Some(*run),
        Ground::Lost { .. } | Ground::Forced { .. } | Ground::Recovered => None,
    };
    if blast::begins(decide.ground) && !is_ordered(order.as_ref()) {
        blast::note(applying.state, decide.application, Some(&from), applying.at);
    }
    order::settle(applying, decide.application, order.as_ref());
    supersede(applying, decide.application, continued);
    if let Some(known) = applying.state.applications.get_mut(decide.application) {
        known.epoch = epoch;
        known.primary = Some(decide.to.clone());
        known.excluded.remove(decide.to);
        if !planted::makes(Mistake::OldSideEligible) {
            known.excluded.insert(from.clone(), format!("primary until epoch {epoch}; quarantined until it rejoins"));
        }
        known.refusal = None;
    }
    renew_terms(applying, decide.application);
    let decided = Decided { index: applying.index, at: applying.at, ground: decide.ground.clone(), epoch };
    let id = if let Some(id) = continued {
        if let Some(run) = applying.state.runs.get_mut(&id) {
            run.pass(decided, decide.finding.clone());
            run.order = order.or(run.order.take());
        }
        applying.effects.push(Effect::RunChanged(id));
        id
    } else {
        let id = RunId(applying.index.0);
        let opening = Opening {
            application: decide.application.clone(),
            cause,
            from: from.clone(),
            to: decide.to.clone(),
            epoch: decide.from,
            finding: decide.finding.clone(),
            at: applying.at,
        };
        let mut run = Run::begin(id, steps, opening);
        run.order = order;
        run.pass(decided, decide.finding.clone());
        begin(applying, run);
        id
    };
    window::close(applying, decide.application, id, decide.ground);
    let actor = match decide.ground {
        Ground::Forced { operator, .. } => operator.clone(),
        Ground::Lost { .. } | Ground::Fenced { .. } | Ground::Switched { .. } | Ground::Recovered => {
            "quorum".to_owned()
        }
    };
    let detail = format!("epoch {epoch}: {from} → {} on ground {}", decide.to, ground_name(decide.ground));
    applying.audit("decided", Some(decide.application), Some(id), &actor, detail);
    run::apply::finish_if_done(applying, id);
    applying.done()
}

fn ground_name(ground: &Ground) -> String {
    match ground {
        Ground::Lost { votes } => {
            let votes: Vec<String> = votes.iter().map(LogIndex::to_string).collect();
            format!("lost, votes {}", votes.join(", "))
        }
        Ground::Fenced { run } => format!("fenced by run {run}"),
        Ground::Switched { run } => format!("switched by run {run}"),
        Ground::Recovered => "recovered".to_owned(),
        Ground::Forced { reason, attestation, .. } => format!("forced: {reason}; attested: {attestation}"),
    }
}

/// True if an operator ordered it; an answered question is still an automatic failover.
fn is_ordered(order: Option<&Order>) -> bool {
    order.and_then(Order::wish).is_some()
}

fn cause_of(ground: &Ground, order: Option<&Order>) -> Cause {
    if let Some(wish) = order.and_then(Order::wish) {
        return Cause::Forced { by: wish.by.clone(), reason: wish.why().to_owned() };
    }
    match ground {
        Ground::Forced { operator, reason, .. } => Cause::Forced { by: operator.clone(), reason: reason.clone() },
        Ground::Lost { .. } | Ground::Fenced { .. } | Ground::Switched { .. } | Ground::Recovered => Cause::RegionLost,
    }
}

pub(super) fn begin(applying: &mut Applying<'_>, run: Run) {
    let id = run.id;
    if let Some(known) = applying.state.applications.get_mut(&run.application) {
        known.run = Some(id);
    }
    applying.state.runs.insert(id, run);
    while applying.state.runs.len() > RUN_LIMIT {
        let Some(oldest) = applying.state.runs.values().find(|run| run.status.is_final()).map(|run| run.id) else {
            break;
        };
        applying.state.runs.remove(&oldest);
    }
    applying.effects.push(Effect::RunChanged(id));
}

/// A committed decision supersedes runs of lower epochs.
pub(super) fn supersede(applying: &mut Applying<'_>, application: &ApplicationId, keep: Option<RunId>) {
    let at = applying.at;
    let old: Vec<RunId> = applying
        .state
        .runs
        .values()
        .filter(|run| run.application == *application && !run.status.is_final() && Some(run.id) != keep)
        .filter(|run| !run.is_cleaning_up())
        .map(|run| run.id)
        .collect();
    for id in old {
        if let Some(run) = applying.state.runs.get_mut(&id) {
            // What a drill has made is taken away in any case, beside the run that replaces it.
            if run.is_drill() && run.has_begun() { run.clean_up_only() } else { run.end(RunStatus::Superseded, at) }
        }
        run::apply::release(applying, id);
    }
}

fn check(applying: &Applying<'_>, known: &ApplicationState, decide: &Decide<'_>) -> Result<(), Broken> {
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
fn check_plannable(known: &ApplicationState, window: &Window<'_>, cause: &Cause, to: &ClusterId) -> Result<(), Broken> {
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
fn check_radius(
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

fn check_pause(known: &ApplicationState, window: &Window<'_>) -> Result<(), Broken> {
    if window.any_paused() || known.paused.is_some() {
        return Err(Broken(
            "paused",
            "paused, or the end of a pause is not confirmed by the primary's agent".to_owned(),
        ));
    }
    Ok(())
}

fn check_target(
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
