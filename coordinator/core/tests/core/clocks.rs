//! Waits that begin with a stamp in the log, where the machines' wall clocks differ.

use regent_core::application::Action;
use regent_core::entry::Entry;
use regent_core::run::{self, Proposal};
use regent_core::time::{Moment, Span, Timestamp, Waits};
use regent_core::why::explain;

use crate::fixture::*;
use crate::running::{begin, end, lost, perform};

const NOW: Moment = Moment(200_000);

fn cools(world: &World) -> bool {
    let explanation = explain(&world.state, &evidence(NOW, NOW), view(NOW, world), &app()).unwrap();
    explanation.held_by.iter().any(|rule| rule.code == "cool-down")
}

#[test]
fn neither_a_second_database_nor_a_retry_puts_the_cool_down_off() {
    let mut world = World::protected();
    let run = lost(&mut world);
    let failing = begin(&mut world, run, "Promote db@central-1");
    let since = world.known().cooling_since;
    assert_eq!(since, Some(Timestamp(world.wall)));
    world.wall += 10_000;
    end(&mut world, run, failing, failed(true));
    world.wall += 10_000;
    perform(&mut world, run, "Promote db@central-1");
    perform(&mut world, run, "Promote cache@central-1");
    assert_eq!(world.known().cooling_since, since);
}

#[test]
fn a_clock_that_ran_ahead_holds_failovers_for_two_cool_downs_at_most() {
    let mut world = World::protected();
    let hour = 3_600_000;
    let begun_ahead_by = |world: &mut World, ahead: i64| {
        let since = Timestamp(world.wall + ahead);
        world.state.applications.get_mut(&app()).unwrap().cooling_since = Some(since);
    };
    begun_ahead_by(&mut world, 24 * hour);
    assert!(!cools(&world), "no clock but a wrong one says that");
    begun_ahead_by(&mut world, hour / 2);
    assert!(cools(&world));
    world.wall += hour + hour / 2 - 1;
    assert!(cools(&world));
    world.wall += 1;
    assert!(!cools(&world));
}

#[test]
fn a_new_leader_whose_clock_lags_cuts_no_question_and_no_step_short() {
    let mut world = World::protected();
    let mut changed = document();
    let mut question = line(Action::Approve, &[]);
    question.question = "Go on?".to_owned();
    changed.runbooks.get_mut("failover").unwrap().lines.insert(0, question);
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    let run = lost(&mut world);
    begin(&mut world, run, "Approve");
    begin(&mut world, run, "Fence db@west-1");
    begin(&mut world, run, "Fence cache@west-1");
    let ended = |world: &World, led: Span| {
        let waits = Waits { wall: Timestamp(world.wall - 2_000), led };
        let proposals = run::next(&world.state.runs[&run], waits);
        let outcome = |one: &Proposal| matches!(one, Proposal::Entry(entry) if matches!(entry.as_ref(), Entry::StepOutcome { .. }));
        proposals.iter().filter(|one| outcome(one)).count()
    };
    assert_eq!(ended(&world, Span::ZERO), 0);
    assert_eq!(ended(&world, Span::from_millis(29_999)), 2, "the fences have less time, and nobody has reported");
    assert_eq!(ended(&world, Span::from_secs(30)), 3, "nor is anything waited for until the clocks agree");
}
