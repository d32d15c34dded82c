//! A run: what was planned, what became of it, how long service was away and what was lost.

use regent_core::advice::{self, Advice};
use regent_core::application::Action;
use regent_core::entry::{Gap, Ground};
use regent_core::id::{ResourceId, StepId};
use regent_core::run::CLEAN_UP_STAGE;
use regent_core::run::{Progress, Run, RunStatus, Step, StepKind, StepState, UNDO_STAGE, remedies};
use regent_core::time::Timestamp;
use serde::Serialize;

use super::words::{self, RunState, StepPhase};
use super::{Inputs, ms, rfc3339};

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunView {
    /// Log index of the entry that began it.
    pub id: u64,
    /// Of which application.
    pub application: String,
    /// `region-lost`, `resource-failed`, `agent-unreachable`, `self-fenced`, `switchover`, `failback`, `rollback`, `forced`
    /// or `rejoin`.
    pub cause: &'static str,
    /// The cause in a sentence.
    pub cause_detail: String,
    /// The old primary.
    pub from: String,
    /// The new primary.
    pub to: String,
    /// The epoch before.
    pub epoch_before: u64,
    /// Where it stands.
    pub state: RunState,
    /// When it began.
    pub started: String,
    /// When it ended; none while it goes on.
    pub ended: Option<String>,
    /// From the beginning to the end, or to now, or without quorum to the last contact with it.
    pub duration_ms: u64,
    /// The point of no return, once passed.
    pub decision: Option<DecisionView>,
    /// What was known, most important first.
    pub reasons: Vec<String>,
    /// When the primary was last heard.
    pub last_contact: Option<String>,
    /// How long before the beginning that was.
    pub last_contact_before_ms: Option<u64>,
    /// The plan with what became of it.
    pub steps: Vec<StepView>,
    /// Who ended it and why, if an operator did.
    pub aborted: Option<(String, String)>,
    /// Where it stands, and what a human can do now.
    pub advice: Advice,
    /// What is being waited for, for humans; empty once the run has ended.
    pub awaiting: Vec<String>,
    /// How long service was away; none if the run moves no primary.
    pub recovery: Option<RecoveryView>,
    /// What was lost; none if the run moves no primary.
    pub loss: Option<LossView>,
}

/// The point of no return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DecisionView {
    /// Its log index.
    pub index: u64,
    /// When.
    pub at: String,
    /// So long after the run began.
    pub after_ms: u64,
    /// `lost`, `fenced`, `switched` or `forced`.
    pub ground: &'static str,
    /// The ground in a sentence.
    pub ground_detail: String,
    /// The new epoch.
    pub epoch: u64,
}

/// A step of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepView {
    /// Position in the plan, from 0.
    pub id: u64,
    /// Steps of one stage go side by side.
    pub stage: u32,
    /// Steps of the same stage that must end first.
    pub after: Vec<u64>,
    /// E.g. `promote`.
    pub kind: &'static str,
    /// To what it is done.
    pub resource: Option<String>,
    /// By whose agent.
    pub cluster: String,
    /// `run` only: the listed command.
    pub command: String,
    /// `approve` only: what a human is asked.
    pub question: String,
    /// Where it stands.
    pub state: StepPhase,
    /// Nothing waits for it.
    pub detached: bool,
    /// Done only when the run gives up before its point of no return.
    pub undo: bool,
    /// What follows when the attempts are used up: `stuck`, `continue` or `undo`.
    pub on_failure: &'static str,
    /// Attempts that were begun.
    pub attempts: u64,
    /// Attempts that it may have in all.
    pub attempts_allowed: u32,
    /// For one attempt.
    pub timeout_ms: u64,
    /// Commit of the first intent.
    pub started: Option<String>,
    /// The same, after the beginning of the run.
    pub started_after_ms: Option<u64>,
    /// Commit of the last outcome.
    pub ended: Option<String>,
    /// From the first intent to the last outcome, or to now while it goes on.
    pub duration_ms: Option<u64>,
    /// The part of it that the driver itself took in the last success.
    pub driver_ms: Option<u64>,
    /// What was done, for humans.
    pub message: String,
    /// Reality already was as asked.
    pub already: bool,
    /// Position afterwards, in bytes.
    pub position: Option<u64>,
    /// The last failure, if it is the last word or the step is still tried.
    pub failure: Option<FailureView>,
    /// `redirect`: servers that still gave an old answer, or from which no new one could be had.
    pub stale_answers: Vec<StaleAnswerView>,
}

/// The last failure of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureView {
    /// Stable code.
    pub code: String,
    /// For humans.
    pub message: String,
}

/// A server that still gave an old answer, or from which no new one could be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StaleAnswerView {
    /// Its address.
    pub server: String,
    /// For how long after the redirect it was seen to give an old answer; 0 if it never was.
    pub lasted_ms: u64,
    /// It gave the new answer when the step ended.
    pub cleared: bool,
    /// False if nothing came back from it when it was last asked.
    pub reached: bool,
}

/// How something compares with its objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectiveState {
    /// Measured and within.
    Met,
    /// Not ended yet, and still within.
    WithinSoFar,
    /// Beyond.
    Missed,
    /// Not known, or there is no objective to compare with.
    Unknown,
}

/// How long service was away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveryView {
    /// What it is measured from: `last-contact`, `first-fence` or `run-start`.
    pub measured_from: &'static str,
    /// When that was.
    pub from: String,
    /// Service has returned: every step that brings it back has ended well.
    pub done: bool,
    /// Until the end of the last of these, or until now (without quorum: the last contact with it), or until the run
    /// ended without it.
    pub elapsed_ms: u64,
    /// The RTO; none if the application is gone.
    pub objective_ms: Option<u64>,
    /// Compared with it.
    pub objective: ObjectiveState,
}

/// What was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LossView {
    /// The change of primary rests on a confirmed catch-up: nothing is lost.
    pub none_by_catch_up: bool,
    /// Each database with a position.
    pub databases: Vec<GapView>,
    /// Sum of what is known of all databases; none if any is unknown.
    pub bytes: Option<u64>,
    /// The furthest lag; none if any is unknown.
    pub lag_ms: Option<u64>,
    /// The RPO; none if the application is gone.
    pub objective_ms: Option<u64>,
    /// Compared with it.
    pub objective: ObjectiveState,
}

/// What one database may have lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GapView {
    /// Which.
    pub resource: String,
    /// Last position that the old primary reported.
    pub primary_position: Option<u64>,
    /// How old that was when it was decided: what was written later is not counted.
    pub primary_age_ms: Option<u64>,
    /// Position of the new primary.
    pub candidate_position: Option<u64>,
    /// The distance; none if either is unknown.
    pub bytes: Option<u64>,
    /// How far behind the candidate said it was.
    pub lag_ms: Option<u64>,
    /// In the engine's own writing.
    pub text: String,
}

impl RunView {
    /// The view of one run, also of one that is too old for [`super::View::runs`].
    #[must_use]
    pub fn build(inputs: &Inputs<'_>, run: &Run) -> Self {
        let objectives = inputs.state.applications.get(&run.application).map(|known| known.document.objectives);
        let (cause, cause_detail) = words::cause(&run.cause);
        let until = run.ended.unwrap_or_else(|| inputs.known_until());
        let moves = run.cause.moves_primary();
        Self {
            id: run.id.0,
            application: run.application.to_string(),
            cause,
            cause_detail,
            from: run.from.to_string(),
            to: run.to.to_string(),
            epoch_before: run.epoch_before.0,
            state: run.standing().into(),
            started: rfc3339(run.started),
            ended: run.ended.map(rfc3339),
            duration_ms: ms(until.since(run.started)),
            decision: run.decided.as_ref().map(|decided| {
                let (ground, ground_detail) = words::ground(&decided.ground);
                DecisionView {
                    index: decided.index.0,
                    at: rfc3339(decided.at),
                    after_ms: ms(decided.at.since(run.started)),
                    ground,
                    ground_detail,
                    epoch: decided.epoch.0,
                }
            }),
            reasons: run.finding.reasons.clone(),
            last_contact: run.finding.last_contact.map(rfc3339),
            last_contact_before_ms: run.finding.last_contact.map(|at| ms(run.started.since(at))),
            steps: run.walk().map(|(step, progress)| StepView::build(inputs, run, step, progress)).collect(),
            aborted: run.abort.as_ref().map(|abort| (abort.by.clone(), abort.reason.clone())),
            advice: advice::of_run(inputs.state, run),
            awaiting: if run.status.is_final() { Vec::new() } else { awaiting(inputs, run) },
            recovery: moves.then(|| RecoveryView::build(inputs, run, objectives.map(|objectives| ms(objectives.rto)))),
            loss: moves.then(|| LossView::build(run, objectives.map(|objectives| ms(objectives.rpo)))),
        }
    }
}

impl StepView {
    fn build(inputs: &Inputs<'_>, run: &Run, step: &Step, progress: &Progress) -> Self {
        let until = match progress.state {
            StepState::Running | StepState::Retrying => Some(inputs.known_until()),
            StepState::Stuck | StepState::Succeeded | StepState::FailedContinued => progress.ended,
            StepState::Pending | StepState::Skipped => progress.ended.or(run.ended),
        };
        let report = progress.report.as_ref();
        let failed = progress.failure.as_ref().filter(|_| progress.state != StepState::Succeeded);
        Self {
            id: step.id.0,
            stage: step.stage,
            after: step.after.iter().map(|step| step.0).collect(),
            kind: words::step_kind(step),
            resource: step.resource.as_ref().map(ToString::to_string),
            cluster: step.cluster.to_string(),
            command: step.command.clone(),
            question: step.question.clone(),
            state: progress.state.into(),
            detached: step.detached,
            undo: matches!(step.stage, UNDO_STAGE | CLEAN_UP_STAGE),
            on_failure: words::on_failure(step.on_failure),
            attempts: progress.attempts.0,
            attempts_allowed: step.retries.saturating_add(1),
            timeout_ms: ms(step.timeout),
            started: progress.started.map(rfc3339),
            started_after_ms: progress.started.map(|at| ms(at.since(run.started))),
            ended: progress.ended.filter(|_| progress.state.is_ended()).map(rfc3339),
            duration_ms: progress.started.zip(until).map(|(from, to)| ms(to.since(from))),
            driver_ms: report.map(|report| ms(report.driver)),
            message: report.map_or_else(String::new, |report| report.message.clone()),
            already: report.is_some_and(|report| report.already),
            position: report.and_then(|report| report.position),
            failure: failed.map(|(code, message)| FailureView { code: code.clone(), message: message.clone() }),
            stale_answers: report.map_or_else(Vec::new, |report| {
                let stale = report.stale_answers.iter();
                stale
                    .map(|stale| StaleAnswerView {
                        server: stale.server.clone(),
                        lasted_ms: ms(stale.lasted),
                        cleared: stale.cleared,
                        reached: stale.reached,
                    })
                    .collect()
            }),
        }
    }

    /// E.g. `promote orders-db`.
    #[must_use]
    pub fn title(&self) -> String {
        let what = self.resource.as_deref().unwrap_or_default();
        let command = if self.command.is_empty() { String::new() } else { format!(" {}", self.command) };
        format!("{} {what}{command}", self.kind).trim().to_owned()
    }
}

impl RecoveryView {
    fn build(inputs: &Inputs<'_>, run: &Run, objective_ms: Option<u64>) -> Self {
        let (measured_from, from) = beginning(run);
        let back = restored(run);
        // A run that ended otherwise brought nothing back: it is measured to its end.
        let until = back.or(run.ended).unwrap_or_else(|| inputs.known_until());
        let elapsed_ms = ms(until.since(from));
        let objective = match objective_ms {
            None => ObjectiveState::Unknown,
            Some(limit) if elapsed_ms > limit => ObjectiveState::Missed,
            Some(_) if back.is_some() => ObjectiveState::Met,
            Some(_) if run.ended.is_none() => ObjectiveState::WithinSoFar,
            Some(_) => ObjectiveState::Unknown,
        };
        Self { measured_from, from: rfc3339(from), done: back.is_some(), elapsed_ms, objective_ms, objective }
    }
}

/// Since when service is away: a lost primary since it was last heard, a healthy one since it takes no more writes.
fn beginning(run: &Run) -> (&'static str, Timestamp) {
    if let (false, Some(at)) = (run.cause.is_planned(), run.finding.last_contact) {
        return ("last-contact", at.min(run.started));
    }
    run.kept_out_since().map_or(("run-start", run.started), |at| ("first-fence", at))
}

/// When service was back: the end of the last step that brings it back, if all of these have ended.
fn restored(run: &Run) -> Option<Timestamp> {
    let brings_back = |kind| {
        matches!(
            kind,
            StepKind::Action(Action::Promote | Action::Activate | Action::Redirect | Action::Verify | Action::Restore)
        )
    };
    let serves = |step: &Step| brings_back(step.kind) && !step.detached && !step.is_ttl_alone();
    let mut last = None;
    for (_, progress) in run.walk().filter(|(step, _)| serves(step)) {
        match progress.state {
            StepState::Succeeded | StepState::FailedContinued => last = last.max(progress.ended),
            StepState::Pending | StepState::Running | StepState::Retrying | StepState::Stuck | StepState::Skipped => {
                return None;
            }
        }
    }
    last
}

impl LossView {
    fn build(run: &Run, objective_ms: Option<u64>) -> Self {
        let none_by_catch_up = match run.decided.as_ref().map(|decided| &decided.ground) {
            Some(Ground::Switched { .. }) => true,
            Some(Ground::Lost { .. } | Ground::Fenced { .. } | Ground::Forced { .. } | Ground::Recovered) | None => {
                false
            }
        };
        let databases: Vec<GapView> = run.finding.gaps.iter().map(|(id, gap)| GapView::build(id, gap)).collect();
        let known = !databases.is_empty();
        let bytes = databases.iter().try_fold(0u64, |sum, gap| gap.bytes.map(|bytes| sum.saturating_add(bytes)));
        let lag_ms = databases.iter().try_fold(0u64, |worst, gap| gap.lag_ms.map(|lag| worst.max(lag)));
        let (bytes, lag_ms) =
            if none_by_catch_up { (Some(0), Some(0)) } else { (bytes.filter(|_| known), lag_ms.filter(|_| known)) };
        let worst_known = databases.iter().filter_map(|gap| gap.lag_ms).max();
        let objective = match (objective_ms, lag_ms) {
            (Some(limit), Some(lag)) if lag <= limit => ObjectiveState::Met,
            (Some(_), Some(_)) => ObjectiveState::Missed,
            (Some(limit), None) if worst_known.is_some_and(|lag| lag > limit) => ObjectiveState::Missed,
            (Some(_) | None, None) | (None, Some(_)) => ObjectiveState::Unknown,
        };
        Self { none_by_catch_up, databases, bytes, lag_ms, objective_ms, objective }
    }
}

impl GapView {
    fn build(resource: &ResourceId, gap: &Gap) -> Self {
        let bytes = gap.primary.zip(gap.candidate).map(|(primary, candidate)| primary.saturating_sub(candidate));
        Self {
            resource: resource.to_string(),
            primary_position: gap.primary,
            primary_age_ms: gap.primary_age.map(ms),
            candidate_position: gap.candidate,
            bytes,
            // Engines that cannot tell time: nothing missing is no lag.
            lag_ms: gap.lag.map(ms).or((bytes == Some(0)).then_some(0)),
            text: gap.text.clone(),
        }
    }
}

fn awaiting(inputs: &Inputs<'_>, run: &Run) -> Vec<String> {
    let mut awaited = Vec::new();
    for (step, progress) in run.walk().filter(|(step, _)| !step.detached) {
        let title = StepView::build(inputs, run, step, progress).title();
        let StepId(number) = step.id;
        let ways = remedies(inputs.state, run, step, progress);
        let command = ways.first().map(|way| way.command.as_str()).unwrap_or_default();
        let is_question = step.kind == StepKind::Action(Action::Approve);
        match progress.state {
            StepState::Running | StepState::Stuck if is_question && !command.is_empty() => {
                awaited.push(format!("a human: {} ({command})", step.question));
            }
            // Nobody is asked any more: it is being undone.
            StepState::Running if is_question => {}
            StepState::Running => awaited.push(format!("{title} (step {number}, attempt {})", progress.attempts)),
            StepState::Retrying => {
                let why = progress.failure.as_ref().map_or_else(String::new, |(_, message)| format!(": {message}"));
                awaited.push(format!("{title} (step {number}, attempt {} failed{why})", progress.attempts));
            }
            StepState::Stuck => {
                awaited.push(format!("an operator: {title} is stuck; mend it, then {command} (step {number})"));
            }
            StepState::Pending | StepState::Succeeded | StepState::FailedContinued | StepState::Skipped => {}
        }
    }
    if awaited.is_empty() && run.status == RunStatus::Running {
        awaited.push("the leader, to begin the next step".to_owned());
    }
    awaited
}
