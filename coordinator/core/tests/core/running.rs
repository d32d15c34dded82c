//! Runs: the documented order, intents before effects, undo before and only forward after the decision.

use regent_core::application::Action;
use regent_core::decide::{Ending, foresee};
use regent_core::effect::Effect;
use regent_core::entry::{Cause, Clearing, Entry, Finding, Ground, Outcome};
use regent_core::id::{Attempt, RunId, StepId};
use regent_core::run::{self, Proposal, RunStatus, StepKind, StepState};
use regent_core::time::{Moment, Span};

use crate::fixture::*;

/// Starts a failover on ground `Lost` and returns its run.
pub fn lost(world: &mut World) -> RunId {
    let votes = [world.vote(1, &west(), 1, Span::ZERO), world.vote(2, &west(), 1, Span::ZERO)];
    world.done(world.lost(&votes));
    world.known().run.unwrap()
}

pub fn failed_database(world: &mut World) -> RunId {
    let epoch = world.known().epoch;
    let cause = Cause::ResourceFailed { resource: resource("db"), detail: "gone".into() };
    world.done(Entry::RunStarted {
        application: app(),
        epoch,
        cause,
        to: central(),
        finding: Finding::default(),
        plan: None,
    });
    world.known().run.unwrap()
}

/// The steps that could be begun now, as "action resource".
pub fn due(world: &World, run: RunId) -> Vec<String> {
    let run = &world.state.runs[&run];
    run::next(run, world.waits())
        .iter()
        .map(|proposal| match proposal {
            Proposal::Decide => "Decide".to_owned(),
            Proposal::Entry(entry) => match entry.as_ref() {
                Entry::StepIntent { step, .. } => name(world, run.id, *step),
                other => format!("{other:?}"),
            },
        })
        .collect()
}

fn name(world: &World, run: RunId, step: StepId) -> String {
    let (step, _) = world.state.runs[&run].step(step).unwrap();
    let what = match step.kind {
        StepKind::Action(action) => format!("{action:?}"),
        other => format!("{other:?}"),
    };
    match &step.resource {
        Some(resource) => format!("{what} {resource}@{}", step.cluster),
        None => what,
    }
}

pub fn find(world: &World, run: RunId, wanted: &str) -> StepId {
    let run = &world.state.runs[&run];
    run.steps.iter().map(|step| step.id).find(|step| name(world, run.id, *step) == wanted).unwrap()
}

pub fn begin(world: &mut World, run: RunId, wanted: &str) -> (StepId, Attempt) {
    let step = find(world, run, wanted);
    let attempt = world.state.runs[&run].step(step).unwrap().1.attempts.next();
    world.done(Entry::StepIntent { run, step, attempt });
    assert!(world.effects.contains(&Effect::Dispatch(run, step)));
    (step, attempt)
}

pub fn end(world: &mut World, run: RunId, (step, attempt): (StepId, Attempt), outcome: Outcome) {
    world.done(Entry::StepOutcome { run, step, attempt, outcome });
}

pub fn perform(world: &mut World, run: RunId, wanted: &str) {
    let begun = begin(world, run, wanted);
    end(world, run, begun, succeeded());
}

#[test]
fn a_failover_keeps_the_documented_order() {
    let mut world = World::protected();
    let run = lost(&mut world);
    let fences = ["Fence cache@west-1", "Fence db@west-1"];
    let with_fences = |rest: &[&str]| fences.iter().chain(rest).map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(due(&world, run), with_fences(&["Promote db@central-1", "Promote cache@central-1"]));
    perform(&mut world, run, "Promote db@central-1");
    assert_eq!(due(&world, run), with_fences(&["Promote cache@central-1"]));
    perform(&mut world, run, "Promote cache@central-1");
    assert_eq!(due(&world, run), with_fences(&["Redirect www@central-1"]));
    perform(&mut world, run, "Redirect www@central-1");
    assert_eq!(world.known().answers[&resource("www")].cluster, central());
    assert_eq!(due(&world, run), with_fences(&["Activate core@central-1"]));
    perform(&mut world, run, "Activate core@central-1");
    perform(&mut world, run, "Activate edge@central-1");
    perform(&mut world, run, "Verify checks@central-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Succeeded);
    assert_eq!(world.known().run, None);
    assert_eq!(due(&world, run), Vec::<String>::new());
}

#[test]
fn a_step_whose_turn_has_not_come_is_not_begun_whoever_proposes_it() {
    let mut world = World::protected();
    let run = lost(&mut world);
    let begun = begin(&mut world, run, "Promote db@central-1");
    let redirect = find(&world, run, "Redirect www@central-1");
    world.ignored(Entry::StepIntent { run, step: redirect, attempt: Attempt(1) });
    end(&mut world, run, begun, succeeded());
    world.ignored(Entry::StepIntent { run, step: redirect, attempt: Attempt(1) });
    perform(&mut world, run, "Promote cache@central-1");
    world.done(Entry::StepIntent { run, step: redirect, attempt: Attempt(1) });
}

#[test]
fn what_follows_an_outcome_is_known_with_it() {
    let mut world = World::protected();
    let run = lost(&mut world);
    perform(&mut world, run, "Promote cache@central-1");
    let (step, attempt) = begin(&mut world, run, "Promote db@central-1");
    let follows = |world: &World, outcome: Outcome| {
        let endings = [Ending { step, attempt, outcome }];
        let now = Moment(200_000);
        let entries = foresee(&world.state, &evidence(now, now), view(now, world), run, &endings);
        let steps = entries.iter().map(|entry| match entry {
            Entry::StepIntent { step, .. } => name(world, run, *step),
            other => format!("{other:?}"),
        });
        steps.filter(|name| !name.starts_with("Fence")).collect::<Vec<_>>()
    };
    assert_eq!(follows(&world, succeeded()), ["Redirect www@central-1"]);
    // A retry waits out its back-off, and what comes behind waits for it.
    assert_eq!(follows(&world, failed(true)), Vec::<String>::new());
    end(&mut world, run, (step, attempt), succeeded());
    // It has been taken: nothing follows from a second one.
    assert_eq!(follows(&world, succeeded()), Vec::<String>::new());
}

#[test]
fn the_answer_flips_with_the_intent_and_not_before() {
    let mut world = World::protected();
    let run = lost(&mut world);
    perform(&mut world, run, "Promote db@central-1");
    perform(&mut world, run, "Promote cache@central-1");
    assert_eq!(world.known().answers[&resource("www")].cluster, west());
    let serial = world.state.dns_serial;
    begin(&mut world, run, "Redirect www@central-1");
    assert_eq!(world.known().answers[&resource("www")].cluster, central());
    assert!(world.state.dns_serial > serial);
}

#[test]
fn an_answer_that_would_be_empty_is_refused() {
    let mut world = World::fresh();
    let mut mute = agent(&central(), "ic");
    mute.endpoints.get_mut(&app()).unwrap().get_mut(&resource("www")).unwrap().addresses.clear();
    world.done(Entry::AgentRegistered(mute));
    world.adopt();
    world.confirm(&west());
    let run = lost(&mut world);
    perform(&mut world, run, "Promote db@central-1");
    perform(&mut world, run, "Promote cache@central-1");
    let step = find(&world, run, "Redirect www@central-1");
    let intent = Entry::StepIntent { run, step, attempt: Attempt(1) };
    assert_eq!(world.refused(intent), "dns-would-be-empty");
    assert_eq!(world.known().answers[&resource("www")].cluster, west());
    assert_eq!(world.state.runs[&run].status, RunStatus::Stuck);
}

#[test]
fn a_known_intent_and_a_late_outcome_are_ignored() {
    let mut world = World::protected();
    let run = lost(&mut world);
    let (step, attempt) = begin(&mut world, run, "Promote db@central-1");
    world.ignored(Entry::StepIntent { run, step, attempt });
    world.ignored(Entry::StepIntent { run, step, attempt: attempt.next() });
    end(&mut world, run, (step, attempt), failed(true));
    world.ignored(Entry::StepOutcome { run, step, attempt, outcome: succeeded() });
    let second = begin(&mut world, run, "Promote db@central-1");
    assert_eq!(second.1, Attempt(2));
    world.ignored(Entry::StepOutcome { run, step, attempt, outcome: succeeded() });
}

#[test]
fn used_up_attempts_stick_and_an_operator_clears() {
    let mut world = World::protected();
    let run = lost(&mut world);
    for _ in 0..4 {
        let begun = begin(&mut world, run, "Promote db@central-1");
        end(&mut world, run, begun, failed(true));
    }
    // As often as the document says, and at least until the deadline.
    world.wall += 42_000;
    let begun = begin(&mut world, run, "Promote db@central-1");
    end(&mut world, run, begun, failed(true));
    let step = find(&world, run, "Promote db@central-1");
    assert_eq!(world.state.runs[&run].step(step).unwrap().1.state, StepState::Stuck);
    assert_eq!(world.state.runs[&run].status, RunStatus::Stuck);
    assert_eq!(world.known().stuck[&central()].get(&resource("db")), Some(&run));
    // The other database does not wait for it.
    perform(&mut world, run, "Promote cache@central-1");
    world.done(Entry::Cleared { run, step, how: Clearing::Retry, by: "ann".into(), reason: String::new() });
    assert_eq!(world.state.runs[&run].status, RunStatus::Running);
    world.wall += 10_000;
    perform(&mut world, run, "Promote db@central-1");
    assert!(world.known().stuck.is_empty());
}

#[test]
fn a_retry_waits_out_its_back_off() {
    let mut world = World::protected();
    let run = lost(&mut world);
    let begun = begin(&mut world, run, "Promote db@central-1");
    end(&mut world, run, begun, failed(true));
    assert!(!due(&world, run).contains(&"Promote db@central-1".to_owned()));
    world.wall += 300;
    assert!(due(&world, run).contains(&"Promote db@central-1".to_owned()));
}

#[test]
fn an_agent_that_never_reports_fails_the_attempt() {
    let mut world = World::protected();
    let run = lost(&mut world);
    begin(&mut world, run, "Promote db@central-1");
    world.wall += 43_000;
    assert!(due(&world, run).iter().any(|entry| entry.contains("no-report")));
}

#[test]
fn a_report_that_comes_late_ends_the_step_unless_it_is_a_fence() {
    let mut world = World::protected();
    let run = lost(&mut world);
    let unheard = |world: &mut World, wanted: &str| {
        let begun = begin(world, run, wanted);
        let (code, message) = ("no-report".to_owned(), "silence".to_owned());
        end(world, run, begun, Outcome::Failed { code, message, retryable: true });
        begun
    };
    let (step, attempt) = unheard(&mut world, "Promote db@central-1");
    world.ignored(Entry::StepOutcome { run, step, attempt, outcome: failed(true) });
    world.done(Entry::StepOutcome { run, step, attempt, outcome: succeeded() });
    assert_eq!(world.state.runs[&run].step(step).unwrap().1.state, StepState::Succeeded);
    let (step, attempt) = unheard(&mut world, "Fence db@west-1");
    world.ignored(Entry::StepOutcome { run, step, attempt, outcome: succeeded() });
}

#[test]
fn a_failed_database_is_fenced_before_anything_is_decided() {
    let mut world = World::protected();
    let run = failed_database(&mut world);
    assert_eq!(due(&world, run), ["Fence cache@west-1", "Fence db@west-1"]);
    perform(&mut world, run, "Fence cache@west-1");
    let early = world.decide(Ground::Fenced { run });
    assert_eq!(world.refused(early), "fence-not-confirmed");
    perform(&mut world, run, "Fence db@west-1");
    assert_eq!(due(&world, run), ["Decide"]);
    world.done(world.decide(Ground::Fenced { run }));
    assert_eq!(due(&world, run), ["Promote db@central-1", "Promote cache@central-1"]);
    assert!(world.state.runs[&run].old_side_fenced());
}

#[test]
fn a_fence_that_was_lifted_is_no_ground() {
    let mut world = World::protected();
    let run = failed_database(&mut world);
    perform(&mut world, run, "Fence cache@west-1");
    perform(&mut world, run, "Fence db@west-1");
    world.done(Entry::UndoBegun { run, reason: "late".into() });
    begin(&mut world, run, "Unfence { }".replace(" { }", " db@west-1").as_str());
    let decision = world.decide(Ground::Fenced { run });
    assert_eq!(world.refused(decision), "run-moved-on");
}

#[test]
fn an_undone_run_ends_when_everything_is_open_again() {
    let mut world = World::protected();
    let run = failed_database(&mut world);
    perform(&mut world, run, "Fence cache@west-1");
    world.done(Entry::UndoBegun { run, reason: "late".into() });
    assert_eq!(due(&world, run), ["Unfence cache@west-1", "Unfence db@west-1"]);
    perform(&mut world, run, "Unfence cache@west-1");
    perform(&mut world, run, "Unfence db@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Undone);
    assert_eq!(world.known().primary, Some(west()));
    assert_eq!(world.known().run, None);
}

#[test]
fn after_the_decision_nothing_is_undone() {
    let mut world = World::protected();
    let run = lost(&mut world);
    assert_eq!(world.refused(Entry::UndoBegun { run, reason: "regret".into() }), "point-of-no-return");
}

#[test]
fn a_fence_is_never_taken_as_done_by_word() {
    let mut world = World::protected();
    let run = failed_database(&mut world);
    let begun = begin(&mut world, run, "Fence db@west-1");
    end(&mut world, run, begun, failed(false));
    let step = find(&world, run, "Fence db@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Stuck);
    let word = Entry::Cleared { run, step, how: Clearing::Done, by: "ann".into(), reason: String::new() };
    assert_eq!(world.refused(word), "fence-by-word");
}

#[test]
fn a_decision_supersedes_a_run_that_waits_for_a_fence() {
    let mut world = World::protected();
    let waiting = failed_database(&mut world);
    let decided = lost(&mut world);
    assert_ne!(waiting, decided);
    assert_eq!(world.state.runs[&waiting].status, RunStatus::Superseded);
    assert_eq!(world.known().run, Some(decided));
}

#[test]
fn cool_down_starts_with_the_first_promotion() {
    let mut world = World::protected();
    let run = lost(&mut world);
    assert_eq!(world.known().cooling_since, None);
    begin(&mut world, run, "Promote db@central-1");
    assert!(world.known().cooling_since.is_some());
}

#[test]
fn the_plan_has_one_step_for_each_resource_of_each_line() {
    let mut world = World::protected();
    let run = lost(&mut world);
    let kinds: Vec<StepKind> = world.state.runs[&run].steps.iter().map(|step| step.kind).collect();
    let actions = [
        Action::Fence,
        Action::Fence,
        Action::Promote,
        Action::Promote,
        Action::Redirect,
        Action::Activate,
        Action::Activate,
        Action::Verify,
    ];
    assert_eq!(kinds, actions.map(StepKind::Action));
}
