//! An agent that asks nobody, because all others are excluded, and is told that another process of its own is registered.

use regent_core::id::Epoch;
use regent_core::time::Span;

use super::tests::{T, agent_of_a, arm, at, grant, held, terms, token, until};
use super::*;

/// D/4.
const SUSPICION: u64 = 3_000;

/// Held by the grants of heartbeats sent at 0; by its terms there is nobody to ask for promises.
fn nobody_to_ask() -> Lease {
    let mut lease = held();
    let mut left = terms(11, 1, "a");
    left.clusters.iter_mut().for_each(|(name, listed)| listed.excluded = name.as_str() != "a");
    let _ = lease.terms_stored(at(100), left);
    let _ = lease.guard_armed(at(101), arm(11, 1, 0));
    lease.healthy_is(true);
    assert_eq!((lease.named(), lease.end(at(101))), (Some(token(11)), Some(until(T))));
    lease
}

#[test]
fn what_it_gives_itself_ends_with_the_refusal() {
    let mut lease = nobody_to_ask();
    assert_eq!(lease.tick(at(SUSPICION)), [Command::ArmGuard(arm(11, 1, SUSPICION))]);
    let _ = lease.guard_armed(at(SUSPICION + 1), arm(11, 1, SUSPICION));
    // Nobody has granted for longer than T.
    assert_eq!(lease.tick(at(T + 1)), [Command::ArmGuard(arm(11, 1, T + 1))]);
    assert_eq!(lease.end(at(T + 1)), Some(until(SUSPICION + T)));
    let confirm_by = at(T + 2).after(Span::from_secs(1));
    let fence = [Command::MoveGuard { until: confirm_by }, Command::FenceSelf { confirm_by }];
    assert_eq!(lease.doubled(at(T + 2)), fence);
    assert_eq!(lease.end(at(T + 2)), None);
}

#[test]
fn it_gives_itself_none_before_a_majority_has_granted_what_was_sent_since() {
    let mut lease = nobody_to_ask();
    assert_eq!(lease.doubled(at(200)), [], "what a majority has granted stays");
    assert_eq!(lease.tick(at(SUSPICION)), []);
    let _ = grant(&mut lease, 1, 10, 3_500, 3_501);
    assert_eq!(grant(&mut lease, 2, 11, 3_500, 3_502), [Command::ArmGuard(arm(11, 1, 3_500))]);
    let _ = lease.guard_armed(at(3_503), arm(11, 1, 3_500));
    let quiet = 3_500 + SUSPICION;
    assert_eq!(lease.tick(at(quiet)), [Command::ArmGuard(arm(11, 1, quiet))], "it was accepted again");
}

/// Long after the last grant, by what it gave itself at that time.
fn by_itself_since(sent: u64) -> Lease {
    let mut lease = nobody_to_ask();
    for millis in [SUSPICION, sent] {
        assert_eq!(lease.tick(at(millis)), [Command::ArmGuard(arm(11, 1, millis))]);
        let _ = lease.guard_armed(at(millis + 1), arm(11, 1, millis));
    }
    assert_eq!(lease.end(at(sent + 1)), Some(until(sent + T)));
    lease
}

fn is_fenced_by_the_refusal(lease: &mut Lease, millis: u64) {
    let now = at(millis);
    assert!(lease.end(now).is_some(), "the lease runs up to the refusal");
    let confirm_by = now.after(Span::from_secs(1));
    let fence = [Command::MoveGuard { until: confirm_by }, Command::FenceSelf { confirm_by }];
    assert_eq!(lease.doubled(now), fence);
    assert_eq!(lease.end(now), None);
}

#[test]
fn what_a_restarted_agent_carries_on_by_the_guard_may_be_made_of_that_and_ends_too() {
    let before = by_itself_since(T + 1);
    let remembered = Remembered {
        terms: before.terms().cloned(),
        seen: Epoch(1),
        guarded: true,
        led: Epoch(1),
        ..Remembered::default()
    };
    let word = GuardWord::Armed(arm(11, 1, T + 1));
    let mut lease = agent_of_a(remembered, word);
    let _ = lease.guard_up(at(T + 2));
    assert_eq!(lease.end(at(T + 3)), Some(until(T + 1 + T)), "the guard's deadline is the running lease");
    is_fenced_by_the_refusal(&mut lease, T + 3);
}

#[test]
fn what_is_left_after_a_jump_of_the_wall_clock_may_be_made_of_that_and_ends_too() {
    let mut lease = by_itself_since(T + 1);
    let _ = lease.wall_clock_moved(at(T + 2), 3_600_000);
    is_fenced_by_the_refusal(&mut lease, T + 3);
}

#[test]
fn what_runs_by_the_terms_before_may_be_made_of_that_and_ends_too() {
    let mut lease = by_itself_since(T + 1);
    let mut newer = lease.terms().cloned().unwrap();
    newer.number = token(12);
    // Now there is somebody to ask, who has promised nothing.
    newer.clusters.values_mut().for_each(|listed| listed.excluded = false);
    let _ = lease.terms_stored(at(T + 2), newer);
    assert_eq!(lease.named(), Some(token(11)));
    is_fenced_by_the_refusal(&mut lease, T + 3);
}
