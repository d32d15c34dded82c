//! Switchovers that redirect a name of another server: its TTL is shortened, and the documented one waited out, before writes are
//! kept out; an undo restores it, and no more where no more was done.

use regent_core::application::DnsProvider;
use regent_core::entry::Entry;
use regent_core::id::{Epoch, RunId, StepId};
use regent_core::run::{RunStatus, StepState, UNDO_STAGE};
use regent_core::time::Span;

use crate::fixture::*;
use crate::running::{begin, due, end, perform};
use crate::switching::{asked_for, ready};

/// The step that shortens; so is called the one that restores.
const SHORTENS: &str = "Redirect www@west-1";

/// A switchover of which another server answers for `www`.
fn with_ttl(ttl: Span) -> (World, RunId) {
    let mut world = ready();
    let mut changed = world.known().document.clone();
    let name = changed.resources.get_mut(&resource("www")).unwrap().dns.as_mut().unwrap();
    (name.provider, name.ttl) = (DnsProvider::Rfc2136, ttl);
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    let run = asked_for(&mut world);
    (world, run)
}

fn foreign() -> (World, RunId) {
    with_ttl(Span::from_secs(60))
}

/// The step that restores the TTL.
fn restores(world: &World, run: RunId) -> StepId {
    let mut steps = world.state.runs[&run].steps.iter();
    steps.find(|step| step.is_ttl_alone() && step.stage == UNDO_STAGE).unwrap().id
}

fn restore(world: &mut World, run: RunId, succeeds: bool) {
    assert_eq!(due(world, run), [SHORTENS]);
    let step = restores(world, run);
    let attempt = world.state.runs[&run].step(step).unwrap().1.attempts.next();
    world.done(Entry::StepIntent { run, step, attempt });
    end(world, run, (step, attempt), if succeeds { succeeded() } else { failed(false) });
}

/// It is over, and no database was opened once more.
fn assert_over(world: &World, run: RunId) {
    let undone = &world.state.runs[&run];
    assert_eq!(undone.status, RunStatus::Undone);
    for (step, progress) in undone.walk().filter(|(step, _)| step.stage == UNDO_STAGE && !step.is_ttl_alone()) {
        assert_eq!((progress.state, progress.token), (StepState::Skipped, None), "step {}", step.id);
    }
    assert_eq!((world.known().run, world.known().epoch), (None, Epoch(1)));
    assert_eq!(world.known().primary, Some(west()));
}

#[test]
fn a_ttl_is_shortened_and_the_former_one_waited_out_before_writes_are_kept_out() {
    let (mut world, run) = foreign();
    let answers = world.known().answers.clone();
    assert_eq!(due(&world, run), [SHORTENS]);
    let (step, attempt) = begin(&mut world, run, SHORTENS);
    assert_eq!(world.state.runs[&run].step(step).unwrap().0.duration, Span::from_secs(1));
    assert_eq!(world.known().answers, answers, "it leads nowhere else");
    end(&mut world, run, (step, attempt), succeeded());
    assert_eq!(due(&world, run), ["Wait"]);
    let (step, attempt) = begin(&mut world, run, "Wait");
    assert_eq!(world.state.runs[&run].step(step).unwrap().0.duration, Span::from_secs(60), "the documented TTL");
    end(&mut world, run, (step, attempt), succeeded());
    assert_eq!(due(&world, run), ["Quiesce core@west-1"]);
    assert!(!world.state.runs[&run].hides_its_cause());
}

#[test]
fn an_abort_while_it_waits_restores_the_ttl_and_opens_nothing() {
    for succeeds in [true, false] {
        let (mut world, run) = foreign();
        perform(&mut world, run, SHORTENS);
        begin(&mut world, run, "Wait");
        world.done(Entry::Aborted { run, by: "ann".into(), reason: "not now".into() });
        assert_eq!(world.state.runs[&run].status, RunStatus::Undoing);
        // A TTL that stays short needs no human.
        restore(&mut world, run, succeeds);
        assert_over(&world, run);
    }
}

#[test]
fn a_ttl_that_was_not_touched_is_not_restored() {
    let (mut world, run) = foreign();
    world.done(Entry::Aborted { run, by: "ann".into(), reason: "not now".into() });
    assert_over(&world, run);
    let (_, progress) = world.state.runs[&run].step(restores(&world, run)).unwrap();
    assert_eq!((progress.state, progress.token), (StepState::Skipped, None));
}

#[test]
fn it_is_restored_when_the_shortening_has_ended() {
    let (mut world, run) = foreign();
    let shortening = begin(&mut world, run, SHORTENS);
    world.done(Entry::Aborted { run, by: "ann".into(), reason: "not now".into() });
    assert_eq!(due(&world, run), Vec::<String>::new());
    end(&mut world, run, shortening, succeeded());
    restore(&mut world, run, true);
    assert_over(&world, run);
}

#[test]
fn a_ttl_that_cannot_be_shortened_ends_the_switchover_before_any_outage() {
    let (mut world, run) = foreign();
    let shortening = begin(&mut world, run, SHORTENS);
    end(&mut world, run, shortening, failed(false));
    assert_eq!(world.state.runs[&run].status, RunStatus::Undoing);
    restore(&mut world, run, true);
    assert_over(&world, run);
}

#[test]
fn what_was_closed_is_opened_again_beside_it() {
    let (mut world, run) = foreign();
    perform(&mut world, run, SHORTENS);
    perform(&mut world, run, "Wait");
    perform(&mut world, run, "Quiesce core@west-1");
    world.done(Entry::UndoBegun { run, reason: "regret".into() });
    let due = due(&world, run);
    for step in [SHORTENS, "Unfence db@west-1", "Unfence cache@west-1"] {
        assert!(due.iter().any(|one| one == step), "{step} is not among {due:?}");
    }
}

#[test]
fn a_short_ttl_is_left_and_not_waited_for() {
    let (world, run) = with_ttl(Span::from_secs(1));
    assert_eq!(due(&world, run), ["Quiesce core@west-1"]);
    assert!(!world.state.runs[&run].steps.iter().any(regent_core::run::Step::is_ttl_alone));
}
