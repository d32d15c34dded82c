//! Switchovers: nothing is decided before the new side has what the old one reported last, and all before is undone.

use regent_core::application::{Action, DnsProvider, Runbook};
use regent_core::cause::is_only_fencing;
use regent_core::decide::{Ending, decide, foresee};
use regent_core::entry::{Cause, Entry, Finding, Ground, Outcome, Report};
use regent_core::evidence::{Evidence, Health, LeaseState};
use regent_core::id::{Attempt, Epoch, RunId};
use regent_core::run::{RunStatus, StepKind, StepState};
use regent_core::switchover::{Purpose, preflight};
use regent_core::time::{Moment, Span};
use regent_core::verdict::Scene;

use crate::fixture::*;
use crate::running::{begin, due, end, find, perform};

pub const NOW: Moment = Moment(200_000);

/// Protected, with a runbook for switchovers.
pub fn ready() -> World {
    let mut world = World::fresh();
    let mut with_runbook = document();
    let lines = vec![
        line(Action::Quiesce, &["core"]),
        line(Action::CatchUp, &["db", "cache"]),
        line(Action::Promote, &["db", "cache"]),
        line(Action::Redirect, &["www"]),
        line(Action::Activate, &["core"]),
        line(Action::Rejoin, &["db", "cache"]),
    ];
    with_runbook.runbooks.insert("switchover".to_owned(), Runbook { lines });
    world.done(Entry::Applied { application: Box::new(with_runbook), by: "ann".into() });
    world.adopt();
    world.confirm(&west());
    world
}

fn asked(world: &World) -> Entry {
    Entry::RunStarted {
        application: app(),
        epoch: world.known().epoch,
        cause: Cause::Switchover {
            by: "ann".into(),
            max_write_outage: Span::from_secs(5),
            purpose: Purpose::Switchover,
        },
        to: central(),
        finding: Finding::default(),
        plan: None,
    }
}

/// Begun: clients may still hold the answer of before.
pub fn asked_for(world: &mut World) -> RunId {
    let entry = asked(world);
    world.done(entry);
    world.known().run.unwrap()
}

/// The same when they do not any more; nothing has been touched.
pub fn started(world: &mut World) -> RunId {
    let run = asked_for(world);
    perform(world, run, "Wait");
    run
}

pub fn at(position: u64) -> Outcome {
    Outcome::Succeeded(Report { position: Some(position), ..Report::default() })
}

pub fn reach(world: &mut World, run: RunId, step: &str, outcome: Outcome) {
    let begun = begin(world, run, step);
    end(world, run, begun, outcome);
}

pub fn fenced(world: &mut World) -> RunId {
    let run = started(world);
    perform(world, run, "Quiesce core@west-1");
    reach(world, run, "Fence db@west-1", at(1000));
    reach(world, run, "Fence cache@west-1", at(50));
    run
}

/// What the leader knows while both sides are well.
pub fn well() -> Evidence {
    let mut evidence = evidence(NOW, NOW);
    let standby = evidence.contacts.get_mut(&central()).unwrap().resources.get_mut(&app()).unwrap();
    standby.values_mut().for_each(|seen| seen.upstream.as_mut().unwrap().connected = true);
    serving(&mut evidence, NOW);
    evidence
}

fn refusal(world: &World, evidence: &Evidence) -> Option<String> {
    let name = app();
    let scene = Scene::new(&world.state, evidence, NOW, view(NOW, world).me, &name).unwrap();
    preflight(&scene, Purpose::Switchover, Some(&central())).err().map(|rule| rule.code)
}

#[test]
fn the_new_side_takes_over_with_everything_and_the_old_one_follows() {
    let mut world = ready();
    let run = started(&mut world);
    assert_eq!(due(&world, run), ["Quiesce core@west-1"]);
    perform(&mut world, run, "Quiesce core@west-1");
    assert_eq!(due(&world, run), ["Fence cache@west-1", "Fence db@west-1"]);
    reach(&mut world, run, "Fence cache@west-1", at(50));
    reach(&mut world, run, "Fence db@west-1", at(1000));
    assert_eq!(due(&world, run), ["CatchUp db@central-1", "CatchUp cache@central-1"]);
    assert_eq!(world.state.runs[&run].final_position(&resource("db")), Some(1000));
    reach(&mut world, run, "CatchUp db@central-1", at(1000));
    reach(&mut world, run, "CatchUp cache@central-1", at(51));
    assert_eq!(due(&world, run), ["Decide"]);
    let entries = decide(&world.state, &well(), view(NOW, &world));
    let [Entry::Decide { ground: Ground::Switched { run: of }, finding, .. }] = &entries[..] else {
        panic!("{entries:?}")
    };
    assert_eq!(*of, run);
    assert!(finding.gaps.values().all(|gap| gap.lag == Some(Span::ZERO) && gap.candidate >= gap.primary));
    world.done(entries[0].clone());
    assert_eq!((world.known().epoch, world.known().primary.clone()), (Epoch(2), Some(central())));
    assert!(world.known().cooling_since.is_none());
    for step in ["Promote db@central-1", "Promote cache@central-1", "Redirect www@central-1"] {
        perform(&mut world, run, step);
    }
    assert!(world.known().cooling_since.is_none(), "an operator's switchover cools nothing down");
    assert!(!world.state.runs[&run].gives_way());
    perform(&mut world, run, "Activate core@central-1");
    assert!(world.state.runs[&run].gives_way(), "a failover would wait for a side that is not needed");
    assert_eq!(world.state.runs[&run].status, RunStatus::Running);
    perform(&mut world, run, "Rejoin db@west-1");
    assert!(world.known().excluded.contains_key(&west()));
    perform(&mut world, run, "Rejoin cache@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Succeeded);
    assert!(world.known().excluded.is_empty());
}

#[test]
fn nothing_is_decided_before_the_final_position_is_reached() {
    let mut world = ready();
    let run = fenced(&mut world);
    let ground = || Ground::Switched { run };
    assert_eq!(world.refused(world.decide(ground())), "fence-not-confirmed");
    reach(&mut world, run, "CatchUp db@central-1", at(999));
    assert_eq!(world.refused(world.decide(ground())), "fence-not-confirmed");
    reach(&mut world, run, "CatchUp cache@central-1", at(50));
    assert_eq!(world.refused(world.decide(ground())), "not-caught-up");
}

/// What goes to the log with these outcomes of first attempts, each with the outcomes themselves in front.
fn foreseen(world: &World, run: RunId, endings: &[(&str, Outcome)]) -> Vec<Entry> {
    let attempt = Attempt(1);
    let ending = |(step, outcome): &(&str, Outcome)| {
        let step = find(world, run, step);
        Ending { step, attempt, outcome: outcome.clone() }
    };
    let endings: Vec<Ending> = endings.iter().map(ending).collect();
    let follows = foresee(&world.state, &well(), view(NOW, world), run, &endings);
    let outcomes =
        endings.into_iter().map(|Ending { step, attempt, outcome }| Entry::StepOutcome { run, step, attempt, outcome });
    outcomes.chain(follows).collect()
}

#[test]
fn the_last_position_decision_and_promotions_are_one_round() {
    let mut world = ready();
    let run = fenced(&mut world);
    begin(&mut world, run, "CatchUp db@central-1");
    begin(&mut world, run, "CatchUp cache@central-1");
    let (db, cache) = (("CatchUp db@central-1", at(1000)), ("CatchUp cache@central-1", at(51)));
    assert_eq!(foreseen(&world, run, std::slice::from_ref(&db)).len(), 1, "the other one is still to come");
    // The first outcome may be on its way to the log still.
    let entries = foreseen(&world, run, &[db, cache]);
    let kinds: Vec<&str> = entries
        .iter()
        .map(|entry| match entry {
            Entry::StepOutcome { .. } => "outcome",
            Entry::Decide { ground: Ground::Switched { .. }, .. } => "decide",
            Entry::StepIntent { .. } => "intent",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["outcome", "outcome", "decide", "intent", "intent"]);
    for entry in entries {
        world.done(entry);
    }
    assert_eq!((world.known().epoch, world.known().primary.clone()), (Epoch(2), Some(central())));
    let promotes = ["Promote db@central-1", "Promote cache@central-1"].map(|name| find(&world, run, name));
    assert!(promotes.iter().all(|step| world.state.runs[&run].step(*step).unwrap().1.state == StepState::Running));
}

#[test]
fn nothing_rests_on_a_decision_that_was_foreseen_in_vain() {
    let mut world = ready();
    let run = fenced(&mut world);
    begin(&mut world, run, "CatchUp db@central-1");
    begin(&mut world, run, "CatchUp cache@central-1");
    let behind = foreseen(&world, run, &[("CatchUp db@central-1", at(1000)), ("CatchUp cache@central-1", at(49))]);
    let told = foreseen(&world, run, &[("CatchUp db@central-1", at(1000)), ("CatchUp cache@central-1", at(51))]);
    // What was not reached is refused, whoever foresaw it; and so is what rests on newer terms.
    let mut other = ready();
    let same = fenced(&mut other);
    begin(&mut other, same, "CatchUp db@central-1");
    begin(&mut other, same, "CatchUp cache@central-1");
    for (at, entry) in behind.into_iter().enumerate() {
        match at {
            0 | 1 => _ = other.done(entry),
            2 => assert_eq!(other.refused(entry), "not-caught-up"),
            _ => other.ignored(entry),
        }
    }
    world.done(Entry::Paused { application: Some(app()), by: "bob".into(), reason: "wait".into() });
    for (at, entry) in told.into_iter().enumerate() {
        match at {
            0 | 1 => _ = world.done(entry),
            2 => assert_eq!(world.refused(entry), "newer-terms"),
            _ => world.ignored(entry),
        }
    }
    assert_eq!(world.known().epoch, Epoch(1));
    assert!(
        world.state.runs[&run]
            .steps
            .iter()
            .zip(&world.state.runs[&run].progress)
            .all(|(step, progress)| { step.kind != StepKind::Action(Action::Promote) || progress.token.is_none() })
    );
    // A leader that knows of the pause foresees nothing.
    let mut paused = ready();
    let run = fenced(&mut paused);
    begin(&mut paused, run, "CatchUp db@central-1");
    begin(&mut paused, run, "CatchUp cache@central-1");
    paused.done(Entry::Paused { application: Some(app()), by: "bob".into(), reason: "wait".into() });
    let entries = foreseen(&paused, run, &[("CatchUp db@central-1", at(1000)), ("CatchUp cache@central-1", at(51))]);
    assert_eq!(entries.len(), 2, "{entries:?}");
}

#[test]
fn a_fence_without_a_final_position_decides_nothing_and_is_undone() {
    let mut world = ready();
    let run = started(&mut world);
    perform(&mut world, run, "Quiesce core@west-1");
    perform(&mut world, run, "Fence db@west-1");
    reach(&mut world, run, "Fence cache@west-1", at(50));
    let entries = decide(&world.state, &well(), view(NOW, &world));
    assert!(matches!(&entries[..], [Entry::UndoBegun { reason, .. }] if reason.contains("db")), "{entries:?}");
    reach(&mut world, run, "CatchUp db@central-1", at(2000));
    reach(&mut world, run, "CatchUp cache@central-1", at(50));
    assert_eq!(world.refused(world.decide(Ground::Switched { run })), "not-caught-up");
}

#[test]
fn a_failure_before_the_decision_opens_the_old_side_again() {
    let mut world = ready();
    let run = fenced(&mut world);
    reach(&mut world, run, "CatchUp db@central-1", failed(false));
    assert_eq!(world.state.runs[&run].status, RunStatus::Undoing);
    assert_eq!(world.refused(world.decide(Ground::Switched { run })), "run-moved-on");
    assert_eq!(due(&world, run), ["Unfence cache@west-1", "Unfence db@west-1"]);
    perform(&mut world, run, "Unfence cache@west-1");
    perform(&mut world, run, "Unfence db@west-1");
    assert_eq!(due(&world, run), ["Activate core@west-1"], "a service comes after its databases");
    perform(&mut world, run, "Activate core@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Undone);
    assert_eq!((world.known().epoch, world.known().run), (Epoch(1), None));
}

/// Both services are quiesced before the fence: the edge depends on the core.
fn with_two_services() -> World {
    let mut world = ready();
    let mut both = world.known().document.clone();
    both.runbooks.get_mut("switchover").unwrap().lines[0] = line(Action::Quiesce, &["core", "edge"]);
    world.done(Entry::Applied { application: Box::new(both), by: "ann".into() });
    world
}

fn found_at_rest() -> Outcome {
    Outcome::Succeeded(Report { already: true, ..Report::default() })
}

#[test]
fn what_depends_on_others_stops_first_and_starts_last() {
    let mut world = with_two_services();
    let run = started(&mut world);
    assert_eq!(due(&world, run), ["Quiesce edge@west-1"]);
    perform(&mut world, run, "Quiesce edge@west-1");
    assert_eq!(due(&world, run), ["Quiesce core@west-1"]);
    perform(&mut world, run, "Quiesce core@west-1");
    reach(&mut world, run, "Fence cache@west-1", at(50));
    reach(&mut world, run, "Fence db@west-1", at(1000));
    world.done(Entry::UndoBegun { run, reason: "too long".into() });
    perform(&mut world, run, "Unfence cache@west-1");
    perform(&mut world, run, "Unfence db@west-1");
    assert_eq!(due(&world, run), ["Activate core@west-1"]);
    perform(&mut world, run, "Activate core@west-1");
    assert_eq!(due(&world, run), ["Activate edge@west-1"]);
    perform(&mut world, run, "Activate edge@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Undone);
}

#[test]
fn what_was_at_rest_is_left_so_by_the_undo() {
    let mut world = with_two_services();
    let run = started(&mut world);
    reach(&mut world, run, "Quiesce edge@west-1", found_at_rest());
    // It ends only after the undo has begun.
    let quiesce = begin(&mut world, run, "Quiesce core@west-1");
    world.done(Entry::UndoBegun { run, reason: "too long".into() });
    perform(&mut world, run, "Unfence cache@west-1");
    perform(&mut world, run, "Unfence db@west-1");
    assert_eq!(due(&world, run), Vec::<String>::new(), "what still closes is not opened beside it");
    let mut rested = world.copy();
    end(&mut rested, run, quiesce, found_at_rest());
    assert_eq!(rested.state.runs[&run].status, RunStatus::Undone, "neither was stopped by this run");
    end(&mut world, run, quiesce, succeeded());
    assert_eq!(due(&world, run), ["Activate core@west-1"]);
    perform(&mut world, run, "Activate core@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Undone);
    let edge = find(&world, run, "Activate edge@west-1");
    assert_eq!(world.state.runs[&run].step(edge).unwrap().1.state, StepState::Skipped);
}

#[test]
fn what_never_began_to_stop_is_not_started_by_the_undo() {
    let mut world = with_two_services();
    let run = started(&mut world);
    perform(&mut world, run, "Quiesce edge@west-1");
    world.done(Entry::UndoBegun { run, reason: "too long".into() });
    let core = find(&world, run, "Activate core@west-1");
    assert_eq!(world.state.runs[&run].step(core).unwrap().1.state, StepState::Skipped);
    perform(&mut world, run, "Unfence cache@west-1");
    perform(&mut world, run, "Unfence db@west-1");
    assert_eq!(due(&world, run), ["Activate edge@west-1"], "it waits for nothing that is left alone");
    perform(&mut world, run, "Activate edge@west-1");
    assert_eq!(world.state.runs[&run].status, RunStatus::Undone);
}

#[test]
fn what_a_second_attempt_finds_at_rest_is_started_by_the_undo() {
    let mut world = with_two_services();
    let run = started(&mut world);
    reach(&mut world, run, "Quiesce edge@west-1", failed(true));
    reach(&mut world, run, "Quiesce edge@west-1", found_at_rest());
    world.done(Entry::UndoBegun { run, reason: "too long".into() });
    perform(&mut world, run, "Unfence cache@west-1");
    perform(&mut world, run, "Unfence db@west-1");
    assert_eq!(due(&world, run), ["Activate edge@west-1"], "the first attempt may have stopped it");
}

#[test]
fn a_failover_goes_before_the_undo_of_a_switchover_whose_source_has_failed() {
    let mut world = ready();
    let run = fenced(&mut world);
    let failed_database = |world: &World| Entry::RunStarted {
        application: app(),
        epoch: world.known().epoch,
        cause: Cause::ResourceFailed { resource: resource("db"), detail: "gone".into() },
        to: central(),
        finding: Finding::default(),
        plan: None,
    };
    let entry = failed_database(&world);
    assert_eq!(world.refused(entry), "run-under-way", "a switchover that goes on may still be decided");
    world.done(Entry::UndoBegun { run, reason: "too long".into() });
    begin(&mut world, run, "Unfence db@west-1");
    let switchover = asked(&world);
    assert_eq!(world.refused(switchover), "run-under-way", "an operator waits for the undo");
    let entry = failed_database(&world);
    world.done(entry);
    assert_eq!(world.state.runs[&run].status, RunStatus::Superseded);
    let failover = world.known().run.unwrap();
    // What the undo may have opened by then is fenced before anything is decided.
    assert_eq!(due(&world, failover), ["Fence cache@west-1", "Fence db@west-1"]);
    assert_eq!(world.refused(world.decide(Ground::Fenced { run: failover })), "fence-not-confirmed");
    perform(&mut world, failover, "Fence cache@west-1");
    perform(&mut world, failover, "Fence db@west-1");
    world.done(world.decide(Ground::Fenced { run: failover }));
    assert_eq!((world.known().epoch, world.known().primary.clone()), (Epoch(2), Some(central())));
}

#[test]
fn what_still_closes_is_not_opened_beside_it() {
    let mut world = ready();
    let run = started(&mut world);
    perform(&mut world, run, "Quiesce core@west-1");
    let fence = begin(&mut world, run, "Fence db@west-1");
    world.done(Entry::UndoBegun { run, reason: "too long".into() });
    assert_eq!(due(&world, run), ["Unfence cache@west-1"]);
    let step = find(&world, run, "Unfence db@west-1");
    let attempt = world.state.runs[&run].step(step).unwrap().1.attempts.next();
    world.ignored(Entry::StepIntent { run, step, attempt });
    end(&mut world, run, fence, failed(false));
    assert_eq!(world.state.runs[&run].step(fence.0).unwrap().1.state, StepState::FailedContinued);
    assert!(world.known().stuck.is_empty(), "its undo needs no human");
    assert_eq!(due(&world, run), ["Unfence cache@west-1", "Unfence db@west-1"]);
}

#[test]
fn an_outage_that_lasts_too_long_is_ended() {
    let mut world = ready();
    let run = fenced(&mut world);
    begin(&mut world, run, "CatchUp db@central-1");
    begin(&mut world, run, "CatchUp cache@central-1");
    assert_eq!(decide(&world.state, &well(), view(NOW, &world)), vec![]);
    world.wall += 5_001;
    let entries = decide(&world.state, &well(), view(NOW, &world));
    let [Entry::UndoBegun { run: of, reason }] = &entries[..] else { panic!("{entries:?}") };
    assert!(*of == run && reason.contains("maxWriteOutage"), "{reason}");
    world.done(entries[0].clone());
    assert_eq!(world.state.runs[&run].status, RunStatus::Undoing);
}

#[test]
fn a_pause_in_the_middle_undoes() {
    let mut world = ready();
    let run = fenced(&mut world);
    reach(&mut world, run, "CatchUp db@central-1", at(1000));
    reach(&mut world, run, "CatchUp cache@central-1", at(50));
    world.done(Entry::Paused { application: Some(app()), by: "bob".into(), reason: "wait".into() });
    assert_eq!(world.refused(world.decide(Ground::Switched { run })), "paused");
    let entries = decide(&world.state, &well(), view(NOW, &world));
    assert!(matches!(&entries[..], [Entry::UndoBegun { .. }]), "{entries:?}");
}

/// The standby has lost its link.
fn gone() -> Evidence {
    let mut gone = well();
    let standby = gone.contacts.get_mut(&central()).unwrap().resources.get_mut(&app()).unwrap();
    standby.get_mut(&resource("db")).unwrap().upstream.as_mut().unwrap().connected = false;
    gone
}

/// Ended, and nobody had anything of it.
fn assert_untouched(world: &World, run: RunId) {
    let run = &world.state.runs[&run];
    assert_eq!(run.status, RunStatus::Undone);
    let begun = run.walk().filter(|(_, progress)| progress.token.is_some());
    let begun: Vec<StepKind> = begun.map(|(step, _)| step.kind).collect();
    assert!(begun.iter().all(|kind| *kind == StepKind::Action(Action::Wait)), "{begun:?}");
    assert_eq!((world.known().run, world.known().epoch), (None, Epoch(1)));
}

#[test]
fn the_leader_looks_again_before_anything_is_touched() {
    // Before the wait, in it, and behind it, right before the first step that keeps writes out.
    for moment in ["asked for", "waiting", "waited"] {
        let mut world = ready();
        let run = asked_for(&mut world);
        if moment != "asked for" {
            let wait = begin(&mut world, run, "Wait");
            if moment == "waited" {
                end(&mut world, run, wait, succeeded());
            }
        }
        let well_then = decide(&world.state, &well(), view(NOW, &world));
        assert_eq!(
            matches!(&well_then[..], [Entry::StepIntent { .. }]),
            moment != "waiting",
            "{moment}: {well_then:?}"
        );
        // A standby that links anew is a moment's trouble while it waits, and for a moment after.
        let at_once = decide(&world.state, &gone(), view(NOW, &world));
        assert_eq!(at_once.is_empty(), moment != "asked for", "{moment}: {at_once:?}");
        world.wall += 60_000;
        if moment == "waiting" {
            continue;
        }
        let entries = decide(&world.state, &gone(), view(NOW, &world));
        let [undo @ Entry::CauseGone { reason, .. }] = &entries[..] else { panic!("{moment}: {entries:?}") };
        assert!(reason.contains("not-following"), "{moment}: {reason}");
        world.done(undo.clone());
        assert_untouched(&world, run);
    }
}

#[test]
fn what_keeps_writes_out_is_not_asked_for_its_cause() {
    let mut world = ready();
    let run = started(&mut world);
    world.wall += 60_000;
    let entries = decide(&world.state, &gone(), view(NOW, &world));
    let [word @ Entry::CauseGone { .. }] = &entries[..] else { panic!("{entries:?}") };
    // The intents of the moment before stand in the log before that word.
    begin(&mut world, run, "Quiesce core@west-1");
    world.ignored(word.clone());
    assert_eq!(world.state.runs[&run].status, RunStatus::Running);
    assert_eq!(decide(&world.state, &gone(), view(NOW, &world)), vec![]);
}

#[test]
fn old_answers_expire_before_writes_are_kept_out_and_that_is_no_outage() {
    let mut world = ready();
    let run = asked_for(&mut world);
    assert_eq!(due(&world, run), ["Wait"]);
    let (step, _) = begin(&mut world, run, "Wait");
    assert_eq!(world.state.runs[&run].step(step).unwrap().0.duration, Span::from_secs(5), "the TTL of www");
    world.wall += 4_900;
    assert_eq!(decide(&world.state, &well(), view(NOW, &world)), vec![]);
    // Far longer than maxWriteOutage, which has not begun.
    world.wall += 60_000;
    let entries = decide(&world.state, &well(), view(NOW, &world));
    let [over @ Entry::StepOutcome { outcome: Outcome::Succeeded(_), .. }] = &entries[..] else {
        panic!("{entries:?}")
    };
    world.done(over.clone());
    assert_eq!(due(&world, run), ["Quiesce core@west-1"]);
    assert!(matches!(&decide(&world.state, &well(), view(NOW, &world))[..], [Entry::StepIntent { .. }]));
}

#[test]
fn a_pause_a_hold_or_an_abort_while_it_waits_ends_it_with_nothing_to_undo() {
    let pause = || Entry::Paused { application: Some(app()), by: "bob".into(), reason: "wait".into() };
    let hold = Entry::Held { application: app(), by: "bob".into(), reason: "wait".into() };
    for (word, told) in [(pause(), "paused"), (hold, "held by bob")] {
        let mut world = ready();
        let run = asked_for(&mut world);
        begin(&mut world, run, "Wait");
        assert!(!is_only_fencing(&world.state.runs[&run]), "nothing is fenced: it is not late however long it waits");
        world.done(word);
        let entries = decide(&world.state, &well(), view(NOW, &world));
        let [gone @ Entry::CauseGone { reason, .. }] = &entries[..] else { panic!("{entries:?}") };
        assert!(reason.contains(told), "{reason}");
        world.done(gone.clone());
        assert_untouched(&world, run);
    }

    let mut world = ready();
    let run = asked_for(&mut world);
    let wait = begin(&mut world, run, "Wait");
    world.done(Entry::Aborted { run, by: "ann".into(), reason: "not now".into() });
    assert_untouched(&world, run);
    let (step, attempt) = wait;
    world.ignored(Entry::StepOutcome { run, step, attempt, outcome: succeeded() });
    world.done(pause());
}

#[test]
fn a_command_before_the_fence_is_undone_for_a_cause_that_is_gone_and_does_not_stall() {
    let mut world = ready();
    let mut changed = world.known().document.clone();
    let mut command = line(Action::Run, &["core"]);
    "tell-the-bank".clone_into(&mut command.command);
    changed.runbooks.get_mut("switchover").unwrap().lines.insert(0, command);
    // Without a name of its own to wait for: the command's end is what comes right before the fence.
    changed.resources.get_mut(&resource("www")).unwrap().dns.as_mut().unwrap().provider = DnsProvider::Rfc2136;
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    let run = asked_for(&mut world);
    let turning = world.state.runs[&run].steps.iter().position(|step| step.kind == StepKind::Decide).unwrap();
    let kinds: Vec<StepKind> = world.state.runs[&run].steps[..turning].iter().map(|step| step.kind).collect();
    assert!(!kinds.contains(&StepKind::Action(Action::Wait)), "{kinds:?}");
    assert_eq!(kinds.first(), Some(&StepKind::Action(Action::Run)));
    let (step, attempt) = begin(&mut world, run, "Run core@central-1");
    let outcome = succeeded();
    let endings = [Ending { step, attempt, outcome: outcome.clone() }];
    let follows = |evidence: &Evidence| foresee(&world.state, evidence, view(NOW, &world), run, &endings).len();
    assert_eq!((follows(&well()), follows(&gone())), (1, 0), "nothing is closed in the same round unless it holds");
    end(&mut world, run, (step, attempt), outcome);
    world.wall += 60_000;
    let entries = decide(&world.state, &gone(), view(NOW, &world));
    let [word @ Entry::CauseGone { .. }] = &entries[..] else { panic!("{entries:?}") };
    world.done(word.clone());
    assert_eq!(world.state.runs[&run].status, RunStatus::Undoing, "a command was run");
    let entries = decide(&world.state, &gone(), view(NOW, &world));
    assert!(matches!(&entries[..], [Entry::StepIntent { .. }, ..]), "{entries:?}");
}

#[test]
fn a_switchover_that_redirects_no_name_of_ours_waits_for_none() {
    let mut world = ready();
    let mut changed = world.known().document.clone();
    changed.runbooks.get_mut("switchover").unwrap().lines.retain(|line| line.action != Action::Redirect);
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    let run = asked_for(&mut world);
    assert_eq!(due(&world, run), ["Quiesce core@west-1"]);
}

#[test]
fn a_side_that_is_not_ready_refuses() {
    let world = ready();
    assert_eq!(refusal(&world, &well()), None);
    let changed = |change: &dyn Fn(&mut Evidence)| {
        let mut evidence = well();
        change(&mut evidence);
        refusal(&world, &evidence)
    };
    let seen = |evidence: &mut Evidence, side, change: &dyn Fn(&mut regent_core::evidence::Sighting)| {
        let resources = evidence.contacts.get_mut(&side).unwrap().resources.get_mut(&app()).unwrap();
        change(resources.get_mut(&resource("db")).unwrap());
    };
    let code = |code: &str| Some(code.to_owned());
    let failed = |evidence: &mut Evidence| seen(evidence, west(), &|seen| seen.health = Health::Failed);
    assert_eq!(changed(&failed), code("primary-not-ready"));
    let without_lease = |evidence: &mut Evidence| {
        evidence.contacts.get_mut(&west()).unwrap().beats.get_mut(&app()).unwrap().lease = LeaseState::Lacked;
    };
    assert_eq!(changed(&without_lease), code("primary-not-ready"));
    let unhealthy = |evidence: &mut Evidence| seen(evidence, central(), &|seen| seen.health = Health::Failed);
    assert_eq!(changed(&unhealthy), code("unhealthy"));
    let cut = |evidence: &mut Evidence| {
        seen(evidence, central(), &|seen| seen.upstream.as_mut().unwrap().connected = false);
    };
    assert_eq!(changed(&cut), code("not-following"));
    assert_eq!(refusal(&World::protected(), &well()), code("no-switchover-runbook"));
}

#[test]
fn the_state_machine_refuses_what_cannot_be_kept() {
    let mut plain = World::protected();
    let entry = asked(&plain);
    assert_eq!(plain.refused(entry), "no-switchover-runbook");
    let mut world = ready();
    world.done(Entry::Paused { application: Some(app()), by: "bob".into(), reason: "wait".into() });
    let entry = asked(&world);
    assert_eq!(world.refused(entry), "paused");
    let mut world = ready();
    let entry = asked(&world);
    started(&mut world);
    assert_eq!(world.refused(entry), "run-under-way");
}
