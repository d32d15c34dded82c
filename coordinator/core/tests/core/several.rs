//! Several applications whose primary is in one cluster: the votes on it are the same, and each waits for its own D.

use std::collections::BTreeMap;

use regent_core::application::Application;
use regent_core::decide::decide;
use regent_core::entry::{Database, Entry};
use regent_core::evidence::Evidence;
use regent_core::id::{ApplicationId, Epoch, LogIndex, ResourceId, SystemId};
use regent_core::lease::TimeBound;
use regent_core::observer::smallest_bound;
use regent_core::time::{Moment, Span};

use crate::fixture::*;

const SILENT: Moment = Moment(100_000);
/// Its D, against the ten seconds of the other one.
const SOON: Span = Span::from_secs(2);

fn books() -> ApplicationId {
    ApplicationId::new("books").unwrap()
}

/// The same resources in another place, but for the name, which only one application can have.
fn other_document() -> Application {
    let mut other = document();
    other.name = books();
    other.automation.bound = TimeBound::new(SOON);
    other.resources.remove(&resource("www"));
    for runbook in other.runbooks.values_mut() {
        runbook.lines.retain(|line| !line.resources.contains(&resource("www")));
    }
    other
}

/// Both adopted in the west; the other one is not confirmed yet.
fn two() -> World {
    let mut world = World::protected();
    world.done(Entry::Applied { application: Box::new(other_document()), by: "ann".into() });
    world.done(Entry::Adopt { application: books(), primary: west(), databases: others() });
    world
}

fn others() -> BTreeMap<ResourceId, Database> {
    let of_its_own =
        |database: Database| Database { system_id: SystemId(format!("{}-2", database.system_id.0)), ..database };
    databases().into_iter().map(|(name, database)| (name, of_its_own(database))).collect()
}

fn confirm_other(world: &mut World) {
    let terms = world.state.applications[&books()].terms.last().unwrap().number;
    let installation = world.state.agents[&west()].installation.clone();
    world.done(Entry::TermsConfirmed {
        application: books(),
        terms,
        cluster: west(),
        installation,
        databases: others(),
    });
}

/// What the leader knows of both, with votes that were applied a second after the west fell silent.
fn seen(votes: &[LogIndex], now: Moment) -> Evidence {
    let mut evidence = evidence(now, SILENT);
    evidence.votes_applied = votes.iter().map(|vote| (*vote, SILENT.after(Span::from_secs(1)))).collect();
    for contact in evidence.contacts.values_mut() {
        let beat = contact.beats[&app()].clone();
        contact.beats.insert(books(), beat);
        let mut resources = contact.resources[&app()].clone();
        resources.get_mut(&resource("db")).unwrap().system_id = SystemId("pg-1-2".into());
        contact.resources.insert(books(), resources);
    }
    evidence
}

/// Whom the leader would move now.
fn moved(world: &World, votes: &[LogIndex], now: Moment) -> Vec<Entry> {
    let entries = decide(&world.state, &seen(votes, now), view(now, world));
    entries.into_iter().filter(|entry| matches!(entry, Entry::Decide { .. })).collect()
}

fn names(entries: &[Entry]) -> Vec<String> {
    let name = |entry: &Entry| match entry {
        Entry::Decide { application, .. } => Some(application.to_string()),
        _ => None,
    };
    entries.iter().filter_map(name).collect()
}

#[test]
fn each_is_decided_after_its_own_bound_on_the_same_votes() {
    let mut world = two();
    confirm_other(&mut world);
    let votes = [1, 2].map(|observer| world.vote(observer, &west(), 1, Span::from_secs(1)));
    let (soon, late) = (SILENT.after(SOON), SILENT.after(Span::from_secs(10)));
    assert_eq!(names(&moved(&world, &votes, Moment(soon.0 - 1))), Vec::<String>::new());

    // The one that is due goes, and nothing of the other one changes by that.
    let due = moved(&world, &votes, soon);
    assert_eq!(names(&due), ["books"]);
    for entry in due {
        world.done(entry);
    }
    let epochs = |world: &World| [app(), books()].map(|name| world.state.applications[&name].epoch);
    assert_eq!(epochs(&world), [Epoch(1), Epoch(2)]);
    assert_eq!(world.known().primary, Some(west()));

    assert_eq!(names(&moved(&world, &votes, Moment(late.0 - 1))), Vec::<String>::new());
    let due = moved(&world, &votes, late);
    assert_eq!(names(&due), ["shop"]);
    for entry in due {
        world.done(entry);
    }
    assert_eq!(epochs(&world), [Epoch(2), Epoch(2)]);
    // One lost cluster, one event.
    assert!(world.state.begun.iter().all(|begun| begun.lost == Some(west())), "{:?}", world.state.begun);
}

#[test]
fn what_is_decided_for_one_is_refused_for_the_other_by_its_own_epoch_and_terms() {
    let mut world = two();
    confirm_other(&mut world);
    let votes = [1, 2].map(|observer| world.vote(observer, &west(), 1, Span::from_secs(1)));
    let Some(Entry::Decide { from, to, terms, ground, finding, .. }) =
        moved(&world, &votes, SILENT.after(SOON)).into_iter().next()
    else {
        panic!("nothing is due")
    };
    let swapped = Entry::Decide { application: app(), from, to, terms, ground, finding };
    assert_eq!(world.refused(swapped), "newer-terms");
}

#[test]
fn a_cluster_is_suspected_by_the_smallest_bound_that_is_confirmed() {
    let mut world = two();
    assert_eq!(
        smallest_bound(&world.state, &west()),
        Span::from_secs(10),
        "its agent does not beat by the new one yet"
    );
    confirm_other(&mut world);
    assert_eq!(smallest_bound(&world.state, &west()), SOON);
    assert_eq!(smallest_bound(&world.state, &central()), SOON, "the standby's agent is asked by the same");
}
