//! A failover restores only what is no standby: what is shown, begun and decided says the same.

use regent_core::application::Action;
use regent_core::decide::Viewpoint;
use regent_core::entry::{Entry, Ground};
use regent_core::evidence::Evidence;
use regent_core::id::RunId;
use regent_core::plan::{Shown, show_failover, show_ordered};
use regent_core::preflight::Note;
use regent_core::run::{RunStatus, StepKind};
use regent_core::verdict::Scene;
use regent_core::why;

use crate::fixture::*;
use crate::restoring::{allowed, emptied, lost, order, proposals, restoring, silent, with};
use crate::running::perform;
use crate::switching::{NOW, well};

fn shown(world: &World, evidence: &Evidence, show: impl Fn(&Scene<'_>, Viewpoint) -> Shown) -> Shown {
    let name = app();
    let at = view(NOW, world);
    let scene = Scene::new(&world.state, evidence, NOW, at.me, &name).unwrap();
    show(&scene, at)
}

fn left_out(notes: &[Note]) -> Vec<&str> {
    notes.iter().filter(|note| note.code == "restore-left-out").map(|note| note.detail.as_str()).collect()
}

/// What a plan restores.
fn restored<'s>(steps: impl IntoIterator<Item = &'s regent_core::run::Step>) -> Vec<String> {
    let restores = steps.into_iter().filter(|step| step.kind == StepKind::Action(Action::Restore));
    restores.map(|step| step.resource.as_ref().unwrap().to_string()).collect()
}

#[test]
fn a_standby_is_promoted_as_it_is_and_no_backup_takes_its_place() {
    let mut world = with(vec![line(Action::Restore, &["core"]), line(Action::Restore, &["db"])], false);
    let evidence = silent(&mut world);
    let plan = shown(&world, &evidence, show_failover);
    assert_eq!(restored(&plan.steps), ["core"], "what is no database has no position");
    let notes = left_out(&plan.notes);
    let [told] = &notes[..] else { panic!("{:?}", plan.notes) };
    assert!(told.starts_with("db in central-1 is a standby at position 1000"), "{told}");
    let explained = why::explain(&world.state, &evidence, view(NOW, &world), &app()).unwrap();
    assert_eq!(left_out(&explained.notes), [*told]);

    let entries = proposals(&world, &evidence);
    let [decision @ Entry::Decide { ground: Ground::Lost { .. }, .. }] = &entries[..] else { panic!("{entries:?}") };
    world.done(decision.clone());
    let run = world.known().run.unwrap();
    assert_eq!(world.state.runs[&run].steps, plan.steps);
    perform(&mut world, run, "Restore core@central-1");
    perform(&mut world, run, "Promote db@central-1");
}

#[test]
fn of_one_line_what_is_no_standby_is_restored() {
    let mut world = with(vec![line(Action::Restore, &["db", "cache"])], false);
    let evidence = lost(&mut world);
    let plan = shown(&world, &evidence, |scene, at| show_ordered(scene, at, &allowed()));
    assert_eq!(restored(&plan.steps), ["db"]);
    let notes = left_out(&plan.notes);
    let [told] = &notes[..] else { panic!("{:?}", plan.notes) };
    assert!(told.starts_with("cache in central-1 is a standby at position 50"), "{told}");
    order(&mut world, allowed());
    let entries = proposals(&world, &evidence);
    let [decision @ Entry::Decide { .. }] = &entries[..] else { panic!("{entries:?}") };
    world.done(decision.clone());
    assert_eq!(world.state.runs[&world.known().run.unwrap()].steps, plan.steps);
}

/// An operator's failover whose fences are confirmed, begun by this evidence.
fn fenced(world: &mut World, evidence: &Evidence) -> RunId {
    order(world, allowed());
    let entries = proposals(world, evidence);
    let [start @ Entry::RunStarted { .. }] = &entries[..] else { panic!("{entries:?}") };
    world.done(start.clone());
    let run = world.known().run.unwrap();
    perform(world, run, "Fence db@west-1");
    perform(world, run, "Fence cache@west-1");
    run
}

/// What the leader does then by this evidence: it gives up, and says why.
fn gives_up(world: &mut World, evidence: &Evidence, run: RunId) -> String {
    let entries = proposals(world, evidence);
    let [undo @ Entry::UndoBegun { run: of, reason }] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(*of, run);
    world.done(undo.clone());
    perform(world, run, "Unfence db@west-1");
    perform(world, run, "Unfence cache@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Undone);
    assert_eq!(world.known().primary, Some(west()));
    reason.clone()
}

#[test]
fn a_standby_that_is_back_before_the_decision_is_not_restored_over() {
    let mut world = restoring(false);
    let nothing = emptied(well());
    let run = fenced(&mut world, &nothing);
    assert_eq!(restored(&world.state.runs[&run].steps), ["db"]);
    // Whoever proposes it: with a position of the standby the decision does not stand.
    let entries = proposals(&world, &nothing);
    let [decision @ Entry::Decide { ground: Ground::Fenced { .. }, .. }] = &entries[..] else { panic!("{entries:?}") };
    let mut decision = decision.clone();
    if let Entry::Decide { finding, .. } = &mut decision {
        finding.gaps.get_mut(&resource("db")).unwrap().candidate = Some(7);
    }
    assert_eq!(world.refused(decision), "plan-changed");
    let reason = gives_up(&mut world, &well(), run);
    assert!(reason.contains("db in central-1 is a standby at position 1000 by now"), "{reason}");
    // Ordered once more, it is promoted as it is.
    let run = fenced(&mut world, &well());
    assert_eq!(restored(&world.state.runs[&run].steps), Vec::<String>::new());
}

#[test]
fn a_standby_that_dies_before_the_decision_is_not_promoted_as_if_it_were_there() {
    let mut world = restoring(false);
    let run = fenced(&mut world, &well());
    assert_eq!(restored(&world.state.runs[&run].steps), Vec::<String>::new());
    let reason = gives_up(&mut world, &emptied(well()), run);
    assert!(reason.contains("db in central-1 is no standby any more"), "{reason}");
}
