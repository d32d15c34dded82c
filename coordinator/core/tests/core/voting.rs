//! Votes, terms and grounds: what the state machine takes and what it refuses.

use regent_core::entry::{Agent, Entry, Ground};
use regent_core::id::{ApplicationId, CoordinatorId, Epoch, Incarnation, LogIndex, RunId};
use regent_core::lease::TimeBound;
use regent_core::time::Span;

use crate::fixture::*;

const SILENCE: Span = Span::from_secs(3);

#[test]
fn a_doubled_vote_is_ignored() {
    let mut world = World::protected();
    world.vote(1, &west(), 1, SILENCE);
    world.ignored(vote(1, 1, &west(), 1, SILENCE));
}

#[test]
fn a_withdrawal_that_overtakes_its_vote_wins() {
    let mut world = World::protected();
    world.done(withdraw(1, 1, &west(), 2));
    world.ignored(vote(1, 1, &west(), 1, SILENCE));
    assert_eq!(world.state.standing(&west(), CoordinatorId(1)), None);
}

#[test]
fn numbers_of_one_cluster_do_not_concern_another() {
    let mut world = World::protected();
    world.vote(1, &west(), 5, SILENCE);
    world.vote(1, &central(), 1, SILENCE);
    assert!(world.state.standing(&central(), CoordinatorId(1)).is_some());
}

#[test]
fn what_an_older_incarnation_has_in_flight_does_nothing() {
    let mut world = World::protected();
    world.done(Entry::ObserverStarted { observer: CoordinatorId(1), incarnation: Incarnation(2) });
    world.ignored(vote(1, 1, &west(), 1, SILENCE));
    world.ignored(withdraw(1, 1, &west(), 2));
}

#[test]
fn a_vote_goes_on_standing_until_the_new_incarnation_withdraws_it() {
    let mut world = World::protected();
    world.vote(1, &west(), 7, SILENCE);
    world.done(Entry::ObserverStarted { observer: CoordinatorId(1), incarnation: Incarnation(2) });
    assert!(world.state.standing(&west(), CoordinatorId(1)).is_some());
    world.done(withdraw(1, 2, &west(), 1));
    assert_eq!(world.state.standing(&west(), CoordinatorId(1)), None);
}

#[test]
fn an_incarnation_that_was_used_before_must_not_observe() {
    let mut world = World::protected();
    world.done(Entry::ObserverStarted { observer: CoordinatorId(1), incarnation: Incarnation(3) });
    let again = Entry::ObserverStarted { observer: CoordinatorId(1), incarnation: Incarnation(2) };
    assert_eq!(world.refused(again), "old-incarnation");
}

#[test]
fn a_majority_of_standing_votes_changes_the_primary() {
    let mut world = World::protected();
    let votes = [world.vote(1, &west(), 1, SILENCE), world.vote(2, &west(), 1, SILENCE)];
    world.done(world.lost(&votes));
    assert_eq!(world.known().epoch, Epoch(2));
    assert_eq!(world.known().primary, Some(central()));
    assert!(world.known().excluded.contains_key(&west()));
    assert!(world.known().run.is_some());
}

#[test]
fn one_vote_of_three_is_no_majority() {
    let mut world = World::protected();
    let vote = world.vote(1, &west(), 1, SILENCE);
    assert_eq!(world.refused(world.lost(&[vote])), "no-majority");
}

#[test]
fn the_very_votes_that_are_named_must_stand() {
    let mut world = World::protected();
    let first = world.vote(1, &west(), 1, SILENCE);
    let second = world.vote(2, &west(), 1, SILENCE);
    world.done(withdraw(2, 1, &west(), 2));
    world.vote(2, &west(), 3, SILENCE);
    assert_eq!(world.refused(world.lost(&[first, second])), "vote-withdrawn");
}

#[test]
fn votes_on_another_cluster_prove_nothing() {
    let mut world = World::protected();
    let votes = [world.vote(1, &central(), 1, SILENCE), world.vote(2, &central(), 1, SILENCE)];
    assert_eq!(world.refused(world.lost(&votes)), "vote-withdrawn");
}

#[test]
fn nothing_is_decided_by_itself_before_terms_are_confirmed() {
    let mut world = World::fresh();
    world.adopt();
    let votes = [world.vote(1, &west(), 1, SILENCE), world.vote(2, &west(), 1, SILENCE)];
    assert_eq!(world.refused(world.lost(&votes)), "nothing-confirmed");
}

#[test]
fn a_decision_across_a_change_of_terms_is_refused() {
    let mut world = World::protected();
    let votes = [world.vote(1, &west(), 1, SILENCE), world.vote(2, &west(), 1, SILENCE)];
    let decision = world.lost(&votes);
    let mut changed = document();
    changed.automation.bound = TimeBound::new(Span::from_secs(60));
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    assert_eq!(world.refused(decision), "newer-terms");
}

#[test]
fn a_lowered_bound_counts_only_once_it_is_confirmed() {
    let mut world = World::protected();
    let mut changed = document();
    changed.automation.bound = TimeBound::new(Span::from_secs(2));
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    let longest = |world: &World| regent_core::terms::Window::new(&world.known().terms).fail_over_after();
    assert_eq!(longest(&world), Span::from_secs(10));
    world.confirm(&west());
    assert_eq!(longest(&world), Span::from_secs(2));
}

#[test]
fn terms_are_confirmed_by_the_primary_of_their_epoch_only() {
    let mut world = World::fresh();
    world.adopt();
    let terms = world.known().terms.last().unwrap().number;
    let by = |at| Entry::TermsConfirmed {
        application: app(),
        terms,
        cluster: at,
        installation: regent_core::id::InstallationId("ic".into()),
        databases: databases(),
    };
    world.ignored(by(central()));
    world.ignored(by(west()));
    assert!(!world.known().confirmed);
}

#[test]
fn an_unconfirmed_end_of_a_pause_still_pauses() {
    let mut world = World::protected();
    world.done(Entry::Paused { application: None, by: "ann".into(), reason: "work".into() });
    world.confirm(&west());
    world.done(Entry::Resumed { application: None, by: "ann".into() });
    let votes = [world.vote(1, &west(), 1, SILENCE), world.vote(2, &west(), 1, SILENCE)];
    assert_eq!(world.refused(world.lost(&votes)), "paused");
    world.confirm(&west());
    world.done(world.lost(&votes));
}

#[test]
fn a_remote_fence_forbids_decisions_on_silence() {
    let mut world = World::fresh();
    let mut remote = agent(&west(), "iw");
    remote.endpoints.get_mut(&app()).unwrap().get_mut(&resource("db")).unwrap().remote_fence = true;
    world.done(Entry::AgentRegistered(remote));
    world.adopt();
    world.confirm(&west());
    let votes = [world.vote(1, &west(), 1, SILENCE), world.vote(2, &west(), 1, SILENCE)];
    assert_eq!(world.refused(world.lost(&votes)), "remote-fence");
}

#[test]
fn a_side_that_was_left_is_no_target_until_it_rejoins() {
    let mut world = World::protected();
    let votes = [world.vote(1, &west(), 1, SILENCE), world.vote(2, &west(), 1, SILENCE)];
    world.done(world.lost(&votes));
    world.confirm(&central());
    let votes = [world.vote(1, &central(), 1, SILENCE), world.vote(2, &central(), 1, SILENCE)];
    let Entry::Decide { application, from, terms, ground, finding, .. } = world.lost(&votes) else { unreachable!() };
    let back = Entry::Decide { application, from, to: west(), terms, ground, finding };
    assert_eq!(world.refused(back), "not-a-target");
}

#[test]
fn another_installation_of_an_agent_is_refused() {
    let mut world = World::protected();
    assert_eq!(world.refused(Entry::AgentRegistered(agent(&west(), "other"))), "foreign-installation");
}

#[test]
fn the_same_database_in_two_applications_is_refused() {
    let mut world = World::protected();
    let mut other = document();
    other.name = ApplicationId::new("other").unwrap();
    other.resources.remove(&resource("www"));
    world.done(Entry::Applied { application: Box::new(other), by: "ann".into() });
    let adopt =
        Entry::Adopt { application: ApplicationId::new("other").unwrap(), primary: west(), databases: databases() };
    assert_eq!(world.refused(adopt), "database-taken");
}

#[test]
fn a_document_that_would_move_the_primary_is_refused() {
    let mut world = World::protected();
    let mut changed = document();
    changed.clusters = vec![central(), cluster("north-1")];
    let entry = Entry::Applied { application: Box::new(changed), by: "ann".into() };
    assert_eq!(world.refused(entry), "would-move-primary");
}

#[test]
fn a_decision_without_a_run_that_fenced_is_refused() {
    let mut world = World::protected();
    let decision = world.decide(Ground::Fenced { run: RunId(LogIndex(3).0) });
    assert_eq!(world.refused(decision), "unknown-run");
}

#[test]
fn what_an_older_process_of_an_agent_had_in_flight_changes_nothing() {
    let mut world = World::protected();
    let process = |incarnation, boot: &str, address: &str| {
        let peer_address = address.into();
        let incarnation = Incarnation(incarnation);
        Entry::AgentRegistered(Agent { incarnation, boot: boot.into(), peer_address, ..agent(&west(), "iw") })
    };
    world.done(process(3, "here", "10.0.0.2:1"));
    assert_eq!(world.refused(process(2, "here", "10.0.0.1:1")), "agent-doubled");
    assert_eq!(world.refused(process(3, "there", "10.0.0.3:1")), "agent-doubled");
    assert_eq!(world.state.agents[&west()].peer_address, "10.0.0.2:1");
    let (serial, terms) = (world.state.dns_serial, world.known().terms.len());
    world.done(process(4, "here", "10.0.0.2:1"));
    assert_eq!((world.state.dns_serial, world.known().terms.len()), (serial, terms), "a restart changes no name");
}
