//! States and times in words. Nothing is told by colour alone.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use prost_types::{Duration, Timestamp as WireTime};
use regent_core::time::Span;
use regent_proto::operator::v1 as wire;

/// A length of time, short: 1m30s, 12.3s, 450ms.
pub(crate) fn span(duration: &Duration) -> String {
    let millis = millis(duration);
    if (1_000..60_000).contains(&millis) && !millis.is_multiple_of(1_000) {
        return format!("{}.{}s", millis / 1_000, millis % 1_000 / 100);
    }
    let rounded = if millis < 1_000 { millis } else { millis / 1_000 * 1_000 };
    Span::from_millis(rounded).to_string()
}

pub(crate) fn millis(duration: &Duration) -> u64 {
    let seconds = u64::try_from(duration.seconds).unwrap_or(0);
    let nanos = u64::try_from(duration.nanos).unwrap_or(0);
    seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000)
}

/// Nothing for what is not known.
pub(crate) fn maybe(duration: Option<&Duration>) -> String {
    duration.map(span).unwrap_or_default()
}

/// Milliseconds since 1970.
pub(crate) const fn instant(time: &WireTime) -> i64 {
    time.seconds.saturating_mul(1_000).saturating_add(time.nanos as i64 / 1_000_000)
}

/// From one time to another; none if one is missing or they are in the wrong order.
pub(crate) fn between(from: Option<&WireTime>, to: Option<&WireTime>) -> Option<Duration> {
    let millis = instant(to?).checked_sub(instant(from?)).filter(|millis| *millis >= 0)?;
    Some(Duration { seconds: millis / 1_000, nanos: i32::try_from(millis % 1_000 * 1_000_000).unwrap_or(0) })
}

/// In UTC, so that reports of different people say the same.
pub(crate) fn time(time: Option<&WireTime>) -> String {
    format(time, "%Y-%m-%d %H:%M:%S UTC")
}

/// Of the day, with milliseconds.
pub(crate) fn clock(time: Option<&WireTime>) -> String {
    format(time, "%H:%M:%S%.3f")
}

fn format(time: Option<&WireTime>, form: &str) -> String {
    time.and_then(|time| Timestamp::from_millisecond(instant(time)).ok())
        .map(|time| time.to_zoned(TimeZone::UTC).strftime(form).to_string())
        .unwrap_or_default()
}

pub(crate) const fn yes(truth: bool) -> &'static str {
    if truth { "yes" } else { "no" }
}

pub(crate) fn status(run: &wire::Run) -> &'static str {
    match run.status() {
        wire::RunStatus::Unspecified => "unknown",
        wire::RunStatus::Running => "running",
        wire::RunStatus::Undoing => "undoing",
        wire::RunStatus::Stuck => "stuck",
        wire::RunStatus::Succeeded => "succeeded",
        wire::RunStatus::Undone => "undone",
        wire::RunStatus::Superseded => "superseded",
        wire::RunStatus::Aborted => "aborted",
        wire::RunStatus::Failed => "failed",
    }
}

pub(crate) fn step_state(step: &wire::Step) -> &'static str {
    match step.state() {
        wire::StepState::Unspecified => "unknown",
        wire::StepState::Pending => "pending",
        wire::StepState::Running => "running",
        wire::StepState::Retrying => "will be retried",
        wire::StepState::Succeeded => "done",
        wire::StepState::FailedContinued => "failed, went on",
        wire::StepState::Stuck => "stuck",
        wire::StepState::Skipped => "skipped",
    }
}

pub(crate) fn role(placement: &wire::Placement) -> &'static str {
    match placement.role() {
        wire::PlacementRole::Unspecified => "unknown",
        wire::PlacementRole::Primary => "primary",
        wire::PlacementRole::Standby => "standby",
        wire::PlacementRole::Excluded => "quarantined",
        wire::PlacementRole::None => "not adopted",
    }
}

pub(crate) fn lease(placement: &wire::Placement) -> String {
    let left = placement.lease_left.as_ref().map(|left| format!(" for {}", span(left))).unwrap_or_default();
    let promises = if placement.failsafe { ", by promises" } else { "" };
    match placement.lease() {
        wire::LeaseState::Unspecified | wire::LeaseState::Unknown => "unknown".to_owned(),
        wire::LeaseState::None => "none".to_owned(),
        wire::LeaseState::Lacked => "lacking".to_owned(),
        wire::LeaseState::Held => format!("held{left}{promises}"),
    }
}

pub(crate) fn fence(placement: &wire::Placement) -> &'static str {
    match placement.fence() {
        wire::FenceState::Unspecified | wire::FenceState::Unknown => "unknown",
        wire::FenceState::Open => "open",
        wire::FenceState::SelfFenced => "fenced by itself",
        wire::FenceState::Commanded => "fenced",
        wire::FenceState::Unconfirmed => "fencing, not confirmed",
    }
}

pub(crate) fn health(resource: &wire::ResourceState) -> &'static str {
    match resource.health() {
        wire::Health::Unspecified | wire::Health::Unknown => "unknown",
        wire::Health::Healthy => "healthy",
        wire::Health::Failed => "failed",
    }
}

pub(crate) fn database_role(resource: &wire::ResourceState) -> &'static str {
    match resource.role() {
        wire::DatabaseRole::Unspecified | wire::DatabaseRole::Unknown => "unknown",
        wire::DatabaseRole::Primary => "primary",
        wire::DatabaseRole::Standby => "standby",
        wire::DatabaseRole::None => "",
    }
}

pub(crate) fn lag(resource: &wire::ResourceState) -> String {
    let bytes = resource.lag_bytes.map(|bytes| format!("{bytes} B"));
    [maybe(resource.lag.as_ref()), bytes.unwrap_or_default()].join(" ").trim().to_owned()
}

pub(crate) fn sight(sight: &wire::Sight) -> String {
    let heard = sight.heard.as_ref().map(|heard| format!(" {} ago", span(heard))).unwrap_or_default();
    let word = match sight.contact() {
        wire::Contact::Unspecified | wire::Contact::Unknown => "unknown".to_owned(),
        wire::Contact::Heard => format!("heard{heard}"),
        wire::Contact::Silent => format!("silent, heard{heard}"),
        wire::Contact::Never => "never heard".to_owned(),
    };
    if sight.voted.is_some() { format!("{word}, votes lost") } else { word }
}

pub(crate) const fn verdict(verdict: wire::Verdict) -> &'static str {
    match verdict {
        wire::Verdict::Unspecified | wire::Verdict::Unknown => "unknown: not enough is known",
        wire::Verdict::Healthy => "healthy",
        wire::Verdict::Suspect => "suspect: something speaks against it",
        wire::Verdict::Lost => "lost",
        wire::Verdict::AgentUnreachable => "its agent cannot be reached, but something says that it lives",
    }
}

/// By what earlier runs took.
pub(crate) fn expected(expected: Option<&wire::Expected>) -> String {
    let Some(expected) = expected else { return "unknown".to_owned() };
    let known = maybe(expected.span.as_ref());
    match expected.unknown {
        0 => format!("about {known}"),
        1 => format!("more than {known}: one step was never done here"),
        more => format!("more than {known}: {more} steps were never done here"),
    }
}

pub(crate) fn order(order: &wire::Order) -> &'static str {
    match order.state() {
        wire::OrderState::Unspecified => "unknown",
        wire::OrderState::Asked => "asks for a yes",
        wire::OrderState::Silent => "was not answered",
        wire::OrderState::Given => "is ordered",
        wire::OrderState::Declined => "was declined",
    }
}

pub(crate) const fn severity(severity: wire::Severity) -> &'static str {
    match severity {
        wire::Severity::Unspecified => "unknown",
        wire::Severity::Blocker => "BLOCKER",
        wire::Severity::Warning => "warning",
        wire::Severity::Info => "info",
    }
}

pub(crate) fn judgement(objective: &wire::Objective) -> &'static str {
    match objective.judgement() {
        wire::Judgement::Unspecified | wire::Judgement::Unknown => "unknown",
        wire::Judgement::Met => "met",
        wire::Judgement::Missed => "missed",
    }
}

/// Why a run began, as a sentence without its end.
pub(crate) fn cause(cause: Option<&wire::Cause>) -> String {
    let Some(cause) = cause else { return "unknown".to_owned() };
    match cause.kind.as_str() {
        "region-lost" => "the region was lost".to_owned(),
        "resource-failed" => format!("{} failed: {}", cause.resource, cause.reason),
        "agent-unreachable" => "the agent could not be reached by most coordinators".to_owned(),
        "switchover" => format!("switchover by {}", cause.by),
        "drill" => format!("rehearsed by {}", cause.by),
        "failback" => format!("failback by {}", cause.by),
        "rollback" => format!("rollback by {}: {}", cause.by, cause.reason),
        "self-fenced" => "the agent fenced its primaries itself and did not open them again".to_owned(),
        "forced" => format!("failover ordered by {}: {}", cause.by, cause.reason),
        "rejoin" if cause.reason.is_empty() => format!("taken back by {}", cause.by),
        "rejoin" => format!("taken back by {}; {}", cause.by, cause.reason),
        other => other.to_owned(),
    }
}

/// What a step does, to what, where.
pub(crate) fn step(step: &wire::Step) -> String {
    match (step.resource.as_str(), step.command.as_str()) {
        ("", _) if !step.question.is_empty() => format!("{} {:?}", step.kind, step.question),
        ("", _) => step.kind.clone(),
        (resource, "") => format!("{} {resource}", step.kind),
        (resource, command) => format!("{} {command} of {resource}", step.kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short_and_true() {
        let cases = [(450, "450ms"), (1_000, "1s"), (12_345, "12.3s"), (60_000, "1m"), (90_500, "1m30s"), (0, "0s")];
        for (millis, text) in cases {
            let duration =
                Duration { seconds: millis / 1_000, nanos: i32::try_from(millis % 1_000).unwrap() * 1_000_000 };
            assert_eq!(span(&duration), text);
        }
    }

    #[test]
    fn times_are_utc() {
        let at = WireTime { seconds: 1_700_000_000, nanos: 123_000_000 };
        assert_eq!(time(Some(&at)), "2023-11-14 22:13:20 UTC");
        assert_eq!(clock(Some(&at)), "22:13:20.123");
        assert_eq!(time(None), "");
    }
}
