//! What is shown before is what is carried out after; and nothing else is.

use regent_core::application::Action;
use regent_core::entry::Entry;
use regent_core::id::{ClusterId, RunId};
use regent_core::plan::{Asked, Shown, show_failover, show_switchover};
use regent_core::preflight::Severity;
use regent_core::run::StepKind;
use regent_core::switchover::Purpose;
use regent_core::time::{Moment, Span};
use regent_core::verdict::Scene;

use crate::fixture::*;
use crate::intervening::moved;
use crate::running::{begin, end, lost, perform};
use crate::switching::{NOW, asked, at, ready, started, well};

fn shown(world: &World, to: Option<&ClusterId>) -> Shown {
    let (name, evidence) = (app(), well());
    let scene = Scene::new(&world.state, &evidence, NOW, view(NOW, world).me, &name).unwrap();
    let asked = Asked { by: "ann", purpose: Purpose::Switchover, to, max_write_outage: None };
    show_switchover(&scene, view(NOW, world), &asked)
}

fn codes(shown: &Shown, severity: Severity) -> Vec<&str> {
    shown.notes.iter().filter(|note| note.severity == severity).map(|note| note.code.as_str()).collect()
}

#[test]
fn a_started_run_has_the_steps_that_were_shown() {
    let mut world = ready();
    let plan = shown(&world, None);
    let before = world.state.clone();
    assert_eq!(codes(&plan, Severity::Blocker), Vec::<&str>::new());
    assert_eq!(plan.steps[0].kind, StepKind::Action(Action::Wait), "it is seen that it waits first");
    assert!(codes(&plan, Severity::Info).contains(&"waits-first"));
    assert_eq!(world.state, before, "looking changes nothing");
    assert_eq!((plan.to.as_ref(), plan.from.clone()), (Some(&central()), west()));
    world.done(asked(&world, plan.digest.clone()));
    let run = &world.state.runs[&world.known().run.unwrap()];
    assert_eq!(run.steps, plan.steps);
}

#[test]
fn a_plan_that_was_seen_is_carried_out_or_none() {
    let mut world = ready();
    let seen = shown(&world, None).digest.unwrap();
    let mut changed = world.known().document.clone();
    let lines = &mut changed.runbooks.get_mut("switchover").unwrap().lines;
    lines[1].timeout = lines[1].timeout.plus(Span::from_secs(1));
    world.done(Entry::Applied { application: Box::new(changed), by: "bob".into() });
    let now = shown(&world, None).digest.unwrap();
    assert_ne!(seen, now);
    let entry = asked(&world, Some(seen));
    assert_eq!(world.refused(entry), "plan-changed");
    assert!(world.known().run.is_none());
    let entry = asked(&world, Some(now));
    world.done(entry);
}

#[test]
fn a_failover_is_shown_with_the_steps_that_it_would_have() {
    let mut world = ready();
    let plan = {
        let (name, evidence) = (app(), evidence(NOW, Moment(0)));
        let scene = Scene::new(&world.state, &evidence, NOW, view(NOW, &world).me, &name).unwrap();
        show_failover(&scene, view(NOW, &world))
    };
    assert!(codes(&plan, Severity::Blocker).contains(&"primary-not-lost"));
    assert_eq!(plan.expected_loss.len(), 2);
    let run = lost(&mut world);
    assert_eq!(world.state.runs[&run].steps, plan.steps);
}

#[test]
fn every_blocker_is_told_at_once_and_the_plan_is_shown_all_the_same() {
    let mut world = ready();
    world.done(Entry::Paused { application: Some(app()), by: "bob".into(), reason: "wait".into() });
    world.done(Entry::Held { application: app(), by: "bob".into(), reason: "end of the quarter".into() });
    let plan = shown(&world, Some(&central()));
    assert_eq!(codes(&plan, Severity::Blocker), ["paused", "held"]);
    assert!(plan.is_blocked() && !plan.steps.is_empty() && plan.digest.is_some());
    let nowhere = shown(&world, Some(&cluster("north-1")));
    assert!(codes(&nowhere, Severity::Blocker).contains(&"unlisted-cluster"));
    assert!(nowhere.steps.is_empty() && nowhere.digest.is_none());
}

#[test]
fn expected_times_are_medians_of_what_was_really_done() {
    let mut world = ready();
    let fresh = shown(&world, None).forecast;
    // Only how long it waits for old answers to expire is known, and that is no outage.
    assert_eq!(fresh.steps.into_values().collect::<Vec<_>>(), [(Span::from_secs(5), 0)]);
    assert_eq!(fresh.total.to_string(), "more than 5s (11 steps were never done here)");
    assert_eq!((fresh.outage.span, fresh.until_decided.span), (Span::ZERO, Span::ZERO));
    // Three switchovers undone after the fence; the fence of db took 200, 900 and 400 ms, the cache's 100 ms each.
    for took in [200, 900, 400] {
        let run = started(&mut world);
        perform(&mut world, run, "Quiesce core@west-1");
        for (step, took, position) in [("Fence db@west-1", took, 1000), ("Fence cache@west-1", 100, 50)] {
            let begun = begin(&mut world, run, step);
            world.wall += took - 1;
            end(&mut world, run, begun, at(position));
        }
        undo(&mut world, run);
    }
    let plan = shown(&world, None);
    let median = |kind: Action, resource: &str| {
        let step = plan.steps.iter().find(|step| {
            step.kind == StepKind::Action(kind) && step.resource.as_ref().is_some_and(|one| one.as_str() == resource)
        });
        plan.forecast.steps.get(&step.unwrap().id).copied()
    };
    assert_eq!(median(Action::Fence, "db"), Some((Span::from_millis(400), 3)));
    assert_eq!(median(Action::Fence, "cache"), Some((Span::from_millis(100), 3)));
    assert_eq!(median(Action::CatchUp, "db"), None);
    // Side by side: the longer one counts. The quiesce took a millisecond.
    assert_eq!(plan.forecast.until_decided.span, Span::from_millis(401));
    assert_eq!(plan.forecast.until_decided.unknown, 2);
}

fn undo(world: &mut World, run: RunId) {
    world.done(Entry::UndoBegun { run, reason: "enough".into() });
    for step in ["Unfence db@west-1", "Unfence cache@west-1", "Activate core@west-1"] {
        perform(world, run, step);
    }
}

#[test]
fn what_an_operator_should_know_beside_is_told_with_its_weight() {
    let mut world = ready();
    let mut changed = world.known().document.clone();
    changed.automation.max_write_outage = Span::from_millis(100);
    changed.automation.commit_within = Some(Span::from_secs(3600));
    let lines = &mut changed.runbooks.get_mut("switchover").unwrap().lines;
    lines.retain(|line| line.action != Action::Rejoin);
    let mut question = line(Action::Approve, &[]);
    "Is the bank told?".clone_into(&mut question.question);
    lines.insert(1, question);
    world.done(Entry::Applied { application: Box::new(changed), by: "bob".into() });
    let run = started(&mut world);
    perform(&mut world, run, "Quiesce core@west-1");
    let asked = begin(&mut world, run, "Approve");
    world.done(Entry::Approved { run, step: asked.0, by: "ann".into(), reason: "yes".into() });
    let begun = begin(&mut world, run, "Fence db@west-1");
    world.wall += 500;
    end(&mut world, run, begun, at(1000));
    undo(&mut world, run);
    let plan = shown(&world, None);
    assert_eq!(codes(&plan, Severity::Warning), ["longer-than-allowed", "old-side-left", "asks-while-closed"]);
    assert!(codes(&plan, Severity::Info).contains(&"expected-time"));
    assert!(plan.notes.is_sorted_by_key(|note| note.severity));
}

/// A switchover has ended and can be rolled back.
pub fn with_a_window() -> (World, RunId) {
    let mut world = ready();
    let mut changed = world.known().document.clone();
    changed.automation.commit_within = Some(Span::from_secs(3600));
    world.done(Entry::Applied { application: Box::new(changed), by: "bob".into() });
    let run = moved(&mut world);
    perform(&mut world, run, "Rejoin db@west-1");
    perform(&mut world, run, "Rejoin cache@west-1");
    assert_eq!(world.known().window.as_ref().map(|window| window.run), Some(run));
    (world, run)
}

#[test]
fn where_a_window_is_open_the_next_move_says_that_it_closes_it() {
    let (world, _) = with_a_window();
    let plan = shown(&world, Some(&west()));
    assert!(codes(&plan, Severity::Warning).contains(&"commits-earlier-run"), "{:?}", plan.notes);
}
