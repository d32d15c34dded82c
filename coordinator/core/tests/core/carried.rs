//! Of every way to a new primary, what was shown is what is carried out: each step is the same in all that it says. Of
//! switchovers and of the failover of a lost region it is `planning` that says so.

use regent_core::application::{Action, Mode};
use regent_core::decide::{Viewpoint, decide};
use regent_core::entry::{Cause, Entry, Finding, Ground};
use regent_core::evidence::{Evidence, Health};
use regent_core::id::ClusterId;
use regent_core::plan::{Asked, Shown, show_failover, show_ordered, show_switchover};
use regent_core::preflight::Severity;
use regent_core::run::{Step, StepKind, UNDO_STAGE};
use regent_core::state::Wish;
use regent_core::switchover::Purpose;
use regent_core::time::Span;
use regent_core::verdict::Scene;

use crate::committing::well_there;
use crate::fixture::*;
use crate::intervening::moved;
use crate::restoring::{order, silent};
use crate::running::perform;
use crate::switching::{NOW, ready, well};

fn shown(world: &World, evidence: &Evidence, show: impl Fn(&Scene<'_>, Viewpoint) -> Shown) -> Shown {
    let name = app();
    let at = view(NOW, world);
    let scene = Scene::new(&world.state, evidence, NOW, at.me, &name).unwrap();
    show(&scene, at)
}

/// The steps of the run that is under way.
fn under_way(world: &World) -> &[Step] {
    &world.state.runs[&world.known().run.unwrap()].steps
}

/// Each step as "action resource@cluster", a mark where nothing waits for it, and one where it is an undo.
fn outline(steps: &[Step]) -> Vec<String> {
    let told = |step: &Step| {
        let kind = match step.kind {
            StepKind::Action(action) => format!("{action:?}"),
            StepKind::Decide | StepKind::Unfence | StepKind::Rehearse(_) => format!("{:?}", step.kind),
        };
        let what = step.resource.as_ref().map(|resource| format!(" {resource}@{}", step.cluster)).unwrap_or_default();
        let undo = if step.stage == UNDO_STAGE { "undo: " } else { "" };
        format!("{undo}{kind}{what}{}", if step.detached { " (not awaited)" } else { "" })
    };
    steps.iter().map(told).collect()
}

fn wish() -> Wish {
    Wish { by: "ann".into(), to: central(), reason: "it burns".into(), allow_data_loss: None, attestation: None }
}

const FENCED_FIRST: [&str; 11] = [
    "Fence cache@west-1",
    "Fence db@west-1",
    "Decide",
    "Promote db@central-1",
    "Promote cache@central-1",
    "Redirect www@central-1",
    "Activate core@central-1",
    "Activate edge@central-1",
    "Verify checks@central-1",
    "undo: Unfence cache@west-1",
    "undo: Unfence db@west-1",
];

#[test]
fn a_failback() {
    let mut world = ready();
    let there = moved(&mut world);
    perform(&mut world, there, "Rejoin db@west-1");
    perform(&mut world, there, "Rejoin cache@west-1");
    world.confirm(&central());
    let asked = Asked { by: "ann", purpose: Purpose::Failback, to: None, max_write_outage: None };
    let plan = shown(&world, &well_there(), |scene, at| show_switchover(scene, at, &asked));
    assert!(plan.notes.iter().all(|note| note.severity != Severity::Blocker), "{:?}", plan.notes);
    assert_eq!((plan.from.clone(), plan.to.clone()), (central(), Some(west())));
    let cause =
        Cause::Switchover { by: "ann".into(), max_write_outage: Span::from_secs(5), purpose: Purpose::Failback };
    world.done(started(&world, cause, west(), &plan));
    assert_eq!(under_way(&world), plan.steps);
    let wanted = [
        "Wait",
        "Quiesce core@central-1",
        "Fence cache@central-1",
        "Fence db@central-1",
        "CatchUp db@west-1",
        "CatchUp cache@west-1",
        "Decide",
        "Promote db@west-1",
        "Promote cache@west-1",
        "Redirect www@west-1",
        "Activate core@west-1",
        "Rejoin db@central-1",
        "Rejoin cache@central-1",
        "undo: Unfence cache@central-1",
        "undo: Unfence db@central-1",
        "undo: Activate core@central-1",
    ];
    assert_eq!(outline(&plan.steps), wanted);
}

/// A run that is asked for with the plan that was seen.
fn started(world: &World, cause: Cause, to: ClusterId, plan: &Shown) -> Entry {
    let (epoch, plan) = (world.known().epoch, plan.digest.clone());
    Entry::RunStarted { application: app(), epoch, cause, to, finding: Finding::default(), plan }
}

#[test]
fn a_failover_that_was_ordered_of_a_side_that_answers() {
    let mut world = World::protected();
    let plan = shown(&world, &well(), |scene, at| show_ordered(scene, at, &wish()));
    order(&mut world, wish());
    let entries = decide(&world.state, &well(), view(NOW, &world));
    let [start @ Entry::RunStarted { cause: Cause::Forced { .. }, .. }] = &entries[..] else { panic!("{entries:?}") };
    world.done(start.clone());
    assert_eq!(under_way(&world), plan.steps);
    assert_eq!(outline(&plan.steps), FENCED_FIRST);
}

#[test]
fn a_failover_that_was_ordered_of_a_side_that_is_silent() {
    let mut world = World::protected();
    let mut by_hand = document();
    by_hand.automation.mode = Mode::Manual;
    world.done(Entry::Applied { application: Box::new(by_hand), by: "ann".into() });
    let evidence = silent(&mut world);
    let plan = shown(&world, &evidence, |scene, at| show_ordered(scene, at, &wish()));
    order(&mut world, wish());
    let entries = decide(&world.state, &evidence, view(NOW, &world));
    let [decision @ Entry::Decide { ground: Ground::Lost { .. }, .. }] = &entries[..] else { panic!("{entries:?}") };
    world.done(decision.clone());
    assert_eq!(under_way(&world), plan.steps);
    let fences = ["Fence cache@west-1 (not awaited)", "Fence db@west-1 (not awaited)"];
    let lines = FENCED_FIRST.iter().filter(|step| !step.contains("ence") && **step != "Decide");
    let wanted: Vec<&str> = fences.iter().chain(lines).copied().collect();
    assert_eq!(outline(&plan.steps), wanted);
}

#[test]
fn a_failover_that_fences_first() {
    let mut world = World::protected();
    let mut evidence = evidence(NOW, NOW);
    let seen = evidence.contacts.get_mut(&west()).unwrap().resources.get_mut(&app()).unwrap();
    let failed = seen.get_mut(&resource("db")).unwrap();
    (failed.health, failed.failures) = (Health::Failed, 3);
    let plan = shown(&world, &evidence, show_failover);
    let entries = decide(&world.state, &evidence, view(NOW, &world));
    let [start @ Entry::RunStarted { cause: Cause::ResourceFailed { .. }, .. }] = &entries[..] else {
        panic!("{entries:?}")
    };
    world.done(start.clone());
    assert_eq!(under_way(&world), plan.steps);
    assert_eq!(outline(&plan.steps), FENCED_FIRST);
    let decided = plan.steps.iter().position(|step| step.kind == StepKind::Decide).unwrap();
    let promoted = plan.steps.iter().position(|step| step.kind == StepKind::Action(Action::Promote)).unwrap();
    assert!(plan.steps[promoted].stage > plan.steps[decided].stage, "nothing is promoted beside the decision");
}
