//! What a stuck step holds up, and which word of an operator ends it.

use regent_core::application::Action;
use regent_core::entry::{Clearing, Entry};
use regent_core::id::{RunId, StepId};
use regent_core::run::RunStatus;

use crate::fixture::*;
use crate::running::{begin, due, end, failed_database, find, lost, perform};

/// A failover whose databases are promoted one after the other, with a line before the first.
fn in_turns(first: Action, resources: &[&str]) -> (World, RunId) {
    let mut world = World::protected();
    let mut changed = document();
    let lines = &mut changed.runbooks.get_mut("failover").unwrap().lines;
    let mut before = line(first, resources);
    before.question = "Go on?".to_owned();
    lines.splice(0..1, [before, line(Action::Promote, &["db"]), line(Action::Promote, &["cache"])]);
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    let run = lost(&mut world);
    (world, run)
}

fn stick(world: &mut World, run: RunId, wanted: &str) -> StepId {
    let begun = begin(world, run, wanted);
    end(world, run, begun, failed(false));
    assert_eq!(world.state.runs[&run].status, RunStatus::Stuck);
    begun.0
}

/// What is due beside the fences of the lost side.
fn beside_fences(world: &World, run: RunId) -> Vec<String> {
    due(world, run).into_iter().filter(|name| !name.starts_with("Fence")).collect()
}

#[test]
fn a_stuck_resource_holds_up_no_promotion_of_another_and_nothing_else_goes_past() {
    let (mut world, run) = in_turns(Action::Verify, &["checks"]);
    let checks = stick(&mut world, run, "Verify checks@central-1");
    assert_eq!(beside_fences(&world, run), ["Promote db@central-1"]);
    let db = stick(&mut world, run, "Promote db@central-1");
    assert_eq!(beside_fences(&world, run), ["Promote cache@central-1"]);
    perform(&mut world, run, "Promote cache@central-1");
    assert_eq!(beside_fences(&world, run), Vec::<String>::new());
    world.done(Entry::Cleared { run, step: checks, how: Clearing::Done, by: "ann".into(), reason: String::new() });
    world.done(Entry::Cleared { run, step: db, how: Clearing::Retry, by: "ann".into(), reason: String::new() });
    perform(&mut world, run, "Promote db@central-1");
    assert_eq!(beside_fences(&world, run), ["Redirect www@central-1"]);
}

#[test]
fn a_stuck_resource_holds_up_what_touches_it() {
    let (mut world, run) = in_turns(Action::Verify, &["db"]);
    stick(&mut world, run, "Verify db@central-1");
    assert_eq!(beside_fences(&world, run), ["Promote cache@central-1"], "which is not the database");
}

#[test]
fn a_question_without_an_answer_holds_up_every_promotion() {
    let (mut world, run) = in_turns(Action::Approve, &[]);
    stick(&mut world, run, "Approve");
    assert_eq!(beside_fences(&world, run), Vec::<String>::new());
}

#[test]
fn a_database_is_never_taken_as_opened_by_word() {
    let mut world = World::protected();
    let run = lost(&mut world);
    let step = stick(&mut world, run, "Promote db@central-1");
    let word = |run, step| Entry::Cleared { run, step, how: Clearing::Done, by: "ann".into(), reason: String::new() };
    assert_eq!(world.refused(word(run, step)), "open-by-word");
    world.done(Entry::Cleared { run, step, how: Clearing::Retry, by: "ann".into(), reason: String::new() });

    let mut world = World::protected();
    let run = failed_database(&mut world);
    perform(&mut world, run, "Fence db@west-1");
    world.done(Entry::UndoBegun { run, reason: "late".into() });
    let begun = begin(&mut world, run, "Unfence db@west-1");
    end(&mut world, run, begun, failed(false));
    let step = find(&world, run, "Unfence db@west-1");
    assert_eq!(world.refused(word(run, step)), "open-by-word");
}
