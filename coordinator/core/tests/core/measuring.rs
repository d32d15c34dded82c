//! A time bound must suit what was measured.

use std::collections::BTreeMap;

use regent_core::application::Application;
use regent_core::entry::{Entry, Outcome, Report};
use regent_core::id::{ClusterId, CoordinatorId, Epoch, Incarnation, InstallationId};
use regent_core::lease::TimeBound;
use regent_core::measured::{check, check_replication};
use regent_core::observer::Observer;
use regent_core::time::{Moment, Span};

use crate::fixture::*;
use crate::running::{begin, end, failed_database};

fn with(fail_over_after: Span) -> Application {
    let mut changed = document();
    changed.automation.bound = TimeBound::new(fail_over_after);
    changed
}

fn trips(millis: u64) -> BTreeMap<ClusterId, Span> {
    BTreeMap::from([(west(), Span::from_millis(millis))])
}

/// D = 2 s: T = 1417 ms, four heartbeats 800 ms, F = 333 ms.
const SMALLEST: Span = Span::from_secs(2);

#[test]
fn what_was_never_measured_refuses_nothing() {
    let world = World::protected();
    assert_eq!(check(&world.state, &with(SMALLEST), &BTreeMap::new()), Ok(()));
}

#[test]
fn a_way_to_an_agent_must_fit_into_the_lease_twice() {
    let world = World::protected();
    assert_eq!(check(&world.state, &with(SMALLEST), &trips(308)), Ok(()));
    let refused = check(&world.state, &with(SMALLEST), &trips(309)).unwrap_err();
    assert_eq!(refused.code, "bound-too-short");
    for number in ["2s", "1s417ms", "309ms", "west-1", "1s418ms"] {
        assert!(refused.detail.contains(number), "{number}: {}", refused.detail);
    }
    assert_eq!(check(&world.state, &with(Span::from_secs(3)), &trips(309)), Ok(()));
    // A document that changes nothing of it is not held to what the network does just now, nor is another's way.
    assert_eq!(check(&world.state, &document(), &trips(60_000)), Ok(()));
    let elsewhere = BTreeMap::from([(cluster("north-1"), Span::from_secs(60))]);
    assert_eq!(check(&world.state, &with(SMALLEST), &elsewhere), Ok(()));
}

/// A run in which the fence of the database in the west took so long.
fn fenced_in(millis: u64, already: bool) -> World {
    let mut world = World::protected();
    let run = failed_database(&mut world);
    let fence = begin(&mut world, run, "Fence db@west-1");
    let report = Report { driver: Span::from_millis(millis), already, ..Report::default() };
    end(&mut world, run, fence, Outcome::Succeeded(report));
    world.done(Entry::UndoBegun { run, reason: "a test".into() });
    world
}

#[test]
fn coordinators_must_hear_each_other_as_often_as_votes_need() {
    let world = World::protected();
    let millis = Span::from_millis;
    assert_eq!(check_replication(&world.state, &with(SMALLEST), millis(300)), Ok(()));
    let refused = check_replication(&world.state, &with(SMALLEST), millis(301)).unwrap_err();
    assert_eq!(refused.code, "bound-too-short");
    for number in ["2s", "600ms", "301ms", "602ms"] {
        assert!(refused.detail.contains(number), "{number}: {}", refused.detail);
    }
    assert_eq!(check_replication(&world.state, &document(), Span::from_secs(9)), Ok(()), "it changes nothing");
}

#[test]
fn a_fence_must_be_done_in_half_of_its_share() {
    assert_eq!(check(&fenced_in(165, false).state, &with(SMALLEST), &BTreeMap::new()), Ok(()));
    let refused = check(&fenced_in(166, false).state, &with(SMALLEST), &BTreeMap::new()).unwrap_err();
    assert_eq!(refused.code, "bound-too-short");
    for number in ["2s", "333ms", "db in west-1", "166ms"] {
        assert!(refused.detail.contains(number), "{number}: {}", refused.detail);
    }
    assert_eq!(check(&fenced_in(166, false).state, &with(Span::from_secs(4)), &BTreeMap::new()), Ok(()));
    // One that had nothing to do measured nothing.
    assert_eq!(check(&fenced_in(900, true).state, &with(SMALLEST), &BTreeMap::new()), Ok(()));
}

#[test]
fn a_fence_that_went_hard_is_no_measure() {
    let mut world = World::protected();
    let run = failed_database(&mut world);
    let fence = begin(&mut world, run, "Fence db@west-1");
    let report = Report { driver: Span::from_secs(30), hard: true, ..Report::default() };
    end(&mut world, run, fence, Outcome::Succeeded(report));
    world.done(Entry::UndoBegun { run, reason: "a test".into() });
    assert_eq!(check(&world.state, &with(SMALLEST), &BTreeMap::new()), Ok(()));
}

#[test]
fn the_way_to_an_agent_is_reckoned_from_the_receipts_that_it_names() {
    let world = World::protected();
    let mut observer = Observer::new(CoordinatorId(1), Incarnation(1), Moment(1_000_000));
    let epochs = BTreeMap::from([(app(), Epoch(1))]);
    let installation = InstallationId("iw".into());
    let (mut now, mut receipt) = (1_000_000, 0);
    // D = 10 s: a heartbeat each second. The receipt that it names was sent a heartbeat and a way of 40 ms before.
    for _ in 0..100 {
        assert_eq!(observer.round_trip(&west()), None);
        let heard = by(&installation, receipt, &epochs);
        receipt = observer.heard(&world.state, Moment(now), &heard).receipt;
        now += 1_040;
    }
    let heard = by(&installation, receipt, &epochs);
    observer.heard(&world.state, Moment(now), &heard);
    assert_eq!(observer.round_trip(&west()), Some(Span::from_millis(40)));
}
