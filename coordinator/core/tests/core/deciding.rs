//! When the leader proposes, and which rule holds it when it does not.

use std::collections::BTreeMap;

use regent_core::application::Beyond;
use regent_core::decide::decide;
use regent_core::entry::{Cause, Entry, Ground};
use regent_core::evidence::{Evidence, FenceState, PromiseSight, Role, Sighting, UpstreamSight, WitnessSight};
use regent_core::id::{CoordinatorId, Epoch, LogIndex};
use regent_core::time::{Moment, Span};
use regent_core::why::{Verdict, explain};

use crate::fixture::*;

const SILENT: Moment = Moment(100_000);

/// Two votes with three seconds of silence, applied three seconds after the west fell silent.
pub fn voted() -> (World, [LogIndex; 2]) {
    let mut world = World::protected();
    let votes = [1, 2].map(|observer| world.vote(observer, &west(), 1, Span::from_secs(3)));
    (world, votes)
}

pub fn seen(votes: &[LogIndex], now: Moment) -> Evidence {
    let mut evidence = evidence(now, SILENT);
    evidence.votes_applied = votes.iter().map(|vote| (*vote, SILENT.after(Span::from_secs(3)))).collect();
    evidence
}

pub fn held(world: &World, evidence: &Evidence, now: Moment) -> Vec<String> {
    let explanation = explain(&world.state, evidence, view(now, world), &app()).unwrap();
    explanation.held_by.into_iter().map(|rule| rule.code).collect()
}

pub fn ripe() -> Moment {
    SILENT.after(Span::from_secs(10))
}

#[test]
fn nothing_is_decided_before_the_bound_has_passed_since_the_last_grant() {
    let (world, votes) = voted();
    let now = Moment(ripe().0 - 1);
    assert_eq!(decide(&world.state, &seen(&votes, now), view(now, &world)), vec![]);
    assert_eq!(held(&world, &seen(&votes, now), now), ["time-bound"]);
}

#[test]
fn it_is_decided_as_soon_as_the_bound_has_passed() {
    let (world, votes) = voted();
    let entries = decide(&world.state, &seen(&votes, ripe()), view(ripe(), &world));
    let [Entry::Decide { to, ground: Ground::Lost { votes: named }, from, .. }] = entries.as_slice() else {
        panic!("{entries:?}")
    };
    assert_eq!((to, *from), (&central(), Epoch(1)));
    assert_eq!(*named, votes.into_iter().collect());
}

#[test]
fn votes_of_voters_not_heard_just_now_do_not_count() {
    let (world, votes) = voted();
    let mut evidence = seen(&votes, ripe());
    evidence.voters_heard.insert(CoordinatorId(2), Moment(ripe().0 - 4_000));
    assert_eq!(held(&world, &evidence, ripe()), ["primary-not-lost"]);
}

#[test]
fn votes_from_the_disk_count_from_their_loading() {
    let (world, votes) = voted();
    let mut evidence = seen(&votes, ripe());
    evidence.votes_applied.clear();
    assert_eq!(held(&world, &evidence, ripe()), ["time-bound"]);
}

#[test]
fn a_follower_proposes_nothing() {
    let (world, votes) = voted();
    let mut evidence = seen(&votes, ripe());
    evidence.leading_since = None;
    assert_eq!(decide(&world.state, &evidence, view(ripe(), &world)), vec![]);
}

#[test]
fn a_leader_looks_for_three_intervals_first() {
    let (world, votes) = voted();
    let mut evidence = seen(&votes, ripe());
    evidence.leading_since = Some(Moment(ripe().0 - 1_000));
    assert_eq!(held(&world, &evidence, ripe()), ["leads-too-briefly"]);
}

#[test]
fn absence_counts_only_when_the_others_have_reported() {
    let (world, votes) = voted();
    let mut evidence = seen(&votes, ripe());
    evidence.contacts.get_mut(&central()).unwrap().last_beat = Some(Moment(ripe().0 - 3_500));
    assert!(held(&world, &evidence, ripe()).contains(&"not-all-reported".to_owned()));
    let mut evidence = seen(&votes, ripe());
    evidence.leading_since = Some(Moment(ripe().0 - 4_000));
    evidence.contacts.get_mut(&central()).unwrap().reported = Some(Moment(ripe().0 - 4_500));
    assert!(held(&world, &evidence, ripe()).contains(&"not-all-reported".to_owned()));
}

#[test]
fn a_living_replication_link_is_a_sign_of_life_for_a_time() {
    let (world, votes) = voted();
    let alive = |now: Moment| {
        let mut evidence = seen(&votes, now);
        let link = UpstreamSight { connected: true, last_heard: Some(now), lag_bytes: None, lag: None, cluster: None };
        let contact = evidence.contacts.get_mut(&central()).unwrap();
        contact.resources.get_mut(&app()).unwrap().get_mut(&resource("db")).unwrap().upstream = Some(link);
        evidence
    };
    assert_eq!(held(&world, &alive(ripe()), ripe()), ["replication-alive"]);
    let explanation = explain(&world.state, &alive(ripe()), view(ripe(), &world), &app()).unwrap();
    assert_eq!(explanation.verdict, Verdict::AgentUnreachable);
    let late = ripe().after(Span::from_secs(3));
    assert_eq!(held(&world, &alive(late), late), Vec::<String>::new());
}

#[test]
fn a_promise_asked_for_at_this_epoch_holds_longer() {
    let (world, votes) = voted();
    let late = ripe().after(Span::from_secs(30));
    let asked = |epoch: u64| {
        let mut evidence = seen(&votes, late);
        let sight = PromiseSight { at: late, epoch: Epoch(epoch) };
        let contact = evidence.contacts.get_mut(&central()).unwrap();
        contact.promises = BTreeMap::from([(app(), BTreeMap::from([(west(), sight)]))]);
        evidence
    };
    assert_eq!(held(&world, &asked(1), late), ["promise-asked"]);
    assert_eq!(held(&world, &asked(0), late), Vec::<String>::new());
}

#[test]
fn a_signature_counts_for_this_epoch_only() {
    let (world, votes) = voted();
    let signed = |epoch: u64| {
        let mut evidence = seen(&votes, ripe());
        let leases = BTreeMap::from([(app(), Epoch(epoch))]);
        let sight = WitnessSight { at: ripe(), answered: true, leases };
        evidence.contacts.get_mut(&central()).unwrap().witnesses.insert(west(), sight);
        evidence
    };
    assert_eq!(held(&world, &signed(1), ripe()), ["witness-signed"]);
    assert_eq!(held(&world, &signed(7), ripe()), Vec::<String>::new());
}

#[test]
fn a_position_that_advances_by_what_is_received_is_life() {
    let (world, votes) = voted();
    let at = |seconds: u64| ripe().before(Span::from_secs(seconds));
    let probe = |seconds: u64, position: u64, connected: bool| {
        let mut seen = sighting(at(seconds), Role::Standby, Some(position));
        seen.upstream.as_mut().unwrap().connected = connected;
        seen
    };
    let holds = |before: &Sighting, after: &Sighting| {
        let mut evidence = seen(&votes, ripe());
        let mut after = after.clone();
        after.advanced = after.advanced_since(before);
        let contact = evidence.contacts.get_mut(&central()).unwrap();
        contact.resources.get_mut(&app()).unwrap().insert(resource("db"), after);
        held(&world, &evidence, ripe())
    };
    assert_eq!(holds(&probe(2, 1000, true), &probe(0, 1100, true)), ["position-advances"]);
    // It is dated by the probe before: from then on it may have stood still.
    assert_eq!(holds(&probe(3, 1000, true), &probe(0, 1100, true)), Vec::<String>::new());
    assert_eq!(holds(&probe(2, 1000, true), &probe(0, 1000, true)), Vec::<String>::new());
    // Replay of what was received long ago, with the link gone, or come back in between.
    assert_eq!(holds(&probe(2, 1000, false), &probe(0, 1100, false)), Vec::<String>::new());
    assert_eq!(holds(&probe(2, 1000, true), &probe(0, 1100, false)), Vec::<String>::new());
    assert_eq!(holds(&probe(2, 1000, false), &probe(0, 1100, true)), Vec::<String>::new());
    let mut other = probe(2, 1000, true);
    other.timeline = 7;
    assert_eq!(holds(&other, &probe(0, 1100, true)), Vec::<String>::new());
}

#[test]
fn an_agent_that_one_coordinator_still_hears_is_told_to_fence() {
    let (world, votes) = voted();
    let late = ripe().after(Span::from_secs(3));
    let mut evidence = seen(&votes, late);
    let mut contact = evidence.contacts[&west()].clone();
    contact.two_way = Some(late);
    evidence.relayed.insert(CoordinatorId(3), BTreeMap::from([(west(), contact)]));
    let entries = decide(&world.state, &evidence, view(late, &world));
    let [Entry::RunStarted { cause: Cause::AgentUnreachable, to, .. }] = entries.as_slice() else {
        panic!("{entries:?}")
    };
    assert_eq!(*to, central());
}

#[test]
fn an_agent_that_fenced_itself_is_no_life() {
    let (world, votes) = voted();
    let mut evidence = seen(&votes, ripe());
    let contact = evidence.contacts.get_mut(&west()).unwrap();
    contact.two_way = Some(ripe());
    contact.last_beat = Some(ripe());
    contact.beats.get_mut(&app()).unwrap().fence = FenceState::SelfFenced;
    assert_eq!(held(&world, &evidence, ripe()), Vec::<String>::new());
}

#[test]
fn a_standby_that_reports_no_position_is_no_candidate() {
    let (world, votes) = voted();
    let mut evidence = seen(&votes, ripe());
    let contact = evidence.contacts.get_mut(&central()).unwrap();
    contact.resources.get_mut(&app()).unwrap().get_mut(&resource("db")).unwrap().position = None;
    assert_eq!(held(&world, &evidence, ripe()), ["no-target"]);
    let explanation = explain(&world.state, &evidence, view(ripe(), &world), &app()).unwrap();
    assert!(explanation.others[0].1.contains("reports no position"), "{explanation:?}");
}

#[test]
fn a_wait_for_a_better_candidate_ends_with_a_question() {
    let (mut world, votes) = voted();
    let wait = Beyond::Wait(Span::from_secs(120));
    world.state.applications.get_mut(&app()).unwrap().document.automation.beyond_max_data_loss = wait;
    let behind = |now: Moment| {
        let mut evidence = seen(&votes, now);
        let contact = evidence.contacts.get_mut(&central()).unwrap();
        let seen = contact.resources.get_mut(&app()).unwrap().get_mut(&resource("db")).unwrap();
        seen.position = Some(10);
        seen.upstream.as_mut().unwrap().lag = Some(Span::from_secs(6));
        let explanation = explain(&world.state, &evidence, view(now, &world), &app()).unwrap();
        explanation.held_by.into_iter().map(|rule| (rule.code, rule.detail)).next_back().unwrap()
    };
    let (code, detail) = behind(ripe().after(Span::from_secs(20)));
    assert_eq!(code, "waiting-for-candidate");
    assert!(detail.contains("1m40s left"), "{detail}");
    let (code, detail) = behind(ripe().after(Span::from_secs(120)));
    assert_eq!(code, "beyond-max-data-loss");
    assert!(detail.contains("a human must allow it"), "{detail}");
}

#[test]
fn a_loss_beyond_the_limit_is_not_accepted_silently() {
    let (world, votes) = voted();
    let mut evidence = seen(&votes, ripe());
    let contact = evidence.contacts.get_mut(&central()).unwrap();
    let seen = contact.resources.get_mut(&app()).unwrap().get_mut(&resource("db")).unwrap();
    seen.position = Some(10);
    seen.upstream.as_mut().unwrap().lag = Some(Span::from_secs(6));
    assert_eq!(held(&world, &evidence, ripe()), ["beyond-max-data-loss"]);
}

#[test]
fn a_refusal_is_proposed_once_for_each_rule() {
    let (mut world, votes) = voted();
    let mut evidence = seen(&votes, ripe());
    let contact = evidence.contacts.get_mut(&central()).unwrap();
    contact.resources.get_mut(&app()).unwrap().get_mut(&resource("db")).unwrap().position = None;
    let entries = decide(&world.state, &evidence, view(ripe(), &world));
    let [refusal @ Entry::Refused { rule, .. }] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(rule, "no-target");
    world.done(refusal.clone());
    assert_eq!(decide(&world.state, &evidence, view(ripe(), &world)), vec![]);
}

#[test]
fn inside_the_cool_down_a_second_failover_waits() {
    let (mut world, votes) = voted();
    world.state.applications.get_mut(&app()).unwrap().cooling_since = Some(regent_core::time::Timestamp(world.wall));
    assert_eq!(held(&world, &seen(&votes, ripe()), ripe()), ["cool-down"]);
    world.done(Entry::Acknowledged { application: Some(app()), by: "ann".into() });
    assert_eq!(held(&world, &seen(&votes, ripe()), ripe()), Vec::<String>::new());
}

#[test]
fn a_late_fence_is_followed_by_the_decision_and_not_undone() {
    let mut world = World::protected();
    let now = Moment(200_000);
    let epoch = world.known().epoch;
    let cause = Cause::ResourceFailed { resource: resource("db"), detail: "gone".into() };
    let finding = regent_core::entry::Finding::default();
    world.done(Entry::RunStarted { application: app(), epoch, cause, to: central(), finding, plan: None });
    let run = world.known().run.unwrap();
    world.wall += 60_000;
    for step in [0, 1].map(regent_core::id::StepId) {
        let attempt = regent_core::id::Attempt(1);
        world.done(Entry::StepIntent { run, step, attempt });
        world.done(Entry::StepOutcome { run, step, attempt, outcome: succeeded() });
    }
    let entries = decide(&world.state, &evidence(now, now), view(now, &world));
    assert!(matches!(entries.as_slice(), [Entry::Decide { ground: Ground::Fenced { .. }, .. }]), "{entries:?}");
    // Without a fit target what was fenced is opened again, D after it was.
    let mut unfit = evidence(now, now);
    unfit.contacts.get_mut(&central()).unwrap().last_beat = None;
    world.wall += 11_000;
    let entries = decide(&world.state, &unfit, view(now, &world));
    assert!(entries.iter().any(|entry| matches!(entry, Entry::UndoBegun { .. })), "{entries:?}");
}
