//! A run whose beginning was committed late: its cause is looked at again before it acts.

use std::collections::BTreeMap;

use regent_core::decide::decide;
use regent_core::entry::{Cause, Entry, Finding};
use regent_core::evidence::{Evidence, Health};
use regent_core::id::RunId;
use regent_core::run::RunStatus;
use regent_core::time::{Moment, Span};

use crate::fixture::*;
use crate::running::{begin, failed_database};

const NOW: Moment = Moment(200_000);

/// The database in the west failed for sure, and its agent says so.
fn failed() -> Evidence {
    let mut evidence = evidence(NOW, NOW);
    let seen = evidence.contacts.get_mut(&west()).unwrap().resources.get_mut(&app()).unwrap();
    let database = seen.get_mut(&resource("db")).unwrap();
    (database.health, database.failures) = (Health::Failed, 3);
    evidence
}

fn intents(entries: &[Entry]) -> usize {
    entries.iter().filter(|entry| matches!(entry, Entry::StepIntent { .. })).count()
}

#[test]
fn a_run_whose_cause_is_seen_begins_at_once() {
    let mut world = World::protected();
    failed_database(&mut world);
    assert_eq!(intents(&decide(&world.state, &failed(), view(NOW, &world))), 2);
}

#[test]
fn a_run_whose_cause_is_gone_ends_without_having_touched_anything() {
    let mut world = World::protected();
    let run = failed_database(&mut world);
    world.wall += 180_000;
    let entries = decide(&world.state, &evidence(NOW, NOW), view(NOW, &world));
    let [Entry::UndoBegun { run: which, reason }] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(*which, run);
    assert!(reason.contains("db in west-1"), "{reason}");
    world.done(entries[0].clone());
    assert_eq!(world.state.runs[&run].status, RunStatus::Undone);
    assert_eq!(world.known().run, None);
    assert!(world.state.runs[&run].progress.iter().all(|progress| progress.token.is_none()));
    assert_eq!(decide(&world.state, &evidence(NOW, NOW), view(NOW, &world)), vec![]);
}

#[test]
fn a_leader_that_has_not_looked_yet_waits() {
    let mut world = World::protected();
    failed_database(&mut world);
    let mut young = evidence(NOW, NOW);
    young.leading_since = Some(NOW);
    assert_eq!(decide(&world.state, &young, view(NOW, &world)), vec![]);
}

#[test]
fn what_has_begun_is_not_asked_for_its_cause() {
    let mut world = World::protected();
    let run = failed_database(&mut world);
    begin(&mut world, run, "Fence db@west-1");
    let entries = decide(&world.state, &evidence(NOW, NOW), view(NOW, &world));
    assert_eq!(intents(&entries), 1, "the other fence: {entries:?}");
}

#[test]
fn an_agent_that_is_heard_again_by_most_is_not_fenced() {
    let mut world = World::protected();
    let votes = [1, 2].map(|observer| world.vote(observer, &west(), 1, Span::from_secs(3)));
    let epoch = world.known().epoch;
    let (cause, finding) = (Cause::AgentUnreachable, Finding::default());
    let run =
        RunId(world.done(Entry::RunStarted { application: app(), epoch, cause, to: central(), finding, plan: None }).0);
    let mut seen = evidence(NOW, NOW);
    seen.votes_applied = votes.iter().map(|vote| (*vote, NOW)).collect::<BTreeMap<_, _>>();
    assert_eq!(intents(&decide(&world.state, &seen, view(NOW, &world))), 2);
    world.done(withdraw(1, 1, &west(), 2));
    let entries = decide(&world.state, &seen, view(NOW, &world));
    assert!(matches!(entries.as_slice(), [Entry::UndoBegun { run: which, .. }] if *which == run), "{entries:?}");
}
