//! The defaults of the document. The schema documents each from here.

use super::{Action, Beyond, DnsProvider, Mode, OnCoordinatorLoss, OnFailure, OnSilence};
use crate::time::Span;

/// Nothing moves by itself unless the document says so.
pub(super) const MODE: Mode = Mode::Approve;
/// Long enough for the cause of a failover to be found before it meets the next cluster.
pub(super) const COOLDOWN: Span = Span::from_secs(3600);
/// More loss than agreed is a human's decision.
pub(super) const BEYOND: Beyond = Beyond::Ask;
/// A planned move that keeps writes out for longer than this had better not have begun.
pub(crate) const MAX_WRITE_OUTAGE: Span = Span::from_secs(30);
/// Coordinator trouble alone changes nothing (safety.md, S6).
pub(super) const ON_COORDINATOR_LOSS: OnCoordinatorLoss = OnCoordinatorLoss::Failsafe;
/// One lost probe is noise.
pub(super) const PROBE_FAILURES: u32 = 3;
/// A compromise of the load on the servers and the time that a redirect takes.
pub(super) const TTL: Span = Span::from_secs(30);
/// What needs no further set-up.
pub(super) const PROVIDER: DnsProvider = DnsProvider::Embedded;
/// A human looks before anything goes on upon a failed step.
pub(super) const ON_FAILURE: OnFailure = OnFailure::Stuck;

/// A human who is called in the night needs some time; as long as an `approve` step.
pub(super) const APPROVE_WITHIN: Span = Span::from_secs(3600);
/// Silence is no yes.
pub(super) const ON_SILENCE: OnSilence = OnSilence::Refuse;

/// For documents that were stored before there was the setting.
pub(crate) const fn approve_within() -> Span {
    APPROVE_WITHIN
}

/// For documents and runs that were stored before there was the setting.
pub(crate) const fn max_write_outage() -> Span {
    MAX_WRITE_OUTAGE
}

/// Of one attempt. A wait takes its own time, and then as long as any step.
pub(crate) const fn timeout(action: Action, duration: Option<Span>) -> Span {
    match action {
        Action::Fence
        | Action::Quiesce
        | Action::CatchUp
        | Action::Promote
        | Action::Deactivate
        | Action::Verify
        | Action::Run => Span::from_secs(60),
        Action::Activate | Action::Redirect => Span::from_secs(120),
        Action::Rejoin => Span::from_secs(600),
        Action::Restore | Action::Approve => Span::from_secs(3600),
        Action::Wait => match duration {
            Some(duration) => duration.plus(Span::from_secs(60)),
            None => Span::from_secs(60),
        },
    }
}

/// Of one attempt in a runbook of this name: a drill begins a promotion with a copy, which takes as long as a restore.
pub(crate) fn timeout_in(runbook: &str, action: Action, duration: Option<Span>) -> Span {
    let action = if runbook == "drill" && action == Action::Promote { Action::Restore } else { action };
    timeout(action, duration)
}

/// Attempts after the first. A check is asked often, since a service needs time to come up; a human only once.
pub(crate) const fn retries(action: Action) -> u32 {
    match action {
        Action::Verify => 10,
        Action::Approve => 0,
        Action::Fence
        | Action::Quiesce
        | Action::CatchUp
        | Action::Promote
        | Action::Activate
        | Action::Deactivate
        | Action::Redirect
        | Action::Rejoin
        | Action::Restore
        | Action::Run
        | Action::Wait => 3,
    }
}
