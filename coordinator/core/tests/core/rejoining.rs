//! Taking a cluster back: only what is seen to follow the present primary ends a quarantine.

use regent_core::application::Action;
use regent_core::decide::{assess, decide};
use regent_core::entry::{Cause, Clearing, Entry, Finding, Outcome};
use regent_core::evidence::{Health, Role};
use regent_core::id::{Attempt, RunId};
use regent_core::run::{RunStatus, StepKind, StepState};
use regent_core::terms::Window;
use regent_core::time::{Moment, Span};
use regent_core::verdict::Scene;

use crate::fixture::*;
use crate::running::{begin, due, end, find, lost, perform};

fn rejoin(reclone: bool) -> Entry {
    Entry::RejoinStarted { application: app(), cluster: west(), reclone, by: "ann".into() }
}

/// The west is lost, the centre is primary of epoch 2, and the failover has ended.
pub fn failed_over() -> World {
    let mut world = World::protected();
    let run = lost(&mut world);
    finish(&mut world, run);
    world.confirm(&central());
    world
}

/// A failover to the centre succeeds.
pub fn finish(world: &mut World, run: RunId) {
    for step in [
        "Promote db@central-1",
        "Promote cache@central-1",
        "Redirect www@central-1",
        "Activate core@central-1",
        "Activate edge@central-1",
        "Verify checks@central-1",
    ] {
        perform(world, run, step);
    }
    assert_eq!(world.state.runs[&run].status, RunStatus::Succeeded);
}

/// Begins a rejoin of the west and gives its run.
pub fn rejoining(world: &mut World, reclone: bool) -> RunId {
    let run = RunId(world.done(rejoin(reclone)).0);
    assert_eq!(world.known().run, Some(run));
    run
}

#[test]
fn a_side_that_follows_again_is_a_candidate_again() {
    let mut world = failed_over();
    assert!(world.known().excluded.contains_key(&west()));
    let run = rejoining(&mut world, false);
    assert_eq!(due(&world, run), ["Rejoin cache@west-1", "Rejoin db@west-1"]);
    perform(&mut world, run, "Rejoin db@west-1");
    assert!(world.known().excluded.contains_key(&west()), "one of two databases is not all");
    perform(&mut world, run, "Rejoin cache@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Succeeded);
    assert_eq!(world.known().run, None);
    assert!(world.known().excluded.is_empty());
    assert_eq!(world.known().primary, Some(central()));
    let installation = world.state.agents[&west()].installation.clone();
    assert!(!Window::new(&world.known().terms).lists(&west(), &installation), "not before the primary's agent knows");
    world.confirm(&central());
    assert!(Window::new(&world.known().terms).lists(&west(), &installation));
}

#[test]
fn what_moves_no_primary_needs_one_and_names_another() {
    let mut world = World::fresh();
    assert_eq!(world.refused(rejoin(false)), "not-adopted");
    world.adopt();
    assert_eq!(world.refused(rejoin(false)), "rejoin-primary");
    let named = |name: &str| Entry::RejoinStarted {
        application: app(),
        cluster: cluster(name),
        reclone: true,
        by: "ann".into(),
    };
    assert_eq!(world.refused(named("north-1")), "unlisted-cluster");
    let mut busy = World::protected();
    lost(&mut busy);
    assert_eq!(busy.refused(rejoin(false)), "run-under-way");
}

#[test]
fn a_stuck_rejoin_is_begun_anew_and_no_other_one() {
    let mut world = failed_over();
    let first = rejoining(&mut world, false);
    assert_eq!(world.refused(rejoin(true)), "run-under-way");
    let begun = begin(&mut world, first, "Rejoin cache@west-1");
    end(&mut world, first, begun, failed(false));
    assert_eq!(world.state.runs[&first].status, RunStatus::Stuck);
    let second = rejoining(&mut world, true);
    assert_eq!(world.state.runs[&first].status, RunStatus::Superseded);
    assert!(world.known().stuck.is_empty());
    assert!(matches!(&world.state.runs[&second].cause, Cause::Rejoin { reclone: true, by } if by == "ann"));
    let fresh_copy = world.state.runs[&second].steps[0].timeout;
    assert!(fresh_copy > world.state.runs[&first].steps[0].timeout, "a fresh copy takes longer");
}

#[test]
fn nobody_is_taken_back_by_word() {
    let mut world = failed_over();
    let run = rejoining(&mut world, false);
    perform(&mut world, run, "Rejoin db@west-1");
    let begun = begin(&mut world, run, "Rejoin cache@west-1");
    end(&mut world, run, begun, failed(false));
    let word = Entry::Cleared { run, step: begun.0, how: Clearing::Done, by: "ann".into(), reason: String::new() };
    assert_eq!(world.refused(word), "rejoin-by-word");
    assert!(world.known().excluded.contains_key(&west()));
}

#[test]
fn a_failover_does_not_wait_for_a_rejoin() {
    let mut world = failed_over();
    rejoining(&mut world, false);
    let now = Moment(1_000_000);
    let mut seen = evidence(now, now);
    for (at, role) in [(central(), Role::Primary), (west(), Role::Standby)] {
        let contact = seen.contacts.get_mut(&at).unwrap();
        for (name, position) in [("db", 1000), ("cache", 50)] {
            contact.resources.get_mut(&app()).unwrap().insert(resource(name), sighting(now, role, Some(position)));
        }
    }
    let looks = |world: &World, seen: &regent_core::evidence::Evidence| {
        let application = app();
        let view = view(now, world);
        let scene = Scene::new(&world.state, seen, now, view.me, &application).unwrap();
        assess(&scene, view).unfit.iter().map(|unfit| unfit.code).collect::<Vec<_>>()
    };
    assert_eq!(looks(&world, &seen), ["rejoining"]);
    // Not quarantined, but in the middle of it.
    let mut fresh = World::protected();
    fresh.done(Entry::RejoinStarted { application: app(), cluster: central(), reclone: false, by: "ann".into() });
    let mut whole = evidence(now, now);
    assert_eq!(looks(&fresh, &whole), ["rejoining"]);
    // Where a third cluster could take over, a run that fences first does not wait for one that only takes back.
    let failed = whole.contacts.get_mut(&west()).unwrap().resources.get_mut(&app()).unwrap();
    let database = failed.get_mut(&resource("db")).unwrap();
    database.health = Health::Failed;
    database.failures = 9;
    let entries = decide(&fresh.state, &whole, view(now, &fresh));
    assert!(
        matches!(entries.last(), Some(Entry::Refused { rule, .. }) if rule == "one-kind-of-evidence"),
        "held by a named rule, not by the run: {entries:?}"
    );
    let rejoin = fresh.known().run.unwrap();
    let cause = Cause::ResourceFailed { resource: resource("db"), detail: "gone".into() };
    // Nor does a leader of before, who still thought it fit, decide for what is being rebuilt.
    let (epoch, finding) = (fresh.known().epoch, Finding::default());
    let started = Entry::RunStarted { application: app(), epoch, cause, to: central(), finding, plan: None };
    assert_eq!(fresh.refused(started), "not-a-target");
    let votes = [fresh.vote(1, &west(), 1, Span::ZERO), fresh.vote(2, &west(), 1, Span::ZERO)];
    assert_eq!(fresh.refused(fresh.lost(&votes)), "not-a-target");
    assert_eq!(fresh.state.runs[&rejoin].status, RunStatus::Running);
}

/// A failover whose runbook takes the old side back, with what fences it first.
fn with_rejoin_lines(resources: &[&str]) -> (World, RunId) {
    let mut world = World::protected();
    let mut changed = document();
    changed.runbooks.get_mut("failover").unwrap().lines.push(line(Action::Rejoin, resources));
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    let run = lost(&mut world);
    (world, run)
}

#[test]
fn a_late_success_of_a_failover_ends_the_quarantine() {
    let (mut world, run) = with_rejoin_lines(&["db", "cache"]);
    for step in ["Promote db@central-1", "Promote cache@central-1", "Redirect www@central-1", "Activate core@central-1"]
    {
        perform(&mut world, run, step);
    }
    perform(&mut world, run, "Activate edge@central-1");
    let checks = begin(&mut world, run, "Verify checks@central-1");
    end(&mut world, run, checks, succeeded());
    // Behind the last awaited stage they are begun before the run ends, and not awaited.
    let database = begin(&mut world, run, "Rejoin db@west-1");
    let cache = begin(&mut world, run, "Rejoin cache@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Succeeded, "nothing waits for them");
    let wrong = Entry::StepOutcome { run, step: cache.0, attempt: Attempt(9), outcome: succeeded() };
    world.ignored(wrong);
    end(&mut world, run, database, succeeded());
    assert!(world.known().excluded.contains_key(&west()));
    world.ignored(Entry::StepOutcome { run, step: cache.0, attempt: cache.1, outcome: failed(true) });
    end(&mut world, run, cache, succeeded());
    assert!(world.known().excluded.is_empty());
    let (_, progress) = world.state.runs[&run].step(find(&world, run, "Rejoin cache@west-1")).unwrap();
    assert_eq!(progress.state, StepState::Succeeded);
    world.ignored(Entry::StepOutcome { run, step: cache.0, attempt: cache.1, outcome: succeeded() });
}

#[test]
fn a_runbook_that_takes_back_half_of_it_ends_no_quarantine() {
    let (mut world, run) = with_rejoin_lines(&["db"]);
    perform(&mut world, run, "Promote db@central-1");
    perform(&mut world, run, "Promote cache@central-1");
    perform(&mut world, run, "Redirect www@central-1");
    perform(&mut world, run, "Activate core@central-1");
    perform(&mut world, run, "Activate edge@central-1");
    perform(&mut world, run, "Verify checks@central-1");
    perform(&mut world, run, "Rejoin db@west-1");
    assert!(world.known().excluded.contains_key(&west()));
}

#[test]
fn a_late_success_counts_for_the_epoch_in_which_it_was_asked() {
    let (mut world, run) = with_rejoin_lines(&["db", "cache"]);
    for step in ["Promote db@central-1", "Promote cache@central-1", "Redirect www@central-1", "Activate core@central-1"]
    {
        perform(&mut world, run, step);
    }
    perform(&mut world, run, "Activate edge@central-1");
    perform(&mut world, run, "Verify checks@central-1");
    let database = begin(&mut world, run, "Rejoin db@west-1");
    let cache = begin(&mut world, run, "Rejoin cache@west-1");
    end(&mut world, run, database, succeeded());
    // In between the west was taken back by another run, made primary, and left again.
    let known = world.state.applications.get_mut(&app()).unwrap();
    known.epoch = regent_core::id::Epoch(known.epoch.0 + 2);
    let newest = known.terms.last_mut().unwrap();
    newest.epoch = known.epoch;
    world.done(Entry::StepOutcome { run, step: cache.0, attempt: cache.1, outcome: succeeded() });
    assert!(world.known().excluded.contains_key(&west()), "it followed then, not now");
}

/// A failover in a document with a third cluster, that follows.
fn with_a_third() -> (World, regent_core::id::RunId) {
    let mut world = World::fresh();
    let third = cluster("north-1");
    world.done(Entry::AgentRegistered(agent(&third, "in")));
    let mut wider = document();
    wider.clusters.push(third);
    world.done(Entry::Applied { application: Box::new(wider), by: "ann".into() });
    world.adopt();
    world.confirm(&west());
    let run = lost(&mut world);
    (world, run)
}

#[test]
fn other_standbys_are_pointed_at_the_new_primary_and_not_awaited() {
    let (world, run) = with_a_third();
    let run = &world.state.runs[&run];
    let following: Vec<_> = run.steps.iter().filter(|step| step.cluster == cluster("north-1")).collect();
    assert_eq!(following.len(), 2, "both databases: {following:?}");
    for step in &following {
        assert!(step.kind == StepKind::Action(Action::Rejoin) && step.detached, "{step:?}");
    }
    let promoted =
        run.steps.iter().filter(|step| step.kind == StepKind::Action(Action::Promote)).map(|step| step.stage);
    assert!(promoted.max() < following.iter().map(|step| step.stage).min(), "not before there is somebody to follow");
    // One in quarantine is left alone.
    let mut other = World::fresh();
    let third = cluster("north-1");
    other.done(Entry::AgentRegistered(agent(&third, "in")));
    let mut wider = document();
    wider.clusters.push(third.clone());
    other.done(Entry::Applied { application: Box::new(wider), by: "ann".into() });
    other.adopt();
    other.confirm(&west());
    other.state.applications.get_mut(&app()).unwrap().excluded.insert(third.clone(), "left".into());
    let run = lost(&mut other);
    assert!(other.state.runs[&run].steps.iter().all(|step| step.cluster != third));
}

#[test]
fn a_side_that_diverged_is_put_out_with_what_was_measured() {
    let (mut world, run) = with_a_third();
    let third = cluster("north-1");
    let diverged = |bytes: &str| Outcome::Failed {
        code: "rejoin-diverged".into(),
        message: format!("beyond the fork lie {bytes} bytes of WAL"),
        retryable: false,
    };
    for wanted in ["Promote cache@central-1", "Promote db@central-1", "Redirect www@central-1"] {
        perform(&mut world, run, wanted);
    }
    for wanted in ["Activate core@central-1", "Activate edge@central-1", "Verify checks@central-1"] {
        perform(&mut world, run, wanted);
    }
    let begun = ["Rejoin cache@north-1", "Rejoin db@north-1"].map(|wanted| begin(&mut world, run, wanted));
    assert!(!world.known().excluded.contains_key(&third));
    // It comes after the run has ended: nothing waited for it.
    world.done(Entry::StepOutcome { run, step: begun[1].0, attempt: begun[1].1, outcome: diverged("4711") });
    assert!(world.known().excluded[&third].contains("4711 bytes"), "{:?}", world.known().excluded);
    assert_eq!(world.state.audit.back().unwrap().event, "diverged");
    assert!(
        world.known().terms.last().unwrap().clusters[&third].excluded,
        "no promise is asked of it, it is no target"
    );
    world.ignored(Entry::StepOutcome { run, step: begun[1].0, attempt: begun[1].1, outcome: diverged("4711") });
}
