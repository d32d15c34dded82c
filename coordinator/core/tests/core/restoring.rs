//! Failovers to where nothing is but a backup: only by the word of people, and only where the runbook restores first.

use regent_core::application::{Action, Beyond, Line, Manner, OnFailure};
use regent_core::decide::{Way, decide, look_at_order};
use regent_core::entry::{Cause, Entry, Ground};
use regent_core::evidence::{Evidence, Health, Role, Sighting};
use regent_core::id::{Epoch, LogIndex};
use regent_core::protection;
use regent_core::state::Wish;
use regent_core::target;
use regent_core::time::Span;
use regent_core::verdict::Scene;
use regent_core::why;

use crate::fixture::*;
use crate::running::perform;
use crate::switching::{NOW, well};

fn wish() -> Wish {
    Wish { by: "ann".into(), to: central(), reason: "it burns".into(), allow_data_loss: None, attestation: None }
}

pub fn allowed() -> Wish {
    Wish { allow_data_loss: Some("agreed with the CTO".into()), ..wish() }
}

/// Protected, with these lines before those of the runbook, and a document that accepts any loss.
pub fn with(lines: Vec<Line>, two_person: bool) -> World {
    let mut world = World::protected();
    let mut changed = document();
    changed.automation.two_person = two_person;
    changed.automation.beyond_max_data_loss = Beyond::Accept;
    changed.runbooks.get_mut("failover").unwrap().lines.splice(0..0, lines);
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    world
}

pub fn restoring(two_person: bool) -> World {
    with(vec![line(Action::Restore, &["db"])], two_person)
}

fn database(evidence: &mut Evidence) -> &mut Sighting {
    let standby = evidence.contacts.get_mut(&central()).unwrap().resources.get_mut(&app()).unwrap();
    standby.get_mut(&resource("db")).unwrap()
}

/// The centre has a machine, an agent, and no database.
pub fn emptied(mut evidence: Evidence) -> Evidence {
    let seen = database(&mut evidence);
    (seen.health, seen.role, seen.position, seen.upstream) = (Health::Failed, Role::Unknown, None, None);
    (seen.detail, seen.failures) = ("no server process".into(), 3);
    evidence
}

/// The same, and the west has been silent for so long that votes decide.
pub fn lost(world: &mut World) -> Evidence {
    emptied(silent(world))
}

/// The west has been silent for so long; in the centre all is well.
pub fn silent(world: &mut World) -> Evidence {
    let silent = NOW.before(Span::from_secs(30));
    let mut evidence = evidence(NOW, silent);
    for observer in [1, 2] {
        let index = world.vote(observer, &west(), 1, Span::ZERO);
        evidence.votes_applied.insert(index, silent);
    }
    evidence
}

pub fn proposals(world: &World, evidence: &Evidence) -> Vec<Entry> {
    decide(&world.state, evidence, view(NOW, world))
}

pub fn order(world: &mut World, wish: Wish) -> LogIndex {
    let epoch = world.known().epoch;
    world.done(Entry::FailoverOrdered { application: app(), epoch, wish })
}

fn look(world: &World, evidence: &Evidence, wish: &Wish) -> (Way, Vec<(String, String)>) {
    let name = app();
    let scene = Scene::new(&world.state, evidence, NOW, view(NOW, world).me, &name).unwrap();
    let (_, way, refusals) = look_at_order(&scene, wish);
    (way, refusals.into_iter().map(|rule| (rule.code, rule.detail)).collect())
}

fn codes(world: &World, evidence: &Evidence, wish: &Wish) -> Vec<String> {
    look(world, evidence, wish).1.into_iter().map(|(code, _)| code).collect()
}

#[test]
fn nothing_but_a_backup_takes_two_people_and_is_no_target_without_them() {
    let mut world = restoring(true);
    let evidence = lost(&mut world);
    // Not by itself, though votes stand, the bound has passed and the document accepts any loss.
    assert!(proposals(&world, &evidence).iter().all(|entry| !matches!(entry, Entry::Decide { .. })));
    let explained = why::explain(&world.state, &evidence, view(NOW, &world), &app()).unwrap();
    let command = "`regentctl failover shop --to central-1 --allow-data-loss REASON`";
    let says = |rule: &why::Rule| rule.code == "no-target" && rule.detail.contains(command);
    assert!(explained.held_by.iter().any(says), "{:?}", explained.held_by);
    let (way, refusals) = look(&world, &evidence, &wish());
    let [(code, detail)] = &refusals[..] else { panic!("{refusals:?}") };
    assert!(way == Way::Lost && code == "unhealthy" && detail.contains("--allow-data-loss REASON"), "{refusals:?}");
    assert_eq!(look(&world, &evidence, &allowed()), (Way::Lost, vec![]));

    let id = order(&mut world, allowed());
    assert!(proposals(&world, &evidence).iter().all(|entry| !matches!(entry, Entry::Decide { .. })), "one person");
    world.done(Entry::OrderApproved { application: app(), order: id, by: "bob".into(), reason: "by phone".into() });
    let entries = proposals(&world, &evidence);
    let [decision @ Entry::Decide { ground: Ground::Lost { .. }, finding, .. }] = &entries[..] else {
        panic!("{entries:?}")
    };
    let gap = &finding.gaps[&resource("db")];
    assert_eq!((gap.primary, gap.candidate, gap.lag), (Some(1000), None, None));
    assert!(gap.text.contains("backup") && gap.text.contains("no server process"), "{gap:?}");
    assert_eq!(finding.gaps[&resource("cache")].candidate, Some(50), "what is there is measured as ever");

    world.done(decision.clone());
    assert_eq!((world.known().primary.clone(), world.known().epoch), (Some(central()), Epoch(2)));
    let run = world.known().run.unwrap();
    perform(&mut world, run, "Restore db@central-1");
    perform(&mut world, run, "Promote db@central-1");
}

#[test]
fn where_the_primary_answers_it_is_fenced_first_and_the_decision_follows() {
    let mut world = restoring(false);
    let evidence = emptied(well());
    order(&mut world, allowed());
    let entries = proposals(&world, &evidence);
    let [start @ Entry::RunStarted { cause: Cause::Forced { .. }, .. }] = &entries[..] else { panic!("{entries:?}") };
    world.done(start.clone());
    let run = world.known().run.unwrap();
    perform(&mut world, run, "Fence db@west-1");
    perform(&mut world, run, "Fence cache@west-1");
    let entries = proposals(&world, &evidence);
    let [decision @ Entry::Decide { ground: Ground::Fenced { .. }, finding, .. }] = &entries[..] else {
        panic!("{entries:?}")
    };
    assert_eq!(finding.gaps[&resource("db")].candidate, None);
    world.done(decision.clone());
    perform(&mut world, run, "Restore db@central-1");
}

#[test]
fn only_a_restore_before_the_promotion_counts_and_never_over_what_accepts_writes() {
    let graceful = Line { when: Some(Manner::Graceful), ..line(Action::Restore, &["db"]) };
    let late = Line { on_failure: OnFailure::Continue, ..line(Action::Restore, &["db"]) };
    let worlds =
        [vec![], vec![graceful], vec![line(Action::Restore, &["cache"])], vec![line(Action::Promote, &["db"]), late]];
    for lines in worlds {
        let world = with(lines.clone(), false);
        assert_eq!(codes(&world, &emptied(well()), &allowed()), ["unhealthy"], "{lines:?}");
    }
    let world = restoring(false);
    assert_eq!(codes(&world, &emptied(well()), &allowed()), Vec::<String>::new());
    let mut open = well();
    (database(&mut open).role, database(&mut open).writable) = (Role::Primary, true);
    assert_eq!(codes(&world, &open, &allowed()), ["no-standby"]);
    // One probe that failed, or that tells nothing, makes no backup of a standby.
    let mut once = emptied(well());
    database(&mut once).failures = 2;
    assert_eq!(codes(&world, &once, &allowed()), ["unhealthy"]);
    let mut untold = emptied(well());
    database(&mut untold).health = Health::Unknown;
    assert_eq!(codes(&world, &untold, &allowed()), ["unhealthy"]);
    let mut stale = emptied(well());
    database(&mut stale).at = NOW.before(Span::from_secs(30));
    assert_eq!(codes(&world, &stale, &allowed()), ["stale"]);
    // Another history is what a restore replaces.
    let mut parted = well();
    database(&mut parted).system_id.0 = "pg-2".into();
    assert_eq!(codes(&world, &parted, &wish()), ["another-history"]);
    assert_eq!(codes(&world, &parted, &allowed()), Vec::<String>::new());
}

#[test]
fn it_protects_nothing_and_nothing_is_moved_there_by_plan() {
    let mut world = restoring(false);
    order(&mut world, allowed());
    let evidence = emptied(well());
    let name = app();
    let scene = Scene::new(&world.state, &evidence, NOW, view(NOW, &world).me, &name).unwrap();
    assert!(!protection::of(&scene).is_protected());
    // What everything else goes by: what starts by itself, drills, and moves.
    assert!(target::rank(&scene).iter().all(Result::is_err), "{:?}", target::rank(&scene));
}
