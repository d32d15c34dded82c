//! What a run needs next. Pure: the leader asks at every change and every tick, and proposes what comes back.

use super::{Progress, Run, RunStatus, Step, StepKind, StepState, UNDO_STAGE};
use crate::application::Action;
use crate::entry::{Entry, Outcome, Report};
use crate::id::{Attempt, StepId};
use crate::time::{Span, Waits};

/// First back-off between two attempts; doubled each time.
const BACK_OFF: Span = Span::from_millis(200);
/// Longest back-off.
const LONGEST_BACK_OFF: Span = Span::from_secs(5);
/// After its time-out an attempt gets so long to report before the leader takes it as failed.
const REPORT_GRACE: Span = Span::from_secs(2);

/// Nothing was heard of an attempt.
pub(super) const NO_REPORT: &str = "no-report";

/// What the leader should do for a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposal {
    /// Propose this entry.
    Entry(Box<Entry>),
    /// What must come before the decision has succeeded: propose it, on the ground of this run.
    Decide,
}

/// Everything that can be proposed now, in the order of the plan. Empty while agents work or a human is asked.
#[must_use]
pub fn next(run: &Run, waits: Waits) -> Vec<Proposal> {
    let Some(turn) = Turn::of(run) else { return Vec::new() };
    let due = run.walk().filter(|(step, progress)| turn.is_of(run, step) || turn.awaits(step, progress));
    due.filter_map(|(step, progress)| of_step(run, step, progress, waits)).collect()
}

/// Whose turn it is in a run that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Of what undoes.
    Undo,
    /// Of a stage, and of what stands before it and is not awaited.
    Stage(u32),
    /// Nothing is to be awaited any more: what stands behind is still tried once.
    Detached,
}

impl Turn {
    /// None once the run has ended.
    pub(super) fn of(run: &Run) -> Option<Self> {
        match run.status {
            RunStatus::Running | RunStatus::Stuck => Some(current_stage(run).map_or(Self::Detached, Self::Stage)),
            // A drill has no undo, but a stage that is always its last.
            RunStatus::Undoing if run.is_drill() => Some(current_stage(run).map_or(Self::Detached, Self::Stage)),
            RunStatus::Undoing => Some(Self::Undo),
            RunStatus::Succeeded
            | RunStatus::Undone
            | RunStatus::Superseded
            | RunStatus::Aborted
            | RunStatus::Failed => None,
        }
    }

    /// True if the step may be begun: the documented order is kept whoever proposes it.
    pub(super) fn is_of(self, run: &Run, step: &Step) -> bool {
        let stage = match self {
            Self::Undo => {
                let same = |other: &Step| other.resource == step.resource && other.cluster == step.cluster;
                let closing = run
                    .walk()
                    .any(|(other, progress)| same(other) && self.awaits(other, progress) && !gives_way(other, step));
                step.stage == UNDO_STAGE && !closing
            }
            Self::Stage(stage) => {
                step.stage == stage || (step.detached && step.stage <= stage) || goes_past(run, step, stage)
            }
            Self::Detached => step.detached && step.stage != UNDO_STAGE,
        };
        let over = |id: &StepId| {
            run.step(*id).is_some_and(|(before, state)| state.state.is_ended() || is_passed(run, step, before, state))
        };
        stage && step.after.iter().all(over)
    }

    /// What still closes is not opened beside it: a fence that meets an open database goes hard. So its end is awaited
    /// before its undo begins. So is that of a TTL, or it would be shortened after it was restored.
    fn awaits(self, step: &Step, progress: &Progress) -> bool {
        let closes = matches!(step.kind, StepKind::Action(Action::Fence | Action::Quiesce | Action::Deactivate))
            || step.is_ttl_alone();
        self == Self::Undo && step.stage != UNDO_STAGE && closes && progress.state == StepState::Running
    }
}

/// The quiesce of a database may let transactions end for long, and refuses all others meanwhile: its agent breaks it off for
/// the undo, which waits there until it has ended. By its token the undo is the newer one, whichever comes first.
fn gives_way(closing: &Step, undo: &Step) -> bool {
    closing.kind == StepKind::Action(Action::Quiesce) && undo.kind == StepKind::Unfence
}

/// True if nothing holds a step of a later stage up but what is stuck with another resource.
fn goes_past(run: &Run, step: &Step, stage: u32) -> bool {
    let before = run.walk().filter(|(before, _)| (stage..step.stage).contains(&before.stage) && !before.detached);
    let mut open = before.filter(|(_, progress)| !progress.state.is_ended()).peekable();
    open.peek().is_some() && open.all(|(before, progress)| is_passed(run, step, before, progress))
}

/// A stuck resource holds up neither the fence nor the promotion of another (safety.md, "Execution"). Whatever else
/// stands behind it waits: the document's order says that clients and services come when what is before them is well. A
/// question that nobody has answered concerns every resource.
fn is_passed(run: &Run, step: &Step, before: &Step, progress: &Progress) -> bool {
    let urgent = matches!(step.kind, StepKind::Action(Action::Fence | Action::Promote));
    let another = before.resource.is_some() && before.resource != step.resource;
    let is_stuck = |of: &Progress| of.state == StepState::Stuck;
    let kept_back = || {
        let mut same = run.walk().filter(|(other, _)| other.resource == before.resource && other.stage < before.stage);
        progress.state == StepState::Pending && same.any(|(_, other)| is_stuck(other))
    };
    urgent && another && (is_stuck(progress) || kept_back())
}

/// The first stage in which something is still to be awaited.
fn current_stage(run: &Run) -> Option<u32> {
    run.walk()
        .filter(|(step, progress)| step.stage != UNDO_STAGE && !step.detached && !progress.state.is_ended())
        .map(|(step, _)| step.stage)
        .min()
}

fn of_step(run: &Run, step: &Step, progress: &Progress, waits: Waits) -> Option<Proposal> {
    match progress.state {
        StepState::Pending if step.kind == StepKind::Decide => Some(Proposal::Decide),
        StepState::Pending => Some(intent(run, step, progress)),
        StepState::Retrying => {
            let since = progress.ended.map_or(LONGEST_BACK_OFF, |ended| waits.since(ended));
            (since >= back_off(progress.spent)).then(|| intent(run, step, progress))
        }
        StepState::Running => running(run, step, progress, waits),
        StepState::Succeeded | StepState::FailedContinued | StepState::Stuck | StepState::Skipped => None,
    }
}

fn intent(run: &Run, step: &Step, progress: &Progress) -> Proposal {
    Proposal::Entry(Box::new(Entry::StepIntent { run: run.id, step: step.id, attempt: progress.attempts.next() }))
}

fn running(run: &Run, step: &Step, progress: &Progress, waits: Waits) -> Option<Proposal> {
    let since = waits.since(progress.attempt_started?);
    let outcome = if step.kind == StepKind::Action(Action::Wait) {
        (since >= step.duration)
            .then(|| Outcome::Succeeded(Report { message: format!("waited {}", step.duration), ..Report::default() }))
    } else if step.kind == StepKind::Action(Action::Approve) {
        (since >= step.timeout).then(|| Outcome::Failed {
            code: "not-approved".to_owned(),
            message: format!("nobody has approved within {}: {}", step.timeout, step.question),
            retryable: true,
        })
    } else {
        (since >= step.timeout.plus(REPORT_GRACE)).then(|| Outcome::Failed {
            code: NO_REPORT.to_owned(),
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
