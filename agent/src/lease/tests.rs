use std::collections::{BTreeMap, BTreeSet};

use regent_core::application::OnCoordinatorLoss;
use regent_core::id::{ClusterId, CoordinatorId, Epoch, InstallationId, LogIndex, Token};
use regent_core::lease::TimeBound;
use regent_core::terms::{Listed, Terms};
use regent_core::time::{Moment, Span};

use super::facts::Word;
use super::*;

const D: u64 = 12_000;

pub(super) fn at(millis: u64) -> Reading {
    Reading { boottime: Moment(1_000_000 + millis), raw: Moment(1_000_000 + millis) }
}

pub(super) fn until(millis: u64) -> Deadline {
    at(millis).after(Span::ZERO)
}

fn cluster(name: &str) -> ClusterId {
    ClusterId::new(name).unwrap()
}

pub(super) fn token(index: u64) -> Token {
    Token { restoration: 0, index: LogIndex(index) }
}

pub(super) fn terms(number: u64, epoch: u64, primary: &str) -> Terms {
    let listed =
        |name: &str| (cluster(name), Listed { installation: Some(InstallationId(name.to_owned())), excluded: false });
    Terms {
        number: token(number),
        epoch: Epoch(epoch),
        primary: cluster(primary),
        bound: TimeBound::new(Span::from_millis(D)),
        clusters: BTreeMap::from([listed("a"), listed("b")]),
        guarded: BTreeSet::new(),
        voters: vec![[1, 2, 3].map(CoordinatorId).into()],
        on_coordinator_loss: OnCoordinatorLoss::Failsafe,
        paused: false,
    }
}

pub(super) fn agent_of_a(remembered: Remembered, word: GuardWord) -> Lease {
    let application = ApplicationId::new("shop").unwrap();
    Lease::new(application, cluster("a"), InstallationId("a".into()), remembered, word, at(0))
}

pub(super) fn arm(number: u64, epoch: u64, sent: u64) -> Arm {
    let span = TimeBound::new(Span::from_millis(D)).lease();
    Arm { epoch: Epoch(epoch), terms: token(number), until: at(sent).after(span), span, paused: false, early: false }
}

/// Before it is stored that this cluster leads.
pub(super) fn early(arm: Arm) -> Arm {
    Arm { early: true, ..arm }
}

/// T = 12000 − 2000 − 250.
pub(super) const T: u64 = 9_750;
/// The lead is min(F/8, 250 ms).
pub(super) const LEAD: u64 = 250;

/// A heartbeat to `coordinator` at `sent`, granted at `now`.
pub(super) fn grant(lease: &mut Lease, coordinator: u64, number: u64, sent: u64, now: u64) -> Vec<Command> {
    let epoch = lease.epoch();
    lease.heartbeat_sent(at(sent), CoordinatorId(coordinator), number);
    lease.answered(at(now), CoordinatorId(coordinator), number, Word { granted: Some(epoch), higher: None })
}

/// Held since the grants of heartbeats sent at 0, by terms 10 of epoch 1.
pub(super) fn held() -> Lease {
    let mut lease = agent_of_a(Remembered::default(), GuardWord::Nothing);
    let _ = lease.guard_up(at(0));
    let _ = lease.terms_stored(at(0), terms(10, 1, "a"));
    let _ = grant(&mut lease, 1, 1, 0, 5);
    let _ = grant(&mut lease, 2, 2, 0, 6);
    let _ = lease.guard_armed(at(7), early(arm(10, 1, 0)));
    let _ = lease.guarded_written(at(8), Epoch(1), BTreeSet::new(), true);
    let _ = lease.guard_armed(at(8), arm(10, 1, 0));
    let _ = lease.lifted(at(8), true);
    assert_eq!(lease.end(at(8)), Some(until(T)));
    lease
}

#[test]
fn the_first_lease_arms_then_guards_then_names() {
    let mut lease = agent_of_a(Remembered::default(), GuardWord::Nothing);
    assert_eq!(lease.guard_up(at(0)), []);
    let first = terms(10, 1, "a");
    assert_eq!(lease.terms_offered(at(0), first.clone()), [Command::StoreTerms(Box::new(first.clone()))]);
    assert_eq!(lease.terms_offered(at(0), first.clone()), [], "a repeat is not stored twice");
    assert_eq!(lease.terms_stored(at(1), first), [Command::Heartbeat]);
    assert_eq!(grant(&mut lease, 1, 1, 0, 5), []);
    assert_eq!(grant(&mut lease, 2, 2, 0, 6), [Command::ArmGuard(early(arm(10, 1, 0)))]);
    assert_eq!(lease.end(at(6)), None, "not before the guard counts");
    assert_eq!(
        lease.guard_armed(at(7), early(arm(10, 1, 0))),
        [Command::WriteGuarded { epoch: Epoch(1), resources: BTreeSet::new() }]
    );
    assert_eq!((lease.end(at(7)), lease.named()), (None, None), "not before journal and marker are written");
    // The lifting is for a database that was restarted after its marker was written.
    let named = [Command::NameTerms(token(10)), Command::Heartbeat, Command::LiftSelfFence];
    assert_eq!(lease.guarded_written(at(8), Epoch(1), BTreeSet::new(), true), [Command::ArmGuard(arm(10, 1, 0))]);
    assert_eq!((lease.end(at(8)), lease.named()), (None, None), "not before the guard would fence for it");
    assert_eq!(lease.guard_armed(at(8), arm(10, 1, 0)), named);
    assert_eq!(lease.end(at(8)), Some(until(T)));
}

#[test]
fn before_the_first_lease_nothing_is_touched() {
    let mut lease = agent_of_a(Remembered::default(), GuardWord::Nothing);
    let _ = lease.guard_up(at(0));
    let _ = lease.terms_stored(at(0), terms(10, 1, "a"));
    let _ = grant(&mut lease, 1, 1, 0, 5);
    assert_eq!(lease.tick(at(100_000)), []);
    let _ = grant(&mut lease, 1, 3, 100_000, 100_001);
    assert_eq!(grant(&mut lease, 2, 4, 100_000, 100_001), [Command::ArmGuard(early(arm(10, 1, 100_000)))]);
    assert_eq!(lease.tick(at(200_000)), [Command::DisarmGuard], "it came and went unused");
}

#[test]
fn a_lapse_fences_at_once_and_hard_after_half_of_f() {
    let mut lease = held();
    assert_eq!(lease.tick(at(T - LEAD - 1)), []);
    let confirm_by = until(T - LEAD + 1_000);
    let fence = [Command::MoveGuard { until: confirm_by }, Command::FenceSelf { confirm_by }];
    assert_eq!(lease.tick(at(T - LEAD)), fence);
    assert_eq!(lease.running(at(T - LEAD)), None);
    assert_eq!(lease.tick(at(T - LEAD + 999)), []);
    assert_eq!(lease.tick(at(T - LEAD + 1_000)), [Command::FenceHard]);
    assert_eq!(lease.fenced(at(T + 1_000), false), [Command::Alert(Alert::FenceUnconfirmed)]);
    assert_eq!(lease.tick(at(T + 2_000)), [Command::FenceHard], "repeated until confirmed");
    assert_eq!(lease.fenced(at(T + 2_001), true), [Command::DisarmGuard]);
    assert_eq!(lease.fence(), Fence::Closed { epoch: Epoch(1) });
}

#[test]
fn a_lease_of_the_same_epoch_lifts_the_self_fence_but_not_a_commanded_one() {
    let mut lease = held();
    let _ = lease.tick(at(T));
    let _ = lease.fenced(at(T + 10), true);
    let _ = lease.commanded_is(at(T + 10), true);
    let _ = grant(&mut lease, 1, 11, 20_000, 20_001);
    assert_eq!(grant(&mut lease, 2, 12, 20_000, 20_001), [Command::ArmGuard(arm(10, 1, 20_000))]);
    assert_eq!(lease.guard_armed(at(20_002), arm(10, 1, 20_000)), []);
    assert_eq!(lease.commanded_is(at(20_003), false), [Command::LiftSelfFence]);
    assert_eq!(lease.lifted(at(20_004), false), []);
    assert_eq!(lease.tick(at(21_004)), [Command::LiftSelfFence]);
    assert_eq!(lease.lifted(at(21_005), true), []);
    assert_eq!(lease.fence(), Fence::Open);
}

#[test]
fn a_higher_epoch_voids_at_once() {
    let mut lease = held();
    let word = Word { granted: Some(Epoch(1)), higher: Some(Epoch(2)) };
    lease.heartbeat_sent(at(100), CoordinatorId(1), 9);
    let confirm_by = until(110 + 1_000);
    let fence = [Command::MoveGuard { until: confirm_by }, Command::FenceSelf { confirm_by }];
    assert_eq!(lease.answered(at(110), CoordinatorId(1), 9, word), fence);
    assert_eq!(grant(&mut lease, 2, 10, 120, 121), [], "a grant for the old epoch gives nothing");
    assert_eq!(lease.end(at(121)), None);
}

#[test]
fn a_promise_answer_with_a_higher_epoch_voids_too() {
    let mut lease = held();
    let confirm_by = until(5_000 + 1_000);
    let fence = [Command::MoveGuard { until: confirm_by }, Command::FenceSelf { confirm_by }];
    assert_eq!(lease.promise_answered(at(5_000), 1, cluster("b"), false, Epoch(2)), fence);
}

#[test]
fn a_lower_t_shrinks_running_grants_and_a_higher_one_stretches_none() {
    let mut lease = held();
    let mut shorter = terms(11, 1, "a");
    shorter.bound = TimeBound::new(Span::from_millis(6_000));
    let span = shorter.bound.lease();
    let shrunk = Arm { terms: token(11), until: at(0).after(span), span, ..arm(10, 1, 0) };
    assert_eq!(lease.terms_stored(at(20), shorter), [Command::Heartbeat, Command::ArmGuard(shrunk)]);
    assert_eq!(lease.end(at(20)), Some(at(0).after(span)), "at once, not with the guard's answer");
    assert_eq!(lease.guard_armed(at(21), shrunk), [Command::NameTerms(token(11)), Command::Heartbeat]);
    let _ = lease.terms_stored(at(30), terms(12, 1, "a"));
    let _ = lease.guard_armed(at(31), Arm { terms: token(12), ..shrunk });
    assert_eq!(lease.end(at(31)), Some(at(0).after(span)));
}

#[test]
fn nothing_is_extended_without_the_guard() {
    let mut lease = held();
    assert_eq!(lease.guard_lost(at(100)), []);
    let _ = grant(&mut lease, 1, 11, 1_000, 1_001);
    assert_eq!(grant(&mut lease, 2, 12, 1_000, 1_001), []);
    assert_eq!(lease.end(at(1_001)), Some(until(T)));
    assert_eq!(lease.running(at(1_001)), None, "no step opens writes without the guard");
    assert_eq!(lease.guard_up(at(1_100)), [Command::ArmGuard(arm(10, 1, 1_000))]);
    assert_eq!(lease.guard_armed(at(1_101), arm(10, 1, 1_000)), []);
    assert_eq!(lease.end(at(1_101)), Some(until(1_000 + T)));
}

#[test]
fn promises_of_all_others_extend_from_asking() {
    let mut lease = held();
    lease.healthy_is(true);
    assert_eq!(lease.tick(at(D / 4 - 1)), []);
    let question = |number| Question {
        number,
        epoch: Epoch(1),
        terms: token(10),
        fail_over_after: Span::from_millis(D),
        clusters: BTreeSet::from([cluster("b")]),
    };
    assert_eq!(lease.tick(at(D / 4)), [Command::AskPromises(question(1))]);
    assert_eq!(lease.tick(at(D / 4 + 999)), [], "at every heartbeat, not more often");
    assert_eq!(lease.tick(at(D / 4 + 1_000)), [Command::AskPromises(question(2))]);
    let commands = lease.promise_answered(at(4_500), 1, cluster("b"), true, Epoch(1));
    assert_eq!(commands, [Command::ArmGuard(arm(10, 1, D / 4))]);
    assert_eq!(lease.promise_answered(at(4_600), 7, cluster("b"), true, Epoch(1)), [], "never asked");
    let _ = lease.guard_armed(at(4_601), arm(10, 1, D / 4));
    assert_eq!(lease.end(at(4_602)), Some(until(D / 4 + T)));
    let _ = lease.tick(at(T + 1));
    assert!(lease.by_promises(at(T + 1)));
}

#[test]
fn an_unhealthy_primary_and_a_fencing_policy_ask_for_nothing() {
    let mut lease = held();
    assert_eq!(lease.tick(at(D / 2)), [], "probes do not call it healthy");
    lease.healthy_is(true);
    let mut fence = terms(11, 1, "a");
    fence.on_coordinator_loss = OnCoordinatorLoss::Fence;
    let _ = lease.terms_stored(at(D / 2), fence);
    assert!(!lease.tick(at(D / 2 + 1)).iter().any(|command| matches!(command, Command::AskPromises(_))));
}

#[test]
fn a_named_pause_does_not_fence_and_an_unnamed_one_does() {
    let mut paused = terms(11, 1, "a");
    paused.paused = true;
    let mut lease = held();
    let armed = Arm { terms: token(11), paused: true, ..arm(10, 1, 0) };
    assert_eq!(lease.terms_stored(at(10), paused.clone()), [Command::Heartbeat, Command::ArmGuard(armed)]);
    assert_eq!(lease.guard_armed(at(11), armed), [Command::NameTerms(token(11)), Command::Heartbeat]);
    let idle = lease.tick(at(50_000));
    assert!(!idle.iter().any(|command| matches!(command, Command::FenceSelf { .. })), "{idle:?}");
    // The end of the pause is in force only when it is named, under a lease.
    assert_eq!(lease.terms_stored(at(60_000), terms(12, 1, "a")), [Command::Heartbeat]);
    let voided = lease.epoch_seen(at(60_001), Epoch(2));
    assert!(voided.iter().any(|command| matches!(command, Command::FenceSelf { .. })), "{voided:?}");

    let mut lease = held();
    let _ = lease.guard_lost(at(5));
    let _ = lease.terms_stored(at(10), paused);
    let lapsed = lease.tick(at(50_000));
    assert!(lapsed.iter().any(|command| matches!(command, Command::FenceSelf { .. })), "{lapsed:?}");
}

#[test]
fn a_jump_of_the_wall_clock_leaves_a_grace() {
    let mut lease = held();
    lease.healthy_is(true);
    assert_eq!(lease.wall_clock_moved(at(1_000), 250), [], "within the margin");
    assert_eq!(lease.wall_clock_moved(at(1_000), -900), [Command::Alert(Alert::ClockBackward)]);
    let commands = lease.wall_clock_moved(at(2_000), 900);
    let grace = Arm { until: until(2_500), span: Span::from_millis(500), ..arm(10, 1, 0) };
    assert!(commands.starts_with(&[Command::Alert(Alert::ClockForward), Command::Heartbeat, Command::ArmGuard(grace)]));
    assert!(matches!(commands.last(), Some(Command::AskPromises(_))), "asks at once: {commands:?}");
    assert_eq!(lease.end(at(2_001)), Some(until(2_500)));
    let _ = grant(&mut lease, 1, 21, 2_010, 2_011);
    let _ = lease.guard_armed(at(2_011), grace);
    let fresh = grant(&mut lease, 2, 22, 2_010, 2_012);
    assert_eq!(fresh, [Command::ArmGuard(arm(10, 1, 2_010))]);
    let _ = lease.guard_armed(at(2_013), arm(10, 1, 2_010));
    assert_eq!(lease.end(at(3_000)), Some(until(2_010 + T)));
}

#[test]
fn a_jump_without_fresh_grants_fences() {
    let mut lease = held();
    let _ = lease.wall_clock_moved(at(2_000), 900);
    let commands = lease.tick(at(2_250));
    assert!(commands.iter().any(|command| matches!(command, Command::FenceSelf { .. })), "{commands:?}");
}

#[test]
fn after_a_restart_the_guards_deadline_is_the_lease() {
    let remembered = Remembered {
        terms: Some(terms(10, 1, "a")),
        seen: Epoch(1),
        guarded: true,
        marked: BTreeSet::new(),
        led: Epoch(1),
    };
    let mut lease = agent_of_a(remembered.clone(), GuardWord::Armed(arm(10, 1, 0)));
    // The last process may have died between a fence and its lifting.
    assert_eq!(lease.guard_up(at(1)), [Command::ArmGuard(arm(10, 1, 0)), Command::LiftSelfFence]);
    assert_eq!(lease.guard_armed(at(2), arm(10, 1, 0)), [], "under which terms it was given nobody remembers");
    assert_eq!(lease.end(at(2)), Some(until(T)));
    let mut granted = lease.clone();
    let _ = grant(&mut granted, 1, 1, 3, 4);
    let named = [Command::ArmGuard(arm(10, 1, 3)), Command::NameTerms(token(10)), Command::Heartbeat];
    assert_eq!(grant(&mut granted, 2, 2, 3, 4), named);
    let commands = lease.tick(at(T));
    assert!(commands.iter().any(|command| matches!(command, Command::FenceSelf { .. })), "{commands:?}");

    let mut lease = agent_of_a(remembered.clone(), GuardWord::Nothing);
    let commands = lease.tick(at(0));
    assert!(commands.iter().any(|command| matches!(command, Command::FenceSelf { .. })), "no lease: {commands:?}");

    let other = Remembered { terms: Some(terms(11, 2, "b")), seen: Epoch(2), ..remembered };
    let mut lease = agent_of_a(other.clone(), GuardWord::Armed(arm(10, 1, 0)));
    let commands = lease.tick(at(0));
    assert!(commands.iter().any(|command| matches!(command, Command::FenceSelf { .. })), "deposed: {commands:?}");

    let mut lease = agent_of_a(other, GuardWord::Nothing);
    assert_eq!(lease.tick(at(0)), [], "a standby at rest");
}

#[test]
fn a_standby_that_becomes_primary_fences_nothing_while_it_waits() {
    let remembered = Remembered {
        terms: Some(terms(10, 1, "b")),
        seen: Epoch(1),
        guarded: true,
        marked: BTreeSet::new(),
        led: Epoch(0),
    };
    let mut lease = agent_of_a(remembered, GuardWord::Nothing);
    let _ = lease.guard_up(at(0));
    assert_eq!(lease.terms_stored(at(10), terms(11, 2, "a")), [Command::Heartbeat]);
    assert_eq!(lease.tick(at(90_000)), []);
    let _ = grant(&mut lease, 1, 1, 90_000, 90_001);
    let _ = grant(&mut lease, 3, 2, 90_000, 90_002);
    let commands = lease.guard_armed(at(90_003), early(arm(11, 2, 90_000)));
    assert_eq!(commands, [Command::WriteGuarded { epoch: Epoch(2), resources: BTreeSet::new() }]);
    let _ = lease.guarded_written(at(90_004), Epoch(2), BTreeSet::new(), true);
    let _ = lease.guard_armed(at(90_004), arm(11, 2, 90_000));
    assert_eq!(lease.running(at(90_005)).map(|(epoch, _)| epoch), Some(Epoch(2)));
    // Not promoted yet, and the lease lapses: it is fenced all the same.
    let commands = lease.tick(at(90_000 + T));
    assert!(commands.iter().any(|command| matches!(command, Command::FenceSelf { .. })), "{commands:?}");
}

#[test]
fn a_commanded_fence_spares_no_fence_of_its_own() {
    let mut lease = held();
    let _ = lease.commanded_is(at(10), true);
    let confirm_by = until(20 + 1_000);
    let fence = [Command::MoveGuard { until: confirm_by }, Command::FenceSelf { confirm_by }];
    assert_eq!(lease.epoch_seen(at(20), Epoch(2)), fence, "something may have been opened since it was confirmed");
}

#[test]
fn what_commanded_fences_keep_closed_is_looked_at_again_without_haste() {
    let mut lease = held();
    let _ = lease.commanded_is(at(10), true);
    lease.closed_is(true);
    let mut opening = lease.clone();
    let confirm_by = until(20 + 10_000);
    let fence = [Command::MoveGuard { until: confirm_by }, Command::FenceSelf { confirm_by }];
    assert_eq!(lease.epoch_seen(at(20), Epoch(2)), fence);

    let _ = opening.opening_is(at(15), true);
    let confirm_by = until(20 + 1_000);
    let fence = [Command::MoveGuard { until: confirm_by }, Command::FenceSelf { confirm_by }];
    assert_eq!(opening.epoch_seen(at(20), Epoch(2)), fence, "a step that opens makes it as urgent as ever");
}

#[test]
fn no_lift_begins_beside_a_commanded_fence() {
    let mut lease = held();
    assert_eq!(lease.closed_seen(at(10)), [Command::LiftSelfFence]);
    let _ = lease.commanded_is(at(20), true);
    assert_eq!(lease.lifted(at(20), false), [], "the commanded fence ended it");
    assert_eq!(lease.tick(at(5_000)), [], "and it is not tried again");
    assert_eq!(lease.commanded_is(at(5_001), false), [Command::LiftSelfFence]);
}

#[test]
fn doubled_and_late_answers_give_no_more_than_their_sending() {
    let mut lease = held();
    lease.heartbeat_sent(at(1_000), CoordinatorId(1), 31);
    lease.heartbeat_sent(at(2_000), CoordinatorId(1), 32);
    let word = Word { granted: Some(Epoch(1)), higher: None };
    let _ = lease.answered(at(2_001), CoordinatorId(1), 32, word);
    let _ = lease.answered(at(8_000), CoordinatorId(1), 31, word);
    let _ = lease.answered(at(8_000), CoordinatorId(1), 32, word);
    let _ = lease.answered(at(8_000), CoordinatorId(2), 31, word);
    assert_eq!(lease.end(at(8_000)), Some(until(T)), "coordinator 2 granted only what was sent at 0");
}

#[test]
fn a_database_that_came_up_closed_is_opened_under_the_running_lease_only() {
    let mut lease = held();
    assert_eq!(lease.closed_seen(at(100)), vec![Command::LiftSelfFence]);
    assert_eq!(lease.closed_seen(at(110)), vec![], "it is being opened");
    let _ = lease.lifted(at(120), true);
    let _ = lease.commanded_is(at(130), true);
    assert_eq!(lease.closed_seen(at(140)), vec![], "a fence is commanded");
    let mut lapsed = held();
    let _ = lapsed.tick(at(T - LEAD));
    assert_eq!(lapsed.closed_seen(at(T - LEAD + 1)), vec![], "the lease has lapsed");
}

fn voted_by(number: u64, voters: &[u64]) -> Terms {
    Terms { voters: vec![voters.iter().copied().map(CoordinatorId).collect()], ..terms(number, 1, "a") }
}

#[test]
fn a_change_of_the_voters_does_not_stop_a_primary_that_holds_by_those_before() {
    let mut lease = held();
    assert_eq!(
        lease.terms_stored(at(1_000), voted_by(11, &[1, 2, 3, 4])),
        [Command::Heartbeat, Command::ArmGuard(arm(11, 1, 0))],
        "two of four are no majority, and the coordinators still count by the three"
    );
    assert_eq!((lease.end(at(1_000)), lease.named()), (Some(until(T)), Some(token(10))));
    assert_eq!(lease.guard_armed(at(1_001), arm(11, 1, 0)), [], "they are not named by what older ones gave");
    assert_eq!(grant(&mut lease, 4, 3, 1_100, 1_200), [Command::NameTerms(token(11)), Command::Heartbeat]);
}

#[test]
fn what_older_terms_gave_ends_in_its_time() {
    let mut lease = held();
    let _ = lease.terms_stored(at(1_000), voted_by(11, &[3, 4, 5]));
    let _ = lease.guard_armed(at(1_001), arm(11, 1, 0));
    let _ = lease.terms_stored(at(2_000), voted_by(12, &[4, 5, 6]));
    let _ = grant(&mut lease, 1, 3, 2_000, 2_001);
    assert_eq!(lease.end(at(2_001)), Some(until(T)), "who does not vote any more extends nothing");
    let _ = lease.guard_armed(at(2_002), arm(12, 1, 0));
    assert_eq!(lease.named(), Some(token(10)));
    let confirm_by = until(T - LEAD + 1_000);
    let fence = [Command::MoveGuard { until: confirm_by }, Command::FenceSelf { confirm_by }];
    assert_eq!(lease.tick(at(T - LEAD)), fence);
}
