//! A planned switchover: whether it may start, and when it is given up. A refusal costs nothing; once writes are kept
//! out, every moment is an outage, so what can be seen before is looked at before.
//!
//! ```text
//!  preflight ─► RunStarted ─► answers expire, leader looks again ─► quiesce, fence, catchUp ─► Decide{Switched} ─► promote …
//!     refusal                   ended at once: nothing was done     undone within maxWriteOutage │ only forward
//! ```

use serde::{Deserialize, Serialize};

use crate::application::{Action, Application};
use crate::entry::{Cause, Finding, Gap};
use crate::evidence::{Health, LeaseState};
use crate::id::{ApplicationId, ClusterId, ResourceId, RunId};
use crate::plan::{SWITCHOVER, switchover_lines};
use crate::preflight::Severity;
use crate::readiness;
use crate::readiness_found;
use crate::run::{Run, RunStatus, StepKind, StepState};
use crate::target::{self, Candidate};
use crate::terms::Window;
use crate::time::{Span, Waits};
use crate::verdict::{Scene, rule};
use crate::why::Rule;

mod ahead;
mod grace;

pub(crate) use ahead::certain_to_fail;
pub(crate) use grace::of_quiesces;

/// A write outage that can be allowed: no promise is made by zero, and none for longer than a day.
pub const WRITE_OUTAGES: std::ops::RangeInclusive<Span> = Span::from_millis(100)..=Span::from_secs(24 * 3600);

/// What a planned move is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Purpose {
    /// An operator wants it elsewhere.
    #[default]
    Switchover,
    /// Back to a cluster that stands earlier in the list.
    Failback,
    /// Back to where it was, while the commit window of this run is open.
    Rollback {
        /// The switchover that is rolled back.
        of: RunId,
    },
}

impl Purpose {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::Failback => "failback",
            Self::Rollback { .. } => "rollback",
        }
    }
}

/// No cluster is fit, and none was named.
pub(crate) const NO_TARGET: &str = "no-target";

/// Whether a planned move may start now; with the cluster it would go to. Without a wish that is the first fit one. It keeps
/// writes out for as long as the document allows.
///
/// # Errors
/// The first rule that refuses it.
pub fn preflight(scene: &Scene<'_>, purpose: Purpose, wish: Option<&ClusterId>) -> Result<Candidate, Rule> {
    let (candidate, refusals) = look(scene, purpose, wish, scene.known.document.automation.max_write_outage);
    match (refusals.into_iter().next(), candidate) {
        (Some(refusal), _) => Err(refusal),
        (None, Some(candidate)) => Ok(candidate),
        (None, None) => Err(rule(NO_TARGET, "no other cluster can take over; name one with --to to see why")),
    }
}

/// Every rule that refuses a planned move now, most important first, and the cluster it would go to if it is fit.
pub(crate) fn look(
    scene: &Scene<'_>,
    purpose: Purpose,
    wish: Option<&ClusterId>,
    max_write_outage: Span,
) -> (Option<Candidate>, Vec<Rule>) {
    let mut refusals = of_application(scene);
    let to = match destination(scene, purpose, wish) {
        Ok(to) => to,
        Err(refusal) => {
            refusals.push(refusal);
            return (None, refusals);
        }
    };
    let (candidate, unready) = obstacles(scene, &to);
    refusals.extend(unready);
    let grace = of_quiesces(scene, max_write_outage).filter(|(_, note)| note.severity == Severity::Blocker);
    refusals.extend(grace.map(|(place, note)| rule(&note.code, format!("{place}: {}", note.detail))));
    (candidate, refusals)
}

/// What refuses a planned move wherever it goes, most important first.
pub(crate) fn of_application(scene: &Scene<'_>) -> Vec<Rule> {
    let known = scene.known;
    let mut refusals = Vec::new();
    if !known.document.runbooks.contains_key(SWITCHOVER) {
        let detail = format!("{} has no runbook named {SWITCHOVER}; add it to the document", known.document.name);
        refusals.push(rule("no-switchover-runbook", detail));
    }
    let under_way = known.run.and_then(|run| scene.state.runs.get(&run)).filter(|run| !run.gives_way());
    if let Some(run) = under_way {
        refusals.push(rule("run-under-way", format!("run {} is under way", run.id)));
    }
    if known.paused.is_some() || scene.state.paused.is_some() || Window::new(&known.terms).any_paused() {
        refusals.push(rule("paused", "paused, or the end of a pause is not confirmed by the primary's agent"));
    }
    if let Some(hold) = &known.held {
        let detail = format!("by {}: {}; `regentctl unhold {}` ends it", hold.by, hold.reason, scene.application);
        refusals.push(rule("held", detail));
    }
    if !known.confirmed {
        refusals.push(rule("nothing-confirmed", "the primary's agent has confirmed no terms yet"));
    }
    let agreed = Window::new(&known.terms).guarded_in_each();
    if let Some(resource) = known.document.guarded().into_iter().find(|resource| !agreed.contains(resource)) {
        let detail = format!("{resource} was added and the primary's agent has not confirmed that it guards it");
        refusals.push(rule("unconfirmed-database", detail));
    }
    refusals.extend(readiness_found::refusals_of_managers(scene));
    if let Some(command) = irrevocable(&known.document) {
        let detail = format!(
            "the runbook {SWITCHOVER} runs the command {command} before its last catchUp: until then a switchover may be \
             undone, and nothing undoes a command; put it after, and apply the document again"
        );
        refusals.push(rule("command-before-catch-up", detail));
    }
    refusals
}

/// A command that stands before the last `catchUp` of the runbook. No document that is written now has one; one that was
/// stored by an older release may.
fn irrevocable(document: &Application) -> Option<&str> {
    let (lines, last) = switchover_lines(document);
    let before = lines.into_iter().take(last?).find(|line| line.action == Action::Run)?;
    Some(&before.command)
}

/// To where a move of this purpose goes.
fn destination(scene: &Scene<'_>, purpose: Purpose, wish: Option<&ClusterId>) -> Result<ClusterId, Rule> {
    if let Some(wish) = wish {
        return Ok(wish.clone());
    }
    let known = scene.known;
    let fit = || target::rank(scene).into_iter().flatten().map(|candidate| candidate.cluster);
    // What a candidate lacks for a planned move alone is no reason to stay: another one may lack nothing.
    let ready = || scene.others().filter(|cluster| of_target(scene, cluster).1.is_empty()).cloned();
    match purpose {
        Purpose::Switchover => {
            let first = ready().next().or_else(|| fit().next());
            first.ok_or_else(|| rule(NO_TARGET, "no other cluster can take over; name one with --to to see why"))
        }
        Purpose::Failback => {
            let preferred = |cluster: &ClusterId| known.document.clusters.iter().position(|one| one == cluster);
            let here = preferred(scene.primary);
            let earlier = |cluster: &ClusterId| preferred(cluster) < here;
            // If none of them is fit, the first one says why.
            let named = || known.document.clusters.iter().find(|cluster| earlier(cluster)).cloned();
            let first = ready().find(earlier).or_else(|| fit().find(earlier));
            first.or_else(named).ok_or_else(|| {
                rule("at-preferred", format!("{} is the preferred cluster, and the primary is there", scene.primary))
            })
        }
        Purpose::Rollback { of } => match &known.window {
            Some(window) if window.run == of => Ok(window.back_to.clone()),
            Some(_) | None => Err(no_window(scene.application)),
        },
    }
}

/// Nothing can be rolled back or committed.
#[must_use]
pub fn no_window(application: &ApplicationId) -> Rule {
    let detail = format!("no commit window of {application} is open; to move it, use `regentctl switchover`");
    rule("no-commit-window", detail)
}

/// Both sides are well: the primary serves under its lease, and the target follows it in every database.
pub(crate) fn readiness(scene: &Scene<'_>, to: &ClusterId) -> Result<Candidate, Rule> {
    let (candidate, unready) = obstacles(scene, to);
    match (unready.into_iter().next(), candidate) {
        (Some(rule), _) => Err(rule),
        (None, Some(candidate)) => Ok(candidate),
        (None, None) => Err(rule("unlisted-cluster", format!("{to} is not listed"))),
    }
}

/// What is not well on either side.
fn obstacles(scene: &Scene<'_>, to: &ClusterId) -> (Option<Candidate>, Vec<Rule>) {
    let (candidate, unready) = of_target(scene, to);
    // Where there is nowhere to go, how the primary does says nothing.
    let listed = to != scene.primary && scene.known.document.clusters.contains(to);
    let primary = listed.then(|| primary_serves(scene).err()).flatten();
    (candidate, primary.into_iter().chain(unready).collect())
}

/// What is not well in the cluster that would take over, and it as a candidate if it is one.
pub(crate) fn of_target(scene: &Scene<'_>, to: &ClusterId) -> (Option<Candidate>, Vec<Rule>) {
    if to == scene.primary {
        return (None, vec![rule("same-cluster", format!("{to} is the primary"))]);
    }
    if !scene.known.document.clusters.contains(to) {
        return (None, vec![rule("unlisted-cluster", format!("{to} is not listed"))]);
    }
    let mut unready = Vec::new();
    let judged = target::rank(scene).into_iter().find(|judged| match judged {
        Ok(candidate) => candidate.cluster == *to,
        Err(unfit) => unfit.cluster == *to,
    });
    let candidate = match judged {
        Some(Ok(candidate)) => Some(candidate),
        Some(Err(unfit)) => {
            unready.push(rule(unfit.code, format!("{to}: {}", unfit.detail)));
            None
        }
        None => None,
    };
    if candidate.is_some()
        && let Some(resource) =
            scene.known.document.guarded().into_iter().find(|resource| !receives(scene, to, resource))
    {
        let detail = format!("{resource} in {to} does not receive from {} just now", scene.primary);
        unready.push(rule("not-following", detail));
    }
    let apart = readiness::between_sides(scene).into_iter().filter(|(place, _)| place.cluster.as_ref() == Some(to));
    let blocking = apart.filter(|(_, note)| note.severity == Severity::Blocker);
    unready.extend(blocking.map(|(place, note)| rule(&note.code, format!("{place}: {}", note.detail))));
    let fails = certain_to_fail(scene, to).into_iter();
    unready.extend(fails.map(|(place, what)| rule(&what.code, format!("{place}: {}", what.detail))));
    (candidate, unready)
}

/// A standby's link to its primary is up.
pub(crate) fn receives(scene: &Scene<'_>, cluster: &ClusterId, resource: &ResourceId) -> bool {
    let seen = scene.evidence.sighting(cluster, scene.application, resource);
    let upstream = seen.and_then(|seen| seen.upstream.as_ref());
    upstream.is_some_and(|upstream| upstream.connected && upstream.is_of(scene.primary))
}

/// The primary is well enough to be moved from.
///
/// # Errors
/// What it lacks.
pub(crate) fn primary_serves(scene: &Scene<'_>) -> Result<(), Rule> {
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

/// Why a run that keeps writes out and is not decided yet is to be undone at once, if it is: in a pause whatever it was
/// begun for, since nothing is decided in one; a switchover also for what it promised.
pub(crate) fn gives_up(scene: &Scene<'_>, run: &Run, waits: Waits) -> Option<String> {
    let open = run.decided.is_none() && matches!(run.status, RunStatus::Running | RunStatus::Stuck);
    if !open || !run.cause.moves_primary() {
        return None;
    }
    let since = run.kept_out_since()?;
    if scene.known.paused.is_some() || scene.state.paused.is_some() {
        return Some("paused: nothing is decided".to_owned());
    }
    let Cause::Switchover { max_write_outage, .. } = run.cause else { return None };
    if waits.since(since) > max_write_outage {
        return Some(format!("not caught up and decided within maxWriteOutage, {max_write_outage}"));
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
