//! Fences: what is fenced and when, what the guard is told, and what cannot be fenced.

use regent_core::id::{CoordinatorId, Epoch, ResourceId};

use super::facts::Word;
use super::tests::{LEAD, T, agent_of_a, arm, at, early, grant, held, terms, token, until};
use super::*;

fn fences(commands: &[Command]) -> bool {
    commands.iter().any(|command| matches!(command, Command::FenceSelf { .. }))
}

fn arms(commands: &[Command]) -> bool {
    commands.iter().any(|command| matches!(command, Command::ArmGuard(_)))
}

fn resource(name: &str) -> ResourceId {
    ResourceId::new(name).unwrap()
}

/// Fenced after a lapse, and held again, with a commanded fence that keeps everything closed.
fn closed_under_a_lease() -> Lease {
    let mut lease = held();
    let _ = lease.commanded_is(at(10), true);
    let _ = lease.tick(at(T));
    let _ = lease.fenced(at(T + 10), true);
    let _ = grant(&mut lease, 1, 11, 20_000, 20_001);
    let _ = grant(&mut lease, 2, 12, 20_000, 20_001);
    let _ = lease.guard_armed(at(20_002), arm(10, 1, 20_000));
    assert_eq!(lease.fence(), Fence::Closed { epoch: Epoch(1) });
    assert!(lease.running(at(20_002)).is_some());
    lease
}

#[test]
fn what_a_step_opened_while_all_was_closed_is_fenced_with_the_lapse() {
    let mut lease = closed_under_a_lease();
    let _ = lease.opening_is(at(20_003), true);
    let _ = lease.opening_is(at(20_010), false);
    assert!(fences(&lease.tick(at(20_000 + T - LEAD))));

    let mut untouched = closed_under_a_lease();
    let lapsed = untouched.tick(at(20_000 + T - LEAD));
    assert_eq!(lapsed, [Command::DisarmGuard], "nothing was opened: the guard has nothing to end");
}

#[test]
fn what_a_step_opened_while_the_fence_ran_is_fenced_with_the_next_lapse() {
    let mut lease = held();
    let _ = lease.commanded_is(at(10), true);
    let _ = lease.tick(at(T));
    let _ = grant(&mut lease, 1, 11, 10_000, 10_001);
    let _ = grant(&mut lease, 2, 12, 10_000, 10_001);
    let _ = lease.guard_armed(at(10_002), arm(10, 1, 10_000));
    let _ = lease.opening_is(at(10_003), true);
    let _ = lease.opening_is(at(10_004), false);
    let _ = lease.fenced(at(10_005), true);
    assert!(fences(&lease.tick(at(10_000 + T - LEAD))), "{:?}", lease.fence());
}

#[test]
fn a_step_that_waits_for_its_lease_opens_nothing() {
    let mut lease = held();
    let _ = lease.tick(at(T));
    let _ = lease.fenced(at(T + 10), true);
    assert_eq!(lease.opening_is(at(T + 20), true), []);
    assert_eq!(lease.fence(), Fence::Closed { epoch: Epoch(1) });
}

#[test]
fn after_the_guard_has_fired_everything_is_ended_and_fenced_once_more() {
    let mut lease = held();
    let _ = lease.closed_seen(at(10));
    let confirm_by = until(20 + 1_000);
    let commands = lease.guard_fired(at(20));
    assert_eq!(commands.first(), Some(&Command::FenceSelf { confirm_by }), "it ends steps and lifts: {commands:?}");
    assert!(lease.is_self_fenced());
    let _ = lease.fenced(at(30), true);
    assert_eq!(lease.fence(), Fence::Closed { epoch: Epoch(1) });
}

#[test]
fn a_right_that_ends_while_the_record_is_written_disarms() {
    let mut lease = agent_of_a(Remembered::default(), GuardWord::Nothing);
    let _ = lease.guard_up(at(0));
    let _ = lease.terms_stored(at(0), terms(10, 1, "a"));
    let _ = grant(&mut lease, 1, 1, 0, 5);
    let _ = grant(&mut lease, 2, 2, 0, 6);
    let _ = lease.guard_armed(at(7), early(arm(10, 1, 0)));
    assert_eq!(lease.tick(at(T)), [Command::DisarmGuard], "the write still runs");
    // It never had a lease: it is left as it is, until somebody else leads.
    assert_eq!(lease.guarded_written(at(T + 1), Epoch(1), BTreeSet::new(), true), []);
    assert_eq!(lease.tick(at(90_000)), []);
    assert!(fences(&lease.epoch_seen(at(90_001), Epoch(2))));
}

#[test]
fn what_never_had_a_lease_is_not_fenced_at_the_start() {
    let remembered = Remembered {
        terms: Some(terms(10, 1, "a")),
        seen: Epoch(1),
        guarded: false,
        marked: BTreeSet::new(),
        led: Epoch(0),
    };
    let mut lease = agent_of_a(remembered.clone(), GuardWord::Armed(early(arm(10, 1, 0))));
    assert_eq!(lease.tick(at(1)), [Command::DisarmGuard]);
    assert_eq!(lease.fence(), Fence::None);
    // The guard counted in earnest, so a lease was held, and the journal that knew of it is gone.
    let mut lost = agent_of_a(remembered, GuardWord::Armed(arm(10, 1, 0)));
    assert!(fences(&lost.tick(at(1))));
}

#[test]
fn an_unanswered_arm_is_asked_again() {
    let mut lease = held();
    let _ = grant(&mut lease, 1, 11, 1_000, 1_001);
    assert!(arms(&grant(&mut lease, 2, 12, 1_000, 1_001)));
    assert!(!arms(&lease.tick(at(1_400))));
    assert!(arms(&lease.tick(at(1_401))), "the guard could not write its file");
    let _ = lease.guard_armed(at(1_402), arm(10, 1, 1_000));
    assert_eq!(lease.end(at(1_402)), Some(until(1_000 + T)));
}

#[test]
fn terms_that_could_not_be_stored_are_tried_again() {
    let mut lease = held();
    let next = terms(11, 1, "a");
    let _ = lease.terms_offered(at(100), next.clone());
    assert_eq!(lease.terms_not_stored(at(200)), []);
    assert_eq!(lease.terms_offered(at(300), next.clone()), [], "not at every offer");
    assert_eq!(lease.tick(at(1_199)), []);
    assert_eq!(lease.tick(at(1_200)), [Command::StoreTerms(Box::new(next.clone()))]);
    assert_eq!(lease.tick(at(5_000)), [], "once");
    let _ = lease.terms_stored(at(5_001), next);
    assert!(lease.terms_not_stored(at(5_002)).is_empty() && lease.terms().is_some_and(|is| is.number == token(11)));
}

#[test]
fn a_missing_resource_extends_no_lease_names_no_terms_and_confirms_no_fence() {
    let mut lease = held();
    lease.here_is([resource("db")].into());
    let mut wider = terms(11, 1, "a");
    wider.guarded = [resource("db"), resource("cache")].into();
    let stored = lease.terms_stored(at(100), wider.clone());
    assert_eq!(lease.missing(), [resource("cache")].into());
    assert!(!arms(&stored), "{stored:?}");
    let _ = grant(&mut lease, 1, 11, 1_000, 1_001);
    let _ = grant(&mut lease, 2, 12, 1_000, 1_001);
    assert_eq!((lease.end(at(1_001)), lease.named()), (Some(until(T)), Some(token(10))));
    assert!(fences(&lease.tick(at(T - LEAD))));
    assert_eq!(lease.fenced(at(T), true), [Command::FenceHard], "nobody has seen cache closed");

    let mut first = agent_of_a(Remembered::default(), GuardWord::Nothing);
    first.here_is([resource("db")].into());
    let _ = first.guard_up(at(0));
    let _ = first.terms_stored(at(0), wider);
    let _ = grant(&mut first, 1, 1, 0, 5);
    assert_eq!(grant(&mut first, 2, 2, 0, 6), [], "no first lease either");
}

#[test]
fn a_voided_right_fences_only_what_had_a_lease() {
    let mut lease = agent_of_a(Remembered::default(), GuardWord::Nothing);
    let _ = lease.guard_up(at(0));
    let _ = lease.terms_stored(at(0), terms(10, 1, "a"));
    let _ = grant(&mut lease, 1, 1, 0, 5);
    let _ = grant(&mut lease, 2, 2, 0, 6);
    let word = Word { granted: None, higher: Some(Epoch(2)) };
    assert_eq!(lease.answered(at(8), CoordinatorId(3), 1, word), [Command::DisarmGuard]);
}
