//! Where a planned move would go, what blocks it, and what its plan warns of.

use regent_core::application::{Action, Line, Manner};
use regent_core::entry::Entry;
use regent_core::evidence::Evidence;
use regent_core::facts::{NodeFacts, SlotFacts};
use regent_core::id::{ClusterId, RunId};
use regent_core::plan::{Asked, show_failover, show_switchover};
use regent_core::preflight::Severity;
use regent_core::state::Drilled;
use regent_core::switchover::{Purpose, preflight};
use regent_core::time::{Span, Timestamp};
use regent_core::verdict::Scene;
use regent_core::why::explain;

use crate::fixture::*;
use crate::readying::{NOW, both, facts, later, node, notes, pg, service, well};

/// A world that is well, with a third cluster that is as well as the second one.
pub fn three() -> (World, Evidence) {
    let (mut world, mut evidence) = well();
    let north = cluster("north-1");
    world.done(Entry::AgentRegistered(agent(&north, "in")));
    let mut wider = world.known().document.clone();
    wider.clusters.push(north.clone());
    world.done(Entry::Applied { application: Box::new(wider), by: "ann".into() });
    world.confirm(&west());
    let known = world.state.applications.get_mut(&app()).unwrap();
    let drilled = Drilled { run: RunId(1), at: Timestamp(world.wall), rto: Span::from_secs(11) };
    known.rehearsed.drills.insert(north.clone(), drilled);
    let like = evidence.contacts[&central()].clone();
    evidence.contacts.insert(north, like);
    (world, evidence)
}

/// To where a planned move would go, or the rule that refuses it.
fn would_go(world: &World, evidence: &Evidence, purpose: Purpose) -> Result<String, String> {
    let application = app();
    let scene = Scene::new(&world.state, evidence, NOW, view(NOW, world).me, &application).unwrap();
    preflight(&scene, purpose, None).map(|to| to.cluster.to_string()).map_err(|rule| rule.code)
}

/// The notes of the plan of a switchover.
fn planned(world: &World, evidence: &Evidence) -> Vec<String> {
    let application = app();
    let at = view(NOW, world);
    let scene = Scene::new(&world.state, evidence, NOW, at.me, &application).unwrap();
    let asked = Asked { by: "ann", purpose: Purpose::Switchover, to: None, max_write_outage: None };
    let notes = show_switchover(&scene, at, &asked).notes;
    let told = notes.iter().filter(|note| note.severity != Severity::Info);
    told.map(|note| format!("{} {}: {}", note.severity.as_str(), note.code, note.detail)).collect()
}

fn part(evidence: &mut Evidence, at: &ClusterId) {
    service(evidence, at, "db").upstream.as_mut().unwrap().connected = false;
}

#[test]
fn a_third_cluster_that_could_not_follow_blocks_nothing_while_the_second_one_can() {
    let (world, mut evidence) = three();
    assert_eq!((notes(&world, &evidence), planned(&world, &evidence)), (vec![], third_left(&[])));
    let north = cluster("north-1");
    facts(&mut evidence, &north, "db").postgres.as_mut().unwrap().version = 160_001;
    assert_eq!(notes(&world, &evidence), ["warning versions-differ north-1/db"]);
    assert_eq!(would_go(&world, &evidence, Purpose::Switchover), Ok("central-1".to_owned()));
    let differs =
        "warning versions-differ: db in north-1: PostgreSQL 16 here, 15 in west-1: one cannot follow the other";
    assert_eq!(planned(&world, &evidence), third_left(&[differs]));
    facts(&mut evidence, &central(), "db").postgres.as_mut().unwrap().version = 160_001;
    let both = ["blocker versions-differ central-1/db", "blocker versions-differ north-1/db"];
    assert_eq!(notes(&world, &evidence), both);
}

/// With what the plan says beside: a runbook without `rejoin`.
fn third_left(more: &[&str]) -> Vec<String> {
    let left = "warning old-side-left: no rejoin of cache in the runbook switchover: the old side stays quarantined until it \
                rejoins";
    more.iter().copied().chain([left]).map(str::to_owned).collect()
}

#[test]
fn a_planned_move_goes_to_the_first_cluster_that_lacks_nothing() {
    let (mut world, mut evidence) = three();
    part(&mut evidence, &central());
    assert_eq!(would_go(&world, &evidence, Purpose::Switchover), Ok("north-1".to_owned()));
    assert_eq!(notes(&world, &evidence), ["warning not-following central-1"]);
    // What both lack is told of the first.
    part(&mut evidence, &cluster("north-1"));
    assert_eq!(would_go(&world, &evidence, Purpose::Switchover), Err("not-following".to_owned()));
    assert_eq!(notes(&world, &evidence), ["blocker not-following central-1", "blocker not-following north-1"]);
    // Back to the first of those that stand earlier and lack nothing.
    let (_, mut evidence) = three();
    let known = world.state.applications.get_mut(&app()).unwrap();
    known.document.clusters = vec![central(), cluster("north-1"), west()];
    assert_eq!(would_go(&world, &evidence, Purpose::Failback), Ok("central-1".to_owned()));
    part(&mut evidence, &central());
    assert_eq!(would_go(&world, &evidence, Purpose::Failback), Ok("north-1".to_owned()));
}

#[test]
fn before_a_failover_it_is_told_what_may_be_lost_and_what_nobody_has_tried() {
    let (mut world, mut evidence) = well();
    both(&mut evidence, |facts| facts.synchronous = false);
    world.state.applications.get_mut(&app()).unwrap().rehearsed.drills.clear();
    let (application, at) = (app(), view(NOW, &world));
    let scene = Scene::new(&world.state, &evidence, NOW, at.me, &application).unwrap();
    let told = show_failover(&scene, at).notes;
    let why = explain(&world.state, &evidence, at, &application).unwrap().notes;
    for notes in [told, why] {
        for code in ["asynchronous", "drill-old"] {
            assert!(
                notes.iter().any(|note| (note.severity, note.code.as_str()) == (Severity::Info, code)),
                "{notes:?}"
            );
        }
    }
}

#[test]
fn a_stored_runbook_with_a_command_that_could_not_be_undone_is_refused() {
    let (mut world, evidence) = well();
    let mut document = world.known().document.clone();
    let lines = &mut document.runbooks.get_mut("switchover").unwrap().lines;
    let command = |when| Line { command: "tell-bank".into(), when, ..line(Action::Run, &["core"]) };
    lines.insert(0, command(Some(Manner::Ungraceful)));
    world.done(Entry::Applied { application: Box::new(document.clone()), by: "ann".into() });
    assert_eq!(would_go(&world, &evidence, Purpose::Switchover), Ok("central-1".to_owned()));
    let lines = &mut document.runbooks.get_mut("switchover").unwrap().lines;
    lines.insert(2, command(None));
    world.done(Entry::Applied { application: Box::new(document.clone()), by: "ann".into() });
    assert_eq!(would_go(&world, &evidence, Purpose::Switchover), Ok("central-1".to_owned()), "it stands behind");
    let lines = &mut document.runbooks.get_mut("switchover").unwrap().lines;
    lines.insert(0, command(None));
    world.done(Entry::Applied { application: Box::new(document), by: "ann".into() });
    assert_eq!(would_go(&world, &evidence, Purpose::Switchover), Err("command-before-catch-up".to_owned()));
    assert_eq!(notes(&world, &evidence), ["blocker command-before-catch-up"]);
}

#[test]
fn without_a_runbook_for_switchovers_it_is_told_who_could_not_take_over() {
    let (mut world, mut evidence) = well();
    world.state.applications.get_mut(&app()).unwrap().document.runbooks.remove("switchover");
    assert_eq!(notes(&world, &evidence), ["info no-switchover-runbook"]);
    evidence.contacts.get_mut(&central()).unwrap().last_beat = None;
    assert_eq!(notes(&world, &evidence), ["warning not-heard central-1", "info no-switchover-runbook"]);
}

#[test]
fn the_plan_of_a_switchover_warns_of_what_is_seen_on_both_sides() {
    let (world, mut evidence) = three();
    pg(&mut evidence).slots = vec![SlotFacts { name: "a".into(), lost: true, ..SlotFacts::default() }];
    drop(facts(&mut evidence, &central(), "db").reaches.insert(west(), Err("connection refused".into())));
    // Of a third one only what differs.
    let north = cluster("north-1");
    facts(&mut evidence, &north, "db").postgres.as_mut().unwrap().hot_standby = false;
    service(&mut evidence, &central(), "cache").upstream.as_mut().unwrap().lag = Some(Span::from_secs(3));
    node(&mut evidence, NodeFacts { at: NOW, ahead_ms: -2_500, certificate_until: later(&world, 24) });
    let told = planned(&world, &evidence);
    let wanted = [
        "warning lag-near-limit: cache in central-1: cache is 3s behind; maxDataLoss is 5s",
        "warning clocks-apart: west-1: the clock of its agent is 2s500ms behind that of coordinator 1",
        "warning certificate-expires: west-1: the certificate of its agent expires in 1d",
        "warning slot-lost: db in west-1: the WAL that the slot a needs is gone: whoever reads from it needs a fresh copy",
        "warning rejoin-unreachable: db in central-1: west-1 does not answer it as a rejoin would need: connection refused",
    ];
    assert_eq!(told, third_left(&wanted));
}
