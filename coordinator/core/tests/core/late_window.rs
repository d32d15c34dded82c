//! The commit window of a switchover whose old side needed a rejoin of its own: the way back opens all the same, once.

use regent_core::advice;
use regent_core::application::{Action, Line, OnFailure};
use regent_core::entry::{Cause, Entry, Finding};
use regent_core::id::RunId;
use regent_core::run::RunStatus;
use regent_core::state::CommitWindow;
use regent_core::switchover::Purpose;
use regent_core::time::{Span, Timestamp};

use crate::fixture::*;
use crate::intervening::moved;
use crate::rejoining::{failed_over, rejoining};
use crate::running::{begin, perform};
use crate::switching::{reach, ready};

const WINDOW: Span = Span::from_secs(3600);

/// Switched over to the centre; the west is still to follow.
fn switched() -> (World, RunId) {
    let mut world = ready();
    with_window(&mut world);
    let run = moved(&mut world);
    (world, run)
}

fn with_window(world: &mut World) {
    let mut changed = world.known().document.clone();
    changed.automation.commit_within = Some(WINDOW);
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
}

fn follow(world: &mut World, run: RunId) {
    perform(world, run, "Rejoin db@west-1");
    perform(world, run, "Rejoin cache@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Succeeded);
}

fn open(world: &World) -> Option<CommitWindow> {
    world.known().window.clone()
}

#[test]
fn a_rejoin_that_takes_the_place_of_a_stuck_one_opens_the_way_back() {
    let (mut world, run) = switched();
    reach(&mut world, run, "Rejoin db@west-1", failed(false));
    assert_eq!(world.state.runs[&run].status, RunStatus::Stuck);
    let rejoin = rejoining(&mut world, true);
    assert_eq!(world.state.runs[&run].status, RunStatus::Superseded);
    perform(&mut world, rejoin, "Rejoin db@west-1");
    assert_eq!(open(&world), None, "one of two databases is not all");
    perform(&mut world, rejoin, "Rejoin cache@west-1");
    let window = open(&world).unwrap();
    assert_eq!((window.run, window.back_to.clone(), window.within), (run, west(), WINDOW));
    assert_eq!(window.since, Timestamp(world.wall), "from when it follows");
    let record = world.state.audit.iter().find(|record| record.event == "commit-window").unwrap();
    assert_eq!(record.run, Some(run));
    let told = advice::of_application(&world.state, &app(), world.known(), Timestamp(world.wall));
    assert_eq!(told.state, "commit-window");
    world.confirm(&central());
    // And it is a way back.
    world.done(Entry::RunStarted {
        application: app(),
        epoch: world.known().epoch,
        cause: Cause::Switchover { by: "bob".into(), max_write_outage: WINDOW, purpose: Purpose::Rollback { of: run } },
        to: west(),
        finding: Finding::default(),
        plan: None,
    });
}

#[test]
fn so_does_one_after_the_following_was_given_up() {
    let (mut world, run) = switched();
    begin(&mut world, run, "Rejoin db@west-1");
    world.done(Entry::Aborted { run, by: "ann".into(), reason: "not now".into() });
    assert_eq!(open(&world), None);
    let rejoin = rejoining(&mut world, false);
    follow(&mut world, rejoin);
    assert_eq!(open(&world).unwrap().run, run);
}

#[test]
fn what_was_committed_is_not_opened_again() {
    let (mut world, run) = switched();
    reach(&mut world, run, "Rejoin db@west-1", failed(false));
    let rejoin = rejoining(&mut world, false);
    follow(&mut world, rejoin);
    world.done(Entry::Committed { application: app(), run, by: Some("ann".into()) });
    assert_eq!(open(&world), None);
    let again = rejoining(&mut world, false);
    follow(&mut world, again);
    assert_eq!(open(&world), None);
}

#[test]
fn a_switchover_that_opened_it_itself_opens_it_once() {
    let (mut world, run) = switched();
    follow(&mut world, run);
    assert_eq!(open(&world).unwrap().run, run);
    world.done(Entry::Committed { application: app(), run, by: Some("ann".into()) });
    let again = rejoining(&mut world, false);
    follow(&mut world, again);
    assert_eq!(open(&world), None);
}

/// A switchover by a runbook with these changes, to its end; the west does not follow.
fn left_behind(change: impl FnOnce(&mut Vec<Line>)) -> (World, RunId) {
    let mut world = ready();
    with_window(&mut world);
    let mut changed = world.known().document.clone();
    change(&mut changed.runbooks.get_mut("switchover").unwrap().lines);
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    let run = moved(&mut world);
    (world, run)
}

/// No way back is told of before the west follows, however long that takes; then it is open for its whole time.
fn opens_with_a_rejoin(mut world: World, run: RunId) {
    assert_eq!(world.state.runs[&run].status, RunStatus::Succeeded);
    assert!(world.known().excluded.contains_key(&west()));
    assert_eq!(open(&world), None, "a side in quarantine is no way back");
    let told = advice::of_application(&world.state, &app(), world.known(), Timestamp(world.wall));
    assert_eq!(told.state, "quarantined");
    assert!(told.next.contains("regentctl rejoin shop west-1"), "{}", told.next);
    assert!(!advice::of_run(&world.state, &world.state.runs[&run]).next.contains("rolled back"));
    world.wall += i64::try_from(WINDOW.millis()).unwrap();
    let rejoin = rejoining(&mut world, false);
    follow(&mut world, rejoin);
    let window = open(&world).unwrap();
    assert_eq!((window.run, window.back_to.clone(), window.within), (run, west(), WINDOW));
    assert_eq!(window.since, Timestamp(world.wall), "from when it follows");
}

#[test]
fn a_runbook_that_makes_the_old_side_not_follow_opens_nothing_before_a_rejoin() {
    let (world, run) = left_behind(|lines| lines.retain(|line| line.action != Action::Rejoin));
    opens_with_a_rejoin(world, run);
}

#[test]
fn so_it_is_where_the_rejoin_may_fail_and_does() {
    let (mut world, run) = left_behind(|lines| {
        let rejoins = lines.iter_mut().filter(|line| line.action == Action::Rejoin);
        rejoins.for_each(|line| line.on_failure = OnFailure::Continue);
    });
    reach(&mut world, run, "Rejoin db@west-1", failed(false));
    perform(&mut world, run, "Rejoin cache@west-1");
    opens_with_a_rejoin(world, run);
}

#[test]
fn a_document_whose_window_waits_for_a_rejoin_is_remarked_on() {
    let (world, _) = switched();
    let mut document = world.known().document.clone();
    assert_eq!(document.remarks(), Vec::<String>::new());
    let switchover = document.runbooks.get_mut("switchover").unwrap();
    switchover.lines.retain(|line| line.action != Action::Rejoin);
    let told = document.remarks();
    assert!(matches!(&told[..], [one] if one.contains("has no rejoin of cache")), "{told:?}");
    document.automation.commit_within = None;
    assert_eq!(document.remarks(), Vec::<String>::new());
}

#[test]
fn a_window_that_the_document_did_not_want_in_time_is_not_opened_by_a_later_rejoin() {
    let mut world = ready();
    let run = moved(&mut world);
    follow(&mut world, run);
    with_window(&mut world);
    let rejoin = rejoining(&mut world, false);
    follow(&mut world, rejoin);
    assert_eq!(open(&world), None);
}

#[test]
fn neither_a_failover_nor_a_document_without_a_window_opens_one() {
    let mut world = failed_over();
    with_window(&mut world);
    let rejoin = rejoining(&mut world, false);
    follow(&mut world, rejoin);
    assert_eq!(open(&world), None, "after a failover there was data that was lost");
    let mut world = ready();
    let run = moved(&mut world);
    reach(&mut world, run, "Rejoin db@west-1", failed(false));
    let rejoin = rejoining(&mut world, false);
    follow(&mut world, rejoin);
    assert_eq!(open(&world), None);
}
