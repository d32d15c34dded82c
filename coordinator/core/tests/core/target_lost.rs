//! A target that dies between the decision of a switchover and its end: the one dead end that no command of a running group
//! leads out of. It has a name, and the way out is a human's word in a restored group.

use std::collections::BTreeMap;

use regent_core::advice;
use regent_core::application::Action;
use regent_core::decide::{Way, decide, look_at_order};
use regent_core::entry::{Clearing, Entry, Ground};
use regent_core::evidence::Evidence;
use regent_core::id::{CoordinatorId, Epoch, InstallationId, RunId};
use regent_core::restore::{AgentReport, restored};
use regent_core::run::{RunStatus, StepKind};
use regent_core::state::{State, Wish};
use regent_core::time::{Moment, Span, Timestamp};
use regent_core::verdict::Scene;

use crate::fixture::*;
use crate::running::{begin, end, find};
use crate::switching::{at, fenced, reach, ready};

const NOW: Moment = Moment(200_000);

/// Decided, and the target is silent from that moment on.
fn dead() -> (World, RunId) {
    let mut world = ready();
    let run = fenced(&mut world);
    reach(&mut world, run, "CatchUp db@central-1", at(1000));
    reach(&mut world, run, "CatchUp cache@central-1", at(50));
    world.done(world.decide(Ground::Switched { run }));
    begin(&mut world, run, "Promote db@central-1");
    for observer in [1, 2] {
        world.vote(observer, &central(), 1, Span::ZERO);
    }
    (world, run)
}

fn state_of(state: &State, run: RunId) -> &'static str {
    advice::of_run(state, &state.runs[&run]).state
}

/// The centre fell silent longer ago than the time bound, and the west is heard.
fn silent(world: &World) -> Evidence {
    let long_ago = NOW.before(Span::from_secs(60));
    let mut evidence = evidence(NOW, NOW);
    let contact = evidence.contacts.get_mut(&central()).unwrap();
    (contact.last_beat, contact.two_way, contact.reported) = (Some(long_ago), Some(long_ago), Some(long_ago));
    for contact in evidence.contacts.values_mut() {
        contact.beats.values_mut().for_each(|beat| beat.epoch = world.known().epoch);
    }
    let votes = world.state.votes[&central()].values().filter_map(|ballot| ballot.standing);
    evidence.votes_applied = votes.map(|vote| (vote.index, long_ago)).collect();
    evidence
}

#[test]
fn a_target_that_dies_after_the_decision_and_stays_dead_ends_in_a_named_state() {
    let (mut world, run) = dead();
    let told = advice::of_run(&world.state, &world.state.runs[&run]);
    assert_eq!(told.state, "target-lost");
    assert!(told.next.contains("central-1") && told.next.contains("no-target.md"), "{}", told.next);
    assert_eq!(advice::of_application(&world.state, &app(), world.known(), Timestamp(world.wall)).state, "target-lost");
    // The leader says so, too, and begins nothing.
    let entries = decide(&world.state, &silent(&world), view(NOW, &world));
    let refused = entries.iter().any(|entry| matches!(entry, Entry::Refused { rule, .. } if rule == "no-target"));
    assert!(refused, "{entries:?}");
    let moves =
        |entry: &Entry| matches!(entry, Entry::RunStarted { .. } | Entry::Decide { .. } | Entry::UndoBegun { .. });
    assert!(!entries.iter().any(moves), "{entries:?}");
    // Whatever is tried in vain, and however long that lasts, the word stays.
    let step = find(&world, run, "Promote db@central-1");
    let attempt = world.state.runs[&run].step(step).unwrap().1.attempts;
    world.wall += 24 * 3_600_000;
    end(&mut world, run, (step, attempt), failed(false));
    assert_eq!(world.state.runs[&run].status, RunStatus::Stuck);
    assert_eq!(state_of(&world.state, run), "target-lost");
    world.done(Entry::Cleared { run, step, how: Clearing::Retry, by: "ann".into(), reason: String::new() });
    assert_eq!((world.state.runs[&run].status, state_of(&world.state, run)), (RunStatus::Running, "target-lost"));
    // It comes back, and the run goes on by itself.
    world.done(withdraw(1, 1, &central(), 2));
    assert_eq!(state_of(&world.state, run), "past-return");
}

#[test]
fn no_word_of_an_operator_opens_the_side_that_the_decision_left_out() {
    let (mut world, run) = dead();
    let abort = Entry::Aborted { run, by: "ann".into(), reason: "back".into() };
    assert_eq!(world.refused(abort), "point-of-no-return");
    let rejoin = Entry::RejoinStarted { application: app(), cluster: west(), reclone: false, by: "ann".into() };
    assert_eq!(world.refused(rejoin), "run-under-way");
    let said = |text: &str| Some(text.to_owned());
    let wish = Wish {
        by: "ann".into(),
        to: west(),
        reason: "central-1 burns".into(),
        allow_data_loss: said("all of it"),
        attestation: said("it is off"),
    };
    let (name, evidence) = (app(), silent(&world));
    let scene = Scene::new(&world.state, &evidence, NOW, view(NOW, &world).me, &name).unwrap();
    let (candidate, way, refusals) = look_at_order(&scene, &wish);
    assert!(candidate.is_none() && way == Way::Lost, "{way:?}");
    assert!(refusals.iter().any(|rule| rule.code == "quarantined"), "{refusals:?}");
    // Nor does a decision that somebody proposes all the same.
    let mut decision = world.decide(Ground::Lost { votes: [].into() });
    if let Entry::Decide { to, .. } = &mut decision {
        *to = west();
    }
    assert_eq!(world.refused(decision), "not-a-target");
}

#[test]
fn a_switchover_whose_target_lives_or_that_has_ended_is_not_called_lost() {
    let mut world = ready();
    let run = fenced(&mut world);
    for observer in [1, 2] {
        world.vote(observer, &central(), 1, Span::ZERO);
    }
    assert_eq!(state_of(&world.state, run), "running", "before the decision it is undone");
    let mut world = ready();
    let run = crate::intervening::moved(&mut world);
    for observer in [1, 2] {
        world.vote(observer, &central(), 1, Span::ZERO);
    }
    assert_eq!(state_of(&world.state, run), "following", "it has opened");
}

#[test]
fn in_a_restored_group_a_humans_word_opens_it_above_all_that_was_seen() {
    let (world, _) = dead();
    let terms = world.known().terms.last().unwrap().clone();
    let mut group = world.copy();
    group.wall = 5_000_000;
    group.state = restored(&world.state, (1..=3).map(CoordinatorId).collect(), Timestamp(group.wall));
    let reports = BTreeMap::from([(
        west(),
        AgentReport {
            installation: InstallationId("iw".into()),
            seen: terms.epoch,
            token: terms.number,
            terms: Some(terms),
        },
    )]);
    let recovered = Entry::Recovered { application: app(), reports };
    assert_eq!(group.refused(recovered.clone()), "recovering", "the dead side has not reported");
    let (by, reason) = ("ann".to_owned(), "it burnt down".to_owned());
    group.done(Entry::AttestedOff { application: app(), cluster: central(), by: by.clone(), reason: reason.clone() });
    assert_eq!(group.refused(recovered.clone()), "recovering-primary", "nobody takes over by itself");
    group.done(Entry::PrimaryChosen { application: app(), cluster: west(), by, reason });
    group.done(recovered);
    assert_eq!((group.known().primary.clone(), group.known().epoch), (Some(west()), Epoch(3)));
    assert!(group.known().excluded.contains_key(&central()));
    let run = &group.state.runs[&group.known().run.unwrap()];
    let opens = run.steps.iter().filter(|step| step.kind == StepKind::Action(Action::Promote));
    assert_eq!(opens.filter(|step| step.cluster == west()).count(), 2);
}
