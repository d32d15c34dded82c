//! The Application document: what is protected, in which order, how careful.
//!
//! Text becomes an [`Application`] only through [`parse`], which reports all mistakes at once, each with its path,
//! line and column. What has this type is therefore valid: names resolve, `after` has no cycle, runbooks name
//! resources that exist, and the time bound can be kept.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{ApplicationId, ClusterId, ResourceId};
use crate::lease::TimeBound;
use crate::time::Span;

mod decode;
pub(crate) mod default;
mod draft;
mod drill;
mod mistake;
mod node;
mod order;
mod parse;
mod print;
mod promotion;
mod remark;
mod resource;
mod runbook;
mod schema;
mod words;

#[cfg(test)]
mod tests;

pub use mistake::Mistake;
pub use node::DOCUMENT_LIMIT;
pub use parse::parse;
pub use print::to_yaml;
pub use schema::json_schema;

/// A valid Application document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// Its name.
    pub name: ApplicationId,
    /// What it promises its users; runs are measured against it.
    pub objectives: Objectives,
    /// In order of preference; at least two.
    pub clusters: Vec<ClusterId>,
    /// What there is.
    pub resources: BTreeMap<ResourceId, Resource>,
    /// How careful.
    pub automation: Automation,
    /// The documented orders by name; `failover` is always there.
    pub runbooks: BTreeMap<String, Runbook>,
    /// When drills begin by themselves; none: only by hand.
    #[serde(default)]
    pub drills: Option<Drills>,
}

/// Drills that begin by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drills {
    /// From the beginning of one to that of the next. One that could not begin when it was due begins later, once.
    pub every: Span,
    /// In which cluster; none: the first fit standby in order of preference.
    #[serde(rename = "in")]
    pub cluster: Option<ClusterId>,
}

/// Recovery objectives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Objectives {
    /// Time without service that is acceptable.
    pub rto: Span,
    /// Time of lost writes that is acceptable.
    pub rpo: Span,
}

/// Something that an agent's driver can act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// Which driver.
    pub kind: ResourceKind,
    /// Resources that are done first when both stand in one step; what is stopped goes the other way.
    pub after: BTreeSet<ResourceId>,
    /// `dns` only.
    pub dns: Option<DnsName>,
}

/// A DNS name that follows the primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsName {
    /// Absolute, lower case, with the final dot.
    pub name: String,
    /// Time to live of the answer, in whole seconds.
    pub ttl: Span,
    /// Who answers for the name.
    pub provider: DnsProvider,
}

/// Who answers for a DNS name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DnsProvider {
    /// The coordinators' own servers: the answer flips with the commit.
    Embedded,
    /// A server that the agent updates by RFC 2136 with TSIG.
    Rfc2136,
}

/// The drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResourceKind {
    /// PostgreSQL with streaming replication.
    Postgres,
    /// Redis with replication.
    Redis,
    /// A listed command of the agent.
    Command,
    /// Workloads of a Kubernetes cluster.
    Kubernetes,
    /// A DNS name.
    Dns,
    /// An HTTP check.
    Http,
}

impl ResourceKind {
    /// True for databases: what is fenced, promoted and never writable in two clusters.
    #[must_use]
    pub const fn is_guarded(self) -> bool {
        match self {
            Self::Postgres | Self::Redis => true,
            Self::Command | Self::Kubernetes | Self::Dns | Self::Http => false,
        }
    }

    /// True for what is started and stopped, and holds no data of its own.
    #[must_use]
    pub const fn is_service(self) -> bool {
        match self {
            Self::Command | Self::Kubernetes => true,
            Self::Postgres | Self::Redis | Self::Dns | Self::Http => false,
        }
    }
}

/// How careful Regent is with this application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Automation {
    /// Who starts a failover.
    pub mode: Mode,
    /// D and what follows from it.
    pub bound: TimeBound,
    /// After an automatic failover the next one waits so long, or for an acknowledgement. Default 1 h.
    pub cooldown: Span,
    /// A candidate further behind than this is not promoted without more ado. Default: the RPO.
    pub max_data_loss: Span,
    /// What happens beyond it.
    pub beyond_max_data_loss: Beyond,
    /// A switchover that is not decided so long after writes were first kept out is undone. Default 30 s.
    #[serde(default = "default::max_write_outage")]
    pub max_write_outage: Span,
    /// So long a finished switchover can be rolled back, unless it is committed before. Default: not at all.
    #[serde(default)]
    pub commit_within: Option<Span>,
    /// What an operator allows or attests beyond the rules counts only when another operator has confirmed it.
    #[serde(default)]
    pub two_person: bool,
    /// `mode: approve`: so long a failover that is due waits for an answer. Default 1 h.
    #[serde(default = "default::approve_within")]
    pub approve_within: Span,
    /// `mode: approve`: what happens then. Default: it does not start.
    #[serde(default)]
    pub on_silence: OnSilence,
    /// What a primary does that no coordinator majority reaches.
    pub on_coordinator_loss: OnCoordinatorLoss,
    /// Failed probes in a row that make a resource suspect. Default 3.
    pub probe_failures: u32,
}

/// Who starts a failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Regent, when a quorum agrees.
    Automatic,
    /// Regent proposes, a human approves.
    Approve,
    /// Humans only.
    Manual,
}

/// What happens when every candidate is further behind than `maxDataLoss`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Beyond {
    /// No failover; the refusal is audited and shown.
    Refuse,
    /// Wait so long for a better candidate, then refuse.
    Wait(Span),
    /// Ask a human.
    Ask,
    /// Go on, and report the loss.
    Accept,
}

/// What a primary does whose agent reaches no majority of coordinators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnCoordinatorLoss {
    /// Go on while the agents of all other clusters promise not to promote.
    Failsafe,
    /// Fence when the lease lapses.
    Fence,
}

/// What happens to a failover that asks a human and gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnSilence {
    /// It does not start; a late yes still counts.
    #[default]
    Refuse,
    /// It starts.
    Proceed,
}

/// A documented order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runbook {
    /// One after the other; what stands in one line goes side by side.
    pub lines: Vec<Line>,
}

/// One line of a runbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What is done; in a drill to copies.
    pub action: Action,
    /// To what: names of resources; for `run` the names of listed commands of one `command` resource each.
    pub resources: Vec<ResourceId>,
    /// For one attempt.
    pub timeout: Span,
    /// Attempts after the first.
    pub retries: u32,
    /// When the attempts are used up.
    pub on_failure: OnFailure,
    /// Only in runs of this manner, if given.
    pub when: Option<Manner>,
    /// `wait` only: how long.
    pub duration: Option<Span>,
    /// `run` only: name of the listed command; empty otherwise.
    pub command: String,
    /// `approve` only: what the human is asked, one line; empty otherwise.
    #[serde(default)]
    pub question: String,
    /// `run` in a drill only: done at its end, whatever came before.
    #[serde(default)]
    pub always: bool,
}

/// The kinds of steps that a document can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Refuse writes on the old side; implied before any promotion.
    Fence,
    /// Drain and refuse new work, with an undo.
    Quiesce,
    /// Wait until the new side has everything the old one acknowledged.
    CatchUp,
    /// Make the database writable.
    Promote,
    /// Start or scale up a service.
    Activate,
    /// Stop or scale down a service.
    Deactivate,
    /// Point a DNS name here.
    Redirect,
    /// Check, and fail the run if it is not so.
    Verify,
    /// Make the old side a standby of the new one.
    Rejoin,
    /// Bring data back from a backup.
    Restore,
    /// Run a listed command.
    Run,
    /// Wait for a human.
    Approve,
    /// Wait for a time.
    Wait,
}

/// What follows when the attempts of a step are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The run stands still and says what a human must do.
    Stuck,
    /// The run goes on and its report says so.
    Continue,
    /// Before the point of no return: everything is undone. After it: stuck.
    Undo,
}

/// Whether the old side takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Manner {
    /// A switchover: both sides answer.
    Graceful,
    /// A failover.
    Ungraceful,
}

impl Application {
    /// The resources that are never writable in two clusters.
    #[must_use]
    pub fn guarded(&self) -> BTreeSet<ResourceId> {
        self.resources.iter().filter(|(_, resource)| resource.kind.is_guarded()).map(|(id, _)| id.clone()).collect()
    }
}
