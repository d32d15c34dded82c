//! Drills: copies are rehearsed with, nothing real is named by any step, and the clean-up comes whatever came before.

use regent_core::application::{Action, Drills, Line, OnFailure, Runbook};
use regent_core::decide::decide;
use regent_core::entry::{Cause, Clearing, Entry, Finding, Outcome, Report};
use regent_core::id::RunId;
use regent_core::plan;
use regent_core::run::{CLEAN_UP_STAGE, RunStatus, StepKind, StepState};
use regent_core::time::{Moment, Span};

use crate::fixture::*;
use crate::running::{begin, due, end, failed_database, lost, perform};

fn always(command: &str) -> Line {
    Line { command: command.into(), always: true, ..line(Action::Run, &["core"]) }
}

/// With a runbook for drills.
pub fn drilled() -> World {
    let mut world = World::fresh();
    let mut document = document();
    let start = Line { command: "start-lab".into(), ..line(Action::Run, &["core"]) };
    let question = Line { question: "is it fine?".into(), ..line(Action::Approve, &[]) };
    let lines = vec![
        line(Action::Promote, &["db", "cache"]),
        line(Action::Restore, &["db"]),
        start,
        line(Action::Verify, &["db", "checks"]),
        question,
        always("stop-lab"),
        always("forget-lab"),
    ];
    document.runbooks.insert("drill".into(), Runbook { lines });
    world.done(Entry::Applied { application: Box::new(document), by: "ann".into() });
    world.adopt();
    world.confirm(&west());
    world
}

fn started() -> Entry {
    Entry::DrillStarted { application: app(), cluster: central(), by: "ann".into(), finding: Finding::default() }
}

pub fn drill(world: &mut World) -> RunId {
    let run = RunId(world.done(started()).0);
    assert_eq!(world.known().run, Some(run));
    run
}

fn well(world: &mut World, run: RunId, step: &str, rehearsed: Option<Span>) {
    let begun = begin(world, run, step);
    world.wall += 999;
    end(world, run, begun, Outcome::Succeeded(Report { rehearsed, ..Report::default() }));
}

pub const PROMOTE: [&str; 2] = ["Rehearse(Promote) db@central-1", "Rehearse(Promote) cache@central-1"];
const CLEAN_UP: [&str; 3] =
    ["Rehearse(Run) core@central-1", "Rehearse(CleanUp) cache@central-1", "Rehearse(CleanUp) db@central-1"];

/// What is left when the rest has ended: the document's own lines one after the other, the copies at once.
fn clean_up(world: &mut World, run: RunId) {
    assert_eq!(due(world, run), CLEAN_UP);
    for _ in 0..2 {
        let steps = world.state.runs[&run].steps.iter();
        let next = steps.filter(|step| step.stage == CLEAN_UP_STAGE && !step.command.is_empty());
        let next: Vec<_> = next.map(|step| step.id).collect();
        let open = next.into_iter().find(|step| !world.state.runs[&run].step(*step).unwrap().1.state.is_ended());
        let attempt = regent_core::id::Attempt(1);
        world.done(Entry::StepIntent { run, step: open.unwrap(), attempt });
        end(world, run, (open.unwrap(), attempt), succeeded());
    }
    perform(world, run, CLEAN_UP[1]);
    perform(world, run, CLEAN_UP[2]);
}

#[test]
fn a_drill_goes_through_its_runbook_and_cleans_up() {
    let mut world = drilled();
    let before = world.known().clone();
    let run = drill(&mut world);
    assert_eq!(due(&world, run), PROMOTE);
    well(&mut world, run, PROMOTE[0], Some(Span::from_millis(300)));
    well(&mut world, run, PROMOTE[1], Some(Span::from_millis(20)));
    well(&mut world, run, "Rehearse(Restore) db@central-1", None);
    well(&mut world, run, "Rehearse(Run) core@central-1", None);
    well(&mut world, run, "Rehearse(Verify) db@central-1", None);
    well(&mut world, run, "Rehearse(Verify) checks@central-1", None);
    let step = crate::running::find(&world, run, "Approve");
    begin(&mut world, run, "Approve");
    world.wall += 60_000;
    world.done(Entry::Approved { run, step, by: "bob".into(), reason: "it is".into() });
    clean_up(&mut world, run);
    assert_eq!(world.state.runs[&run].status, RunStatus::Succeeded);
    let known = world.known();
    assert_eq!((known.run, &known.primary, known.epoch), (None, &before.primary, before.epoch));
    assert_eq!((&known.terms, &known.answers, &known.stuck), (&before.terms, &before.answers, &before.stuck));
    let drilled = known.rehearsed.drills[&central()];
    assert_eq!(drilled.run, run);
    // D, the promotion, then one second each for the restore, the command and the checks; no human, no copying.
    let whole = Span::from_secs(10).plus(Span::from_millis(300)).plus(Span::from_secs(3));
    assert_eq!(drilled.rto, whole);
    assert!(known.rehearsed.restores[&central()].contains_key(&resource("db")));
}

#[test]
fn no_step_of_a_drill_concerns_the_real_thing() {
    let world = drilled();
    let steps = plan::drill(&world.known().document, &central());
    let concerns = |kind| !matches!(kind, StepKind::Rehearse(_) | StepKind::Action(Action::Approve | Action::Wait));
    assert!(steps.iter().all(|step| !concerns(step.kind) && step.cluster == central()), "{steps:?}");
}

#[test]
fn a_step_that_fails_leads_to_the_clean_up() {
    let mut world = drilled();
    let run = drill(&mut world);
    let copies = [begin(&mut world, run, PROMOTE[0]), begin(&mut world, run, PROMOTE[1])];
    end(&mut world, run, copies[0], failed(false));
    // What still runs is not waited for: the agent ends it when it cleans up.
    let kept = world.state.runs[&run].clone();
    assert_eq!((kept.status, kept.step(copies[1].0).unwrap().1.state), (RunStatus::Undoing, StepState::Skipped));
    world.ignored(Entry::StepOutcome { run, step: copies[1].0, attempt: copies[1].1, outcome: succeeded() });
    assert!(world.known().stuck.is_empty(), "a copy that failed is no database that is half-changed");
    clean_up(&mut world, run);
    assert_eq!(world.state.runs[&run].status, RunStatus::Failed);
    assert_eq!(world.known().run, None);
    assert!(world.known().rehearsed.drills.is_empty());
    assert!(world.known().rehearsed.begun.is_some());
}

#[test]
fn a_step_that_may_fail_ends_nothing() {
    let mut world = drilled();
    let mut document = world.known().document.clone();
    let lines = vec![
        line(Action::Promote, &["db"]),
        Line { on_failure: OnFailure::Continue, ..line(Action::Restore, &["db"]) },
        line(Action::Verify, &["db"]),
    ];
    document.runbooks.insert("drill".into(), Runbook { lines });
    world.done(Entry::Applied { application: Box::new(document), by: "ann".into() });
    let run = drill(&mut world);
    perform(&mut world, run, PROMOTE[0]);
    let begun = begin(&mut world, run, "Rehearse(Restore) db@central-1");
    end(&mut world, run, begun, failed(false));
    perform(&mut world, run, "Rehearse(Verify) db@central-1");
    perform(&mut world, run, CLEAN_UP[2]);
    assert_eq!(world.state.runs[&run].status, RunStatus::Succeeded);
    assert!(world.known().rehearsed.restores.is_empty(), "a restore that failed is none");
}

#[test]
fn a_drill_that_is_given_up_cleans_up() {
    let mut world = drilled();
    let run = drill(&mut world);
    let give_up = Entry::UndoBegun { run, reason: "enough".into() };
    perform(&mut world, run, PROMOTE[0]);
    world.done(give_up.clone());
    clean_up(&mut world, run);
    assert_eq!(world.state.runs[&run].status, RunStatus::Undone);
    // What was never begun has made nothing.
    let run = drill(&mut world);
    world.done(Entry::UndoBegun { run, reason: "enough".into() });
    assert_eq!(world.state.runs[&run].status, RunStatus::Undone);
}

#[test]
fn a_clean_up_that_fails_is_stuck_and_holds_up_only_the_next_drill() {
    let mut world = drilled();
    let run = drill(&mut world);
    perform(&mut world, run, PROMOTE[0]);
    world.done(Entry::UndoBegun { run, reason: "enough".into() });
    let begun = begin(&mut world, run, CLEAN_UP[1]);
    end(&mut world, run, begun, failed(false));
    assert_eq!(world.state.runs[&run].status, RunStatus::Stuck);
    assert!(world.known().stuck.is_empty());
    assert_eq!(world.refused(started()), "run-under-way");
    let failover = lost(&mut world);
    assert_eq!(world.known().run, Some(failover));
    world.done(Entry::Cleared { run, step: begun.0, how: Clearing::Retry, by: "ann".into(), reason: String::new() });
    perform(&mut world, run, CLEAN_UP[1]);
    perform(&mut world, run, CLEAN_UP[2]);
    assert_eq!(world.known().run, Some(failover), "the clean-up ends beside the failover");
}

#[test]
fn a_failover_does_not_wait_and_the_clean_up_goes_on_beside_it() {
    for decided in [true, false] {
        let mut world = drilled();
        let drill = drill(&mut world);
        perform(&mut world, drill, PROMOTE[0]);
        begin(&mut world, drill, PROMOTE[1]);
        let failover = if decided { lost(&mut world) } else { failed_database(&mut world) };
        assert_eq!(world.known().run, Some(failover));
        assert!(world.state.runs[&drill].is_cleaning_up());
        let now = Moment(100_000);
        let proposed = decide(&world.state, &evidence(now, now), view(now, &world));
        let intents = |run: RunId| {
            let of_run = move |entry: &&Entry| matches!(entry, Entry::StepIntent { run: of, .. } if *of == run);
            proposed.iter().filter(of_run).count()
        };
        assert_eq!(intents(drill), 3, "{proposed:?}");
        clean_up(&mut world, drill);
        assert_eq!(world.state.runs[&drill].status, RunStatus::Superseded);
        assert_eq!(world.known().run, Some(failover));
        if decided {
            perform(&mut world, failover, "Promote db@central-1");
        }
    }
}

#[test]
fn a_drill_needs_a_standby_and_nothing_else_under_way() {
    let mut world = World::fresh();
    assert_eq!(world.refused(started()), "not-adopted");
    world.adopt();
    assert_eq!(world.refused(started()), "no-drill-runbook");
    let mut world = drilled();
    let named = |name: &str| Entry::DrillStarted {
        application: app(),
        cluster: cluster(name),
        by: "ann".into(),
        finding: Finding::default(),
    };
    assert_eq!(world.refused(named("west-1")), "drill-primary");
    assert_eq!(world.refused(named("north-1")), "unlisted-cluster");
    drill(&mut world);
    assert_eq!(world.refused(started()), "run-under-way");
    let mut busy = drilled();
    lost(&mut busy);
    assert_eq!(busy.refused(named("west-1")), "quarantined");
}

#[test]
fn a_switchover_may_begin_and_a_drill_is_named_by_its_cause() {
    let mut world = drilled();
    let run = drill(&mut world);
    assert!(matches!(&world.state.runs[&run].cause, Cause::Drill { by } if by == "ann"));
    assert!(world.state.runs[&run].gives_way() && !world.state.runs[&run].cause.moves_primary());
}

#[test]
fn a_drill_that_is_due_begins_by_itself_while_all_is_well_and_a_missed_one_is_made_up_once() {
    let mut world = drilled();
    let mut document = world.known().document.clone();
    document.drills = Some(Drills { every: Span::from_secs(3600), cluster: None });
    world.done(Entry::Applied { application: Box::new(document), by: "ann".into() });
    let now = Moment(100_000);
    let begins = |world: &World| {
        let proposed = decide(&world.state, &evidence(now, now), view(now, world));
        proposed.into_iter().find(|entry| matches!(entry, Entry::DrillStarted { .. }))
    };
    assert_eq!(begins(&world), None, "the schedule begins with the document");
    // Three are missed while it is paused.
    world.done(Entry::Paused { application: Some(app()), by: "ann".into(), reason: "moving disks".into() });
    world.confirm(&west());
    world.wall += 4 * 3_600_000;
    assert_eq!(begins(&world), None);
    world.done(Entry::Resumed { application: Some(app()), by: "ann".into() });
    world.confirm(&west());
    let entry = begins(&world).expect("one is due");
    let run = RunId(world.done(entry).0);
    assert!(matches!(&world.state.runs[&run].cause, Cause::Drill { by } if by == "schedule"));
    assert_eq!(begins(&world), None, "one is under way");
    world.done(Entry::UndoBegun { run, reason: "enough".into() });
    assert_eq!(begins(&world), None, "it counts as begun");
    world.wall += 3_600_000;
    assert!(begins(&world).is_some());
    // Not while the primary is silent.
    let silent = decide(&world.state, &evidence(now, Moment(0)), view(now, &world));
    assert!(!silent.iter().any(|entry| matches!(entry, Entry::DrillStarted { .. })));
}

#[test]
fn a_line_of_the_clean_up_that_fails_is_stuck_whatever_it_says_of_undoing() {
    let mut world = drilled();
    let mut document = world.known().document.clone();
    let lines = vec![line(Action::Promote, &["db"]), Line { on_failure: OnFailure::Undo, ..always("stop-lab") }];
    document.runbooks.insert("drill".into(), Runbook { lines });
    world.done(Entry::Applied { application: Box::new(document), by: "ann".into() });
    let run = drill(&mut world);
    perform(&mut world, run, PROMOTE[0]);
    perform(&mut world, run, CLEAN_UP[2]);
    let begun = begin(&mut world, run, CLEAN_UP[0]);
    end(&mut world, run, begun, failed(false));
    assert_eq!(world.state.runs[&run].status, RunStatus::Stuck);
    world.done(Entry::Cleared { run, step: begun.0, how: Clearing::Done, by: "ann".into(), reason: String::new() });
    assert_eq!(world.state.runs[&run].status, RunStatus::Succeeded);
}
