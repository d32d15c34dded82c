//! Where something stands, in one stable word, and what a human can do next. Whatever was commanded at whatever moment,
//! there is such a state; gRPC, regentctl and the dashboard all show these very sentences.

use serde::Serialize;

use crate::application::Action;
use crate::breaker::is_frozen;
use crate::decide::awaits;
use crate::id::{ApplicationId, ClusterId};
use crate::run::{Progress, Run, RunStatus, Step, StepKind, StepState};
use crate::state::{ApplicationState, Order, OrderState, State};
use crate::time::Timestamp;
use crate::verdict::is_lost;

mod group;
mod undone;

pub use group::of_group;

/// A named state with what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// Stable word, e.g. `undoing`.
    pub state: &'static str,
    /// A sentence for humans, with the commands.
    pub next: String,
}

fn advice(state: &'static str, next: impl Into<String>) -> Advice {
    Advice { state, next: next.into() }
}

/// Of an application: its run if one is under way, else what stands out, most important first.
#[must_use]
pub fn of_application(state: &State, id: &ApplicationId, known: &ApplicationState, wall: Timestamp) -> Advice {
    let Some(primary) = &known.primary else {
        return advice("not-adopted", format!("no primary is known yet; `regentctl why {id}` says what is missing"));
    };
    // A question goes before a run: the source of a switchover may have died under it.
    if let Some(order) = known.order.as_ref().filter(|order| !order.is_given() && order.declined.is_none()) {
        return of_order(order, id, primary);
    }
    if let Some(run) = known.run.and_then(|run| state.runs.get(&run)) {
        return of_run(state, run);
    }
    if let Some(order) = &known.order {
        return of_order(order, id, primary);
    }
    if state.paused.is_some() {
        return group::paused();
    }
    if known.paused.is_some() {
        return advice("paused", format!("nothing happens by itself; `regentctl resume {id}` ends it"));
    }
    if is_frozen(state) {
        return group::frozen();
    }
    if let Some(window) = &known.window {
        return advice(
            "commit-window",
            format!(
                "run {} can be rolled back to {} for another {}: `regentctl rollback {id}`, or `regentctl commit {id}`",
                window.run,
                window.back_to,
                window.left(wall)
            ),
        );
    }
    if let Some(cluster) = known.excluded.keys().next() {
        return advice(
            "quarantined",
            format!("{cluster} is no candidate until it follows {primary}: `regentctl rejoin {id} {cluster}`"),
        );
    }
    if known.cooling_since.is_some_and(|since| wall.since(since) < known.document.automation.cooldown) {
        return advice(
            "cooling-down",
            format!("an automatic failover waits; look at what happened, then `regentctl ack {id}`"),
        );
    }
    if let Some(hold) = &known.held {
        return advice(
            "held",
            format!("no planned move begins, by {}: {}; `regentctl unhold {id}` ends it", hold.by, hold.reason),
        );
    }
    if let Some((rule, _)) = &known.refusal {
        return advice("refused", format!("a failover is due and the rule {rule} holds it; see `regentctl why {id}`"));
    }
    advice("steady", "nothing is to be done")
}

fn of_order(order: &Order, id: &ApplicationId, primary: &ClusterId) -> Advice {
    let state = match order.state {
        OrderState::Asked | OrderState::Silent if order.declined.is_some() => "declined",
        OrderState::Asked => "asking",
        OrderState::Silent => "unanswered",
        OrderState::Given { .. } => "ordered",
    };
    advice(state, awaits(order, id, primary))
}

/// Of a run, whatever became of it.
#[must_use]
pub fn of_run(state: &State, run: &Run) -> Advice {
    if let Some(lost) = target_lost(state, run) {
        return lost;
    }
    let (id, application) = (run.id, &run.application);
    match run.status {
        RunStatus::Running if run.is_drill() => drilling(run),
        RunStatus::Running => running(state, run),
        RunStatus::Undoing if run.is_drill() => match stuck(run) {
            Some(step) => advice("stuck", format!("what the drill copied is not taken away: {step}")),
            None => advice("cleaning-up", "nothing is to be done: what the drill copied is taken away"),
        },
        RunStatus::Undoing => match stuck(run) {
            Some(step) => advice("undo-stuck", format!("{} does not open again: {step}", run.from)),
            None => advice("undoing", format!("nothing is to be done: {} serves again when it is undone", run.from)),
        },
        RunStatus::Stuck => {
            let step = stuck(run).unwrap_or_else(|| format!("see `regentctl runs {id}`"));
            let moves = run.cause.moves_primary();
            let stop = match (moves && run.decided.is_none(), run.gives_way()) {
                (true, _) => format!("; or have it undone: `regentctl abort {id} --reason WHY`"),
                (false, true) => format!("; or end it where it is: `regentctl abort {id} --reason WHY`"),
                (false, false) => String::new(),
            };
            advice("stuck", format!("{step}{stop}"))
        }
        RunStatus::Succeeded => advice("succeeded", ended(state, run)),
        RunStatus::Undone => advice("undone", undone::next(state, run)),
        RunStatus::Superseded => {
            let later = state.runs.values().filter(|other| other.application == *application && other.id > id);
            let next = later.map(|other| other.id).next();
            advice(
                "superseded",
                next.map_or_else(
                    || "nothing is to be done: a later decision took its place".to_owned(),
                    |next| format!("another run took its place: `regentctl runs {next}`"),
                ),
            )
        }
        RunStatus::Aborted => advice("aborted", ended(state, run)),
        RunStatus::Failed => advice("failed", format!("it ended without success: see `regentctl report {id}`")),
    }
}

/// Behind the point of no return the target is lost, and no other cluster may take over: nothing goes on by itself. The old
/// side has every write up to the decision and is left out by that very decision; whoever opens it must know that the
/// target is off, and that is no coordinator's to say.
fn target_lost(state: &State, run: &Run) -> Option<Advice> {
    let (known, to) = (state.applications.get(&run.application)?, &run.to);
    let opens = run.decided.is_some() && !run.status.is_final() && !run.gives_way();
    let left_out = |cluster: &ClusterId| known.excluded.contains_key(cluster) || is_lost(state, cluster);
    let nobody = known.document.clusters.iter().filter(|cluster| *cluster != to).all(left_out);
    if !opens || known.primary.as_ref() != Some(to) || !is_lost(state, to) || !nobody {
        return None;
    }
    let next = format!(
        "no side serves: {to} was lost after the decision, and nobody else may take over. When its agent is back, the run can go \
         on. If it never comes back, a human attests that and chooses the side that goes on, in a restored group: \
         deploy/runbooks/no-target.md. `regentctl why {}` says how each cluster stands",
        run.application
    );
    Some(advice("target-lost", next))
}

fn running(state: &State, run: &Run) -> Advice {
    let id = run.id;
    let known = state.applications.get(&run.application);
    let paused = state.paused.is_some() || known.is_some_and(|known| known.paused.is_some());
    if let Some(question) = asking(run) {
        return question;
    }
    if run.cause.moves_primary() && run.decided.is_none() {
        if paused {
            return advice("pausing", "nothing is decided while it is paused: what was begun is undone");
        }
        return advice("running", format!("it can still be undone: `regentctl abort {id} --reason WHY`"));
    }
    if run.gives_way() {
        return advice(
            "following",
            format!("{} still has to follow {}; `regentctl abort {id} --reason WHY` ends that", run.from, run.to),
        );
    }
    advice("past-return", format!("it only goes forward: follow it with `regentctl runs {id} --watch`"))
}

/// It moves nothing, so nobody follows anybody.
fn drilling(run: &Run) -> Advice {
    let id = run.id;
    asking(run).unwrap_or_else(|| {
        let next =
            format!("copies are rehearsed with, and {} serves; `regentctl abort {id} --reason WHY` ends it", run.from);
        advice("drilling", next)
    })
}

/// A step that asks a human just now.
fn asking(run: &Run) -> Option<Advice> {
    let (step, _) = run.walk().find(|(step, progress)| run.asks(step, progress))?;
    let (id, question) = (run.id, &step.question);
    Some(advice("asking", format!("it asks: {question} Yes: `regentctl approve {id} {} --reason WHY`", step.id)))
}

/// The first step that waits for a human, and how it is answered.
fn stuck(run: &Run) -> Option<String> {
    let (step, progress) = run.walk().find(|(_, progress)| progress.state == StepState::Stuck)?;
    let (id, number) = (run.id, step.id);
    if step.kind == StepKind::Action(Action::Approve) {
        return Some(format!("nobody has answered; yes: `regentctl approve {id} {number} --reason WHY`"));
    }
    let code = progress.failure.as_ref().map_or("", |(code, _)| code.as_str());
    let what = step.resource.as_ref().map_or_else(String::new, |resource| format!(" of {resource}"));
    let retry = format!("`regentctl clear {id} --step {number} --retry`");
    Some(format!("mend step {number}{what} in {} ({code}: deploy/runbooks/{code}.md), then {retry}", step.cluster))
}

/// What is left to do once a run has ended: nothing, unless the old side does not follow.
fn ended(state: &State, run: &Run) -> String {
    let known = state.applications.get(&run.application);
    let window = known.and_then(|known| known.window.as_ref()).filter(|window| window.run == run.id);
    if let Some(window) = window {
        let application = &run.application;
        return format!(
            "it can be rolled back to {}: `regentctl rollback {application}`, or made to stay: `regentctl commit {application}`",
            window.back_to
        );
    }
    if known.is_some_and(|known| known.excluded.contains_key(&run.from)) {
        let left = if was_under_way(run) { BEHIND_AN_ABORT } else { "" };
        return format!("{} is quarantined: `regentctl rejoin {} {}`{left}", run.from, run.application, run.from);
    }
    "nothing is to be done".to_owned()
}

/// Of a rejoin that was ended in its middle. Agents hear of intents only, and nothing takes one back but a higher epoch.
const BEHIND_AN_ABORT: &str = ". If its agent is at work on a step of this run, it finishes that: the database stays closed \
    to writes meanwhile, what was set aside is kept, and the next rejoin waits for it";

/// An operator ended it while a side was being made to follow, and an agent may have begun that.
fn was_under_way(run: &Run) -> bool {
    let begun = |(step, progress): (&Step, &Progress)| {
        let unheard = progress.state == StepState::Skipped && progress.token.is_some();
        step.kind == StepKind::Action(Action::Rejoin) && unheard
    };
    run.status == RunStatus::Aborted && run.walk().any(begun)
}
