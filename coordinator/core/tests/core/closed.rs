//! A primary that works, leads, and takes no writes is said to be so.

use regent_core::decide::decide;
use regent_core::entry::Entry;
use regent_core::evidence::{Beat, Evidence, FenceState, LeaseState};
use regent_core::id::Epoch;
use regent_core::time::{Moment, Span};
use regent_core::why::{Verdict, explain};

use crate::fixture::*;
use crate::running::failed_database;

const NOW: Moment = Moment(200_000);

/// The west leads, and its database has refused writes for so long.
fn closed_for(span: Span) -> Evidence {
    let mut evidence = evidence(NOW, NOW);
    let seen = evidence.contacts.get_mut(&west()).unwrap().resources.get_mut(&app()).unwrap();
    let database = seen.get_mut(&resource("db")).unwrap();
    (database.writable, database.closed_since) = (false, Some(NOW.before(span)));
    evidence
}

fn verdict(world: &World, evidence: &Evidence) -> (Verdict, String) {
    let explanation = explain(&world.state, evidence, view(NOW, world), &app()).unwrap();
    (explanation.verdict, explanation.held_by[0].code.clone())
}

#[test]
fn a_primary_that_nobody_will_open_is_named_and_audited_once() {
    let mut world = World::protected();
    let short = closed_for(Span::from_millis(9_999));
    assert_eq!(verdict(&world, &short), (Verdict::Healthy, "primary-not-lost".into()));
    assert_eq!(decide(&world.state, &short, view(NOW, &world)), vec![]);
    let long = closed_for(Span::from_secs(10));
    assert_eq!(verdict(&world, &long), (Verdict::Suspect, "primary-closed".into()));
    let entries = decide(&world.state, &long, view(NOW, &world));
    let [Entry::Refused { rule, detail, .. }] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(rule, "primary-closed");
    assert!(detail.contains("db in west-1") && detail.contains("10s"), "{detail}");
    world.done(entries[0].clone());
    assert_eq!(decide(&world.state, &long, view(NOW, &world)), vec![]);
    // It takes writes again.
    let entries = decide(&world.state, &evidence(NOW, NOW), view(NOW, &world));
    assert!(matches!(entries.as_slice(), [Entry::Refused { rule, .. }] if rule.is_empty()), "{entries:?}");
}

#[test]
fn what_a_run_keeps_closed_is_not_said_to_be_forgotten() {
    let mut world = World::protected();
    failed_database(&mut world);
    assert_eq!(verdict(&world, &closed_for(Span::from_secs(60))).0, Verdict::Healthy);
}

#[test]
fn it_is_counted_from_the_first_probe_without_a_break() {
    let at = |millis, writable| {
        let mut seen = sighting(Moment(millis), regent_core::evidence::Role::Primary, Some(1));
        seen.writable = writable;
        seen
    };
    let mut first = at(1_000, false);
    first.closed_since = first.closed_after(None);
    assert_eq!(first.closed_since, Some(Moment(1_000)));
    assert_eq!(at(2_000, false).closed_after(Some(&first)), Some(Moment(1_000)));
    assert_eq!(at(9_000, false).closed_after(Some(&first)), Some(Moment(9_000)), "anything may have been between");
    assert_eq!(at(2_000, true).closed_after(Some(&first)), None);
}

/// The west talks, and has held no lease since then.
fn lacking_since(since: Moment, fence: FenceState) -> Evidence {
    let mut evidence = evidence(NOW, NOW);
    let beats = &mut evidence.contacts.get_mut(&west()).unwrap().beats;
    let beat = |before: Option<&Beat>, at| {
        Beat { epoch: Epoch(1), lease: LeaseState::Lacked, fence, ..Beat::default() }.after(before, at)
    };
    let first = beat(None, since);
    beats.insert(app(), beat(Some(&first), NOW));
    evidence
}

#[test]
fn an_agent_that_talks_and_never_gets_a_lease_is_named() {
    let world = World::protected();
    let since = NOW.before(Span::from_secs(10));
    assert_eq!(
        verdict(&world, &lacking_since(since.after(Span::from_millis(1)), FenceState::Open)).0,
        Verdict::Healthy
    );
    let lacking = lacking_since(since, FenceState::Open);
    assert_eq!(verdict(&world, &lacking), (Verdict::Suspect, "lease-lacked".into()));
    let entries = decide(&world.state, &lacking, view(NOW, &world));
    assert!(matches!(entries.as_slice(), [Entry::Refused { rule, .. }] if rule == "lease-lacked"), "{entries:?}");
    // What fenced itself is left for another.
    let entries = decide(&world.state, &lacking_since(since, FenceState::SelfFenced), view(NOW, &world));
    assert!(matches!(entries.as_slice(), [Entry::RunStarted { .. }]), "{entries:?}");
}
