//! `mode: approve`: what a human has declined is not asked again while it is due, and can be had after all.

use regent_core::advice;
use regent_core::application::OnSilence;
use regent_core::entry::Entry;
use regent_core::evidence::Evidence;
use regent_core::id::LogIndex;
use regent_core::state::OrderState;
use regent_core::time::Timestamp;
use regent_core::why;

use crate::fixture::*;
use crate::ordering::{asking, order, proposals, wish, yes};
use crate::switching::{NOW, well};

fn no(order: LogIndex) -> Entry {
    let (by, reason) = ("ann".to_owned(), "the site is being moved".to_owned());
    Entry::OrderClosed { application: app(), order, by, reason, by_human: true }
}

/// A failover is due, and ann has said no.
fn declined(on_silence: OnSilence) -> (World, Evidence, LogIndex) {
    let (mut world, evidence) = asking(on_silence);
    let question = proposals(&world, &evidence).into_iter().find(|entry| matches!(entry, Entry::FailoverDue { .. }));
    let id = world.done(question.unwrap());
    world.done(no(id));
    (world, evidence, id)
}

fn asks_or_begins(entry: &Entry) -> bool {
    matches!(
        entry,
        Entry::FailoverDue { .. } | Entry::Decide { .. } | Entry::RunStarted { .. } | Entry::OrderTimedOut { .. }
    )
}

#[test]
fn a_question_that_was_declined_is_not_asked_again_and_silence_starts_nothing() {
    for on_silence in [OnSilence::Refuse, OnSilence::Proceed] {
        let (mut world, evidence, id) = declined(on_silence);
        let record = world.state.audit.back().unwrap();
        assert_eq!((record.event.as_str(), record.actor.as_str()), ("failover-declined", "ann"));
        for _ in 0..3 {
            let entries = proposals(&world, &evidence);
            assert!(!entries.iter().any(asks_or_begins), "{on_silence:?}: {entries:?}");
            world.wall += 3_600_000;
        }
        world.ignored(no(id));
        world.ignored(Entry::OrderTimedOut { application: app(), order: id });
    }
}

#[test]
fn whoever_looks_sees_who_declined_it_and_how_to_go_on() {
    let (world, evidence, _) = declined(OnSilence::Refuse);
    let told = advice::of_application(&world.state, &app(), world.known(), Timestamp(world.wall));
    assert_eq!(told.state, "declined");
    for piece in ["ann declined it: the site is being moved", "regentctl approve shop", "regentctl failover shop"] {
        assert!(told.next.contains(piece), "{piece} is not in {}", told.next);
    }
    let explained = why::explain(&world.state, &evidence, view(NOW, &world), &app()).unwrap();
    let held: Vec<_> = explained.held_by.iter().filter(|rule| rule.code == "mode-approve").collect();
    assert!(matches!(&held[..], [rule] if rule.detail.contains("ann declined it")), "{held:?}");
    assert!(explained.notes.iter().any(|note| note.code == "order" && note.detail.contains("ann declined it")));
}

#[test]
fn a_question_says_how_it_is_answered_no() {
    let (mut world, evidence) = asking(OnSilence::Proceed);
    let question = proposals(&world, &evidence).into_iter().find(|entry| matches!(entry, Entry::FailoverDue { .. }));
    let id = world.done(question.unwrap());
    let told = advice::of_application(&world.state, &app(), world.known(), Timestamp(world.wall));
    assert!(told.next.contains(&format!("regentctl abort {id}")), "{}", told.next);
}

#[test]
fn a_yes_after_a_no_counts() {
    let (mut world, evidence, id) = declined(OnSilence::Refuse);
    world.done(yes(id, "bob"));
    let order = world.known().order.as_ref().unwrap();
    assert!(order.is_given() && order.declined.is_none());
    assert!(matches!(&proposals(&world, &evidence)[..], [Entry::Decide { .. }, ..]));
}

#[test]
fn a_no_after_a_yes_counts_before_anything_has_begun() {
    let (mut world, evidence) = asking(OnSilence::Refuse);
    let question = proposals(&world, &evidence).into_iter().find(|entry| matches!(entry, Entry::FailoverDue { .. }));
    let id = world.done(question.unwrap());
    world.done(yes(id, "bob"));
    world.done(no(id));
    assert_eq!(world.known().order.as_ref().unwrap().state, OrderState::Silent);
    assert!(!proposals(&world, &evidence).iter().any(asks_or_begins));
}

#[test]
fn a_humans_order_takes_its_place() {
    let (mut world, evidence, _) = declined(OnSilence::Refuse);
    let id = order(&mut world, wish());
    let stands = world.known().order.as_ref().unwrap();
    assert!(stands.id == id && stands.is_given() && stands.declined.is_none());
    assert!(matches!(&proposals(&world, &evidence)[..], [Entry::Decide { .. }, ..]));
}

#[test]
fn a_no_ends_with_what_was_asked_about() {
    let (mut world, _, id) = declined(OnSilence::Refuse);
    for observer in [1, 2] {
        world.done(withdraw(observer, 1, &west(), 2));
    }
    let entries = proposals(&world, &well());
    let closed = entries.iter().find(|entry| matches!(entry, Entry::OrderClosed { by_human: false, .. }));
    world.done(closed.unwrap_or_else(|| panic!("{entries:?}")).clone());
    assert!(world.known().order.is_none());
    assert_eq!(world.refused(yes(id, "bob")), "no-order");
}

#[test]
fn a_no_that_an_earlier_release_wrote_means_what_it_did() {
    let (mut world, evidence) = asking(OnSilence::Refuse);
    let question = proposals(&world, &evidence).into_iter().find(|entry| matches!(entry, Entry::FailoverDue { .. }));
    let id = world.done(question.unwrap());
    let mut written = serde_json::to_value(no(id)).unwrap();
    written["OrderClosed"].as_object_mut().unwrap().remove("by_human").unwrap();
    world.done(serde_json::from_value(written).unwrap());
    assert!(world.known().order.is_none());
}
