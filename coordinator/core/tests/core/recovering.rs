//! A group restored from a backup: what the agents have stored goes before what the backup says.

use std::collections::{BTreeMap, BTreeSet};

use regent_core::application::Action;
use regent_core::decide::decide;
use regent_core::entry::{Cause, Entry, Ground};
use regent_core::evidence::Evidence;
use regent_core::id::{ClusterId, CoordinatorId, Epoch, Incarnation, InstallationId, LogIndex, RunId, StepId, Token};
use regent_core::restore::{AgentReport, restored};
use regent_core::run::{RunStatus, StepKind, StepState};
use regent_core::state::State;
use regent_core::terms::Terms;
use regent_core::time::{Moment, Span, Timestamp};
use regent_core::why::{Verdict, explain};

use crate::fixture::*;

const NOW: Moment = Moment(1_000_000);
const SILENCE: Span = Span::from_secs(9);

/// What the lost group went on to after `backup`: the centre took over at epoch 2.
struct After {
    backup: State,
    west: Terms,
    central: Terms,
}

fn after_a_failover() -> After {
    let mut world = World::protected();
    let backup = world.state.clone();
    let west_terms = world.known().terms.last().unwrap().clone();
    let votes = [world.vote(1, &west(), 1, SILENCE), world.vote(2, &west(), 1, SILENCE)];
    world.done(world.lost(&votes));
    After { backup, west: west_terms, central: world.known().terms.last().unwrap().clone() }
}

pub fn begin(backup: &State) -> World {
    let mut world = World::fresh();
    world.state = restored(backup, (1..=3).map(CoordinatorId).collect(), Timestamp(5_000_000));
    world.wall = 5_000_000;
    world
}

pub fn report(installation: &str, terms: Option<&Terms>) -> AgentReport {
    AgentReport {
        installation: InstallationId(installation.into()),
        seen: terms.map_or(Epoch(0), |terms| terms.epoch),
        token: terms.map_or_else(Token::default, |terms| terms.number),
        terms: terms.cloned(),
    }
}

fn recovered(west_terms: Option<&Terms>, central_terms: Option<&Terms>) -> Entry {
    let reports = BTreeMap::from([(west(), report("iw", west_terms)), (central(), report("ic", central_terms))]);
    Entry::Recovered { application: app(), reports }
}

#[test]
fn an_old_backup_brings_no_old_primary_back() {
    let after = after_a_failover();
    let mut world = begin(&after.backup);
    assert_eq!(world.known().primary, None, "nothing is granted");
    assert!(world.known().terms.is_empty(), "no terms go out");
    world.done(recovered(Some(&after.west), Some(&after.central)));
    assert_eq!(world.known().primary, Some(central()));
    assert_eq!(world.known().epoch, Epoch(3), "above all that was seen");
    assert!(world.known().excluded.contains_key(&west()), "the side that was left stays out");
    let number = world.known().terms.last().unwrap().number;
    assert!(number > after.central.number, "{number} is not above {}", after.central.number);
    assert!(!world.known().confirmed, "nothing is decided before the agent counts by it");
}

#[test]
fn what_was_open_is_opened_again_and_nobody_is_asked_to_fence() {
    let after = after_a_failover();
    let mut world = begin(&after.backup);
    world.done(recovered(Some(&after.west), Some(&after.central)));
    let run = &world.state.runs[&world.known().run.unwrap()];
    assert_eq!((&run.cause, &run.to), (&Cause::Recovered, &central()));
    assert!(matches!(run.decided.as_ref().map(|decided| &decided.ground), Some(Ground::Recovered)));
    let promoted: BTreeSet<_> = run
        .steps
        .iter()
        .filter(|step| step.kind == StepKind::Action(Action::Promote))
        .filter_map(|step| step.resource.clone())
        .collect();
    assert_eq!(promoted, world.known().document.guarded());
    assert!(run.steps.iter().all(|step| step.cluster == central()), "the other side is left alone");
    assert!(run.steps.iter().all(|step| !matches!(
        step.kind,
        StepKind::Action(Action::Fence | Action::Restore | Action::Run | Action::Approve) | StepKind::Decide
    )));
    let (id, step) = (run.id, StepId(0));
    world.done(Entry::StepIntent { run: id, step, attempt: regent_core::id::Attempt(1) });
    let token = world.state.runs[&id].step(step).unwrap().1.token.unwrap();
    assert!(token > after.central.number, "{token}");
}

#[test]
fn until_all_have_reported_nothing_happens() {
    let after = after_a_failover();
    let mut world = begin(&after.backup);
    let half = BTreeMap::from([(west(), report("iw", Some(&after.west)))]);
    assert_eq!(world.refused(Entry::Recovered { application: app(), reports: half.clone() }), "recovering");
    let stranger = BTreeMap::from([
        (west(), report("iw", Some(&after.west))),
        (central(), report("another", Some(&after.central))),
    ]);
    assert_eq!(world.refused(Entry::Recovered { application: app(), reports: stranger }), "recovering");
    assert_eq!(
        world.refused(Entry::Adopt { application: app(), primary: west(), databases: databases() }),
        "recovering"
    );
    let rejoin = Entry::RejoinStarted { application: app(), cluster: west(), reclone: false, by: "ann".into() };
    assert_eq!(world.refused(rejoin), "recovering");
    for id in 1..=3 {
        world.done(Entry::ObserverStarted { observer: CoordinatorId(id), incarnation: Incarnation(1) });
    }
    let mut seen = evidence(NOW, NOW);
    assert_eq!(proposed(&world, &seen), vec![], "the agents have said nothing of what they have stored");
    store(&mut seen, &west(), report("iw", Some(&after.west)));
    assert_eq!(held(&world, &seen), ("recovering".into(), true));
    store(&mut seen, &central(), report("ic", Some(&after.central)));
    assert_eq!(proposed(&world, &seen), vec![recovered(Some(&after.west), Some(&after.central))]);

    // A cluster that the backup's document does not list may have been promoted: it is asked, too.
    let mut wider = after.central.clone();
    let listed = wider.clusters[&central()].clone();
    wider.clusters.insert(cluster("south-1"), listed);
    assert_eq!(world.refused(recovered(Some(&after.west), Some(&wider))), "recovering");
}

fn store(evidence: &mut Evidence, at: &ClusterId, report: AgentReport) {
    let contact = evidence.contacts.get_mut(at).unwrap();
    contact.stored = Some(BTreeMap::from([(app(), report)]));
}

fn proposed(world: &World, evidence: &Evidence) -> Vec<Entry> {
    decide(&world.state, evidence, view(NOW, world))
}

/// The rule that `why` names first, and whether it names the centre's agent.
fn held(world: &World, evidence: &Evidence) -> (String, bool) {
    let explanation = explain(&world.state, evidence, view(NOW, world), &app()).unwrap();
    assert_eq!((explanation.would_start, explanation.verdict), (false, Verdict::Unknown));
    let rule = &explanation.held_by[0];
    (rule.code.clone(), rule.detail.contains("central-1"))
}

#[test]
fn a_lost_cluster_is_attested_off_and_stays_out() {
    let after = after_a_failover();
    let mut world = begin(&after.backup);
    let off = |cluster: ClusterId| Entry::AttestedOff {
        application: app(),
        cluster,
        by: "ann".into(),
        reason: "its volumes are detached".into(),
    };
    world.done(off(west()));
    let central_only = BTreeMap::from([(central(), report("ic", Some(&after.central)))]);
    world.done(Entry::Recovered { application: app(), reports: central_only });
    assert_eq!((world.known().primary.clone(), world.known().epoch), (Some(central()), Epoch(3)));
    assert!(world.known().excluded[&west()].contains("ann"), "{:?}", world.known().excluded);

    // The primary itself is off: nobody takes over without a human's word.
    let mut other = begin(&after.backup);
    other.done(off(central()));
    let west_only = |reports: &Terms| Entry::Recovered {
        application: app(),
        reports: BTreeMap::from([(west(), report("iw", Some(reports)))]),
    };
    // The agent that is left has heard of epoch 2, whose primary is off.
    assert_eq!(other.refused(west_only(&after.central)), "recovering-primary");
    other.done(Entry::PrimaryChosen {
        application: app(),
        cluster: west(),
        by: "ann".into(),
        reason: "it is left".into(),
    });
    other.done(west_only(&after.central));
    assert_eq!((other.known().primary.clone(), other.known().epoch), (Some(west()), Epoch(3)));
    assert!(other.known().excluded.contains_key(&central()));
}

#[test]
fn two_primaries_at_one_epoch_are_a_humans_decision() {
    let after = after_a_failover();
    let mut world = begin(&after.backup);
    let mut contradicting = after.central.clone();
    contradicting.primary = west();
    let both = recovered(Some(&contradicting), Some(&after.central));
    assert_eq!(world.refused(both.clone()), "two-primaries-reported");
    world.done(Entry::PrimaryChosen {
        application: app(),
        cluster: central(),
        by: "ann".into(),
        reason: "newer".into(),
    });
    world.done(both);
    assert_eq!(world.known().primary, Some(central()));
    assert!(world.known().excluded.contains_key(&west()));
}

#[test]
fn a_human_moves_no_primary_that_reports() {
    let after = after_a_failover();
    let mut world = begin(&after.backup);
    world.done(Entry::PrimaryChosen {
        application: app(),
        cluster: west(),
        by: "ann".into(),
        reason: "I like it".into(),
    });
    assert_eq!(world.refused(recovered(Some(&after.west), Some(&after.central))), "recovering-primary");
}

#[test]
fn a_document_that_is_older_than_what_is_guarded_is_handed_in_first() {
    let after = after_a_failover();
    let mut old = after.backup.clone();
    let known = old.applications.get_mut(&app()).unwrap();
    known.document.resources.remove(&resource("cache"));
    let mut world = begin(&old);
    assert_eq!(world.refused(recovered(Some(&after.west), Some(&after.central))), "document-older");
    world.done(Entry::Applied { application: Box::new(document()), by: "ann".into() });
    world.done(recovered(Some(&after.west), Some(&after.central)));
}

#[test]
fn nothing_of_the_backup_is_issued_again() {
    let mut world = World::protected();
    let votes = [world.vote(1, &west(), 1, SILENCE), world.vote(2, &west(), 1, SILENCE)];
    world.done(world.lost(&votes));
    let run = world.known().run.unwrap();
    assert_eq!(world.state.runs[&run].status, RunStatus::Running);
    let state = restored(&world.state, (1..=3).map(CoordinatorId).collect(), Timestamp(9));
    assert_eq!(state.runs[&run].status, RunStatus::Superseded);
    assert!(state.runs[&run].walk().all(|(_, progress)| progress.state != StepState::Running));
    assert_eq!(state.standing_votes().count(), 0);
    assert!(state.applied > world.state.applied && state.restoration == 1);
    assert_eq!(state.applied, LogIndex(1_000_000));
    assert!(state.runs.keys().all(|old| *old < RunId(state.applied.0)), "numbers of runs are not used again");
    // And once more, before anybody was heard: the backup's own word is kept.
    let again = restored(&state, (1..=3).map(CoordinatorId).collect(), Timestamp(10));
    assert_eq!((again.restoration, again.applied), (2, LogIndex(2_000_000)));
    let recovering = again.applications[&app()].recovering.clone().unwrap();
    assert_eq!((recovering.epoch, recovering.primary), (Epoch(2), Some(central())));
}

#[test]
fn the_restoration_is_above_any_that_agents_report() {
    let after = after_a_failover();
    let mut world = begin(&after.backup);
    let mut newer = after.central.clone();
    newer.number = Token { restoration: 4, index: LogIndex(9) };
    world.done(recovered(Some(&after.west), Some(&newer)));
    assert_eq!(world.state.restoration, 5);
    assert_eq!(world.known().terms.last().unwrap().number.restoration, 5);
}

#[test]
fn without_any_terms_the_backups_word_counts_and_without_that_it_is_adopted() {
    let after = after_a_failover();
    let mut world = begin(&after.backup);
    world.done(recovered(None, None));
    assert_eq!((world.known().primary.clone(), world.known().epoch), (Some(west()), Epoch(2)));

    let mut fresh = begin(&World::fresh().state);
    assert!(fresh.known().recovering.is_some());
    fresh.done(recovered(None, None));
    assert_eq!(fresh.known().epoch, Epoch(0));
    fresh.adopt();
    assert_eq!(fresh.known().epoch, Epoch(1));
}

#[test]
fn a_document_that_a_restored_group_has_never_seen_recovers_first() {
    let mut empty = World::fresh().state;
    empty.applications.clear();
    let mut world = begin(&empty);
    world.done(Entry::Applied { application: Box::new(document()), by: "ann".into() });
    let after = after_a_failover();
    let adopt = Entry::Adopt { application: app(), primary: west(), databases: databases() };
    assert_eq!(world.refused(adopt), "recovering", "its agents may have a former life of it stored");
    world.done(recovered(Some(&after.west), Some(&after.central)));
    assert_eq!((world.known().primary.clone(), world.known().epoch), (Some(central()), Epoch(3)));
}
