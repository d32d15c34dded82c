//! What a run needs next. Pure: the leader asks at every change and every tick, and proposes what comes back.

use super::{Progress, Run, RunStatus, Step, StepKind, StepState, UNDO_STAGE};
use crate::application::Action;
use crate::entry::{Entry, Outcome, Report};
use crate::id::Attempt;
use crate::time::{Span, Timestamp};

/// First back-off between two attempts; doubled each time.
const BACK_OFF: Span = Span::from_millis(200);
/// Longest back-off.
const LONGEST_BACK_OFF: Span = Span::from_secs(5);
/// After its time-out an attempt gets so long to report before the leader takes it as failed.
const REPORT_GRACE: Span = Span::from_secs(2);

/// What the leader should do for a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposal {
    /// Propose this entry.
    Entry(Box<Entry>),
    /// The fences are confirmed: propose the decision on this ground.
    Decide,
}

/// Everything that can be proposed now, in the order of the plan. Empty while agents work or a human is asked.
#[must_use]
pub fn next(run: &Run, wall: Timestamp) -> Vec<Proposal> {
    let undoing = match run.status {
        RunStatus::Running | RunStatus::Stuck => false,
        RunStatus::Undoing => true,
        RunStatus::Succeeded | RunStatus::Undone | RunStatus::Superseded | RunStatus::Failed => return Vec::new(),
    };
    let stage = if undoing { Some(UNDO_STAGE) } else { current_stage(run) };
    let mut proposals = Vec::new();
    for (step, progress) in run.walk() {
        let due = if undoing {
            step.stage == UNDO_STAGE
        } else {
            step.stage != UNDO_STAGE
                && match stage {
                    Some(stage) => step.stage == stage || (step.detached && step.stage <= stage),
                    // Nothing is to be awaited any more: what stands behind is still tried once.
                    None => step.detached,
                }
        };
        if due && let Some(proposal) = of_step(run, step, progress, wall) {
            proposals.push(proposal);
        }
    }
    proposals
}

/// The first stage in which something is still to be awaited.
fn current_stage(run: &Run) -> Option<u32> {
    run.walk()
        .filter(|(step, progress)| step.stage != UNDO_STAGE && !step.detached && !progress.state.is_ended())
        .map(|(step, _)| step.stage)
        .min()
}

fn of_step(run: &Run, step: &Step, progress: &Progress, wall: Timestamp) -> Option<Proposal> {
    let ready = step.after.iter().all(|id| run.step(*id).is_some_and(|(_, before)| before.state.is_ended()));
    if !ready {
        return None;
    }
    match progress.state {
        StepState::Pending if step.kind == StepKind::Decide => Some(Proposal::Decide),
        StepState::Pending => Some(intent(run, step, progress)),
        StepState::Retrying => {
            let since = progress.ended.map_or(LONGEST_BACK_OFF, |ended| wall.elapsed_since(ended));
            (since >= back_off(progress.spent)).then(|| intent(run, step, progress))
        }
        StepState::Running => running(run, step, progress, wall),
        StepState::Succeeded | StepState::FailedContinued | StepState::Stuck | StepState::Skipped => None,
    }
}

fn intent(run: &Run, step: &Step, progress: &Progress) -> Proposal {
    Proposal::Entry(Box::new(Entry::StepIntent { run: run.id, step: step.id, attempt: progress.attempts.next() }))
}

fn running(run: &Run, step: &Step, progress: &Progress, wall: Timestamp) -> Option<Proposal> {
    let since = wall.elapsed_since(progress.attempt_started?);
    let outcome = if step.kind == StepKind::Action(Action::Wait) {
        (since >= step.duration)
            .then(|| Outcome::Succeeded(Report { message: format!("waited {}", step.duration), ..Report::default() }))
    } else {
        (since >= step.timeout.plus(REPORT_GRACE)).then(|| Outcome::Failed {
            code: "no-report".to_owned(),
            message: format!(
                "the agent of {} has not reported within {}",
                step.cluster,
                step.timeout.plus(REPORT_GRACE)
            ),
            retryable: true,
        })
    };
    outcome.map(|outcome| {
        Proposal::Entry(Box::new(Entry::StepOutcome {
            run: run.id,
            step: step.id,
            attempt: Attempt(progress.attempts.0),
            outcome,
        }))
    })
}

fn back_off(spent: u32) -> Span {
    BACK_OFF.times(1_u64 << spent.saturating_sub(1).min(16)).min(LONGEST_BACK_OFF)
}
