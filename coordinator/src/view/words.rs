//! The words of the model: what the core knows, in the writing that users see.

use regent_core::application::{Action, Beyond, Mode, OnFailure};
use regent_core::entry::{Cause, Ground};
use regent_core::evidence::{self, FenceState, LeaseState};
use regent_core::run::{RunStatus, Step, StepKind, StepState};
use regent_core::switchover::Purpose;
use serde::Serialize;

macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        pub enum $type {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $type {
            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }
    };
}

words! {
    /// Whether something works.
    Health {
        /// It answered as it should.
        Healthy = "healthy",
        /// It is certain that it does not work.
        Failed = "failed",
        /// Nothing, too little or too old is known.
        Unknown = "unknown",
    }
}

words! {
    /// The role of a database or a cluster.
    Role {
        /// Takes the writes.
        Primary = "primary",
        /// Follows.
        Standby = "standby",
        /// Has no role.
        None = "none",
        /// Not known.
        Unknown = "unknown",
    }
}

words! {
    /// The lease of an agent, as far as it is known here.
    Lease {
        /// None is needed.
        None = "none",
        /// Primary without a majority of grants.
        Lacked = "lacked",
        /// It runs.
        Held = "held",
        /// The last word is too old to say.
        Unknown = "unknown",
    }
}

words! {
    /// The fence of an application in a cluster.
    Fence {
        /// Not fenced.
        Open = "open",
        /// The agent fenced by itself.
        SelfFenced = "self-fenced",
        /// A commanded fence is stored.
        Commanded = "fenced",
        /// Begun and not confirmed.
        Unconfirmed = "unconfirmed",
        /// The last word is too old to say, or there is none.
        Unknown = "unknown",
    }
}

words! {
    /// What an observer sees of a cluster.
    Contacted {
        /// Heard both ways just now.
        Heard = "heard",
        /// Not heard for a while, and no vote yet.
        Silent = "silent",
        /// The observer's vote stands: it has lost the cluster.
        Lost = "lost",
        /// What it sees is not known here.
        Unknown = "unknown",
    }
}

words! {
    /// Where a run stands.
    RunState {
        /// It goes on.
        Running = "running",
        /// What was done is being undone.
        Undoing = "undoing",
        /// A human must act.
        Stuck = "stuck",
        /// Done.
        Succeeded = "succeeded",
        /// The old primary serves again.
        Undone = "undone",
        /// Ended by a decision of a higher epoch.
        Superseded = "superseded",
        /// Ended by an operator when only a side still had to follow.
        Aborted = "aborted",
        /// Ended without success.
        Failed = "failed",
    }
}

words! {
    /// Where a step stands.
    StepPhase {
        /// Not begun.
        Pending = "pending",
        /// Under way.
        Running = "running",
        /// Failed, and tried again.
        Retrying = "retrying",
        /// Done.
        Succeeded = "succeeded",
        /// Failed, and the document says to go on.
        FailedContinued = "failed-continued",
        /// A human must act.
        Stuck = "stuck",
        /// Never done.
        Skipped = "skipped",
    }
}

impl From<evidence::Health> for Health {
    fn from(health: evidence::Health) -> Self {
        match health {
            evidence::Health::Healthy => Self::Healthy,
            evidence::Health::Failed => Self::Failed,
            evidence::Health::Unknown => Self::Unknown,
        }
    }
}

impl From<evidence::Role> for Role {
    fn from(role: evidence::Role) -> Self {
        match role {
            evidence::Role::Primary => Self::Primary,
            evidence::Role::Standby => Self::Standby,
            evidence::Role::None => Self::None,
            evidence::Role::Unknown => Self::Unknown,
        }
    }
}

impl From<LeaseState> for Lease {
    fn from(lease: LeaseState) -> Self {
        match lease {
            LeaseState::None => Self::None,
            LeaseState::Lacked => Self::Lacked,
            LeaseState::Held => Self::Held,
        }
    }
}

impl From<FenceState> for Fence {
    fn from(fence: FenceState) -> Self {
        match fence {
            FenceState::Open => Self::Open,
            FenceState::SelfFenced => Self::SelfFenced,
            FenceState::Commanded => Self::Commanded,
            FenceState::Unconfirmed => Self::Unconfirmed,
        }
    }
}

impl From<RunStatus> for RunState {
    fn from(status: RunStatus) -> Self {
        match status {
            RunStatus::Running => Self::Running,
            RunStatus::Undoing => Self::Undoing,
            RunStatus::Stuck => Self::Stuck,
            RunStatus::Succeeded => Self::Succeeded,
            RunStatus::Undone => Self::Undone,
            RunStatus::Superseded => Self::Superseded,
            RunStatus::Aborted => Self::Aborted,
            RunStatus::Failed => Self::Failed,
        }
    }
}

impl From<StepState> for StepPhase {
    fn from(state: StepState) -> Self {
        match state {
            StepState::Pending => Self::Pending,
            StepState::Running => Self::Running,
            StepState::Retrying => Self::Retrying,
            StepState::Succeeded => Self::Succeeded,
            StepState::FailedContinued => Self::FailedContinued,
            StepState::Stuck => Self::Stuck,
            StepState::Skipped => Self::Skipped,
        }
    }
}

pub(super) fn step_kind(step: &Step) -> &'static str {
    match step.kind {
        StepKind::Action(_) if step.is_ttl_alone() => "ttl",
        StepKind::Action(action) => action_word(action),
        StepKind::Decide => "decide",
        StepKind::Unfence => "unfence",
        StepKind::Rehearse(rehearsal) => rehearsal.as_str(),
    }
}

const fn action_word(action: Action) -> &'static str {
    match action {
        Action::Fence => "fence",
        Action::Quiesce => "quiesce",
        Action::CatchUp => "catchUp",
        Action::Promote => "promote",
        Action::Activate => "activate",
        Action::Deactivate => "deactivate",
        Action::Redirect => "redirect",
        Action::Verify => "verify",
        Action::Rejoin => "rejoin",
        Action::Restore => "restore",
        Action::Run => "run",
        Action::Approve => "approve",
        Action::Wait => "wait",
    }
}

pub(super) const fn on_failure(on_failure: OnFailure) -> &'static str {
    match on_failure {
        OnFailure::Stuck => "stuck",
        OnFailure::Continue => "continue",
        OnFailure::Undo => "undo",
    }
}

pub(super) const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Automatic => "automatic",
        Mode::Approve => "approve",
        Mode::Manual => "manual",
    }
}

pub(super) fn beyond(beyond: Beyond) -> String {
    match beyond {
        Beyond::Refuse => "refuse".to_owned(),
        Beyond::Wait(span) => format!("wait {span}"),
        Beyond::Ask => "ask".to_owned(),
        Beyond::Accept => "accept".to_owned(),
    }
}

/// A stable word, and a sentence for humans.
pub(super) fn cause(cause: &Cause) -> (&'static str, String) {
    match cause {
        Cause::RegionLost => ("region-lost", "a majority of coordinators lost the primary's region".to_owned()),
        Cause::ResourceFailed { resource, detail } => ("resource-failed", format!("{resource} failed: {detail}")),
        Cause::AgentUnreachable => {
            ("agent-unreachable", "the primary's agent reaches no majority of coordinators".to_owned())
        }
        Cause::SelfFenced => {
            ("self-fenced", "the primary's agent fenced it itself and did not open it again".to_owned())
        }
        Cause::Switchover { by, purpose: Purpose::Rollback { of }, .. } => {
            ("rollback", format!("run {of} is rolled back by {by}"))
        }
        Cause::Switchover { by, purpose, .. } => (purpose.as_str(), format!("planned by {by}")),
        Cause::Forced { by, reason } => ("forced", format!("ordered by {by}: {reason}")),
        Cause::Recovered => ("recovered", "opened again after the group was restored from a backup".to_owned()),
        Cause::Rejoin { by, reclone: false } => ("rejoin", format!("taken back by {by}")),
        Cause::Rejoin { by, reclone: true } => ("rejoin", format!("taken back by {by}, with a fresh copy if need be")),
        Cause::Drill { by } => ("drill", format!("rehearsed by {by}")),
    }
}

/// A stable word, and a sentence for humans.
pub(super) fn ground(ground: &Ground) -> (&'static str, String) {
    match ground {
        Ground::Lost { votes } => ("lost", format!("{} votes stood and the time bound had passed", votes.len())),
        Ground::Fenced { .. } => ("fenced", "the old side is fenced, confirmed".to_owned()),
        Ground::Switched { .. } => {
            ("switched", "the old side is fenced and the new one has caught up, confirmed".to_owned())
        }
        Ground::Recovered => ("recovered", "the agents of all clusters reported what they had stored".to_owned()),
        Ground::Forced { operator, second, attestation, reason } => {
            let second = second.as_ref().map_or_else(String::new, |second| format!(" with {second}"));
            ("forced", format!("by {operator}{second}: {reason}; attested: {attestation}"))
        }
    }
}
