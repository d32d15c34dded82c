//! Which word of an operator counts for a stuck step, and that exactly those are offered.

use regent_core::advice;
use regent_core::application::{Action, OnFailure};
use regent_core::entry::{Clearing, Entry};
use regent_core::id::{Attempt, RunId, StepId};
use regent_core::run::{Remedy, Run, RunStatus, StepState, remedies};
use regent_core::state::Applied;

use crate::approving::{asking, time_out};
use crate::fixture::*;
use crate::intervening::standings;
use crate::running::{begin, due, end, find, lost, perform};
use crate::switching::{ready, started};

fn cleared(run: RunId, step: StepId, how: Clearing) -> Entry {
    Entry::Cleared { run, step, how, by: "ann".into(), reason: "I saw it".into() }
}

/// The agent of the new side declares no address for the name, so its redirect is stuck before anything is committed.
fn without_an_address() -> (World, RunId, StepId) {
    let mut world = World::protected();
    let run = lost(&mut world);
    let mut without = agent(&central(), "ic");
    without.endpoints.get_mut(&app()).unwrap().get_mut(&resource("www")).unwrap().addresses.clear();
    world.done(Entry::AgentRegistered(without));
    perform(&mut world, run, "Promote db@central-1");
    perform(&mut world, run, "Promote cache@central-1");
    let step = find(&world, run, "Redirect www@central-1");
    assert_eq!(world.refused(Entry::StepIntent { run, step, attempt: Attempt(1) }), "dns-would-be-empty");
    (world, run, step)
}

/// The name leads to the new side, and its agent could not see that everywhere.
fn with_an_old_answer() -> (World, RunId, StepId) {
    let mut world = World::protected();
    let run = lost(&mut world);
    perform(&mut world, run, "Promote db@central-1");
    perform(&mut world, run, "Promote cache@central-1");
    let begun = begin(&mut world, run, "Redirect www@central-1");
    end(&mut world, run, begun, failed(false));
    (world, run, begun.0)
}

fn offered(world: &World, run: &Run, step: StepId) -> Vec<Remedy> {
    let (step, progress) = run.step(step).unwrap();
    remedies(&world.state, run, step, progress)
}

fn words(remedies: &[Remedy]) -> Vec<&str> {
    remedies.iter().map(|remedy| remedy.what).collect()
}

#[test]
fn nobodys_word_points_a_name_that_the_group_still_answers_otherwise() {
    let (mut world, run, step) = without_an_address();
    assert_eq!(words(&offered(&world, &world.state.runs[&run], step)), ["try again"]);
    assert_eq!(world.refused(cleared(run, step, Clearing::Done)), "redirect-by-word");
    assert_eq!(world.state.runs[&run].step(step).unwrap().1.state, StepState::Stuck);
    assert_eq!(world.known().answers[&resource("www")].cluster, west());

    // With an address the same step does it.
    world.done(Entry::AgentRegistered(agent(&central(), "ic")));
    world.done(cleared(run, step, Clearing::Retry));
    perform(&mut world, run, "Redirect www@central-1");
    assert_eq!(world.known().answers[&resource("www")].cluster, central());
}

#[test]
fn a_name_that_leads_there_by_the_group_itself_may_be_seen_to_by_hand() {
    let (mut world, run, step) = with_an_old_answer();
    assert_eq!(world.known().answers[&resource("www")].cluster, central());
    assert_eq!(words(&offered(&world, &world.state.runs[&run], step)), ["try again", "done by hand"]);
    world.done(cleared(run, step, Clearing::Done));
    assert_eq!(world.state.runs[&run].status, RunStatus::Running);
}

#[test]
fn a_question_is_answered_by_nothing_but_an_approval() {
    let (mut world, run, step) = asking(OnFailure::Stuck);
    begin(&mut world, run, "Approve");
    assert_eq!(words(&offered(&world, &world.state.runs[&run], step)), ["yes"]);
    let outcome = time_out(&mut world, run);
    world.done(outcome);
    let ways = offered(&world, &world.state.runs[&run], step);
    assert_eq!(words(&ways), ["yes", "ask again"]);
    assert_eq!(ways[0].command, format!("regentctl approve {run} {step} --reason WHY"));
    assert_eq!(world.refused(cleared(run, step, Clearing::Done)), "answer-by-word");
    assert!(world.state.audit.iter().all(|record| record.event != "cleared"));
    let mut again = world.copy();
    again.done(cleared(run, step, Clearing::Retry));
    again.wall += 10_000;
    assert!(due(&again, run).contains(&"Approve".to_owned()), "{:?}", due(&again, run));
    world.done(Entry::Approved { run, step, by: "ann".into(), reason: "by phone".into() });
    assert_eq!(world.state.audit.back().unwrap().event, "approved");
}

#[test]
fn nobody_is_asked_while_it_is_undone() {
    let mut world = ready();
    let mut changed = world.known().document.clone();
    let mut question = line(Action::Approve, &[]);
    question.question = "Go on?".to_owned();
    changed.runbooks.get_mut("switchover").unwrap().lines.insert(1, question);
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    let run = started(&mut world);
    perform(&mut world, run, "Quiesce core@west-1");
    let (step, _) = begin(&mut world, run, "Approve");
    assert_eq!(words(&offered(&world, &world.state.runs[&run], step)), ["yes"]);
    assert_eq!(advice::of_run(&world.state, &world.state.runs[&run]).state, "asking");
    world.done(Entry::UndoBegun { run, reason: "too long".into() });
    assert_eq!(world.state.runs[&run].step(step).unwrap().1.state, StepState::Running);
    assert_eq!(offered(&world, &world.state.runs[&run], step), vec![]);
    let yes = Entry::Approved { run, step, by: "ann".into(), reason: "by phone".into() };
    assert_eq!(world.refused(yes), "not-asked");
}

/// Wherever a run stands: what is offered is taken, what is not offered is refused, and what is stuck is offered something.
#[test]
fn what_is_offered_is_what_is_taken() {
    let mut all: Vec<(&str, World, RunId)> = standings();
    let (world, run, _) = without_an_address();
    all.push(("no address", world, run));
    let (world, run, _) = with_an_old_answer();
    all.push(("old answer", world, run));
    let mut stuck = Vec::new();
    for (name, world, run) in all {
        for (spec, progress) in world.state.runs[&run].walk() {
            let ways = offered(&world, &world.state.runs[&run], spec.id);
            let waits = progress.state == StepState::Stuck;
            let asks = progress.state == StepState::Running && !spec.question.is_empty();
            assert_eq!(waits || asks, !ways.is_empty(), "step {} of {name}: {ways:?}", spec.id);
            let clear = |how| matches!(world.copy().apply(cleared(run, spec.id, how)), Applied::Done(_));
            let offers = |end: &str| ways.iter().any(|way| way.command.contains(end));
            let what = format!("step {} of {name}: {ways:?}", spec.id);
            assert_eq!(offers("--retry"), clear(Clearing::Retry), "{what}");
            assert_eq!(offers("--done"), clear(Clearing::Done), "{what}");
            let yes = Entry::Approved { run, step: spec.id, by: "ann".into(), reason: "yes".into() };
            let approves = matches!(world.copy().apply(yes), Applied::Done(_));
            assert_eq!(offers("regentctl approve"), approves, "{what}");
            if waits {
                stuck.push(name);
            }
        }
    }
    let expected =
        ["stuck fence", "undo stuck", "stuck promotion", "stuck rejoin", "stuck question", "no address", "old answer"];
    assert_eq!(stuck, expected);
}

#[test]
fn a_run_whose_undo_is_stuck_stands_as_stuck() {
    let (_, mut world, run) = standings().into_iter().find(|(name, ..)| *name == "undo stuck").unwrap();
    assert_eq!(world.state.runs[&run].status, RunStatus::Undoing);
    assert_eq!(world.state.runs[&run].standing(), RunStatus::Stuck);
    let step = find(&world, run, "Unfence db@west-1");
    world.done(cleared(run, step, Clearing::Retry));
    assert_eq!(world.state.runs[&run].standing(), RunStatus::Undoing);
    world.wall += 10_000;
    for step in ["Unfence db@west-1", "Unfence cache@west-1", "Activate core@west-1"] {
        perform(&mut world, run, step);
    }
    assert_eq!(world.state.runs[&run].standing(), RunStatus::Undone);
}
