//! A failover that has fenced and is not decided: what was closed does not stay closed for nothing.

use std::collections::BTreeSet;

use regent_core::advice;
use regent_core::application::{Resource, ResourceKind};
use regent_core::decide::{Ending, decide, foresee};
use regent_core::entry::{Cause, Entry, Finding, Ground};
use regent_core::evidence::{Evidence, Health, Role};
use regent_core::id::{Attempt, RunId};
use regent_core::run::RunStatus;
use regent_core::state::Wish;
use regent_core::time::Moment;

use crate::fixture::*;
use crate::running::{begin, end, perform};
use crate::switching::reach;

const NOW: Moment = Moment(200_000);

/// Both sides are heard, and the standby is fit.
fn seen() -> Evidence {
    evidence(NOW, NOW)
}

/// The standby is not heard.
fn unfit() -> Evidence {
    let mut evidence = seen();
    evidence.contacts.get_mut(&central()).unwrap().last_beat = None;
    evidence
}

/// Everything that begins with a fence and is no switchover.
fn causes() -> Vec<Cause> {
    vec![
        Cause::ResourceFailed { resource: resource("db"), detail: "gone".into() },
        Cause::AgentUnreachable,
        Cause::SelfFenced,
        Cause::Forced { by: "ann".into(), reason: "it burns".into() },
    ]
}

/// A failover that has begun, with the operator's order where it is one's.
fn begun(cause: Cause) -> (World, RunId) {
    let mut world = World::protected();
    let epoch = world.known().epoch;
    if let Cause::Forced { by, reason } = &cause {
        let (by, reason) = (by.clone(), reason.clone());
        let wish = Wish { by, to: central(), reason, allow_data_loss: None, attestation: None };
        world.done(Entry::FailoverOrdered { application: app(), epoch, wish });
    }
    let finding = Finding::default();
    world.done(Entry::RunStarted { application: app(), epoch, cause, to: central(), finding, plan: None });
    let run = world.known().run.unwrap();
    (world, run)
}

/// The same once both fences are confirmed.
fn fenced(cause: Cause) -> (World, RunId) {
    let (mut world, run) = begun(cause);
    perform(&mut world, run, "Fence db@west-1");
    perform(&mut world, run, "Fence cache@west-1");
    (world, run)
}

fn pause(world: &mut World) {
    world.done(Entry::Paused { application: Some(app()), by: "bob".into(), reason: "wait".into() });
}

fn resume(world: &mut World) {
    world.done(Entry::Resumed { application: Some(app()), by: "bob".into() });
}

fn proposed(world: &World, evidence: &Evidence) -> Vec<Entry> {
    decide(&world.state, evidence, view(NOW, world))
}

/// It is undone, and nothing else is proposed; why.
fn undone(world: &World, evidence: &Evidence, run: RunId) -> (Entry, String) {
    let entries = proposed(world, evidence);
    let [Entry::UndoBegun { run: of, reason }] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(*of, run);
    (entries[0].clone(), reason.clone())
}

#[test]
fn a_pause_opens_at_once_what_a_failover_has_fenced() {
    for cause in causes() {
        let (mut world, run) = fenced(cause.clone());
        let entries = proposed(&world, &seen());
        assert!(
            matches!(&entries[..], [Entry::Decide { ground: Ground::Fenced { .. }, .. }]),
            "{cause:?}: {entries:?}"
        );
        pause(&mut world);
        assert_eq!(world.refused(entries[0].clone()), "newer-terms");
        assert_eq!(world.refused(world.decide(Ground::Fenced { run })), "paused");
        let advice = advice::of_run(&world.state, &world.state.runs[&run]);
        assert_eq!(advice.state, "pausing", "{cause:?}");
        let (undo, reason) = undone(&world, &seen(), run);
        assert!(reason.contains("paused"), "{cause:?}: {reason}");
        world.done(undo);
        assert_eq!(world.state.runs[&run].status, RunStatus::Undoing);
        perform(&mut world, run, "Unfence db@west-1");
        perform(&mut world, run, "Unfence cache@west-1");
        assert_eq!(world.state.runs[&run].status, RunStatus::Undone, "{cause:?}");
        assert!(world.known().run.is_none() && world.known().order.is_none(), "{cause:?}");
        assert_eq!(world.known().primary, Some(west()));
    }
}

#[test]
fn a_pause_of_everything_opens_it_too() {
    let (mut world, run) = fenced(Cause::SelfFenced);
    world.done(Entry::Paused { application: None, by: "bob".into(), reason: "wait".into() });
    assert!(undone(&world, &seen(), run).1.contains("paused"));
}

#[test]
fn a_pause_between_two_fences_undoes_and_awaits_the_one_under_way() {
    let (mut world, run) = begun(Cause::SelfFenced);
    perform(&mut world, run, "Fence db@west-1");
    let (step, attempt) = begin(&mut world, run, "Fence cache@west-1");
    pause(&mut world);
    let endings = [Ending { step, attempt, outcome: succeeded() }];
    assert_eq!(foresee(&world.state, &seen(), view(NOW, &world), run, &endings), vec![]);
    let (undo, _) = undone(&world, &seen(), run);
    world.done(undo);
    assert_eq!(crate::running::due(&world, run), ["Unfence db@west-1"]);
    end(&mut world, run, (step, attempt), succeeded());
    perform(&mut world, run, "Unfence db@west-1");
    perform(&mut world, run, "Unfence cache@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Undone);
}

#[test]
fn a_pause_that_nobody_saw_holds_the_decision_until_its_end_is_confirmed() {
    let (mut world, run) = fenced(Cause::SelfFenced);
    pause(&mut world);
    resume(&mut world);
    assert_eq!(proposed(&world, &seen()), vec![]);
    world.confirm(&west());
    let entries = proposed(&world, &seen());
    assert!(matches!(&entries[..], [Entry::Decide { .. }]), "{entries:?}");
    world.done(entries[0].clone());
    assert!(world.state.runs[&run].decided.is_some());
}

#[test]
fn without_a_fit_target_it_is_opened_again_after_failover_after() {
    for cause in causes() {
        let (mut world, run) = fenced(cause.clone());
        assert_eq!(proposed(&world, &unfit()), vec![], "{cause:?}");
        world.wall += 9_000;
        assert_eq!(proposed(&world, &unfit()), vec![], "{cause:?}: not before");
        world.wall += 2_000;
        assert!(undone(&world, &unfit(), run).1.contains("failoverAfter"), "{cause:?}");
        // One that is fit by then takes over: what is decided ends the outage sooner than an undo.
        let entries = proposed(&world, &seen());
        assert!(matches!(&entries[..], [Entry::Decide { .. }]), "{cause:?}: {entries:?}");
    }
}

#[test]
fn a_decision_that_is_refused_again_and_again_is_none() {
    let (mut world, run) = fenced(Cause::SelfFenced);
    // However it came about: a database that the primary's agent, who is fenced, has not confirmed. A document is not
    // changed while a run goes by it.
    let mut with_more = world.known().document.clone();
    let more = Resource { kind: ResourceKind::Redis, after: BTreeSet::new(), dns: None };
    with_more.resources.insert(resource("more"), more);
    world.state.applications.get_mut(&app()).unwrap().document = with_more;
    let mut evidence = seen();
    for (at, role) in [(west(), Role::Primary), (central(), Role::Standby)] {
        let resources = evidence.contacts.get_mut(&at).unwrap().resources.get_mut(&app()).unwrap();
        resources.insert(resource("more"), sighting(NOW, role, Some(7)));
    }
    let entries = proposed(&world, &evidence);
    let [decision @ Entry::Decide { .. }] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(world.refused(decision.clone()), "unconfirmed-database");
    world.wall += 11_000;
    assert!(undone(&world, &evidence, run).1.contains("failoverAfter"));
}

#[test]
fn an_undo_that_is_stuck_holds_up_no_failover() {
    let (mut world, run) = fenced(Cause::ResourceFailed { resource: resource("db"), detail: "gone".into() });
    let again = |world: &World| Entry::RunStarted {
        application: app(),
        epoch: world.known().epoch,
        cause: Cause::ResourceFailed { resource: resource("db"), detail: "gone".into() },
        to: central(),
        finding: Finding::default(),
        plan: None,
    };
    pause(&mut world);
    world.done(undone(&world, &seen(), run).0);
    resume(&mut world);
    world.confirm(&west());
    perform(&mut world, run, "Unfence cache@west-1");
    let entry = again(&world);
    assert_eq!(world.refused(entry), "run-under-way", "the undo goes on");
    // What failed does not open again.
    reach(&mut world, run, "Unfence db@west-1", failed(false));
    assert_eq!(advice::of_run(&world.state, &world.state.runs[&run]).state, "undo-stuck");
    let mut failing = seen();
    let sight = failing.contacts.get_mut(&west()).unwrap().resources.get_mut(&app()).unwrap();
    let database = sight.get_mut(&resource("db")).unwrap();
    (database.health, database.failures) = (Health::Failed, 3);
    let entries = proposed(&world, &failing);
    let start = entries.iter().find(|entry| matches!(entry, Entry::RunStarted { .. }));
    world.done(start.unwrap_or_else(|| panic!("{entries:?}")).clone());
    assert_eq!(world.state.runs[&run].status, RunStatus::Superseded);
    let failover = world.known().run.unwrap();
    assert_eq!(world.state.runs[&failover].walk().next().unwrap().1.attempts, Attempt(0));
    // Whatever the undo has opened is fenced first.
    assert_eq!(crate::running::due(&world, failover), ["Fence cache@west-1", "Fence db@west-1"]);
}
