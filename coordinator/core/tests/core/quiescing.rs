//! Quiesces of databases: an undo waits for no transactions that one lets end, and one that would leave no time to decide
//! refuses the move.

use regent_core::application::{Action, Line};
use regent_core::decide::decide;
use regent_core::entry::{Entry, Outcome};
use regent_core::evidence::Evidence;
use regent_core::plan::{Asked, show_switchover};
use regent_core::preflight::Severity;
use regent_core::run::{RunStatus, StepState};
use regent_core::switchover::{Purpose, preflight};
use regent_core::time::{Moment, Span};
use regent_core::verdict::Scene;

use crate::fixture::*;
use crate::readying::{self, facts, pg};
use crate::running::{begin, due, end, find, perform};
use crate::switching::{NOW, ready, started, well};

/// A switchover begins by letting the transactions of the database end.
fn quiesced_first() -> World {
    let mut world = ready();
    let mut document = world.known().document.clone();
    document.runbooks.get_mut("switchover").unwrap().lines[0] = line(Action::Quiesce, &["db"]);
    world.done(Entry::Applied { application: Box::new(document), by: "ann".into() });
    world
}

fn broken_off() -> Outcome {
    let code = "postgres-quiesce-broken-off".to_owned();
    Outcome::Failed { code, message: "broken off".into(), retryable: false }
}

#[test]
fn a_quiesce_that_lasts_too_long_is_not_awaited_by_its_undo() {
    let mut world = quiesced_first();
    let run = started(&mut world);
    let quiesce = begin(&mut world, run, "Quiesce db@west-1");
    assert_eq!(decide(&world.state, &well(), view(NOW, &world)), vec![]);
    world.wall += 5_001;
    let entries = decide(&world.state, &well(), view(NOW, &world));
    let [Entry::UndoBegun { reason, .. }] = &entries[..] else { panic!("{entries:?}") };
    assert!(reason.contains("maxWriteOutage"), "{reason}");
    world.done(entries[0].clone());
    assert_eq!(due(&world, run), ["Unfence cache@west-1", "Unfence db@west-1"], "it lets transactions end still");
    let unfence = begin(&mut world, run, "Unfence db@west-1");
    let token = |world: &World, step| world.state.runs[&run].step(step).unwrap().1.token.unwrap();
    assert!(token(&world, unfence.0) > token(&world, quiesce.0), "the agent takes no older step behind it");

    // The agent says how the quiesce ended before it says that the database is open; or nobody hears of it.
    let mut unheard = world.copy();
    end(&mut world, run, quiesce, broken_off());
    let state = |world: &World| world.state.runs[&run].step(quiesce.0).unwrap().1.state;
    assert_eq!(state(&world), StepState::FailedContinued);
    assert!(world.known().stuck.is_empty(), "its undo needs no human");
    for world in [&mut world, &mut unheard] {
        end(world, run, unfence, succeeded());
        perform(world, run, "Unfence cache@west-1");
        assert_eq!((world.state.runs[&run].status, world.known().run), (RunStatus::Undone, None));
    }
    assert_eq!(state(&unheard), StepState::Skipped);
}

#[test]
fn a_quiesce_that_is_told_again_does_not_begin_behind_its_undo() {
    let mut world = quiesced_first();
    let run = started(&mut world);
    let quiesce = begin(&mut world, run, "Quiesce db@west-1");
    end(&mut world, run, quiesce, failed(true));
    world.done(Entry::UndoBegun { run, reason: "regret".into() });
    let step = find(&world, run, "Quiesce db@west-1");
    let attempt = world.state.runs[&run].step(step).unwrap().1.attempts.next();
    world.ignored(Entry::StepIntent { run, step, attempt });
    assert_eq!(due(&world, run), ["Unfence cache@west-1", "Unfence db@west-1"]);
}

/// Both sides are well, and a switchover may keep writes out for 30 s.
fn with_lines(lines: &[Line]) -> (World, Evidence) {
    let (mut world, evidence) = readying::well();
    let known = world.state.applications.get_mut(&app()).unwrap();
    let all = &mut known.document.runbooks.get_mut("switchover").unwrap().lines;
    for (at, line) in lines.iter().enumerate() {
        all.insert(at, line.clone());
    }
    (world, evidence)
}

fn millis(millis: u64) -> Option<Span> {
    Some(Span::from_millis(millis))
}

#[test]
fn a_grace_that_leaves_no_time_to_decide_refuses() {
    let (world, mut evidence) = with_lines(&[line(Action::Quiesce, &["db"])]);
    let application = app();
    let at = view(readying::NOW, &world);
    let refused = |evidence: &Evidence| {
        let scene = Scene::new(&world.state, evidence, at.now, at.me, &application).unwrap();
        preflight(&scene, Purpose::Switchover, None).err().map(|rule| rule.code)
    };
    let cases = [
        (None, ""),
        (millis(100), ""),
        (millis(15_000), ""),
        (millis(15_001), "warning quiesce-grace west-1/db"),
        (millis(29_999), "warning quiesce-grace west-1/db"),
        (millis(30_000), "blocker quiesce-grace west-1/db"),
    ];
    for (grace, wanted) in cases {
        pg(&mut evidence).grace = grace;
        let wanted: Vec<&str> = [wanted].into_iter().filter(|wanted| !wanted.is_empty()).collect();
        assert_eq!(readying::notes(&world, &evidence), wanted, "{grace:?}");
        let blocks = wanted.iter().any(|note| note.starts_with("blocker"));
        assert_eq!(refused(&evidence), blocks.then(|| "quiesce-grace".to_owned()), "{grace:?}");
    }
    // What was seen long ago is unknown.
    facts(&mut evidence, &west(), "db").at = Moment(0);
    assert_eq!(refused(&evidence), None);
}

#[test]
fn a_plan_goes_by_what_its_own_run_is_allowed() {
    let (world, mut evidence) = with_lines(&[line(Action::Quiesce, &["db"])]);
    pg(&mut evidence).grace = millis(4_000);
    let (application, to, at) = (app(), central(), view(readying::NOW, &world));
    let scene = Scene::new(&world.state, &evidence, at.now, at.me, &application).unwrap();
    let told = |max_write_outage: Option<Span>| {
        let asked = Asked { by: "ann", purpose: Purpose::Switchover, to: Some(&to), max_write_outage };
        let notes = show_switchover(&scene, at, &asked).notes;
        let about: Vec<_> = notes.into_iter().filter(|note| note.code == "quiesce-grace").collect();
        about.into_iter().map(|note| (note.severity, note.detail)).collect::<Vec<_>>()
    };
    assert_eq!(told(None), vec![], "the document allows 30 s");
    let (close, short) = (told(millis(5_000)), told(millis(2_000)));
    let [(severity, detail)] = &close[..] else { panic!("it is told once") };
    assert_eq!(*severity, Severity::Warning);
    assert!(detail.starts_with("db in west-1: ") && detail.contains("4s") && detail.contains("5s"), "{detail}");
    let [(severity, detail)] = &short[..] else { panic!("it is told once") };
    assert_eq!(*severity, Severity::Blocker);
    assert!(detail.starts_with("db in west-1: ") && detail.contains("2s"), "{detail}");
}

#[test]
fn quiesces_of_one_line_take_place_side_by_side_and_those_of_two_add_up() {
    let (both, one, other) =
        (line(Action::Quiesce, &["db", "cache"]), line(Action::Quiesce, &["db"]), line(Action::Quiesce, &["cache"]));
    let cases = [(vec![both], vec![]), (vec![other, one], vec!["warning quiesce-grace west-1/cache"])];
    for (lines, wanted) in cases {
        let (world, mut evidence) = with_lines(&lines);
        pg(&mut evidence).grace = millis(9_000);
        let mut second = pg(&mut evidence).clone();
        second.grace = millis(10_000);
        facts(&mut evidence, &west(), "cache").postgres = Some(second);
        assert_eq!(readying::notes(&world, &evidence), wanted, "{lines:?}");
    }
}

#[test]
fn a_quiesce_behind_the_fence_finds_nobody_and_counts_for_nothing() {
    let (mut world, mut evidence) = with_lines(&[]);
    let known = world.state.applications.get_mut(&app()).unwrap();
    let lines = &mut known.document.runbooks.get_mut("switchover").unwrap().lines;
    lines.insert(1, line(Action::Quiesce, &["db"]));
    pg(&mut evidence).grace = millis(30_000);
    assert_eq!(readying::notes(&world, &evidence), Vec::<String>::new());
}
