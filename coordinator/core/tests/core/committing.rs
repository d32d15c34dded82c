//! The commit window: the way back stays open for a time, with the guarantees of a switchover; and holds, and the way to
//! the preferred cluster.

use regent_core::advice;
use regent_core::decide::decide;
use regent_core::entry::{Cause, Entry, Finding, Ground};
use regent_core::evidence::{Evidence, LeaseState};
use regent_core::id::{ClusterId, Epoch, RunId};
use regent_core::protection;
use regent_core::run::RunStatus;
use regent_core::switchover::{Purpose, preflight};
use regent_core::time::{Moment, Span, Timestamp};
use regent_core::verdict::Scene;
use regent_core::why;

use crate::fixture::*;
use crate::intervening::moved;
use crate::running::perform;
use crate::switching::{NOW, at, reach, ready, well};

const WINDOW: Span = Span::from_secs(3600);

/// Switched over to the centre, with the west following, and the way back open.
fn open() -> (World, RunId) {
    let mut world = ready();
    let mut changed = world.known().document.clone();
    changed.automation.commit_within = Some(WINDOW);
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    let run = moved(&mut world);
    assert!(world.known().window.is_none(), "not before the old side follows");
    perform(&mut world, run, "Rejoin db@west-1");
    perform(&mut world, run, "Rejoin cache@west-1");
    world.confirm(&central());
    (world, run)
}

fn back(world: &World, of: RunId, to: ClusterId) -> Entry {
    Entry::RunStarted {
        application: app(),
        epoch: world.known().epoch,
        cause: Cause::Switchover { by: "bob".into(), max_write_outage: WINDOW, purpose: Purpose::Rollback { of } },
        to,
        finding: Finding::default(),
        plan: None,
    }
}

fn committed(run: RunId, by: Option<&str>) -> Entry {
    Entry::Committed { application: app(), run, by: by.map(str::to_owned) }
}

/// Both sides are well and the centre is primary of epoch 2.
pub fn well_there() -> Evidence {
    let mut evidence = well();
    let (old, new) = (evidence.contacts.remove(&west()).unwrap(), evidence.contacts.remove(&central()).unwrap());
    evidence.contacts.insert(central(), old);
    evidence.contacts.insert(west(), new);
    for contact in evidence.contacts.values_mut() {
        contact.beats.get_mut(&app()).unwrap().epoch = Epoch(2);
    }
    evidence
}

fn preflighted(world: &World, evidence: &Evidence, purpose: Purpose) -> Result<ClusterId, String> {
    let name = app();
    let scene = Scene::new(&world.state, evidence, NOW, view(NOW, world).me, &name).unwrap();
    preflight(&scene, purpose, None).map(|candidate| candidate.cluster).map_err(|rule| rule.code)
}

fn last_event(world: &World) -> (String, String) {
    let events: Vec<_> = world.state.audit.iter().rev().collect();
    let wanted = ["rolled-back", "committed", "commit-window-closed", "commit-window"];
    let record = events.into_iter().find(|record| wanted.contains(&record.event.as_str())).unwrap();
    (record.event.clone(), record.actor.clone())
}

#[test]
fn a_switchover_can_be_rolled_back_by_a_switchover() {
    let (mut world, run) = open();
    assert_eq!(last_event(&world), ("commit-window".into(), "leader".into()));
    assert_eq!(preflighted(&world, &well_there(), Purpose::Rollback { of: run }), Ok(west()));
    let entry = back(&world, run, west());
    world.done(entry);
    let rollback = world.known().run.unwrap();
    assert!(world.known().window.is_some(), "it may be undone");
    world.refused(committed(run, Some("ann")));
    perform(&mut world, rollback, "Wait");
    perform(&mut world, rollback, "Quiesce core@central-1");
    reach(&mut world, rollback, "Fence db@central-1", at(2000));
    reach(&mut world, rollback, "Fence cache@central-1", at(70));
    let decided = |world: &World| Entry::Decide {
        application: app(),
        from: world.known().epoch,
        to: west(),
        terms: world.known().terms.last().unwrap().number,
        ground: Ground::Switched { run: rollback },
        finding: Finding::default(),
    };
    let early = decided(&world);
    assert_eq!(world.refused(early), "fence-not-confirmed", "the same guarantees");
    reach(&mut world, rollback, "CatchUp db@west-1", at(1999));
    reach(&mut world, rollback, "CatchUp cache@west-1", at(70));
    let behind = decided(&world);
    assert_eq!(world.refused(behind), "not-caught-up");
    // It is undone, and the way back is still open.
    world.done(Entry::UndoBegun { run: rollback, reason: "behind".into() });
    for step in ["Unfence db@central-1", "Unfence cache@central-1", "Activate core@central-1"] {
        perform(&mut world, rollback, step);
    }
    assert_eq!(world.known().window.as_ref().map(|window| window.run), Some(run));
    let entry = back(&world, run, west());
    world.done(entry);
    let again = world.known().run.unwrap();
    perform(&mut world, again, "Wait");
    perform(&mut world, again, "Quiesce core@central-1");
    for (step, position) in [
        ("Fence db@central-1", 2000),
        ("Fence cache@central-1", 70),
        ("CatchUp db@west-1", 2000),
        ("CatchUp cache@west-1", 70),
    ] {
        reach(&mut world, again, step, at(position));
    }
    let Entry::Decide { application, from, to, terms, finding, .. } = decided(&world) else { unreachable!() };
    world.done(Entry::Decide { application, from, to, terms, ground: Ground::Switched { run: again }, finding });
    assert_eq!((world.known().primary.clone(), world.known().epoch), (Some(west()), Epoch(3)));
    assert_eq!((last_event(&world).0.as_str(), world.known().window.clone()), ("rolled-back", None));
    for step in [
        "Promote db@west-1",
        "Promote cache@west-1",
        "Redirect www@west-1",
        "Activate core@west-1",
        "Rejoin db@central-1",
        "Rejoin cache@central-1",
    ] {
        perform(&mut world, again, step);
    }
    assert_eq!(world.state.runs[&again].status, RunStatus::Succeeded);
    assert!(world.known().window.is_none(), "a rollback is not rolled back");
}

#[test]
fn what_was_committed_or_never_open_is_not_rolled_back() {
    let (mut world, run) = open();
    let elsewhere = back(&world, RunId(run.0 + 1), west());
    assert_eq!(world.refused(elsewhere), "no-commit-window");
    world.done(committed(run, Some("ann")));
    assert_eq!(last_event(&world), ("committed".into(), "ann".into()));
    let late = back(&world, run, west());
    assert_eq!(world.refused(late), "no-commit-window");
    assert_eq!(world.refused(committed(run, Some("ann"))), "no-commit-window");
    assert_eq!(preflighted(&world, &well_there(), Purpose::Rollback { of: run }), Err("no-commit-window".into()));
    // Without the setting there is no window at all.
    let mut plain = ready();
    let run = moved(&mut plain);
    perform(&mut plain, run, "Rejoin db@west-1");
    perform(&mut plain, run, "Rejoin cache@west-1");
    assert!(plain.known().window.is_none());
}

#[test]
fn when_its_time_has_passed_the_leader_commits_and_nobody_before() {
    let (mut world, run) = open();
    world.ignored(committed(run, None));
    let open = decide(&world.state, &well_there(), view(NOW, &world));
    assert!(open.iter().all(|entry| !matches!(entry, Entry::Committed { .. })), "{open:?}");
    world.wall += i64::try_from(WINDOW.millis()).unwrap();
    let over = decide(&world.state, &well_there(), view(NOW, &world));
    let Some(entry @ Entry::Committed { by: None, .. }) = over.first() else { panic!("{over:?}") };
    world.done(entry.clone());
    assert_eq!(last_event(&world), ("committed".into(), "leader".into()));
}

/// The new primary is lost, and the group decides for the old one.
fn fail_over_to_the_west(world: &mut World) {
    let votes = [world.vote(1, &central(), 1, Span::ZERO), world.vote(2, &central(), 1, Span::ZERO)];
    let terms = world.known().terms.last().unwrap().number;
    world.done(Entry::Decide {
        application: app(),
        from: Epoch(2),
        to: west(),
        terms,
        ground: Ground::Lost { votes: votes.into() },
        finding: Finding::default(),
    });
}

#[test]
fn a_failover_closes_the_window_and_the_audit_says_so() {
    let (mut world, run) = open();
    fail_over_to_the_west(&mut world);
    assert_eq!(last_event(&world).0, "commit-window-closed");
    assert!(world.known().window.is_none());
    let entry = back(&world, run, central());
    assert!(["no-commit-window", "not-a-target"].contains(&world.refused(entry).as_str()));
}

#[test]
fn the_open_window_is_named_wherever_one_looks() {
    let (world, run) = open();
    let advice = advice::of_application(&world.state, &app(), world.known(), Timestamp(world.wall));
    assert_eq!(advice.state, "commit-window");
    assert!(advice.next.contains("regentctl rollback shop") && advice.next.contains("regentctl commit shop"));
    assert!(advice::of_run(&world.state, &world.state.runs[&run]).next.contains("rolled back to west-1"));
    let explained = why::explain(&world.state, &well_there(), view(NOW, &world), &app()).unwrap();
    let note = explained.notes.iter().find(|note| note.code == "commit-window").unwrap();
    assert!(note.detail.contains("for another 59m59s") && note.detail.contains("a failover closes"), "{note:?}");
}

#[test]
fn a_hold_stops_planned_moves_and_no_failover() {
    let (mut world, run) = open();
    world.done(Entry::Held { application: app(), by: "ann".into(), reason: "end of the quarter".into() });
    for purpose in [Purpose::Switchover, Purpose::Failback, Purpose::Rollback { of: run }] {
        assert_eq!(preflighted(&world, &well_there(), purpose), Err("held".into()), "{purpose:?}");
    }
    let entry = back(&world, run, west());
    assert_eq!(world.refused(entry), "held");
    let explained = why::explain(&world.state, &well_there(), view(NOW, &world), &app()).unwrap();
    assert!(explained.notes.iter().any(|note| note.code == "held" && note.detail.contains("end of the quarter")));
    assert!(explained.held_by.iter().all(|rule| rule.code != "held"));
    fail_over_to_the_west(&mut world);
    assert_eq!(world.known().primary, Some(west()));
    world.done(Entry::Unheld { application: app(), by: "ann".into() });
    world.ignored(Entry::Unheld { application: app(), by: "ann".into() });
}

#[test]
fn the_way_back_goes_to_the_preferred_cluster_or_says_why_not() {
    let (mut world, run) = open();
    world.done(committed(run, Some("ann")));
    assert_eq!(preflighted(&world, &well_there(), Purpose::Failback), Ok(west()));
    let mut behind = well_there();
    let beat = behind.contacts.get_mut(&west()).unwrap();
    beat.last_beat = Some(Moment(NOW.0 - 60_000));
    assert_eq!(preflighted(&world, &behind, Purpose::Failback), Err("not-heard".into()));
    assert_eq!(preflighted(&ready(), &well(), Purpose::Failback), Err("at-preferred".into()));
}

#[test]
fn a_side_protects_only_while_it_streams_and_lies_within_the_limits() {
    let world = ready();
    let name = app();
    let look = |evidence: &Evidence| {
        let scene = Scene::new(&world.state, evidence, NOW, view(NOW, &world).me, &name).unwrap();
        let found = protection::of(&scene);
        (found.is_protected(), found.sentence())
    };
    assert_eq!(look(&well()), (true, "protected by central-1".into()));
    let with = |change: &dyn Fn(&mut regent_core::evidence::Sighting)| {
        let mut evidence = well();
        let resources = evidence.contacts.get_mut(&central()).unwrap().resources.get_mut(&app()).unwrap();
        change(resources.get_mut(&resource("db")).unwrap());
        look(&evidence)
    };
    let (protected, why) = with(&|seen| seen.upstream.as_mut().unwrap().connected = false);
    assert!(!protected && why.contains("central-1: db does not receive from west-1"), "{why}");
    let (protected, why) = with(&|seen| {
        seen.position = Some(1);
        seen.upstream.as_mut().unwrap().lag = Some(Span::from_secs(6));
    });
    assert!(!protected && why.contains("the limit is 5s"), "{why}");
    // In quarantine nothing protects, whatever it says of itself.
    let mut left = ready();
    moved(&mut left);
    let evidence = well_there();
    let scene = Scene::new(&left.state, &evidence, NOW, view(NOW, &left).me, &name).unwrap();
    assert!(!protection::of(&scene).is_protected());
    let mut lacking = well();
    lacking.contacts.get_mut(&west()).unwrap().beats.get_mut(&app()).unwrap().lease = LeaseState::Lacked;
    assert!(look(&lacking).0, "it is the other side that protects");
}
