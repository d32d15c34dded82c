//! What the plan of a planned move warns of, and what it does not.

use regent_core::application::{Action, Line};
use regent_core::entry::Entry;
use regent_core::id::ClusterId;
use regent_core::plan::{Asked, Shown, show_switchover};
use regent_core::preflight::Severity;
use regent_core::switchover::Purpose;
use regent_core::verdict::Scene;

use crate::drilling::{drill, drilled};
use crate::fixture::*;
use crate::planning::with_a_window;
use crate::running::begin;
use crate::switching::{NOW, ready, well};

fn shown(world: &World, purpose: Purpose, to: Option<&ClusterId>) -> Shown {
    let (name, evidence) = (app(), well());
    let scene = Scene::new(&world.state, &evidence, NOW, view(NOW, world).me, &name).unwrap();
    show_switchover(&scene, view(NOW, world), &Asked { by: "ann", purpose, to, max_write_outage: None })
}

/// The detail of the note with this code, if there is one of this weight.
fn note(shown: &Shown, severity: Severity, code: &str) -> Option<String> {
    let found = shown.notes.iter().find(|note| note.severity == severity && note.code == code);
    found.map(|note| note.detail.clone())
}

/// With a question at this place of the runbook for switchovers.
fn asking_at(place: usize) -> Shown {
    let mut world = ready();
    let mut changed = world.known().document.clone();
    let question = Line { question: "Is the bank told?".into(), ..line(Action::Approve, &[]) };
    changed.runbooks.get_mut("switchover").unwrap().lines.insert(place, question);
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    shown(&world, Purpose::Switchover, None)
}

#[test]
fn only_what_asks_while_writes_are_kept_out_is_warned_of() {
    // Before the quiesce, between it and the catch-up, and behind the decision.
    for (place, warned) in [(0, false), (1, true), (2, false)] {
        let shown = asking_at(place);
        assert_eq!(note(&shown, Severity::Warning, "asks-while-closed").is_some(), warned, "at {place}");
        assert_eq!(note(&shown, Severity::Info, "asks").is_some(), !warned, "at {place}: {:?}", shown.notes);
    }
}

#[test]
fn the_way_back_is_not_warned_of_ending_the_way_back() {
    let (world, run) = with_a_window();
    let warned = |purpose| note(&shown(&world, purpose, Some(&west())), Severity::Warning, "commits-earlier-run");
    assert!(warned(Purpose::Switchover).is_some());
    assert_eq!(warned(Purpose::Rollback { of: run }), None);
}

#[test]
fn a_move_says_which_run_it_would_end() {
    let mut world = ready();
    let north = cluster("north-1");
    world.done(Entry::AgentRegistered(agent(&north, "in")));
    let mut wider = world.known().document.clone();
    wider.clusters.push(north.clone());
    world.done(Entry::Applied { application: Box::new(wider), by: "ann".into() });
    world.confirm(&west());
    let warned =
        |world: &World| note(&shown(world, Purpose::Switchover, Some(&central())), Severity::Warning, "ends-run");
    assert_eq!(warned(&world), None);
    let copy = Entry::RejoinStarted { application: app(), cluster: north, reclone: true, by: "ann".into() };
    let run = world.done(copy);
    let told = warned(&world).unwrap();
    assert!(told.contains(&format!("run {run}")) && told.contains("north-1"), "{told}");
    assert!(told.contains("what was copied until then is lost"), "{told}");

    let mut world = drilled();
    let run = drill(&mut world);
    begin(&mut world, run, crate::drilling::PROMOTE[0]);
    let told = warned(&world).unwrap();
    assert!(told.contains(&format!("run {run}, a drill")), "{told}");
}
