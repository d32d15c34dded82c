//! Steps that ask a human: silence is no yes.

use regent_core::application::{Action, OnFailure};
use regent_core::entry::{Entry, Outcome};
use regent_core::id::{RunId, StepId};
use regent_core::run::{self, Proposal, RunStatus, StepState};

use crate::fixture::*;
use crate::running::{begin, due, end, find, lost, perform};

/// A failover that asks before it points the name elsewhere.
pub fn asking(on_failure: OnFailure) -> (World, RunId, StepId) {
    let mut world = World::protected();
    let mut changed = document();
    let mut question = line(Action::Approve, &[]);
    question.question = "Has the bank been told?".to_owned();
    question.on_failure = on_failure;
    question.retries = 0;
    changed.runbooks.get_mut("failover").unwrap().lines.insert(1, question);
    world.done(Entry::Applied { application: Box::new(changed), by: "ann".into() });
    let run = lost(&mut world);
    perform(&mut world, run, "Promote db@central-1");
    perform(&mut world, run, "Promote cache@central-1");
    let step = find(&world, run, "Approve");
    (world, run, step)
}

fn yes(run: RunId, step: StepId) -> Entry {
    Entry::Approved { run, step, by: "ann".into(), reason: "by phone".into() }
}

fn state(world: &World, run: RunId, step: StepId) -> StepState {
    world.state.runs[&run].step(step).unwrap().1.state
}

/// What the leader proposes once the time for an answer is over.
pub fn time_out(world: &mut World, run: RunId) -> Entry {
    world.wall += 30_000;
    let proposals = run::next(&world.state.runs[&run], world.waits());
    let outcome = proposals.into_iter().find_map(|proposal| match proposal {
        Proposal::Entry(entry) if matches!(*entry, Entry::StepOutcome { .. }) => Some(*entry),
        Proposal::Entry(_) | Proposal::Decide => None,
    });
    outcome.unwrap()
}

#[test]
fn a_run_waits_until_a_human_says_yes() {
    let (mut world, run, step) = asking(OnFailure::Stuck);
    assert!(due(&world, run).contains(&"Approve".to_owned()));
    assert_eq!(world.refused(yes(run, step)), "not-asked", "its turn has come, but it has not been asked");
    begin(&mut world, run, "Approve");
    world.wall += 29_000;
    assert!(due(&world, run).iter().all(|entry| !entry.contains("Redirect") && !entry.contains("Outcome")));
    world.done(yes(run, step));
    assert_eq!(state(&world, run, step), StepState::Succeeded);
    let said = world.state.runs[&run].step(step).unwrap().1.report.as_ref().unwrap().message.clone();
    assert_eq!(said, "approved by ann: by phone");
    let record = world.state.audit.back().unwrap();
    assert_eq!((record.event.as_str(), record.actor.as_str()), ("approved", "ann"));
    assert!(due(&world, run).contains(&"Redirect www@central-1".to_owned()));
    world.ignored(yes(run, step));
}

#[test]
fn silence_is_no_yes_and_an_answer_may_come_late() {
    let (mut world, run, step) = asking(OnFailure::Stuck);
    begin(&mut world, run, "Approve");
    let outcome = time_out(&mut world, run);
    assert!(
        matches!(&outcome, Entry::StepOutcome { outcome: Outcome::Failed { code, .. }, .. } if code == "not-approved")
    );
    world.done(outcome);
    assert_eq!(state(&world, run, step), StepState::Stuck);
    assert_eq!(world.state.runs[&run].status, RunStatus::Stuck);
    world.done(yes(run, step));
    assert_eq!(world.state.runs[&run].status, RunStatus::Running);
    assert!(due(&world, run).contains(&"Redirect www@central-1".to_owned()));
}

#[test]
fn a_document_may_let_silence_pass() {
    let (mut world, run, step) = asking(OnFailure::Continue);
    begin(&mut world, run, "Approve");
    let outcome = time_out(&mut world, run);
    world.done(outcome);
    assert_eq!(state(&world, run, step), StepState::FailedContinued);
    assert!(due(&world, run).contains(&"Redirect www@central-1".to_owned()));
    assert_eq!(world.refused(yes(run, step)), "not-asked");
}

#[test]
fn only_a_question_is_answered() {
    let (mut world, run, _) = asking(OnFailure::Stuck);
    let fence = find(&world, run, "Fence db@west-1");
    assert_eq!(world.refused(yes(run, fence)), "not-asked");
    assert_eq!(world.refused(yes(run, StepId(99))), "unknown-step");
    assert_eq!(world.refused(yes(RunId(7_777), fence)), "unknown-run");
    let begun = begin(&mut world, run, "Approve");
    end(&mut world, run, begun, failed(true));
    assert_eq!(world.state.runs[&run].status, RunStatus::Stuck);
}
