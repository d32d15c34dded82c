//! The change of primary: the grounds are checked here, at apply, whoever proposed it (safety.md, "Decision").

use self::grounds::{check, check_pause, check_plannable, check_radius, check_target};
use super::apply::{Applying, ignored, refused};
use super::recovery::refuse_recovering;
use super::register::renew_terms;
use super::{Applied, Order, RUN_LIMIT, order, rejoin, window};
use crate::blast;
use crate::effect::Effect;
use crate::entry::{Cause, Finding, Ground};
use crate::id::{ApplicationId, ClusterId, Epoch, LogIndex, RunId, Token};
use crate::plan::{self, Begins, Digest};
use crate::planted::{self, Mistake};
use crate::run::{self, Decided, Opening, Run, RunStatus};
use crate::terms::Window;

mod grounds;

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
