//! What a switchover does before it touches anything is no reason to open anything again.

use regent_core::application::{Action, Line};
use regent_core::entry::Entry;
use regent_core::id::{Epoch, RunId};
use regent_core::run::{RunStatus, StepState, UNDO_STAGE};

use crate::approving::time_out;
use crate::fixture::*;
use crate::running::{begin, due, end, find, perform};
use crate::switching::{asked_for, ready};

/// A switchover whose runbook begins with these lines.
fn with(lines: Vec<Line>) -> (World, RunId) {
    let mut world = ready();
    if !lines.is_empty() {
        let mut changed = world.known().document.clone();
        changed.runbooks.get_mut("switchover").unwrap().lines.splice(0..0, lines);
        world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    }
    let run = asked_for(&mut world);
    (world, run)
}

fn question() -> Line {
    Line { question: "Is the bank told?".into(), retries: 0, ..line(Action::Approve, &[]) }
}

/// Over, and nobody was told to open anything.
fn assert_ended(world: &World, run: RunId) {
    assert_eq!(due(world, run), Vec::<String>::new());
    let run = &world.state.runs[&run];
    assert_eq!((run.status, run.ended.is_some()), (RunStatus::Undone, true));
    for (step, progress) in run.walk().filter(|(step, _)| step.stage == UNDO_STAGE) {
        assert_eq!((progress.state, progress.token), (StepState::Skipped, None), "step {}", step.id);
    }
    assert_eq!((world.known().run, world.known().epoch), (None, Epoch(1)));
    assert_eq!(world.known().primary, Some(west()));
}

#[test]
fn a_question_that_nobody_answers_ends_a_run_that_has_touched_nothing() {
    let (mut world, run) = with(vec![question()]);
    let (step, _) = begin(&mut world, run, "Approve");
    let silence = time_out(&mut world, run);
    world.done(silence);
    assert_ended(&world, run);
    let (_, asked) = world.state.runs[&run].step(step).unwrap();
    assert_eq!(asked.state, StepState::FailedContinued, "it is over, and needs no human");
    assert_eq!(asked.failure.as_ref().map(|(code, _)| code.as_str()), Some("not-approved"));
    let record = world.state.audit.back().unwrap();
    assert_eq!((record.event.as_str(), record.detail.as_str()), ("run-ended", "undone"));
}

#[test]
fn to_look_is_not_to_touch() {
    let (mut world, run) = with(vec![line(Action::Verify, &["checks"]), question()]);
    perform(&mut world, run, "Verify checks@central-1");
    let mut given_up = world.copy();
    given_up.done(Entry::UndoBegun { run, reason: "regret".into() });
    assert_ended(&given_up, run);
    begin(&mut world, run, "Approve");
    let silence = time_out(&mut world, run);
    world.done(silence);
    assert_ended(&world, run);

    let (mut world, run) = with(vec![line(Action::Verify, &["checks"])]);
    let check = begin(&mut world, run, "Verify checks@central-1");
    end(&mut world, run, check, failed(false));
    assert_ended(&world, run);
}

#[test]
fn what_was_ordered_and_not_confirmed_may_have_been_done_and_is_undone() {
    let (mut world, run) = with(vec![line(Action::Verify, &["checks"])]);
    perform(&mut world, run, "Verify checks@central-1");
    perform(&mut world, run, "Wait");
    let quiesce = begin(&mut world, run, "Quiesce core@west-1");
    let mut given_up = world.copy();
    given_up.done(Entry::UndoBegun { run, reason: "regret".into() });
    assert_eq!(given_up.state.runs[&run].status, RunStatus::Undoing);
    end(&mut world, run, quiesce, failed(false));
    assert_eq!(world.state.runs[&run].status, RunStatus::Undoing);
    assert_eq!(due(&world, run), ["Unfence cache@west-1", "Unfence db@west-1"]);

    // The same of a fence, though nothing of it is known.
    let (mut world, run) = with(Vec::new());
    perform(&mut world, run, "Wait");
    perform(&mut world, run, "Quiesce core@west-1");
    let fence = begin(&mut world, run, "Fence db@west-1");
    end(&mut world, run, fence, failed(false));
    assert_eq!(world.state.runs[&run].status, RunStatus::Undoing);
    let unfence = find(&world, run, "Unfence db@west-1");
    assert_eq!(world.state.runs[&run].step(unfence).unwrap().1.state, StepState::Pending);
}
