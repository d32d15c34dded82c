//! What is certain to fail behind the point of no return, and is known before, refuses a planned move; a failover is warned.

use std::collections::BTreeSet;

use regent_core::application::{Action, Line, OnFailure, Resource, ResourceKind};
use regent_core::entry::Entry;
use regent_core::evidence::Evidence;
use regent_core::facts::{Findings, Listed};
use regent_core::id::ClusterId;
use regent_core::plan::{Asked, show_failover, show_switchover};
use regent_core::preflight::Severity;
use regent_core::readiness;
use regent_core::switchover::{Purpose, preflight};
use regent_core::time::Span;
use regent_core::verdict::Scene;

use crate::fixture::*;
use crate::moving::three;
use crate::readying;
use crate::switching::{NOW, ready, well};

/// What refuses a planned move to the centre, as "code resource in cluster".
fn blockers(world: &World, evidence: &Evidence) -> Vec<String> {
    let (application, to, at) = (app(), central(), view(NOW, world));
    let scene = Scene::new(&world.state, evidence, NOW, at.me, &application).unwrap();
    let asked = Asked { by: "ann", purpose: Purpose::Switchover, to: Some(&to), max_write_outage: None };
    let notes = show_switchover(&scene, at, &asked).notes;
    let blocks = notes.iter().filter(|note| note.severity == Severity::Blocker);
    let place = |detail: &str| detail.split(':').next().unwrap_or_default().to_owned();
    let told: Vec<String> = blocks.map(|note| format!("{} {}", note.code, place(&note.detail))).collect();
    let refused = preflight(&scene, Purpose::Switchover, Some(&to)).is_err();
    assert_eq!(refused, !told.is_empty(), "what is shown is what refuses: {told:?}");
    told
}

/// What readiness says of one code, as "severity resource in cluster".
fn told(world: &World, evidence: &Evidence, code: &str) -> Vec<String> {
    let notes = readiness::notes(&world.state, evidence, view(NOW, world), &app()).unwrap();
    let about = notes.iter().filter(|(_, note)| note.code == code);
    about.map(|(place, note)| format!("{} {place}", note.severity.as_str())).collect()
}

/// Nothing of this name stands in the file of this cluster's agent.
fn forget(world: &mut World, at: &ClusterId, name: &str) {
    let here = world.state.agents.get_mut(at).unwrap().endpoints.get_mut(&app()).unwrap();
    here.remove(&resource(name)).unwrap();
}

fn find(evidence: &mut Evidence, at: &ClusterId, name: &str, findings: Findings) {
    readying::find(evidence, NOW, at, name, findings);
}

fn lacking() -> Findings {
    Findings { lacks: vec!["a right".into()], ..Findings::default() }
}

/// The lines of the switchover, changed; in force and confirmed.
fn with_lines(world: &mut World, change: impl FnOnce(&mut Vec<Line>)) {
    let mut document = world.known().document.clone();
    change(&mut document.runbooks.get_mut("switchover").unwrap().lines);
    world.done(Entry::Applied { application: Box::new(document), by: "ann".into() });
}

#[test]
fn what_an_agent_does_not_know_refuses_where_a_step_needs_it() {
    assert_eq!(blockers(&ready(), &well()), Vec::<String>::new());
    let cases = [
        (central(), "core", vec!["resource-missing core in central-1"]),
        (central(), "www", vec!["resource-missing www in central-1"]),
        (central(), "cache", vec!["resource-missing cache in central-1"]),
        // It is quiesced there.
        (west(), "core", vec!["resource-missing core in west-1"]),
        // No step needs these.
        (west(), "www", vec![]),
        (central(), "edge", vec![]),
        (central(), "checks", vec![]),
    ];
    for (at, name, wanted) in cases {
        let mut world = ready();
        forget(&mut world, &at, name);
        assert_eq!(blockers(&world, &well()), wanted, "{name} in {at}");
        let noted: Vec<String> = wanted.iter().map(|one| one.replace("resource-missing", "blocker")).collect();
        assert_eq!(told(&world, &well(), "resource-missing"), noted, "{name} in {at}");
    }
}

#[test]
fn a_service_that_a_later_document_adds_refuses_until_the_new_side_has_it() {
    let mut world = ready();
    let mut document = world.known().document.clone();
    let service = Resource { kind: ResourceKind::Command, after: BTreeSet::new(), dns: None };
    document.resources.insert(resource("edge2"), service);
    document.runbooks.get_mut("switchover").unwrap().lines.push(line(Action::Activate, &["edge2"]));
    world.done(Entry::Applied { application: Box::new(document), by: "ann".into() });
    assert_eq!(blockers(&world, &well()), ["resource-missing edge2 in central-1"]);
    let mut grown = world.state.agents[&central()].clone();
    let here = grown.endpoints.get_mut(&app()).unwrap();
    let like = here[&resource("edge")].clone();
    here.insert(resource("edge2"), like);
    world.state.agents.insert(central(), grown);
    assert_eq!(blockers(&world, &well()), Vec::<String>::new());
}

#[test]
fn a_step_that_may_fail_refuses_nothing_but_for_an_empty_answer() {
    let mut world = ready();
    with_lines(&mut world, |lines| lines.iter_mut().for_each(|line| line.on_failure = OnFailure::Continue));
    forget(&mut world, &central(), "core");
    assert_eq!(blockers(&world, &well()), Vec::<String>::new());
    let here = world.state.agents.get_mut(&central()).unwrap().endpoints.get_mut(&app()).unwrap();
    here.get_mut(&resource("www")).unwrap().addresses.clear();
    assert_eq!(blockers(&world, &well()), ["dns-would-be-empty www in central-1"]);
    assert_eq!(told(&world, &well(), "dns-would-be-empty"), ["blocker www in central-1"]);
}

#[test]
fn a_right_that_is_lacking_refuses_where_a_step_needs_it_and_warns_before_a_failover() {
    let world = ready();
    let cases = [
        (central(), "db", true),
        (central(), "core", true),
        (central(), "www", true),
        // Its fence would fail.
        (west(), "cache", true),
        (west(), "core", false),
        (central(), "edge", false),
    ];
    for (at, name, refuses) in cases {
        let mut evidence = well();
        find(&mut evidence, &at, name, lacking());
        let wanted: Vec<String> = refuses.then(|| format!("permission-missing {name} in {at}")).into_iter().collect();
        assert_eq!(blockers(&world, &evidence), wanted, "{name} in {at}");
        let severity = if refuses { "blocker" } else { "warning" };
        assert_eq!(told(&world, &evidence, "permission-missing"), [format!("{severity} {name} in {at}")]);
        let (application, view) = (app(), view(NOW, &world));
        let scene = Scene::new(&world.state, &evidence, NOW, view.me, &application).unwrap();
        let notes = show_failover(&scene, view).notes;
        let mut lacks = notes.iter().filter(|note| note.code == "permission-missing");
        assert!(lacks.all(|note| note.severity == Severity::Warning), "{notes:?}");
        // What was seen long ago is unknown.
        let facts = evidence.contacts.get_mut(&at).unwrap().facts.get_mut(&app()).unwrap();
        facts.get_mut(&resource(name)).unwrap().at = NOW.before(Span::from_secs(181));
        assert_eq!(blockers(&world, &evidence), Vec::<String>::new());
    }
}

#[test]
fn a_command_that_the_new_side_does_not_list_refuses() {
    let mut world = ready();
    with_lines(&mut world, |lines| {
        lines.push(Line { command: "tell-bank".into(), ..line(Action::Run, &["core"]) });
    });
    let names = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|&name| name.to_owned()).collect() };
    let listed = |actions: &[&str], commands: &[&str]| {
        let listed = Listed { actions: names(actions), commands: names(commands) };
        Findings { listed: Some(listed), ..Findings::default() }
    };
    let core = vec!["command-not-listed core in central-1"];
    let cases = [
        (central(), listed(&["activate"], &["tell-bank", "warm-up"]), vec![]),
        (central(), listed(&["activate"], &["warm-up"]), core.clone()),
        (central(), listed(&["status"], &["tell-bank"]), core.clone()),
        // An agent that does not say so refuses nothing.
        (central(), Findings::default(), vec![]),
        (west(), listed(&["activate", "deactivate"], &[]), vec![]),
        (west(), listed(&["activate"], &["tell-bank"]), vec!["command-not-listed core in west-1"]),
        // An undo starts it again.
        (west(), listed(&["deactivate"], &[]), vec!["command-not-listed core in west-1"]),
    ];
    for (at, findings, wanted) in cases {
        let mut evidence = well();
        find(&mut evidence, &at, "core", findings.clone());
        assert_eq!(blockers(&world, &evidence), wanted, "{findings:?} in {at}");
    }
    // Of Kubernetes it is a job.
    let known = world.state.applications.get_mut(&app()).unwrap();
    known.document.resources.get_mut(&resource("core")).unwrap().kind = ResourceKind::Kubernetes;
    let mut evidence = well();
    find(&mut evidence, &central(), "core", listed(&[], &[]));
    assert_eq!(blockers(&world, &evidence), ["kubernetes-job-not-listed core in central-1"]);
    find(&mut evidence, &central(), "core", listed(&[], &["tell-bank"]));
    assert_eq!(blockers(&world, &evidence), Vec::<String>::new());
}

#[test]
fn a_third_cluster_that_lacks_something_blocks_nothing_while_the_second_one_can_take_over() {
    let (mut world, evidence) = three();
    let application = app();
    let goes = |world: &World| {
        let at = view(readying::NOW, world);
        let scene = Scene::new(&world.state, &evidence, at.now, at.me, &application).unwrap();
        let to = preflight(&scene, Purpose::Switchover, None);
        to.map(|to| to.cluster.to_string()).map_err(|rule| rule.code)
    };
    forget(&mut world, &cluster("north-1"), "db");
    assert_eq!(goes(&world), Ok("central-1".to_owned()));
    assert_eq!(readying::notes(&world, &evidence), ["warning resource-missing north-1/db"]);
    forget(&mut world, &central(), "db");
    assert_eq!(goes(&world), Err("resource-missing".to_owned()));
    let both = ["blocker resource-missing central-1/db", "blocker resource-missing north-1/db"];
    assert_eq!(readying::notes(&world, &evidence), both);
}
