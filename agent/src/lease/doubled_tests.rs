//! An agent that asks nobody, because all others are excluded, and is told that another process of its own is registered.

use regent_core::time::Span;

use super::tests::{T, arm, at, grant, held, terms, token, until};
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
