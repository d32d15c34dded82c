//! The blast-radius limit, and standbys whose history is not the primary's.

use regent_core::blast::{Limit, SMALLEST, exceeded, limit};
use regent_core::decide::{Viewpoint, decide};
use regent_core::entry::{Cause, Entry, Finding};
use regent_core::evidence::{Evidence, Health};
use regent_core::id::{ApplicationId, SystemId};
use regent_core::time::{Moment, Span, Timestamp};
use regent_core::why::explain;

use crate::fixture::*;
use crate::running::failed_database;

const NOW: Moment = Moment(200_000);
const SILENCE: Span = Span::from_secs(9);

fn one_an_hour() -> Entry {
    Entry::LimitSet { limit: Limit { events: Some(1), window: None }, by: "ann".into() }
}

fn rules(world: &World, evidence: &Evidence) -> Vec<String> {
    let explanation = explain(&world.state, evidence, view(NOW, world), &app()).unwrap();
    explanation.held_by.into_iter().map(|rule| rule.code).collect()
}

#[test]
fn by_default_half_of_the_applications_may_move_and_two_at_least() {
    let mut world = World::protected();
    assert_eq!(limit(&world.state), (SMALLEST, Span::from_secs(3600)));
    for number in 0..6 {
        let mut other = document();
        other.name = ApplicationId::new(&format!("other-{number}")).unwrap();
        other.resources.remove(&resource("www"));
        for runbook in other.runbooks.values_mut() {
            runbook.lines.retain(|line| !line.resources.contains(&resource("www")));
        }
        world.done(Entry::Applied { application: Box::new(other), by: "ann".into() });
    }
    assert_eq!(limit(&world.state).0, 4, "half of seven");
}

#[test]
fn beyond_the_limit_a_human_looks_first() {
    let mut world = World::protected();
    world.done(one_an_hour());
    let run = failed_database(&mut world);
    world.done(Entry::UndoBegun { run, reason: "it works again".into() });
    assert_eq!(world.known().run, None);
    let again = || {
        let cause = Cause::ResourceFailed { resource: resource("db"), detail: "gone".into() };
        let finding = Finding::default();
        Entry::RunStarted {
            application: app(),
            epoch: regent_core::id::Epoch(1),
            cause,
            to: central(),
            plan: None,
            finding,
        }
    };
    assert_eq!(world.refused(again()), "blast-radius");
    let votes = [world.vote(1, &west(), 1, SILENCE), world.vote(2, &west(), 1, SILENCE)];
    assert_eq!(world.refused(world.lost(&votes)), "blast-radius", "a lost cluster is another event");
    assert!(rules(&world, &evidence(NOW, NOW)).contains(&"blast-radius".to_owned()), "why names it");
    // An operator's own run is not counted, and not held.
    let forced = Entry::RunStarted {
        application: app(),
        epoch: regent_core::id::Epoch(1),
        cause: Cause::Forced { by: "ann".into(), reason: "I looked".into() },
        to: central(),
        finding: Finding::default(),
        plan: None,
    };
    let mut other = World::protected();
    other.state = world.state.clone();
    let wish = regent_core::state::Wish {
        by: "ann".into(),
        to: central(),
        reason: "I looked".into(),
        allow_data_loss: None,
        attestation: None,
    };
    other.done(Entry::FailoverOrdered { application: app(), epoch: regent_core::id::Epoch(1), wish });
    other.done(forced);
    world.done(Entry::Acknowledged { application: None, by: "ann".into() });
    world.done(world.lost(&votes));
}

#[test]
fn the_window_passes() {
    let mut world = World::protected();
    world.done(one_an_hour());
    let run = failed_database(&mut world);
    world.done(Entry::UndoBegun { run, reason: "it works again".into() });
    let at = |millis: i64| exceeded(&world.state, &app(), None, Timestamp(world.wall + millis)).map(|rule| rule.code);
    assert_eq!(at(3_599_000).as_deref(), Some("blast-radius"));
    assert_eq!(at(3_601_000), None);
    let senseless = Limit { events: None, window: Some(Span::ZERO) };
    assert_eq!(world.refused(Entry::LimitSet { limit: senseless, by: "ann".into() }), "limit-senseless");
}

#[test]
fn all_that_leaves_one_lost_cluster_is_one_event() {
    let mut world = World::protected();
    world.done(one_an_hour());
    let votes = [world.vote(1, &west(), 1, SILENCE), world.vote(2, &west(), 1, SILENCE)];
    world.done(world.lost(&votes));
    let other = ApplicationId::new("other").unwrap();
    let wall = Timestamp(world.wall);
    assert_eq!(exceeded(&world.state, &other, Some(&west()), wall), None, "its region is lost, it goes, too");
    assert!(exceeded(&world.state, &other, Some(&central()), wall).is_some());
    assert!(exceeded(&world.state, &other, None, wall).is_some());
}

/// The unfit word on the centre.
fn unfit(world: &World, evidence: &Evidence) -> String {
    let explanation = explain(&world.state, evidence, view(NOW, world), &app()).unwrap();
    explanation.others.into_iter().find(|(cluster, _)| *cluster == central()).map(|(_, why)| why).unwrap_or_default()
}

#[test]
fn a_standby_that_stayed_on_an_old_timeline_or_is_another_database_is_no_target() {
    let world = World::protected();
    let with = |change: &dyn Fn(&mut regent_core::evidence::Sighting)| {
        let mut seen = evidence(NOW, NOW);
        let databases = seen.contacts.get_mut(&central()).unwrap().resources.get_mut(&app()).unwrap();
        change(databases.get_mut(&resource("db")).unwrap());
        seen
    };
    assert_eq!(unfit(&world, &with(&|_| {})), "");
    let other = unfit(&world, &with(&|seen| seen.system_id = SystemId("pg-2".into())));
    assert!(other.contains("another database"), "{other}");
    // The primary went on to timeline 2: that is what it reports, and what it was adopted or confirmed with.
    let mut parted = with(&|_| {});
    let primary = parted.contacts.get_mut(&west()).unwrap().resources.get_mut(&app()).unwrap();
    primary.get_mut(&resource("db")).unwrap().timeline = 2;
    let stayed = unfit(&world, &parted);
    assert!(stayed.contains("timeline 1") && stayed.contains("rejoin"), "{stayed}");
    // Nothing is said against one whose timeline is not known, or that follows.
    assert_eq!(unfit(&world, &with(&|seen| seen.timeline = 0)), "");
}

#[test]
fn a_remote_fence_is_told_of_before_it_is_needed() {
    let mut world = World::protected();
    let mut changed = agent(&west(), "iw");
    changed.endpoints.get_mut(&app()).unwrap().get_mut(&resource("db")).unwrap().remote_fence = true;
    world.done(Entry::AgentRegistered(changed));
    assert!(rules(&world, &evidence(NOW, NOW)).contains(&"remote-fence".to_owned()), "a healthy application says so");
    let votes = [world.vote(1, &west(), 1, SILENCE), world.vote(2, &west(), 1, SILENCE)];
    assert_eq!(world.refused(world.lost(&votes)), "remote-fence");
    world.done(withdraw(1, 1, &west(), 2));
    world.done(withdraw(2, 1, &west(), 2));
    // Where the agent talks, the fence is commanded and confirmed: that is not held.
    let mut failed = evidence(NOW, NOW);
    let of_west = failed.contacts.get_mut(&west()).unwrap().resources.get_mut(&app()).unwrap();
    let seen = of_west.get_mut(&resource("db")).unwrap();
    (seen.health, seen.failures) = (Health::Failed, 3);
    let look = Viewpoint { wall: Timestamp(world.wall), ..view(NOW, &world) };
    let entries = decide(&world.state, &failed, look);
    assert!(entries.iter().any(|entry| matches!(entry, Entry::RunStarted { .. })), "{entries:?}");
}
