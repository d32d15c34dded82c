//! Voters change one member at a time, and the next only when nobody counts by older ones.

use std::collections::{BTreeMap, BTreeSet};

use regent_core::effect::Effect;
use regent_core::entry::{Coordinator, Entry};
use regent_core::id::{CoordinatorId, IdentityId, LogIndex, RegionId};
use regent_core::members::{MemberChange, MemberStep, next, unconfirmed};
use regent_core::state::{Applied, State};
use regent_core::time::{Moment, Span};

use crate::fixture::*;

const NOW: Moment = Moment(1_000_000);

fn id(number: u64) -> CoordinatorId {
    CoordinatorId(number)
}

fn set(ids: &[u64]) -> BTreeSet<CoordinatorId> {
    ids.iter().map(|number| id(*number)).collect()
}

fn add(number: u64) -> Entry {
    let change = MemberChange::Add { id: id(number), address: format!("10.0.0.{number}:1") };
    Entry::MemberChange { change, by: "ann".into(), overridden: None }
}

fn remove(number: u64) -> Entry {
    Entry::MemberChange { change: MemberChange::Remove { id: id(number) }, by: "ann".into(), overridden: None }
}

fn overriding(entry: Entry) -> Entry {
    match entry {
        Entry::MemberChange { change, by, .. } => {
            Entry::MemberChange { change, by, overridden: Some("the region is gone".into()) }
        }
        other => other,
    }
}

fn joined(number: u64) -> Entry {
    Entry::CoordinatorJoined(Coordinator {
        id: id(number),
        identity: IdentityId(format!("identity-{number}")),
        region: RegionId::new("r").unwrap(),
        grpc: format!("10.0.0.{number}:1"),
        dashboard: String::new(),
        dns: String::new(),
    })
}

fn world() -> World {
    let mut world = World::protected();
    for number in 1..=3 {
        world.done(joined(number));
    }
    world
}

/// Raft's membership, as the state machine hears of it.
fn become_members(world: &mut World, sets: &[&[u64]]) {
    let index = LogIndex(world.state.applied.0 + 1);
    let effects = world.state.apply_membership(index, sets.iter().map(|ids| set(ids)).collect());
    assert!(effects.contains(&Effect::TermsChanged(app())), "agents count by the voters");
}

#[test]
fn the_next_change_waits_for_the_primarys_agent() {
    let mut world = world();
    world.done(remove(3));
    assert_eq!(world.refused(add(4)), "member-change-under-way", "one at a time");
    become_members(&mut world, &[&[1, 2, 3], &[1, 2]]);
    world.ignored(Entry::MemberChangeEnded { id: id(3) });
    become_members(&mut world, &[&[1, 2]]);
    world.done(Entry::MemberChangeEnded { id: id(3) });
    assert_eq!(world.state.changing, None);
    assert_eq!(unconfirmed(&world.state).collect::<Vec<_>>(), vec![&app()]);
    assert_eq!(world.refused(add(4)), "voters-unconfirmed");
    world.confirm(&west());
    world.done(add(4));
    let audited: Vec<&str> = world.state.audit.iter().map(|record| record.event.as_str()).collect();
    assert!(audited.ends_with(&["member-removed", "terms-confirmed", "member-add"]), "{audited:?}");
}

#[test]
fn an_operator_overrides_by_name_and_the_older_voters_still_count() {
    let mut world = world();
    world.done(remove(3));
    become_members(&mut world, &[&[1, 2]]);
    world.done(Entry::MemberChangeEnded { id: id(3) });
    world.done(overriding(add(4)));
    let last = world.state.audit.back().unwrap();
    assert_eq!((last.event.as_str(), last.actor.as_str()), ("member-add", "ann"));
    assert!(last.detail.contains("the region is gone"), "{}", last.detail);
    become_members(&mut world, &[&[1, 2, 4]]);
    world.done(joined(4));
    world.done(Entry::MemberChangeEnded { id: id(4) });
    world.done(Entry::ObserverStarted { observer: id(4), incarnation: regent_core::id::Incarnation(1) });
    // A majority of the new voters, and none of those that the primary's agent may still count by.
    let votes = [world.vote(4, &west(), 1, Span::from_secs(9)), world.vote(2, &west(), 1, Span::from_secs(9))];
    assert_eq!(world.refused(world.lost(&votes)), "no-majority");
    let first = world.vote(1, &west(), 1, Span::from_secs(9));
    world.done(world.lost(&[votes[0], votes[1], first]));
}

#[test]
fn an_id_is_used_once() {
    let mut world = world();
    assert_eq!(world.refused(add(3)), "already-member");
    assert_eq!(world.refused(remove(9)), "not-a-member");
    world.done(remove(3));
    become_members(&mut world, &[&[1, 2]]);
    world.done(Entry::MemberChangeEnded { id: id(3) });
    assert!(world.effects.contains(&Effect::CoordinatorsChanged), "agents dial it no more");
    assert!(!world.state.coordinators.contains_key(&id(3)));
    world.confirm(&west());
    assert_eq!(world.refused(add(3)), "id-used-up");
    assert_eq!(world.refused(joined(3)), "id-used-up");
}

#[test]
fn the_only_voter_stays() {
    let mut world = World::protected();
    world.done(joined(1));
    become_members(&mut world, &[&[1]]);
    world.confirm(&west());
    assert_eq!(world.refused(remove(1)), "last-member");
}

#[test]
fn an_addition_is_taken_back_by_removing_its_id() {
    let mut world = world();
    world.done(add(4));
    world.ignored(add(4));
    assert_eq!(world.refused(remove(2)), "member-change-under-way");
    world.done(remove(4));
    assert_eq!(step(&world.state, &[4]), MemberStep::Remove(id(4)));
    assert_eq!(step(&world.state, &[]), MemberStep::End(id(4)));
    world.done(Entry::MemberChangeEnded { id: id(4) });
    assert_eq!(world.refused(add(4)), "id-used-up", "it may have been told of as a member");
}

#[test]
fn a_backup_of_format_one_reads_without_members_that_were_removed() {
    let state: State = serde_json::from_value({
        let mut value = serde_json::to_value(State::default()).unwrap();
        let fields = value.as_object_mut().unwrap();
        fields.remove("removed");
        fields.remove("changing");
        value
    })
    .unwrap();
    assert_eq!((state.removed, state.changing), (BTreeMap::new(), None));
}

/// Leader 1 with everybody heard, and coordinator 4 hearing the west as of `heard`.
fn step_with(state: &State, learners: &[u64], heard: Option<Moment>, silent: &[u64]) -> MemberStep {
    let mut seen = evidence(NOW, NOW);
    seen.voters_heard.retain(|voter, _| !silent.contains(&voter.0));
    if let Some(heard) = heard {
        let contact = evidence(heard, heard).contacts[&west()].clone();
        seen.relayed.insert(id(4), BTreeMap::from([(west(), contact)]));
    }
    next(state, &seen, NOW, id(1), &set(learners)).unwrap()
}

fn step(state: &State, learners: &[u64]) -> MemberStep {
    step_with(state, learners, Some(NOW), &[])
}

fn waits_for(step: MemberStep) -> String {
    match step {
        MemberStep::Wait(rule) => rule.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_is_added_votes_only_when_it_hears_the_primarys_agent() {
    let mut world = world();
    world.done(add(4));
    let learner = MemberStep::Learner { id: id(4), address: "10.0.0.4:1".into() };
    assert_eq!(step(&world.state, &[]), learner);
    assert_eq!(waits_for(step(&world.state, &[4])), "not-joined");
    world.done(joined(4));
    assert_eq!(waits_for(step_with(&world.state, &[4], None, &[])), "agent-not-heard");
    assert_eq!(waits_for(step_with(&world.state, &[4], Some(Moment(NOW.0 - 10_000)), &[])), "agent-not-heard");
    assert_eq!(step(&world.state, &[4]), MemberStep::Voter(id(4)));
    become_members(&mut world, &[&[1, 2, 3], &[1, 2, 3, 4]]);
    assert_eq!(step(&world.state, &[]), MemberStep::Voter(id(4)), "a new leader ends the joint membership");
    become_members(&mut world, &[&[1, 2, 3, 4]]);
    assert_eq!(step(&world.state, &[]), MemberStep::End(id(4)));
    world.done(Entry::MemberChangeEnded { id: id(4) });
    assert_eq!(next(&world.state, &evidence(NOW, NOW), NOW, id(1), &set(&[])), None);
}

#[test]
fn a_majority_must_be_there_without_the_one_that_comes_or_goes() {
    let mut world = world();
    world.done(add(4));
    world.done(joined(4));
    // Of four, the two that are heard beside it are not enough: their grants alone would not carry a lease.
    assert_eq!(waits_for(step_with(&world.state, &[4], Some(NOW), &[3])), "majority-too-thin");
    let mut other = self::world();
    other.done(remove(2));
    assert_eq!(waits_for(step_with(&other.state, &[], None, &[3])), "majority-too-thin");
    assert_eq!(step_with(&other.state, &[], None, &[2]), MemberStep::Remove(id(2)), "the lost one goes");
}

#[test]
fn a_leader_hands_over_before_it_is_removed() {
    let mut world = world();
    world.done(remove(1));
    assert_eq!(step(&world.state, &[]), MemberStep::HandOver(set(&[2, 3])));
}

#[test]
fn a_change_taken_back_too_late_goes_the_other_way() {
    let mut world = world();
    world.done(add(4));
    world.done(joined(4));
    become_members(&mut world, &[&[1, 2, 3], &[1, 2, 3, 4]]);
    let taken_back = world.apply(remove(4));
    assert!(matches!(taken_back, Applied::Done(_)), "{taken_back:?}");
    assert_eq!(step(&world.state, &[]), MemberStep::Remove(id(4)));
}
