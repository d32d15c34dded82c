//! Failovers that a human has a word in: who may order and confirm what, and the way that each goes.

use regent_core::advice;
use regent_core::application::{Mode, OnSilence};
use regent_core::decide::{Way, decide, look_at_order};
use regent_core::entry::{Cause, Entry, Finding, Ground};
use regent_core::evidence::Evidence;
use regent_core::id::{Epoch, LogIndex};
use regent_core::run::RunStatus;
use regent_core::state::{ORDER_STANDS, OrderState, Wish};
use regent_core::time::{Span, Timestamp};
use regent_core::verdict::Scene;
use regent_core::why;

use crate::fixture::*;
use crate::running::perform;
use crate::switching::{NOW, well};

pub fn wish() -> Wish {
    Wish { by: "ann".into(), to: central(), reason: "it burns".into(), allow_data_loss: None, attestation: None }
}

fn attested() -> Wish {
    Wish { attestation: Some("the power is off, says the site team".into()), ..wish() }
}

fn ordered(world: &World, wish: Wish) -> Entry {
    Entry::FailoverOrdered { application: app(), epoch: world.known().epoch, wish }
}

pub fn order(world: &mut World, wish: Wish) -> LogIndex {
    let entry = ordered(world, wish);
    world.done(entry)
}

pub fn yes(order: LogIndex, by: &str) -> Entry {
    Entry::OrderApproved { application: app(), order, by: by.into(), reason: "by phone".into() }
}

/// Protected, with other settings.
fn with(change: impl FnOnce(&mut regent_core::application::Automation)) -> World {
    let mut world = World::protected();
    let mut changed = document();
    change(&mut changed.automation);
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    world
}

pub fn proposals(world: &World, evidence: &Evidence) -> Vec<Entry> {
    decide(&world.state, evidence, view(NOW, world))
}

/// The west has been silent for so long; two coordinators vote.
fn silent(world: &mut World, lasted: Span, votes: bool) -> Evidence {
    let mut evidence = evidence(NOW, NOW.before(lasted));
    if votes {
        for observer in [1, 2] {
            let index = world.vote(observer, &west(), 1, Span::ZERO);
            evidence.votes_applied.insert(index, NOW.before(lasted));
        }
    }
    evidence
}

fn look(world: &World, evidence: &Evidence, wish: &Wish) -> (Way, Vec<String>) {
    let name = app();
    let scene = Scene::new(&world.state, evidence, NOW, view(NOW, world).me, &name).unwrap();
    let (_, way, refusals) = look_at_order(&scene, wish);
    (way, refusals.into_iter().map(|rule| rule.code).collect())
}

#[test]
fn where_the_agent_answers_it_is_told_to_fence_first() {
    let mut world = World::protected();
    assert_eq!(look(&world, &well(), &wish()), (Way::Fence, vec![]));
    let id = order(&mut world, wish());
    let entries = proposals(&world, &well());
    let [start @ Entry::RunStarted { cause: Cause::Forced { by, reason }, to, .. }] = &entries[..] else {
        panic!("{entries:?}")
    };
    assert_eq!((by.as_str(), reason.as_str(), to), ("ann", "it burns", &central()));
    world.done(start.clone());
    let run = world.known().run.unwrap();
    assert_eq!(world.known().order.as_ref().unwrap().run, Some(run));
    assert_eq!(world.refused(ordered(&world, wish())), "order-stands");
    assert!(matches!(&proposals(&world, &well())[..], [Entry::StepIntent { .. }, ..]), "its run goes on");
    perform(&mut world, run, "Fence db@west-1");
    perform(&mut world, run, "Fence cache@west-1");
    let entries = proposals(&world, &well());
    let [decision @ Entry::Decide { ground: Ground::Fenced { .. }, .. }] = &entries[..] else { panic!("{entries:?}") };
    world.done(decision.clone());
    let known = world.known();
    assert_eq!((known.primary.clone(), known.order.clone(), known.cooling_since), (Some(central()), None, None));
    assert_eq!(world.state.runs[&run].order.as_ref().unwrap().id, id, "the run tells of it for good");
    perform(&mut world, run, "Promote db@central-1");
    assert!(world.known().cooling_since.is_none(), "an order cools nothing down");
}

#[test]
fn where_it_is_silent_the_votes_and_the_time_bound_decide() {
    let mut world = with(|automation| automation.mode = Mode::Manual);
    order(&mut world, wish());
    let early = silent(&mut world, Span::from_secs(9), true);
    assert_eq!(look(&world, &early, &wish()).0, Way::Lost);
    assert!(proposals(&world, &early).iter().all(|entry| !matches!(entry, Entry::Decide { .. })));
    let mut late = evidence(NOW, NOW.before(Span::from_secs(30)));
    late.votes_applied = early.votes_applied.keys().map(|index| (*index, NOW.before(Span::from_secs(30)))).collect();
    let entries = proposals(&world, &late);
    let [decision @ Entry::Decide { ground: Ground::Lost { .. }, .. }] = &entries[..] else { panic!("{entries:?}") };
    world.done(decision.clone());
    let run = &world.state.runs[&world.known().run.unwrap()];
    assert!(matches!(&run.cause, Cause::Forced { by, .. } if by == "ann"), "{:?}", run.cause);
    assert!(run.order.is_some() && world.known().order.is_none());
}

#[test]
fn by_attestation_only_where_neither_is_to_be_had() {
    let mut world = World::protected();
    // The agent answers, or the votes can still come: the attestation counts nothing.
    assert_eq!(look(&world, &well(), &attested()).0, Way::Fence);
    let quiet = silent(&mut world, Span::from_secs(15), false);
    assert_eq!(look(&world, &quiet, &attested()).0, Way::Lost);
    order(&mut world, attested());
    assert!(proposals(&world, &quiet).iter().all(|entry| !matches!(entry, Entry::Decide { .. })));
    // No majority votes, although it has been silent for twice the bound.
    let dead = silent(&mut world, Span::from_secs(21), false);
    assert!(matches!(look(&world, &dead, &attested()).0, Way::Forced(why) if why.contains("no majority")));
    let entries = proposals(&world, &dead);
    let [decision @ Entry::Decide { ground: Ground::Forced { operator, second, .. }, .. }] = &entries[..] else {
        panic!("{entries:?}")
    };
    assert_eq!((operator.as_str(), second), ("ann", &None));
    world.done(decision.clone());
    assert_eq!((world.known().primary.clone(), world.known().epoch), (Some(central()), Epoch(2)));
    let record = world.state.audit.iter().rev().find(|record| record.event == "decided").unwrap();
    assert!(record.actor == "ann" && record.detail.contains("the power is off"), "{record:?}");
}

#[test]
fn what_still_lives_contradicts_an_attestation() {
    let mut world = World::protected();
    order(&mut world, attested());
    let mut alive = silent(&mut world, Span::from_secs(21), false);
    let standby = alive.contacts.get_mut(&central()).unwrap().resources.get_mut(&app()).unwrap();
    let upstream = standby.get_mut(&resource("db")).unwrap().upstream.as_mut().unwrap();
    (upstream.connected, upstream.last_heard) = (true, Some(NOW));
    assert!(proposals(&world, &alive).iter().all(|entry| !matches!(entry, Entry::Decide { .. })));
}

#[test]
fn without_an_attestation_it_is_refused_where_only_that_would_do() {
    let mut world = World::protected();
    let dead = silent(&mut world, Span::from_secs(21), false);
    assert_eq!(look(&world, &dead, &wish()).1, ["attestation-missing"]);
    assert_eq!(look(&world, &dead, &attested()).1, Vec::<String>::new());
}

#[test]
fn the_state_machine_takes_no_forced_decision_without_the_order_of_these_very_people() {
    let forced = |world: &World, operator: &str, second: Option<&str>| {
        world.decide(Ground::Forced {
            operator: operator.into(),
            second: second.map(str::to_owned),
            attestation: "the power is off, says the site team".into(),
            reason: "it burns".into(),
        })
    };
    let mut world = with(|automation| automation.two_person = true);
    let entry = forced(&world, "ann", Some("bob"));
    assert_eq!(world.refused(entry), "no-order");
    let id = order(&mut world, attested());
    assert_eq!(world.known().order.as_ref().unwrap().state, OrderState::Asked);
    let entry = forced(&world, "ann", None);
    assert_eq!(world.refused(entry), "no-order", "it is not confirmed");
    assert_eq!(world.refused(yes(id, "ann")), "same-person");
    assert_eq!(world.refused(yes(LogIndex(id.0 + 1), "bob")), "no-order");
    world.done(yes(id, "bob"));
    world.ignored(yes(id, "carol"));
    for (operator, second) in [("eve", Some("bob")), ("ann", Some("eve")), ("ann", None)] {
        let entry = forced(&world, operator, second);
        assert_eq!(world.refused(entry), "no-order", "{operator} {second:?}");
    }
    let unsaid = world.decide(Ground::Forced {
        operator: "ann".into(),
        second: Some("bob".into()),
        attestation: " ".into(),
        reason: "it burns".into(),
    });
    assert_eq!(world.refused(unsaid), "attestation-missing");
    let entry = forced(&world, "ann", Some("bob"));
    world.done(entry);
    // A document that begins to want two people after the order was given.
    let mut world = World::protected();
    order(&mut world, attested());
    let mut changed = document();
    changed.automation.two_person = true;
    world.done(Entry::Applied { application: Box::new(changed), by: "carol".into() });
    let entry = forced(&world, "ann", None);
    assert_eq!(world.refused(entry), "second-person-missing");
}

/// The document, with or without two people, by this one.
fn wants_two(wanted: bool, by: &str) -> Entry {
    let mut changed = document();
    changed.automation.two_person = wanted;
    Entry::Applied { application: Box::new(changed), by: by.into() }
}

fn by(operator: &str) -> Wish {
    Wish { by: operator.into(), ..attested() }
}

/// Whether an order of this operator waits for a second person; it is taken back at once.
fn waits(world: &mut World, operator: &str) -> bool {
    let id = order(world, by(operator));
    let waits = !world.known().order.as_ref().unwrap().is_given();
    let back = Entry::OrderClosed {
        application: app(),
        order: id,
        by: operator.into(),
        reason: "not needed".into(),
        by_human: true,
    };
    world.done(back);
    waits
}

fn drops(world: &World) -> Vec<(&str, &str)> {
    let dropped = world.state.audit.iter().filter(|record| record.event == "two-person-dropped");
    dropped.map(|record| (record.actor.as_str(), record.detail.as_str())).collect()
}

#[test]
fn whoever_drops_the_second_person_still_needs_one() {
    let mut world = with(|automation| automation.two_person = true);
    assert!(drops(&world).is_empty() && waits(&mut world, "ann"));
    world.done(wants_two(false, "eve"));
    assert!(matches!(&drops(&world)[..], [("eve", detail)] if detail.contains("still waits for a second person")));
    assert!(waits(&mut world, "eve"), "one person alone would have done both");
    assert!(!waits(&mut world, "ann"), "eve and ann are two");
    // Her other changes make no second person of her.
    let mut changed = document();
    changed.automation.max_data_loss = Span::from_secs(9);
    world.done(Entry::Applied { application: Box::new(changed.clone()), by: "eve".into() });
    world.ignored(Entry::Applied { application: Box::new(changed.clone()), by: "eve".into() });
    assert!(waits(&mut world, "eve"));
    let id = order(&mut world, by("eve"));
    assert_eq!(world.refused(yes(id, "eve")), "same-person");
    world.done(yes(id, "bob"));
    world.done(Entry::OrderClosed {
        application: app(),
        order: id,
        by: "bob".into(),
        reason: "no".into(),
        by_human: true,
    });
    // Another person applies the very same.
    let revision = world.known().revision;
    world.done(Entry::Applied { application: Box::new(changed.clone()), by: "bob".into() });
    assert_eq!((drops(&world).len(), world.known().revision), (2, revision));
    assert!(!waits(&mut world, "eve"), "two people have dropped it");
    world.ignored(Entry::Applied { application: Box::new(changed), by: "carol".into() });
}

#[test]
fn two_people_are_wanted_again_and_dropped_again() {
    let mut world = with(|automation| automation.two_person = true);
    world.done(wants_two(false, "eve"));
    world.done(wants_two(true, "eve"));
    assert!(waits(&mut world, "ann") && world.known().dropped.is_none());
    world.done(wants_two(false, "bob"));
    assert!(waits(&mut world, "bob") && !waits(&mut world, "eve"));
    // A document of another person that does not want it either is as good.
    let mut changed = document();
    changed.automation.max_data_loss = Span::from_secs(9);
    world.done(Entry::Applied { application: Box::new(changed), by: "eve".into() });
    assert!(!waits(&mut world, "bob") && world.known().dropped.is_none());
}

#[test]
fn an_order_that_needed_nobody_does_not_outlive_the_drop_by_its_author() {
    let mut world = World::protected();
    order(&mut world, by("eve"));
    assert!(world.known().order.as_ref().unwrap().is_given());
    world.done(wants_two(true, "carol"));
    world.done(wants_two(false, "eve"));
    let entry = world.decide(Ground::Forced {
        operator: "eve".into(),
        second: None,
        attestation: by("eve").attestation.unwrap(),
        reason: "it burns".into(),
    });
    assert_eq!(world.refused(entry), "second-person-missing");
}

#[test]
fn a_loss_beyond_the_limit_needs_a_word_that_counts_once() {
    let mut world = with(|automation| automation.two_person = true);
    let mut behind = well();
    let standby = behind.contacts.get_mut(&central()).unwrap().resources.get_mut(&app()).unwrap();
    let database = standby.get_mut(&resource("db")).unwrap();
    database.position = Some(1);
    database.upstream.as_mut().unwrap().lag = Some(Span::from_secs(600));
    assert_eq!(look(&world, &behind, &wish()).1, ["beyond-max-data-loss"]);
    let allowed = Wish { allow_data_loss: Some("agreed with the CTO".into()), ..wish() };
    assert_eq!(look(&world, &behind, &allowed).1, Vec::<String>::new());
    let id = order(&mut world, allowed);
    assert!(proposals(&world, &behind).is_empty(), "it waits for a second person");
    world.done(yes(id, "bob"));
    let entries = proposals(&world, &behind);
    let [start @ Entry::RunStarted { finding, .. }] = &entries[..] else { panic!("{entries:?}") };
    assert!(finding.reasons.iter().any(|reason| reason.contains("agreed with the CTO")));
    assert!(finding.reasons.contains(&"bob confirmed it".to_owned()));
    world.done(start.clone());
    let run = world.known().run.unwrap();
    perform(&mut world, run, "Fence db@west-1");
    perform(&mut world, run, "Fence cache@west-1");
    let entries = proposals(&world, &behind);
    let [decision @ Entry::Decide { ground: Ground::Fenced { .. }, .. }] = &entries[..] else { panic!("{entries:?}") };
    world.done(decision.clone());
    let order = world.state.runs[&run].order.clone().unwrap();
    assert_eq!(
        (order.second(), order.wish().unwrap().allow_data_loss.as_deref()),
        (Some("bob"), Some("agreed with the CTO"))
    );
    assert!(world.known().order.is_none(), "for this run only");
}

#[test]
fn an_order_without_an_answer_or_a_way_expires_and_one_can_be_taken_back() {
    let mut world = with(|automation| automation.two_person = true);
    let id = order(&mut world, attested());
    world.ignored(Entry::OrderTimedOut { application: app(), order: id });
    assert!(proposals(&world, &well()).is_empty());
    world.wall += i64::try_from(ORDER_STANDS.millis()).unwrap();
    let entries = proposals(&world, &well());
    assert_eq!(entries, [Entry::OrderTimedOut { application: app(), order: id }]);
    world.done(entries[0].clone());
    assert!(world.known().order.is_none());
    let record = world.state.audit.back().unwrap();
    assert!(record.event == "order-closed" && record.detail.contains("no second person"), "{record:?}");
    assert_eq!(world.refused(yes(id, "bob")), "no-order");

    let again = order(&mut world, wish());
    let back = Entry::OrderClosed {
        application: app(),
        order: again,
        by: "ann".into(),
        reason: "not needed".into(),
        by_human: true,
    };
    world.done(back);
    assert!(world.known().order.is_none());
}

#[test]
fn an_order_ends_with_its_epoch_and_with_its_run() {
    let mut world = World::protected();
    order(&mut world, wish());
    // Somebody else decided first, to where it wished: it is done. To elsewhere it could not be told from this, so the
    // audit says which run took it along.
    let votes = [world.vote(1, &west(), 1, Span::ZERO), world.vote(2, &west(), 1, Span::ZERO)];
    world.done(world.lost(&votes));
    assert!(world.known().order.is_none());

    let mut world = World::protected();
    order(&mut world, wish());
    let start = proposals(&world, &well()).remove(0);
    world.done(start);
    let run = world.known().run.unwrap();
    perform(&mut world, run, "Fence db@west-1");
    world.done(Entry::Aborted { run, by: "bob".into(), reason: "stop".into() });
    perform(&mut world, run, "Unfence db@west-1");
    perform(&mut world, run, "Unfence cache@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Undone);
    assert!(world.known().order.is_none(), "it does not begin again by itself");
}

#[test]
fn nobody_begins_an_operators_failover_without_an_order() {
    let mut world = World::protected();
    let start = |world: &World| Entry::RunStarted {
        application: app(),
        epoch: world.known().epoch,
        cause: Cause::Forced { by: "eve".into(), reason: "because".into() },
        to: central(),
        finding: Finding::default(),
        plan: None,
    };
    let entry = start(&world);
    assert_eq!(world.refused(entry), "no-order");
    let bad = Wish { to: west(), ..wish() };
    assert_eq!(world.refused(ordered(&world, bad)), "same-cluster");
    let bad = Wish { to: cluster("north-1"), ..wish() };
    assert_eq!(world.refused(ordered(&world, bad)), "unlisted-cluster");
    let bad = Wish { allow_data_loss: Some(" ".into()), ..wish() };
    assert_eq!(world.refused(ordered(&world, bad)), "attestation-missing");
}

#[test]
fn a_pause_holds_an_order_and_does_not_lose_it() {
    let mut world = World::protected();
    order(&mut world, wish());
    world.done(Entry::Paused { application: Some(app()), by: "bob".into(), reason: "wait".into() });
    assert!(proposals(&world, &well()).is_empty());
    assert_eq!(look(&world, &well(), &wish()).1, ["paused", "order-stands"]);
    world.done(Entry::Resumed { application: Some(app()), by: "bob".into() });
    world.confirm(&west());
    assert!(matches!(&proposals(&world, &well())[..], [Entry::RunStarted { .. }]));
}

/// Votes stand and the bound has passed, and the document asks.
pub fn asking(on_silence: OnSilence) -> (World, Evidence) {
    let mut world = with(|automation| {
        automation.mode = Mode::Approve;
        automation.approve_within = Span::from_secs(60);
        automation.on_silence = on_silence;
    });
    let evidence = silent(&mut world, Span::from_secs(15), true);
    (world, evidence)
}

#[test]
fn a_failover_that_is_due_asks_and_starts_with_a_yes() {
    let (mut world, evidence) = asking(OnSilence::Refuse);
    let entries = proposals(&world, &evidence);
    let Some(question) = entries.iter().find(|entry| matches!(entry, Entry::FailoverDue { .. })) else {
        panic!("{entries:?}")
    };
    let id = world.done(question.clone());
    world.ignored(question.clone());
    let record = world.state.audit.iter().find(|record| record.event == "failover-asked").unwrap();
    assert!(record.detail.contains("have not heard the agent of west-1"), "{record:?}");
    let advice = advice::of_application(&world.state, &app(), world.known(), Timestamp(world.wall));
    assert!(advice.state == "asking" && advice.next.contains("regentctl approve shop"), "{advice:?}");
    let explained = why::explain(&world.state, &evidence, view(NOW, &world), &app()).unwrap();
    assert_eq!(explained.held_by.iter().map(|rule| rule.code.as_str()).collect::<Vec<_>>(), ["mode-approve"]);
    assert!(proposals(&world, &evidence).iter().all(|entry| !matches!(entry, Entry::Decide { .. })));
    world.done(yes(id, "ann"));
    let entries = proposals(&world, &evidence);
    let Some(decision @ Entry::Decide { ground: Ground::Lost { .. }, .. }) = entries.first() else {
        panic!("{entries:?}")
    };
    world.done(decision.clone());
    let run = &world.state.runs[&world.known().run.unwrap()];
    assert_eq!((run.cause.clone(), run.order.as_ref().unwrap().second()), (Cause::RegionLost, Some("ann")));
    assert!(world.known().order.is_none());
}

#[test]
fn silence_is_no_yes_unless_the_document_says_so() {
    let (mut world, evidence) = asking(OnSilence::Refuse);
    let question = |world: &World, evidence: &Evidence| {
        let found = proposals(world, evidence).into_iter().find(|entry| matches!(entry, Entry::FailoverDue { .. }));
        found.unwrap()
    };
    let entry = question(&world, &evidence);
    let id = world.done(entry);
    world.wall += 60_000;
    let over = Entry::OrderTimedOut { application: app(), order: id };
    assert!(proposals(&world, &evidence).contains(&over));
    world.done(over.clone());
    assert_eq!(world.known().order.as_ref().unwrap().state, OrderState::Silent);
    world.wall += 600_000;
    assert!(!proposals(&world, &evidence).contains(&over), "it is said once");
    world.done(yes(id, "ann"));
    assert!(matches!(&proposals(&world, &evidence)[..], [Entry::Decide { .. }, ..]), "a late yes counts");

    let (mut world, evidence) = asking(OnSilence::Proceed);
    let entry = question(&world, &evidence);
    let id = world.done(entry);
    world.wall += 60_000;
    world.done(Entry::OrderTimedOut { application: app(), order: id });
    let record = world.state.audit.back().unwrap();
    assert!(record.event == "silence-proceeds" && record.detail.contains("nobody has answered"), "{record:?}");
    assert!(matches!(&proposals(&world, &evidence)[..], [Entry::Decide { .. }, ..]));
}

#[test]
fn a_question_is_closed_when_its_reason_is_gone_and_not_before_somebody_looked() {
    let (mut world, evidence) = asking(OnSilence::Refuse);
    let question = proposals(&world, &evidence).into_iter().find(|entry| matches!(entry, Entry::FailoverDue { .. }));
    world.done(question.unwrap());
    for observer in [1, 2] {
        world.done(withdraw(observer, 1, &west(), 2));
    }
    let mut unlooked = well();
    unlooked.leading_since = Some(NOW);
    assert!(proposals(&world, &unlooked).iter().all(|entry| !matches!(entry, Entry::OrderClosed { .. })));
    let entries = proposals(&world, &well());
    let Some(closed @ Entry::OrderClosed { by, .. }) =
        entries.iter().find(|entry| matches!(entry, Entry::OrderClosed { .. }))
    else {
        panic!("{entries:?}")
    };
    assert_eq!(by, "leader");
    world.done(closed.clone());
    assert!(world.known().order.is_none());
}
