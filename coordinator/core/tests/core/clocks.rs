//! Waits that begin with a stamp in the log, where the machines' wall clocks differ.

use regent_core::time::{Moment, Timestamp};
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
