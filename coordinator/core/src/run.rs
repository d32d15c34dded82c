//! A run: an immutable plan and how far it has come.
//!
//! The plan is made once, when the run begins, from the document of that moment; execution makes no choices. What
//! happened to a step is derived from committed intents and outcomes only, so a new leader resumes in the middle.

use serde::{Deserialize, Serialize};

use crate::application::{Action, OnFailure};
use crate::entry::{Cause, Finding, Ground, Report};
use crate::id::{ApplicationId, Attempt, ClusterId, Epoch, LogIndex, ResourceId, RunId, StepId, Token};
use crate::plan::keeps_out;
use crate::state::Order;
use crate::time::{Span, Timestamp};

pub(crate) mod abort;
pub(crate) mod apply;
pub(crate) mod approve;
mod clearing;
pub(crate) mod drill;
mod next;
pub(crate) mod rejoin;
mod settle;
pub(crate) mod undo;

pub use abort::Abort;
pub use clearing::{Remedy, remedies};
pub use drill::{CLEAN_UP_STAGE, Rehearsal};
pub use next::{Proposal, next};

/// Stage of the steps that undo; entered only by a run that gives up before its point of no return.
pub const UNDO_STAGE: u32 = u32::MAX;

/// A change of an application under way or done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Log index of the entry that began it.
    pub id: RunId,
    /// Of which application.
    pub application: ApplicationId,
    /// Why it began.
    pub cause: Cause,
    /// The old primary.
    pub from: ClusterId,
    /// The new primary.
    pub to: ClusterId,
    /// The epoch before.
    pub epoch_before: Epoch,
    /// The decision, once it is committed: the point of no return.
    pub decided: Option<Decided>,
    /// What was known when the run began, replaced by what was known at the decision.
    pub finding: Finding,
    /// The immutable plan, in order.
    pub steps: Vec<Step>,
    /// What became of each step, by the same order.
    pub progress: Vec<Progress>,
    /// Where it stands.
    pub status: RunStatus,
    /// When it began.
    pub started: Timestamp,
    /// When it ended; none while it goes on.
    pub ended: Option<Timestamp>,
    /// An operator ended it.
    #[serde(default)]
    pub abort: Option<Abort>,
    /// The order that it carries out, or the question that was answered.
    #[serde(default)]
    pub order: Option<Order>,
    /// A switchover's way back has been opened, or its turn has passed since the document wanted none: that happens once.
    #[serde(default)]
    pub way_back_opened: bool,
}

/// The committed decision of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Its log index.
    pub index: LogIndex,
    /// When.
    pub at: Timestamp,
    /// On what it rests.
    pub ground: Ground,
    /// The new epoch.
    pub epoch: Epoch,
}

/// One step of a plan: one action on one resource of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Position in the plan.
    pub id: StepId,
    /// Steps of one stage go side by side; a stage begins when the one before has ended.
    pub stage: u32,
    /// Steps of the same stage that must end first.
    pub after: Vec<StepId>,
    /// What is done.
    pub kind: StepKind,
    /// To what.
    pub resource: Option<ResourceId>,
    /// By whose agent.
    pub cluster: ClusterId,
    /// For one attempt.
    pub timeout: Span,
    /// Attempts after the first.
    pub retries: u32,
    /// When the attempts are used up.
    pub on_failure: OnFailure,
    /// True if nothing waits for it: fencing a lost side is tried and never awaited.
    pub detached: bool,
    /// `run` only: name of the listed command; empty otherwise.
    pub command: String,
    /// `wait`: how long. `redirect` before the point of no return: the TTL that the name gets, and nothing else of it changes.
    pub duration: Span,
    /// `approve` only: what a human is asked.
    #[serde(default)]
    pub question: String,
}

impl Step {
    /// It leaves a name where it is and changes its TTL alone: a switchover shortens it before it keeps writes out, and its undo
    /// restores it.
    #[must_use]
    pub fn is_ttl_alone(&self) -> bool {
        self.kind == StepKind::Action(Action::Redirect) && (self.duration > Span::ZERO || self.stage == UNDO_STAGE)
    }
}

/// The kinds of steps that a plan can have: those of documents and those that the protocol implies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StepKind {
    /// A documented action.
    Action(Action),
    /// The point of no return: done by the commit of `Decide`, by no agent.
    Decide,
    /// Ends a commanded fence: the undo before the point of no return.
    Unfence,
    /// What a drill does, with copies. A kind of its own: no agent can take it for the real thing.
    Rehearse(Rehearsal),
}

impl StepKind {
    /// False for what concerns nobody but the run: while it waits, asks or looks, nothing is changed anywhere.
    pub(crate) const fn touches(self) -> bool {
        !matches!(self, Self::Action(Action::Wait | Action::Approve | Action::Verify))
    }
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The state of the newest attempt.
    pub state: StepState,
    /// Attempts that were begun.
    pub attempts: Attempt,
    /// Attempts that count against the budget; an operator's `clear --retry` sets it back.
    pub spent: u32,
    /// Token of the newest intent.
    pub token: Option<Token>,
    /// Commit of the first intent.
    pub started: Option<Timestamp>,
    /// Commit of the newest intent.
    pub attempt_started: Option<Timestamp>,
    /// Commit of the last outcome.
    pub ended: Option<Timestamp>,
    /// What the last success measured.
    pub report: Option<Report>,
    /// Code and message of the last failure.
    pub failure: Option<(String, String)>,
}

/// The state of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum StepState {
    /// Not begun.
    #[default]
    Pending,
    /// An intent is committed and no outcome.
    Running,
    /// The last attempt failed and another will follow.
    Retrying,
    /// Done.
    Succeeded,
    /// Failed, and the document says to go on.
    FailedContinued,
    /// A human must say what to do.
    Stuck,
    /// Not done, because the run ended or changed before.
    Skipped,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RunStatus {
    /// It goes on.
    Running,
    /// Before the point of no return something failed; what was done is being undone.
    Undoing,
    /// A step is stuck.
    Stuck,
    /// Every step ended as documented.
    Succeeded,
    /// Undone, or given up before anything was touched: the old primary serves.
    Undone,
    /// Ended by a decision of a higher epoch.
    Superseded,
    /// Ended by an operator when only a side still had to follow: that side is left as it was.
    Aborted,
    /// Ended without success: a fence could not be confirmed or undone, or a step of a drill failed.
    Failed,
}

impl RunStatus {
    /// True if nothing more will happen.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Running | Self::Undoing | Self::Stuck => false,
            Self::Succeeded | Self::Undone | Self::Superseded | Self::Aborted | Self::Failed => true,
        }
    }
}

impl std::fmt::Display for RunStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Undoing => "undoing",
            Self::Stuck => "stuck",
            Self::Succeeded => "succeeded",
            Self::Undone => "undone",
            Self::Superseded => "superseded",
            Self::Aborted => "aborted",
            Self::Failed => "failed",
        })
    }
}

impl StepState {
    /// True if nothing more is to be awaited of the step.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        match self {
            Self::Succeeded | Self::FailedContinued | Self::Skipped => true,
            Self::Pending | Self::Running | Self::Retrying | Self::Stuck => false,
        }
    }
}

impl Run {
    /// A run that has just begun.
    #[must_use]
    pub fn begin(id: RunId, plan: Vec<Step>, opening: Opening) -> Self {
        let progress = plan.iter().map(|_| Progress::default()).collect();
        Self {
            id,
            application: opening.application,
            cause: opening.cause,
            from: opening.from,
            to: opening.to,
            epoch_before: opening.epoch,
            decided: None,
            finding: opening.finding,
            steps: plan,
            progress,
            status: RunStatus::Running,
            started: opening.at,
            ended: None,
            abort: None,
            order: None,
            way_back_opened: false,
        }
    }

    /// A step of the plan with what became of it.
    #[must_use]
    pub fn step(&self, id: StepId) -> Option<(&Step, &Progress)> {
        let position = usize::try_from(id.0).ok()?;
        Some((self.steps.get(position)?, self.progress.get(position)?))
    }

    /// Every step with what became of it, in the order of the plan.
    pub fn walk(&self) -> impl Iterator<Item = (&Step, &Progress)> {
        self.steps.iter().zip(&self.progress)
    }

    /// The epoch under which a step acts: before the point of no return the old one.
    #[must_use]
    pub fn epoch_of(&self, step: &Step) -> Epoch {
        match &self.decided {
            Some(decided) if step.stage != UNDO_STAGE => decided.epoch,
            Some(_) | None => self.epoch_before,
        }
    }

    /// It will give this name another answer, and has not yet: whoever asks now had better ask again soon.
    #[must_use]
    pub fn will_redirect(&self, name: &ResourceId) -> bool {
        let redirects =
            |step: &Step| step.kind == StepKind::Action(Action::Redirect) && step.resource.as_ref() == Some(name);
        !self.status.is_final() && self.walk().any(|(step, progress)| redirects(step) && !progress.state.is_ended())
    }

    /// True once fences of the old side are confirmed: a promotion then waits for no promise.
    #[must_use]
    pub fn old_side_fenced(&self) -> bool {
        match self.decided.as_ref().map(|decided| &decided.ground) {
            Some(Ground::Fenced { .. } | Ground::Switched { .. }) => true,
            Some(Ground::Lost { .. } | Ground::Forced { .. } | Ground::Recovered) | None => false,
        }
    }

    /// An intent is committed: something may have been done.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.decided.is_some() || self.progress.iter().any(|progress| progress.token.is_some())
    }

    /// An intent of more than a wait, a question or a check is committed, whether or not its end is known: what was ordered may
    /// have been done. Without one there is nothing to undo.
    #[must_use]
    pub fn has_touched(&self) -> bool {
        self.decided.is_some() || self.walk().any(|(step, progress)| step.kind.touches() && progress.token.is_some())
    }

    /// The same of more than the TTL of a name.
    #[must_use]
    pub(crate) fn has_touched_more_than_ttls(&self) -> bool {
        let more = |step: &Step| step.kind.touches() && !step.is_ttl_alone();
        self.decided.is_some() || self.walk().any(|(step, progress)| more(step) && progress.token.is_some())
    }

    /// It has done what its cause cannot be seen behind any more: a fence looks like the failure that it is for. A
    /// switchover may wait, ask and run commands before; it is asked for its cause until it keeps writes out.
    #[must_use]
    pub fn hides_its_cause(&self) -> bool {
        if !self.cause.is_planned() {
            return self.has_begun();
        }
        let closing = |(step, progress): (&Step, &Progress)| keeps_out(step.kind) && progress.token.is_some();
        self.decided.is_some() || self.status == RunStatus::Undoing || self.walk().any(closing)
    }

    /// Since when the old side has been told to take no more; none if it has not. What a plan expects as its outage and what
    /// a run is measured by both begin here.
    #[must_use]
    pub fn kept_out_since(&self) -> Option<Timestamp> {
        self.walk().filter(|(step, _)| keeps_out(step.kind)).filter_map(|(_, progress)| progress.started).min()
    }

    /// A failover does not wait for it: it moves no primary and can be begun again. Of a switchover that is the end,
    /// when only the old side is still to follow.
    #[must_use]
    pub fn gives_way(&self) -> bool {
        let rejoins = |step: &Step| step.kind == StepKind::Action(Action::Rejoin) || step.stage == UNDO_STAGE;
        let only_follows = || {
            let mut open = self.walk().filter(|(step, progress)| !step.detached && !progress.state.is_ended());
            open.all(|(step, _)| rejoins(step))
        };
        !self.cause.moves_primary() || (self.decided.is_some() && !self.status.is_final() && only_follows())
    }

    /// A failover that fences first goes before it: what gives way, and a switchover that is being undone. That opens the
    /// old side again, and the old side may be what has failed; whatever it has opened by then is fenced first. The undo of
    /// a failover is awaited, or fences and undoes would follow each other in turns, unless it is stuck: what has failed
    /// may be what does not open again, and only a failover ends that outage.
    #[must_use]
    pub fn yields_to_failover(&self) -> bool {
        let undoing = self.cause.moves_primary() && self.decided.is_none() && self.status == RunStatus::Undoing;
        let is_stuck =
            || self.walk().any(|(step, progress)| step.stage == UNDO_STAGE && progress.state == StepState::Stuck);
        self.gives_way() || (undoing && (self.cause.is_planned() || is_stuck()))
    }

    /// What the old side reported of a database after its fence: every commit it ever acknowledged lies before.
    #[must_use]
    pub fn final_position(&self, resource: &ResourceId) -> Option<u64> {
        self.reported(Action::Fence, &self.from, resource)
    }

    /// How far the new side has come with a database, by its catch-up.
    #[must_use]
    pub fn caught_up_to(&self, resource: &ResourceId) -> Option<u64> {
        self.reported(Action::CatchUp, &self.to, resource)
    }

    fn reported(&self, action: Action, cluster: &ClusterId, resource: &ResourceId) -> Option<u64> {
        let is_it = |step: &Step| {
            step.kind == StepKind::Action(action)
                && step.cluster == *cluster
                && step.resource.as_ref() == Some(resource)
        };
        let mut done = self.walk().filter(|(_, progress)| progress.state == StepState::Succeeded);
        done.find(|(step, _)| is_it(step)).and_then(|(_, progress)| progress.report.as_ref()?.position)
    }

    /// The end of the last attempt is still to be noted. Of a run that has succeeded only that a side which was told to
    /// rejoin does follow, or why not: nothing waited for it.
    #[must_use]
    pub fn hears(&self, step: &Step, progress: &Progress) -> bool {
        match progress.state {
            StepState::Running => !self.status.is_final(),
            StepState::Skipped => {
                let rejoin = step.kind == StepKind::Action(Action::Rejoin) && progress.token.is_some();
                rejoin && step.detached && self.status == RunStatus::Succeeded
            }
            // It was only given up waiting for, and nothing has been begun since. A fence is seen anew.
            StepState::Retrying => {
                let unheard = progress.failure.as_ref().is_some_and(|(code, _)| code == next::NO_REPORT);
                unheard && !settle::is_fence(step.kind) && !self.status.is_final()
            }
            StepState::Pending | StepState::Succeeded | StepState::FailedContinued | StepState::Stuck => false,
        }
    }

    fn progress_mut(&mut self, id: StepId) -> Option<&mut Progress> {
        self.progress.get_mut(usize::try_from(id.0).ok()?)
    }

    /// Ends the run; what was not done is skipped.
    pub(crate) fn end(&mut self, status: RunStatus, at: Timestamp) {
        self.status = status;
        self.ended = Some(at);
        for progress in &mut self.progress {
            if !progress.state.is_ended() {
                progress.state = StepState::Skipped;
            }
        }
    }

    /// The point of no return has been passed.
    pub(crate) fn pass(&mut self, decided: Decided, finding: Finding) {
        let at = decided.at;
        for (step, progress) in self.steps.iter().zip(&mut self.progress) {
            if step.kind == StepKind::Decide {
                progress.state = StepState::Succeeded;
                progress.started = progress.started.or(Some(at));
                progress.ended = Some(at);
            }
        }
        self.decided = Some(decided);
        self.finding = finding;
    }
}

/// What a run begins with.
pub struct Opening {
    /// Of which application.
    pub application: ApplicationId,
    /// Why.
    pub cause: Cause,
    /// The old primary.
    pub from: ClusterId,
    /// The new primary.
    pub to: ClusterId,
    /// The epoch before.
    pub epoch: Epoch,
    /// What was known.
    pub finding: Finding,
    /// When.
    pub at: Timestamp,
}
