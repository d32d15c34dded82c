//! From the core's types to those of the operators' protocol. Nothing is decided here.

use prost_types::{Duration, Timestamp as WireTime};
use regent_core::advice::{self, Advice};
use regent_core::entry::{Cause, Ground};
use regent_core::run::{Decided, Progress, Remedy, Run, RunStatus, Step, StepKind, StepState, remedies};
use regent_core::state::{AuditRecord, Pause, State};
use regent_core::switchover::Purpose;
use regent_core::time::{Span, Timestamp};
use regent_core::why;
use regent_proto::operator::v1 as wire;

use super::operator::{failover, plan};

/// A length of time.
pub(crate) fn span(span: Span) -> Duration {
    let millis = span.millis();
    Duration {
        seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(millis % 1000 * 1_000_000).unwrap_or(0),
    }
}

/// A wall-clock time.
pub(crate) fn time(at: Timestamp) -> WireTime {
    WireTime { seconds: at.0.div_euclid(1000), nanos: i32::try_from(at.0.rem_euclid(1000) * 1_000_000).unwrap_or(0) }
}

pub(crate) fn pause(pause: &Pause) -> wire::Pause {
    wire::Pause { by: pause.by.clone(), reason: pause.reason.clone(), at: Some(time(pause.at)) }
}

pub(crate) fn audit(record: &AuditRecord) -> wire::AuditRecord {
    wire::AuditRecord {
        index: record.index.0,
        at: Some(time(record.at)),
        event: record.event.clone(),
        application: record.application.as_ref().map(ToString::to_string).unwrap_or_default(),
        run: record.run.map_or(0, |run| run.0),
        actor: record.actor.clone(),
        detail: record.detail.clone(),
    }
}

pub(crate) fn explanation(explanation: &why::Explanation) -> wire::Explanation {
    wire::Explanation {
        application: explanation.application.to_string(),
        epoch: explanation.epoch.0,
        primary: explanation.primary.as_ref().map(ToString::to_string).unwrap_or_default(),
        verdict: match explanation.verdict {
            why::Verdict::Healthy => wire::Verdict::Healthy,
            why::Verdict::Suspect => wire::Verdict::Suspect,
            why::Verdict::Lost => wire::Verdict::Lost,
            why::Verdict::Unknown => wire::Verdict::Unknown,
            why::Verdict::AgentUnreachable => wire::Verdict::AgentUnreachable,
        }
        .into(),
        would_start: explanation.would_start,
        held_by: explanation.held_by.iter().map(rule).collect(),
        target: explanation.target.as_ref().map(ToString::to_string).unwrap_or_default(),
        others: explanation
            .others
            .iter()
            .map(|(cluster, reason)| wire::RejectedTarget { cluster: cluster.to_string(), reason: reason.clone() })
            .collect(),
        expected_loss: explanation.expected_loss.clone(),
        earliest: explanation.earliest.map(span),
        if_lost_now: explanation.if_lost_now.map(span),
        expected: explanation.expected.map(plan::expected),
        notes: explanation.notes.iter().map(plan::note).collect(),
    }
}

pub(crate) fn rule(rule: &why::Rule) -> wire::Rule {
    wire::Rule { code: rule.code.clone(), detail: rule.detail.clone() }
}

pub(crate) fn advice(advice: Advice) -> wire::Advice {
    wire::Advice { state: advice.state.to_owned(), next: advice.next }
}

pub(crate) fn run(state: &State, run: &Run) -> wire::Run {
    wire::Run {
        id: run.id.0,
        application: run.application.to_string(),
        cause: Some(cause(&run.cause)),
        from: run.from.to_string(),
        to: run.to.to_string(),
        epoch_before: run.epoch_before.0,
        decision: run.decided.as_ref().map(decision),
        finding: Some(wire::Finding {
            reasons: run.finding.reasons.clone(),
            last_contact: run.finding.last_contact.map(time),
            gaps: run.finding.gaps.iter().map(|(resource, known)| gap(resource.as_str(), known)).collect(),
        }),
        steps: run.walk().map(|(planned, progress)| step(state, run, planned, progress)).collect(),
        status: match run.standing() {
            RunStatus::Running => wire::RunStatus::Running,
            RunStatus::Undoing => wire::RunStatus::Undoing,
            RunStatus::Stuck => wire::RunStatus::Stuck,
            RunStatus::Succeeded => wire::RunStatus::Succeeded,
            RunStatus::Undone => wire::RunStatus::Undone,
            RunStatus::Superseded => wire::RunStatus::Superseded,
            RunStatus::Aborted => wire::RunStatus::Aborted,
            RunStatus::Failed => wire::RunStatus::Failed,
        }
        .into(),
        started: Some(time(run.started)),
        ended: run.ended.map(time),
        abort: run.abort.as_ref().map(|abort| wire::Abort {
            by: abort.by.clone(),
            reason: abort.reason.clone(),
            at: Some(time(abort.at)),
        }),
        advice: Some(advice(advice::of_run(state, run))),
        // A run takes its order along as it was then: nothing of it is awaited any more.
        order: run.order.as_ref().map(|known| wire::Order {
            run: run.id.0,
            left: None,
            next: String::new(),
            ..failover::order(known, &run.application, &run.from, run.started)
        }),
    }
}

/// Its stable word.
pub(crate) const fn cause_kind(cause: &Cause) -> &'static str {
    match cause {
        Cause::RegionLost => "region-lost",
        Cause::ResourceFailed { .. } => "resource-failed",
        Cause::AgentUnreachable => "agent-unreachable",
        Cause::SelfFenced => "self-fenced",
        Cause::Switchover { purpose, .. } => purpose.as_str(),
        Cause::Forced { .. } => "forced",
        Cause::Rejoin { .. } => "rejoin",
        Cause::Recovered => "recovered",
        Cause::Drill { .. } => "drill",
    }
}

fn cause(cause: &Cause) -> wire::Cause {
    let (by, reason, resource) = match cause {
        Cause::RegionLost | Cause::AgentUnreachable | Cause::SelfFenced => ("", String::new(), String::new()),
        Cause::ResourceFailed { resource, detail } => ("", detail.clone(), resource.to_string()),
        Cause::Switchover { by, purpose: Purpose::Rollback { of }, .. } => {
            (by.as_str(), format!("it rolls run {of} back"), String::new())
        }
        Cause::Switchover { by, .. } => (by.as_str(), String::new(), String::new()),
        Cause::Forced { by, reason } => (by.as_str(), reason.clone(), String::new()),
        Cause::Rejoin { by, reclone: false } => (by.as_str(), String::new(), String::new()),
        Cause::Rejoin { by, reclone: true } => (by.as_str(), "a fresh copy is allowed".to_owned(), String::new()),
        Cause::Recovered => ("", "the group was restored from a backup".to_owned(), String::new()),
        Cause::Drill { by } => (by.as_str(), String::new(), String::new()),
    };
    wire::Cause { kind: cause_kind(cause).to_owned(), by: by.to_owned(), reason, resource }
}

/// As documents write it, and the three that they cannot write.
pub(crate) fn step_kind(step: &Step) -> &'static str {
    match step.kind {
        StepKind::Action(_) if step.is_ttl_alone() => "ttl",
        StepKind::Action(action) => action.as_str(),
        StepKind::Decide => "decide",
        StepKind::Unfence => "unfence",
        StepKind::Rehearse(rehearsal) => rehearsal.as_str(),
    }
}

fn decision(decided: &Decided) -> wire::Decision {
    let mut decision = wire::Decision {
        index: decided.index.0,
        at: Some(time(decided.at)),
        epoch: decided.epoch.0,
        ..wire::Decision::default()
    };
    match &decided.ground {
        Ground::Lost { votes } => {
            let votes: Vec<String> = votes.iter().map(ToString::to_string).collect();
            "lost".clone_into(&mut decision.ground);
            decision.detail = format!("votes {}", votes.join(", "));
        }
        Ground::Fenced { run } => {
            "fenced".clone_into(&mut decision.ground);
            decision.detail = format!("fences of run {run} were confirmed");
        }
        Ground::Switched { run } => {
            "switched".clone_into(&mut decision.ground);
            decision.detail = format!("fences and catch-up of run {run} were confirmed");
        }
        Ground::Recovered => {
            "recovered".clone_into(&mut decision.ground);
            "the agents of all clusters reported what they had stored".clone_into(&mut decision.detail);
        }
        Ground::Forced { operator, second, attestation, reason } => {
            "forced".clone_into(&mut decision.ground);
            decision.detail = format!("{reason}; attested: {attestation}");
            decision.operator.clone_from(operator);
            decision.second = second.clone().unwrap_or_default();
        }
    }
    decision
}

fn gap(resource: &str, gap: &regent_core::entry::Gap) -> wire::Gap {
    wire::Gap {
        resource: resource.to_owned(),
        primary: gap.primary,
        primary_age: gap.primary_age.map(span),
        candidate: gap.candidate,
        lag: gap.lag.map(span),
        text: gap.text.clone(),
    }
}

fn step(state: &State, run: &Run, step: &Step, progress: &Progress) -> wire::Step {
    wire::Step {
        id: step.id.0,
        stage: step.stage,
        kind: step_kind(step).to_owned(),
        resource: step.resource.as_ref().map(ToString::to_string).unwrap_or_default(),
        cluster: step.cluster.to_string(),
        state: match progress.state {
            StepState::Pending => wire::StepState::Pending,
            StepState::Running => wire::StepState::Running,
            StepState::Retrying => wire::StepState::Retrying,
            StepState::Succeeded => wire::StepState::Succeeded,
            StepState::FailedContinued => wire::StepState::FailedContinued,
            StepState::Stuck => wire::StepState::Stuck,
            StepState::Skipped => wire::StepState::Skipped,
        }
        .into(),
        attempts: progress.attempts.0,
        retries: step.retries,
        timeout: Some(span(step.timeout)),
        on_failure: step.on_failure.as_str().to_owned(),
        detached: step.detached,
        command: step.command.clone(),
        question: step.question.clone(),
        after: step.after.iter().map(|before| before.0).collect(),
        started: progress.started.map(time),
        ended: progress.ended.map(time),
        report: progress.report.as_ref().map(report),
        failure: progress
            .failure
            .as_ref()
            .map(|(code, message)| wire::Failure { code: code.clone(), message: message.clone() }),
        remedies: remedies(state, run, step, progress).into_iter().map(remedy).collect(),
    }
}

fn remedy(remedy: Remedy) -> wire::Remedy {
    wire::Remedy { what: remedy.what.to_owned(), command: remedy.command }
}

fn report(report: &regent_core::entry::Report) -> wire::StepReport {
    wire::StepReport {
        message: report.message.clone(),
        driver: Some(span(report.driver)),
        position: report.position,
        timeline: report.timeline,
        already: report.already,
        rehearsed: report.rehearsed.map(span),
        stale_answers: report
            .stale_answers
            .iter()
            .map(|answer| wire::StaleAnswer {
                server: answer.server.clone(),
                lasted: Some(span(answer.lasted)),
                cleared: answer.cleared,
                reached: answer.reached,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_1970_keep_their_milliseconds() {
        assert_eq!(time(Timestamp(1_500)), WireTime { seconds: 1, nanos: 500_000_000 });
        assert_eq!(time(Timestamp(-500)), WireTime { seconds: -1, nanos: 500_000_000 });
        assert_eq!(span(Span::from_millis(61_001)), Duration { seconds: 61, nanos: 1_000_000 });
    }
}
