//! What is advised is so now: of a run that has ended long ago, and of everything.

use regent_core::advice::{self, Advice};
use regent_core::entry::Entry;
use regent_core::id::RunId;
use regent_core::run::RunStatus;
use regent_core::time::Span;

use crate::fixture::*;
use crate::rejoining::finish;
use crate::running::{failed_database, lost};
use crate::switching::{ready, started};

fn of(world: &World, run: RunId) -> Advice {
    advice::of_run(&world.state, &world.state.runs[&run])
}

fn undone(world: &mut World, run: RunId) {
    world.done(Entry::Aborted { run, by: "ann".into(), reason: "not now".into() });
    assert_eq!(world.state.runs[&run].status, RunStatus::Undone);
}

#[test]
fn a_switchover_that_was_undone_is_told_as_things_are_now() {
    let mut world = ready();
    let run = started(&mut world);
    undone(&mut world, run);
    let told = of(&world, run);
    assert_eq!(told.state, "undone");
    assert_eq!(
        told.next,
        "west-1 is still the primary, see `regentctl describe shop`; begin again when what stood in the way is gone"
    );

    // Another one is under way.
    let again = started(&mut world);
    let told = of(&world, run).next;
    assert!(told.contains(&format!("run {again} is under way")) && !told.contains("begin again"), "{told}");
    undone(&mut world, again);

    // Its primary is lost, and nothing is decided yet.
    let votes = [world.vote(1, &west(), 1, Span::ZERO), world.vote(2, &west(), 1, Span::ZERO)];
    let told = of(&world, run).next;
    assert!(told.contains("lost: `regentctl why shop`") && !told.contains("begin again"), "{told}");

    // And moved away from; the failover ends.
    world.done(world.lost(&votes));
    let failover = world.known().run.unwrap();
    finish(&mut world, failover);
    assert_eq!(of(&world, run).next, "nothing is to be done for this one: by now the primary is central-1, not west-1");
}

#[test]
fn an_aborted_failover_does_not_say_that_what_failed_serves() {
    let mut world = World::protected();
    let run = failed_database(&mut world);
    undone(&mut world, run);
    let told = of(&world, run).next;
    assert!(told.contains("may still be so: `regentctl why shop`") && !told.contains("serves"), "{told}");
}

#[test]
fn everything_is_told_with_its_pauses_and_with_what_goes_on() {
    let pause = |application| Entry::Paused { application, by: "ann".into(), reason: "wait".into() };
    let mut world = World::protected();
    assert_eq!(advice::of_group(&world.state).state, "steady");
    world.done(pause(Some(app())));
    let part = advice::of_group(&world.state);
    assert_eq!(part.state, "paused-by-themselves");
    assert!(part.next.ends_with("stay so: `regentctl resume shop`"), "{part:?}");
    world.done(pause(None));
    let whole = advice::of_group(&world.state);
    assert_eq!(whole.state, "paused");
    assert_eq!(whole.next, "nothing happens by itself; `regentctl resume --all` ends it");

    let mut world = World::protected();
    let run = lost(&mut world);
    world.done(pause(None));
    let whole = advice::of_group(&world.state);
    assert!(whole.next.ends_with(&format!("; run {run} of shop is under way: `regentctl runs {run}`")), "{whole:?}");
}
