//! Switchovers that end before their decision: what was closed is opened again, what was at rest stays so.

use regent_core::application::Action;
use regent_core::decide::decide;
use regent_core::entry::{Cause, Entry, Finding, Ground, Outcome, Report};
use regent_core::id::Epoch;
use regent_core::run::{RunStatus, StepState};

use crate::fixture::*;
use crate::running::{begin, due, end, find, perform};
use crate::switching::{NOW, asked, at, fenced, reach, ready, started, well};

#[test]
fn a_failure_before_the_decision_opens_the_old_side_again() {
    let mut world = ready();
    let run = fenced(&mut world);
    reach(&mut world, run, "CatchUp db@central-1", failed(false));
    assert_eq!(world.state.runs[&run].status, RunStatus::Undoing);
    assert_eq!(world.refused(world.decide(Ground::Switched { run })), "run-moved-on");
    assert_eq!(due(&world, run), ["Unfence cache@west-1", "Unfence db@west-1"]);
    perform(&mut world, run, "Unfence cache@west-1");
    perform(&mut world, run, "Unfence db@west-1");
    assert_eq!(due(&world, run), ["Activate core@west-1"], "a service comes after its databases");
    perform(&mut world, run, "Activate core@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Undone);
    assert_eq!((world.known().epoch, world.known().run), (Epoch(1), None));
}

/// Both services are quiesced before the fence: the edge depends on the core.
fn with_two_services() -> World {
    let mut world = ready();
    let mut both = world.known().document.clone();
    both.runbooks.get_mut("switchover").unwrap().lines[0] = line(Action::Quiesce, &["core", "edge"]);
    world.done(Entry::Applied { application: Box::new(both), by: "ann".into() });
    world
}

fn found_at_rest() -> Outcome {
    Outcome::Succeeded(Report { already: true, ..Report::default() })
}

#[test]
fn what_depends_on_others_stops_first_and_starts_last() {
    let mut world = with_two_services();
    let run = started(&mut world);
    assert_eq!(due(&world, run), ["Quiesce edge@west-1"]);
    perform(&mut world, run, "Quiesce edge@west-1");
    assert_eq!(due(&world, run), ["Quiesce core@west-1"]);
    perform(&mut world, run, "Quiesce core@west-1");
    reach(&mut world, run, "Fence cache@west-1", at(50));
    reach(&mut world, run, "Fence db@west-1", at(1000));
    world.done(Entry::UndoBegun { run, reason: "too long".into() });
    perform(&mut world, run, "Unfence cache@west-1");
    perform(&mut world, run, "Unfence db@west-1");
    assert_eq!(due(&world, run), ["Activate core@west-1"]);
    perform(&mut world, run, "Activate core@west-1");
    assert_eq!(due(&world, run), ["Activate edge@west-1"]);
    perform(&mut world, run, "Activate edge@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Undone);
}

#[test]
fn what_was_at_rest_is_left_so_by_the_undo() {
    let mut world = with_two_services();
    let run = started(&mut world);
    reach(&mut world, run, "Quiesce edge@west-1", found_at_rest());
    // It ends only after the undo has begun.
    let quiesce = begin(&mut world, run, "Quiesce core@west-1");
    world.done(Entry::UndoBegun { run, reason: "too long".into() });
    perform(&mut world, run, "Unfence cache@west-1");
    perform(&mut world, run, "Unfence db@west-1");
    assert_eq!(due(&world, run), Vec::<String>::new(), "what still closes is not opened beside it");
    let mut rested = world.copy();
    end(&mut rested, run, quiesce, found_at_rest());
    assert_eq!(rested.state.runs[&run].status, RunStatus::Undone, "neither was stopped by this run");
    end(&mut world, run, quiesce, succeeded());
    assert_eq!(due(&world, run), ["Activate core@west-1"]);
    perform(&mut world, run, "Activate core@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Undone);
    let edge = find(&world, run, "Activate edge@west-1");
    assert_eq!(world.state.runs[&run].step(edge).unwrap().1.state, StepState::Skipped);
}

#[test]
fn what_never_began_to_stop_is_not_started_by_the_undo() {
    let mut world = with_two_services();
    let run = started(&mut world);
    perform(&mut world, run, "Quiesce edge@west-1");
    world.done(Entry::UndoBegun { run, reason: "too long".into() });
    let core = find(&world, run, "Activate core@west-1");
    assert_eq!(world.state.runs[&run].step(core).unwrap().1.state, StepState::Skipped);
    perform(&mut world, run, "Unfence cache@west-1");
    perform(&mut world, run, "Unfence db@west-1");
    assert_eq!(due(&world, run), ["Activate edge@west-1"], "it waits for nothing that is left alone");
    perform(&mut world, run, "Activate edge@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Undone);
}

#[test]
fn what_a_second_attempt_finds_at_rest_is_started_by_the_undo() {
    let mut world = with_two_services();
    let run = started(&mut world);
    reach(&mut world, run, "Quiesce edge@west-1", failed(true));
    reach(&mut world, run, "Quiesce edge@west-1", found_at_rest());
    world.done(Entry::UndoBegun { run, reason: "too long".into() });
    perform(&mut world, run, "Unfence cache@west-1");
    perform(&mut world, run, "Unfence db@west-1");
    assert_eq!(due(&world, run), ["Activate edge@west-1"], "the first attempt may have stopped it");
}

#[test]
fn a_failover_goes_before_the_undo_of_a_switchover_whose_source_has_failed() {
    let mut world = ready();
    let run = fenced(&mut world);
    let failed_database = |world: &World| Entry::RunStarted {
        application: app(),
        epoch: world.known().epoch,
        cause: Cause::ResourceFailed { resource: resource("db"), detail: "gone".into() },
        to: central(),
        finding: Finding::default(),
        plan: None,
    };
    let entry = failed_database(&world);
    assert_eq!(world.refused(entry), "run-under-way", "a switchover that goes on may still be decided");
    world.done(Entry::UndoBegun { run, reason: "too long".into() });
    begin(&mut world, run, "Unfence db@west-1");
    let switchover = asked(&world, None);
    assert_eq!(world.refused(switchover), "run-under-way", "an operator waits for the undo");
    let entry = failed_database(&world);
    world.done(entry);
    assert_eq!(world.state.runs[&run].status, RunStatus::Superseded);
    let failover = world.known().run.unwrap();
    // What the undo may have opened by then is fenced before anything is decided.
    assert_eq!(due(&world, failover), ["Fence cache@west-1", "Fence db@west-1"]);
    assert_eq!(world.refused(world.decide(Ground::Fenced { run: failover })), "fence-not-confirmed");
    perform(&mut world, failover, "Fence cache@west-1");
    perform(&mut world, failover, "Fence db@west-1");
    world.done(world.decide(Ground::Fenced { run: failover }));
    assert_eq!((world.known().epoch, world.known().primary.clone()), (Epoch(2), Some(central())));
}

#[test]
fn what_still_closes_is_not_opened_beside_it() {
    let mut world = ready();
    let run = started(&mut world);
    perform(&mut world, run, "Quiesce core@west-1");
    let fence = begin(&mut world, run, "Fence db@west-1");
    world.done(Entry::UndoBegun { run, reason: "too long".into() });
    assert_eq!(due(&world, run), ["Unfence cache@west-1"]);
    let step = find(&world, run, "Unfence db@west-1");
    let attempt = world.state.runs[&run].step(step).unwrap().1.attempts.next();
    world.ignored(Entry::StepIntent { run, step, attempt });
    end(&mut world, run, fence, failed(false));
    assert_eq!(world.state.runs[&run].step(fence.0).unwrap().1.state, StepState::FailedContinued);
    assert!(world.known().stuck.is_empty(), "its undo needs no human");
    assert_eq!(due(&world, run), ["Unfence cache@west-1", "Unfence db@west-1"]);
}

#[test]
fn an_outage_that_lasts_too_long_is_ended() {
    let mut world = ready();
    let run = fenced(&mut world);
    begin(&mut world, run, "CatchUp db@central-1");
    begin(&mut world, run, "CatchUp cache@central-1");
    assert_eq!(decide(&world.state, &well(), view(NOW, &world)), vec![]);
    world.wall += 5_001;
    let entries = decide(&world.state, &well(), view(NOW, &world));
    let [Entry::UndoBegun { run: of, reason }] = &entries[..] else { panic!("{entries:?}") };
    assert!(*of == run && reason.contains("maxWriteOutage"), "{reason}");
    world.done(entries[0].clone());
    assert_eq!(world.state.runs[&run].status, RunStatus::Undoing);
}

#[test]
fn a_pause_in_the_middle_undoes() {
    let mut world = ready();
    let run = fenced(&mut world);
    reach(&mut world, run, "CatchUp db@central-1", at(1000));
    reach(&mut world, run, "CatchUp cache@central-1", at(50));
    world.done(Entry::Paused { application: Some(app()), by: "bob".into(), reason: "wait".into() });
    assert_eq!(world.refused(world.decide(Ground::Switched { run })), "paused");
    let entries = decide(&world.state, &well(), view(NOW, &world));
    assert!(matches!(&entries[..], [Entry::UndoBegun { .. }]), "{entries:?}");
}
