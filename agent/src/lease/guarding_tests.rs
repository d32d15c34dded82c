//! What newer terms guard beside what runs already: known mistakes "resource added unconfirmed" and "terms named before
//! guarding".

use std::collections::BTreeSet;

use regent_core::id::{Epoch, ResourceId};

use super::tests::{T, agent_of_a, arm, at, grant, held, terms, token, until};
use super::*;

fn resources(names: &[&str]) -> BTreeSet<ResourceId> {
    names.iter().map(|name| ResourceId::new(name).unwrap()).collect()
}

fn write(names: &[&str]) -> Command {
    Command::WriteGuarded { epoch: Epoch(1), resources: resources(names) }
}

/// Terms 11 of the same epoch, which guard db and cache, are stored; the guard has not answered.
fn wider() -> Lease {
    let mut lease = held();
    let mut wider = terms(11, 1, "a");
    wider.guarded = resources(&["db", "cache"]);
    let armed = arm(11, 1, 0);
    assert_eq!(lease.terms_stored(at(100), wider), [Command::Heartbeat, Command::ArmGuard(armed)]);
    lease
}

#[test]
fn what_was_added_is_marked_before_the_terms_are_named() {
    let mut lease = wider();
    let all = ["cache", "db"];
    assert_eq!(lease.guard_armed(at(101), arm(11, 1, 0)), [write(&all)], "the guard would end it from here on");
    assert_eq!(lease.tick(at(102)), [], "once");
    assert_eq!((lease.named(), lease.end(at(102))), (Some(token(10)), Some(until(T))), "the lease that runs goes on");
    assert_eq!(lease.guarded_written(at(103), Epoch(1), resources(&all), false), [write(&all)], "tried again");
    let _ = lease.guarded_written(at(104), Epoch(1), resources(&["db"]), true);
    assert_eq!((lease.unmarked(), lease.named()), (resources(&["cache"]), Some(token(10))));
    let named = [Command::NameTerms(token(11)), Command::Heartbeat];
    assert_eq!(lease.guarded_written(at(105), Epoch(1), resources(&["cache"]), true), named);
    assert_eq!(lease.fence(), Fence::Open, "what runs was left alone");
}

#[test]
fn nothing_is_marked_without_a_running_lease_or_before_the_guard_counts_for_it() {
    let mut lease = wider();
    assert_eq!(lease.tick(at(102)), []);
    let lapsed = lease.tick(at(T));
    assert!(!lapsed.iter().any(|command| matches!(command, Command::WriteGuarded { .. })), "{lapsed:?}");
    let _ = lease.fenced(at(T + 1), true);
    let _ = grant(&mut lease, 1, 11, 20_000, 20_001);
    assert_eq!(grant(&mut lease, 2, 12, 20_000, 20_001), [Command::ArmGuard(arm(11, 1, 20_000))]);
    let commands = lease.guard_armed(at(20_002), arm(11, 1, 20_000));
    assert_eq!(commands, [write(&["cache", "db"]), Command::LiftSelfFence]);
}

#[test]
fn a_restart_remembers_what_is_marked() {
    let mut wider = terms(11, 1, "a");
    wider.guarded = resources(&["db", "cache"]);
    let remembered =
        Remembered { terms: Some(wider), seen: Epoch(1), guarded: true, marked: resources(&["db"]), led: Epoch(1) };
    let mut lease = agent_of_a(remembered, GuardWord::Armed(arm(11, 1, 0)));
    let _ = lease.guard_up(at(1));
    assert_eq!(lease.guard_armed(at(2), arm(11, 1, 0)), [write(&["cache"])]);
    assert_eq!(lease.named(), None);
}
