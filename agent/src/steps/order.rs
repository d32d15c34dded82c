//! A command that has been understood: another type than the one that came.

use std::net::IpAddr;
use std::time::Duration;

use regent_core::id::{ApplicationId, Epoch, ResourceId, Token};
use regent_core::planted::{self, Mistake};
use regent_proto::agent::v1 as wire;

use crate::driver::{Redirect, Rehearsal, Rejoin};
use crate::journal::Outcome;
use crate::uplink::convert;

/// A step to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its names.
    pub name: StepName,
    /// Application.
    pub application: ApplicationId,
    /// Resource; none for the application as a whole.
    pub resource: Option<ResourceId>,
    /// Epoch.
    pub epoch: Epoch,
    /// What to do.
    pub action: Action,
    /// No promise is waited for: the old side's fence is on record.
    pub old_side_fenced: bool,
    /// How long it may take, waiting included.
    pub timeout: Duration,
}

/// The names of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepName {
    /// Run.
    pub run: u64,
    /// Step of the run.
    pub step: u32,
    /// Attempt of the step.
    pub attempt: u32,
    /// Fencing token.
    pub token: Token,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Refuse writes, and keep refusing.
    Fence,
    /// End older fences of the resource.
    Unfence,
    /// Refuse new work, and keep refusing.
    Quiesce,
    /// Reach a position.
    CatchUp(u64),
    /// Become primary.
    Promote {
        /// At least at this position.
        position: Option<u64>,
    },
    /// Start.
    Activate,
    /// Stop.
    Deactivate,
    /// Point the name here.
    Redirect(Redirect),
    /// Check.
    Verify,
    /// Follow another cluster.
    Rejoin(Rejoin),
    /// Bring back from a backup.
    Restore,
    /// Run a listed command.
    Run(String),
    /// The application ends for this agent.
    Release,
    /// A step of a drill.
    Rehearse(Rehearse),
}

/// A step of a drill: it concerns copies, and counts for nothing that is real.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rehearse {
    /// With a copy of the resource.
    Resource(Rehearsal),
    /// A listed command.
    Run(String),
}

impl Action {
    /// Opens writes: only under the lease of its epoch, with the guard armed.
    #[must_use]
    pub const fn opens(&self) -> bool {
        match self {
            Self::Unfence | Self::Promote { .. } | Self::Activate => true,
            Self::Fence | Self::Quiesce | Self::CatchUp(_) | Self::Deactivate | Self::Redirect(_) => false,
            Self::Verify | Self::Rejoin(_) | Self::Restore | Self::Run(_) | Self::Release | Self::Rehearse(_) => false,
        }
    }

    /// Of a drill.
    #[must_use]
    pub const fn rehearses(&self) -> bool {
        matches!(self, Self::Rehearse(_))
    }

    /// Takes away what a drill has made.
    #[must_use]
    pub const fn cleans_up(&self) -> bool {
        matches!(self, Self::Rehearse(Rehearse::Resource(Rehearsal::CleanUp)))
    }

    /// Closes, and keeps closed: while it runs nothing is opened again by the agent itself.
    #[must_use]
    pub const fn closes(&self) -> bool {
        matches!(self, Self::Fence | Self::Quiesce)
    }

    /// Changes nothing: it need not wait until its token is on the disk, only its word must.
    #[must_use]
    pub const fn looks(&self) -> bool {
        matches!(self, Self::CatchUp(_) | Self::Verify)
    }
}

/// A command that cannot be carried out, and who is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Stable code.
    pub code: &'static str,
    /// For humans.
    pub message: String,
    /// Another attempt may succeed.
    pub retryable: bool,
}

impl Refused {
    /// For good.
    #[must_use]
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable: false }
    }

    /// For now.
    #[must_use]
    pub fn for_now(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable: true }
    }

    /// As the end of a step.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        Outcome { code: self.code.to_owned(), message: self.message, retryable: self.retryable, ..Outcome::default() }
    }
}

impl Order {
    /// Understands a command.
    ///
    /// # Errors
    /// If something in it is missing, or no name.
    pub fn parse(command: &wire::StepCommand) -> Result<Self, Refused> {
        let bad = |what: &str| Refused::new("bad-command", format!("{what}; agent and coordinator differ in release"));
        let token = command.token.as_ref().map(convert::token).ok_or_else(|| bad("the token is missing"))?;
        let application =
            ApplicationId::new(&command.application).map_err(|_| bad("the application's name is no name"))?;
        let resource = match command.resource.as_str() {
            "" => None,
            name => Some(ResourceId::new(name).map_err(|_| bad("the resource's name is no name"))?),
        };
        let action = match command.kind() {
            wire::StepKind::Fence => Action::Fence,
            wire::StepKind::Unfence => Action::Unfence,
            wire::StepKind::Quiesce => Action::Quiesce,
            wire::StepKind::CatchUp => {
                Action::CatchUp(command.position.ok_or_else(|| bad("the position to reach is missing"))?)
            }
            wire::StepKind::Promote => Action::Promote { position: command.position },
            wire::StepKind::Activate => Action::Activate,
            wire::StepKind::Deactivate => Action::Deactivate,
            wire::StepKind::Redirect => Action::Redirect(redirect(command).ok_or_else(|| bad("no address in it"))?),
            wire::StepKind::Verify => Action::Verify,
            wire::StepKind::Rejoin => Action::Rejoin(Rejoin {
                upstream_cluster: command.upstream_cluster.clone(),
                allow_rewind: command.allow_rewind || planted::makes(Mistake::RewindUnasked),
                allow_reclone: command.allow_reclone,
                covered: command.position,
            }),
            wire::StepKind::Run => Action::Run(command.command.clone()),
            wire::StepKind::Release => Action::Release,
            wire::StepKind::RehearsePromote => Action::Rehearse(Rehearse::Resource(Rehearsal::Promote)),
            wire::StepKind::RehearseRestore => Action::Rehearse(Rehearse::Resource(Rehearsal::Restore)),
            wire::StepKind::RehearseVerify => Action::Rehearse(Rehearse::Resource(Rehearsal::Verify)),
            wire::StepKind::RehearseRun => Action::Rehearse(Rehearse::Run(command.command.clone())),
            wire::StepKind::RehearseCleanUp => Action::Rehearse(Rehearse::Resource(Rehearsal::CleanUp)),
            wire::StepKind::Restore => Action::Restore,
            wire::StepKind::Unspecified => return Err(bad("the kind of step is unknown")),
        };
        let name = StepName { run: command.run, step: command.step, attempt: command.attempt, token };
        let timeout = Duration::from_millis(command.timeout_ms);
        let (epoch, old_side_fenced) = (Epoch(command.epoch), command.old_side_fenced);
        Ok(Self { name, application, resource, epoch, action, old_side_fenced, timeout })
    }
}

fn redirect(command: &wire::StepCommand) -> Option<Redirect> {
    let addresses: Vec<IpAddr> = command.addresses.iter().map(|text| text.parse().ok()).collect::<Option<_>>()?;
    (!addresses.is_empty() || command.dns_ttl_only).then(|| Redirect {
        name: command.dns_name.clone(),
        addresses,
        ttl: command.dns_ttl_seconds,
        ttl_only: command.dns_ttl_only,
        epoch: command.epoch,
        application: command.application.clone(),
    })
}

/// The status of a step that has not ended.
#[must_use]
pub fn running(name: StepName, message: &str) -> wire::StepStatus {
    wire::StepStatus {
        phase: wire::StepPhase::Running.into(),
        message: message.to_owned(),
        ..status(name, &Outcome::default())
    }
}

/// The status of a step that has ended.
#[must_use]
pub fn status(name: StepName, outcome: &Outcome) -> wire::StepStatus {
    let succeeded = outcome.code.is_empty();
    let phase = if succeeded { wire::StepPhase::Succeeded } else { wire::StepPhase::Failed };
    let stale = outcome.stale_answers.iter().map(|stale| wire::StaleAnswer {
        server: stale.server.clone(),
        for_ms: stale.for_ms,
        cleared: stale.cleared,
        reached: stale.reached,
    });
    wire::StepStatus {
        run: name.run,
        step: name.step,
        attempt: name.attempt,
        token: Some(convert::wire_token(name.token)),
        phase: phase.into(),
        message: outcome.message.clone(),
        code: outcome.code.clone(),
        retryable: outcome.retryable,
        driver_ms: outcome.driver_ms,
        position: outcome.position,
        timeline: outcome.timeline,
        stale_answers: stale.collect(),
        already: outcome.already,
        hard: outcome.hard,
        rehearsed_ms: outcome.rehearsed_ms,
    }
}
