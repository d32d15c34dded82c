//! Switchovers: nothing is decided before the new side has what the old one reported last. What ends before that is
//! undone (`undoing`), or has touched nothing yet (`waiting`).

use regent_core::application::{Action, Runbook};
use regent_core::decide::{Ending, decide, foresee};
use regent_core::entry::{Cause, Entry, Finding, Ground, Outcome, Report};
use regent_core::evidence::{Evidence, Health, LeaseState};
use regent_core::id::{Attempt, Epoch, RunId};
use regent_core::plan::Digest;
use regent_core::run::{RunStatus, StepKind, StepState};
use regent_core::switchover::{Purpose, preflight};
use regent_core::time::{Moment, Span};
use regent_core::verdict::Scene;

use crate::fixture::*;
use crate::running::{begin, due, end, find, perform};

pub const NOW: Moment = Moment(200_000);

/// Protected, with a runbook for switchovers.
pub fn ready() -> World {
    let mut world = World::fresh();
    let mut with_runbook = document();
    let lines = vec![
        line(Action::Quiesce, &["core"]),
        line(Action::CatchUp, &["db", "cache"]),
        line(Action::Promote, &["db", "cache"]),
        line(Action::Redirect, &["www"]),
        line(Action::Activate, &["core"]),
        line(Action::Rejoin, &["db", "cache"]),
    ];
    with_runbook.runbooks.insert("switchover".to_owned(), Runbook { lines });
    world.done(Entry::Applied { application: Box::new(with_runbook), by: "ann".into() });
    world.adopt();
    world.confirm(&west());
    world
}

/// An operator asks for it, and has seen this plan.
pub fn asked(world: &World, plan: Option<Digest>) -> Entry {
    Entry::RunStarted {
        application: app(),
        epoch: world.known().epoch,
        cause: Cause::Switchover {
            by: "ann".into(),
            max_write_outage: Span::from_secs(5),
            purpose: Purpose::Switchover,
        },
        to: central(),
        finding: Finding::default(),
        plan,
    }
}

/// Begun: clients may still hold the answer of before.
pub fn asked_for(world: &mut World) -> RunId {
    let entry = asked(world, None);
    world.done(entry);
    world.known().run.unwrap()
}

/// The same when they do not any more; nothing has been touched.
pub fn started(world: &mut World) -> RunId {
    let run = asked_for(world);
    perform(world, run, "Wait");
    run
}

pub fn at(position: u64) -> Outcome {
    Outcome::Succeeded(Report { position: Some(position), ..Report::default() })
}

pub fn reach(world: &mut World, run: RunId, step: &str, outcome: Outcome) {
    let begun = begin(world, run, step);
    end(world, run, begun, outcome);
}

pub fn fenced(world: &mut World) -> RunId {
    let run = started(world);
    perform(world, run, "Quiesce core@west-1");
    reach(world, run, "Fence db@west-1", at(1000));
    reach(world, run, "Fence cache@west-1", at(50));
    run
}

/// What the leader knows while both sides are well.
pub fn well() -> Evidence {
    let mut evidence = evidence(NOW, NOW);
    let standby = evidence.contacts.get_mut(&central()).unwrap().resources.get_mut(&app()).unwrap();
    standby.values_mut().for_each(|seen| seen.upstream.as_mut().unwrap().connected = true);
    serving(&mut evidence, NOW);
    evidence
}

fn refusal(world: &World, evidence: &Evidence) -> Option<String> {
    let name = app();
    let scene = Scene::new(&world.state, evidence, NOW, view(NOW, world).me, &name).unwrap();
    preflight(&scene, Purpose::Switchover, Some(&central())).err().map(|rule| rule.code)
}

#[test]
fn the_new_side_takes_over_with_everything_and_the_old_one_follows() {
    let mut world = ready();
    let run = started(&mut world);
    assert_eq!(due(&world, run), ["Quiesce core@west-1"]);
    perform(&mut world, run, "Quiesce core@west-1");
    assert_eq!(due(&world, run), ["Fence cache@west-1", "Fence db@west-1"]);
    reach(&mut world, run, "Fence cache@west-1", at(50));
    reach(&mut world, run, "Fence db@west-1", at(1000));
    assert_eq!(due(&world, run), ["CatchUp db@central-1", "CatchUp cache@central-1"]);
    assert_eq!(world.state.runs[&run].final_position(&resource("db")), Some(1000));
    reach(&mut world, run, "CatchUp db@central-1", at(1000));
    reach(&mut world, run, "CatchUp cache@central-1", at(51));
    assert_eq!(due(&world, run), ["Decide"]);
    let entries = decide(&world.state, &well(), view(NOW, &world));
    let [Entry::Decide { ground: Ground::Switched { run: of }, finding, .. }] = &entries[..] else {
        panic!("{entries:?}")
    };
    assert_eq!(*of, run);
    assert!(finding.gaps.values().all(|gap| gap.lag == Some(Span::ZERO) && gap.candidate >= gap.primary));
    world.done(entries[0].clone());
    assert_eq!((world.known().epoch, world.known().primary.clone()), (Epoch(2), Some(central())));
    assert!(world.known().cooling_since.is_none());
    for step in ["Promote db@central-1", "Promote cache@central-1", "Redirect www@central-1"] {
        perform(&mut world, run, step);
    }
    assert!(world.known().cooling_since.is_none(), "an operator's switchover cools nothing down");
    assert!(!world.state.runs[&run].gives_way());
    perform(&mut world, run, "Activate core@central-1");
    assert!(world.state.runs[&run].gives_way(), "a failover would wait for a side that is not needed");
    assert_eq!(world.state.runs[&run].status, RunStatus::Running);
    perform(&mut world, run, "Rejoin db@west-1");
    assert!(world.known().excluded.contains_key(&west()));
    perform(&mut world, run, "Rejoin cache@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Succeeded);
    assert!(world.known().excluded.is_empty());
}

#[test]
fn nothing_is_decided_before_the_final_position_is_reached() {
    let mut world = ready();
    let run = fenced(&mut world);
    let ground = || Ground::Switched { run };
    assert_eq!(world.refused(world.decide(ground())), "fence-not-confirmed");
    reach(&mut world, run, "CatchUp db@central-1", at(999));
    assert_eq!(world.refused(world.decide(ground())), "fence-not-confirmed");
    reach(&mut world, run, "CatchUp cache@central-1", at(50));
    assert_eq!(world.refused(world.decide(ground())), "not-caught-up");
}

/// What goes to the log with these outcomes of first attempts, each with the outcomes themselves in front.
fn foreseen(world: &World, run: RunId, endings: &[(&str, Outcome)]) -> Vec<Entry> {
    let attempt = Attempt(1);
    let ending = |(step, outcome): &(&str, Outcome)| {
        let step = find(world, run, step);
        Ending { step, attempt, outcome: outcome.clone() }
    };
    let endings: Vec<Ending> = endings.iter().map(ending).collect();
    let follows = foresee(&world.state, &well(), view(NOW, world), run, &endings);
    let outcomes =
        endings.into_iter().map(|Ending { step, attempt, outcome }| Entry::StepOutcome { run, step, attempt, outcome });
    outcomes.chain(follows).collect()
}

#[test]
fn the_last_position_decision_and_promotions_are_one_round() {
    let mut world = ready();
    let run = fenced(&mut world);
    begin(&mut world, run, "CatchUp db@central-1");
    begin(&mut world, run, "CatchUp cache@central-1");
    let (db, cache) = (("CatchUp db@central-1", at(1000)), ("CatchUp cache@central-1", at(51)));
    assert_eq!(foreseen(&world, run, std::slice::from_ref(&db)).len(), 1, "the other one is still to come");
    // The first outcome may be on its way to the log still.
    let entries = foreseen(&world, run, &[db, cache]);
    let kinds: Vec<&str> = entries
        .iter()
        .map(|entry| match entry {
            Entry::StepOutcome { .. } => "outcome",
            Entry::Decide { ground: Ground::Switched { .. }, .. } => "decide",
            Entry::StepIntent { .. } => "intent",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["outcome", "outcome", "decide", "intent", "intent"]);
    for entry in entries {
        world.done(entry);
    }
    assert_eq!((world.known().epoch, world.known().primary.clone()), (Epoch(2), Some(central())));
    let promotes = ["Promote db@central-1", "Promote cache@central-1"].map(|name| find(&world, run, name));
    assert!(promotes.iter().all(|step| world.state.runs[&run].step(*step).unwrap().1.state == StepState::Running));
}

#[test]
fn nothing_rests_on_a_decision_that_was_foreseen_in_vain() {
    let mut world = ready();
    let run = fenced(&mut world);
    begin(&mut world, run, "CatchUp db@central-1");
    begin(&mut world, run, "CatchUp cache@central-1");
    let behind = foreseen(&world, run, &[("CatchUp db@central-1", at(1000)), ("CatchUp cache@central-1", at(49))]);
    let told = foreseen(&world, run, &[("CatchUp db@central-1", at(1000)), ("CatchUp cache@central-1", at(51))]);
    // What was not reached is refused, whoever foresaw it; and so is what rests on newer terms.
    let mut other = ready();
    let same = fenced(&mut other);
    begin(&mut other, same, "CatchUp db@central-1");
    begin(&mut other, same, "CatchUp cache@central-1");
    for (at, entry) in behind.into_iter().enumerate() {
        match at {
            0 | 1 => _ = other.done(entry),
            2 => assert_eq!(other.refused(entry), "not-caught-up"),
            _ => other.ignored(entry),
        }
    }
    world.done(Entry::Paused { application: Some(app()), by: "bob".into(), reason: "wait".into() });
    for (at, entry) in told.into_iter().enumerate() {
        match at {
            0 | 1 => _ = world.done(entry),
            2 => assert_eq!(world.refused(entry), "newer-terms"),
            _ => world.ignored(entry),
        }
    }
    assert_eq!(world.known().epoch, Epoch(1));
    assert!(
        world.state.runs[&run]
            .steps
            .iter()
            .zip(&world.state.runs[&run].progress)
            .all(|(step, progress)| { step.kind != StepKind::Action(Action::Promote) || progress.token.is_none() })
    );
    // A leader that knows of the pause foresees nothing.
    let mut paused = ready();
    let run = fenced(&mut paused);
    begin(&mut paused, run, "CatchUp db@central-1");
    begin(&mut paused, run, "CatchUp cache@central-1");
    paused.done(Entry::Paused { application: Some(app()), by: "bob".into(), reason: "wait".into() });
    let entries = foreseen(&paused, run, &[("CatchUp db@central-1", at(1000)), ("CatchUp cache@central-1", at(51))]);
    assert_eq!(entries.len(), 2, "{entries:?}");
}

#[test]
fn a_fence_without_a_final_position_decides_nothing_and_is_undone() {
    let mut world = ready();
    let run = started(&mut world);
    perform(&mut world, run, "Quiesce core@west-1");
    perform(&mut world, run, "Fence db@west-1");
    reach(&mut world, run, "Fence cache@west-1", at(50));
    let entries = decide(&world.state, &well(), view(NOW, &world));
    assert!(matches!(&entries[..], [Entry::UndoBegun { reason, .. }] if reason.contains("db")), "{entries:?}");
    reach(&mut world, run, "CatchUp db@central-1", at(2000));
    reach(&mut world, run, "CatchUp cache@central-1", at(50));
    assert_eq!(world.refused(world.decide(Ground::Switched { run })), "not-caught-up");
}

#[test]
fn a_side_that_is_not_ready_refuses() {
    let world = ready();
    assert_eq!(refusal(&world, &well()), None);
    let changed = |change: &dyn Fn(&mut Evidence)| {
        let mut evidence = well();
        change(&mut evidence);
        refusal(&world, &evidence)
    };
    let seen = |evidence: &mut Evidence, side, change: &dyn Fn(&mut regent_core::evidence::Sighting)| {
        let resources = evidence.contacts.get_mut(&side).unwrap().resources.get_mut(&app()).unwrap();
        change(resources.get_mut(&resource("db")).unwrap());
    };
    let code = |code: &str| Some(code.to_owned());
    let failed = |evidence: &mut Evidence| seen(evidence, west(), &|seen| seen.health = Health::Failed);
    assert_eq!(changed(&failed), code("primary-not-ready"));
    let without_lease = |evidence: &mut Evidence| {
        evidence.contacts.get_mut(&west()).unwrap().beats.get_mut(&app()).unwrap().lease = LeaseState::Lacked;
    };
    assert_eq!(changed(&without_lease), code("primary-not-ready"));
    let unhealthy = |evidence: &mut Evidence| seen(evidence, central(), &|seen| seen.health = Health::Failed);
    assert_eq!(changed(&unhealthy), code("unhealthy"));
    let cut = |evidence: &mut Evidence| {
        seen(evidence, central(), &|seen| seen.upstream.as_mut().unwrap().connected = false);
    };
    assert_eq!(changed(&cut), code("not-following"));
    assert_eq!(refusal(&World::protected(), &well()), code("no-switchover-runbook"));
}

#[test]
fn the_state_machine_refuses_what_cannot_be_kept() {
    let mut plain = World::protected();
    let entry = asked(&plain, None);
    assert_eq!(plain.refused(entry), "no-switchover-runbook");
    let mut world = ready();
    world.done(Entry::Paused { application: Some(app()), by: "bob".into(), reason: "wait".into() });
    let entry = asked(&world, None);
    assert_eq!(world.refused(entry), "paused");
    let mut world = ready();
    let entry = asked(&world, None);
    started(&mut world);
    assert_eq!(world.refused(entry), "run-under-way");
}
