//! The entries of the replicated log: everything that can change the group's state.
//!
//! Closed enums, applied deterministically by [`crate::state::State::apply`]. Whoever proposes an entry, the state
//! machine checks its grounds when it is applied; a proposal is a wish, an applied entry is a fact.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::application::{Application, default};
use crate::blast::Limit;
use crate::id::{
    ApplicationId, Attempt, ClusterId, CoordinatorId, Epoch, GroupId, IdentityId, Incarnation, InstallationId,
    LogIndex, RegionId, RequestId, ResourceId, RunId, StepId, SystemId, Token, VoteNumber,
};
use crate::members::MemberChange;
use crate::plan::Digest;
use crate::restore::AgentReport;
use crate::state::Wish;
use crate::switchover::Purpose;
use crate::time::{Span, Timestamp};

/// Format number of entries and state. Raised when a reader of the old form would misread the new one.
///
/// 1: the beginning. 2: changes of members, restorations, drills, the wait before a switchover, and rules of decisions that
/// did not count before. Entries and states of lower numbers are read as they are; what they lack has its default.
pub const FORMAT: u16 = 2;

/// An entry with what every entry carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`] of the writer.
    pub format: u16,
    /// The proposer's wall clock. For humans and cool-downs.
    pub at: Timestamp,
    /// A mutation by a client is applied once per request id.
    pub request: Option<RequestId>,
    /// What happens.
    pub entry: Entry,
}

/// Everything that can change the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// The group begins; the first entry of the log after the membership.
    GroupCreated {
        /// Its UUID.
        group: GroupId,
    },
    /// Binds a raft id to the identity of a data directory.
    CoordinatorJoined(Coordinator),
    /// A coordinator process starts to observe. Entries of its older incarnations behind it have no effect.
    ObserverStarted {
        /// Which.
        observer: CoordinatorId,
        /// Its new incarnation.
        incarnation: Incarnation,
    },
    /// An agent introduced itself, or what it declares has changed.
    AgentRegistered(Agent),
    /// An operator's word that the registered installation of a cluster's agent is gone for good, and which one takes
    /// its place.
    InstallationReplaced {
        /// Of which cluster.
        cluster: ClusterId,
        /// The new one.
        installation: InstallationId,
        /// Who.
        by: String,
    },
    /// A new or changed document.
    Applied {
        /// The document.
        application: Box<Application>,
        /// Who.
        by: String,
    },
    /// The first epoch: roles as they were found in the databases.
    Adopt {
        /// Which application.
        application: ApplicationId,
        /// The one cluster that was found writable.
        primary: ClusterId,
        /// What was found there.
        databases: BTreeMap<ResourceId, Database>,
    },
    /// The primary's agent named the terms: it counts by them.
    TermsConfirmed {
        /// Which application.
        application: ApplicationId,
        /// Number of the terms.
        terms: Token,
        /// Who named them.
        cluster: ClusterId,
        /// Its installation.
        installation: InstallationId,
        /// Identities of its databases.
        databases: BTreeMap<ResourceId, Database>,
    },
    /// An observer has not heard from a cluster's agent.
    Vote {
        /// Whose vote.
        observer: CoordinatorId,
        /// Of which process.
        incarnation: Incarnation,
        /// On which cluster.
        cluster: ClusterId,
        /// Above all earlier ones of this incarnation on this cluster.
        number: VoteNumber,
        /// For how long, rounded down.
        silence: Span,
    },
    /// An observer hears the agent again, both ways.
    Withdraw {
        /// Whose vote.
        observer: CoordinatorId,
        /// Of which process.
        incarnation: Incarnation,
        /// On which cluster.
        cluster: ClusterId,
        /// Above all earlier ones of this incarnation on this cluster.
        number: VoteNumber,
    },
    /// A run whose first steps come before the change of primary: fencing first, at the current epoch.
    RunStarted {
        /// Which application.
        application: ApplicationId,
        /// At which epoch.
        epoch: Epoch,
        /// Why.
        cause: Cause,
        /// To where.
        to: ClusterId,
        /// What was known when it was proposed.
        finding: Finding,
        /// The plan that an operator has seen: another one is refused.
        #[serde(default)]
        plan: Option<Digest>,
    },
    /// An operator takes a cluster back: its databases follow the primary again.
    RejoinStarted {
        /// Which application.
        application: ApplicationId,
        /// Which cluster.
        cluster: ClusterId,
        /// What cannot follow as it is may be replaced by a fresh copy; the old data is set aside.
        reclone: bool,
        /// Who.
        by: String,
    },
    /// A failover is rehearsed with copies of a standby's databases; nothing of the real ones changes.
    DrillStarted {
        /// Which application.
        application: ApplicationId,
        /// In which cluster; never the primary.
        cluster: ClusterId,
        /// Who.
        by: String,
        /// What was known when it was proposed.
        finding: Finding,
    },
    /// The change of primary.
    Decide {
        /// Which application.
        application: ApplicationId,
        /// The epoch that ends.
        from: Epoch,
        /// The new primary.
        to: ClusterId,
        /// The newest terms that the proposer knew.
        terms: Token,
        /// On what it rests.
        ground: Ground,
        /// What was known when it was proposed.
        finding: Finding,
    },
    /// A step is about to be done.
    StepIntent {
        /// Of which run.
        run: RunId,
        /// Which step.
        step: StepId,
        /// Which try; a known one is ignored.
        attempt: Attempt,
    },
    /// A step has ended.
    StepOutcome {
        /// Of which run.
        run: RunId,
        /// Which step.
        step: StepId,
        /// Which try.
        attempt: Attempt,
        /// How.
        outcome: Outcome,
    },
    /// No automatic action until resumed.
    Paused {
        /// Which application; none: all.
        application: Option<ApplicationId>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Ends a pause.
    Resumed {
        /// Which application; none: the global pause.
        application: Option<ApplicationId>,
        /// Who.
        by: String,
    },
    /// A human has looked: ends a cool-down or a freeze.
    Acknowledged {
        /// Which application; none: the freeze of the breaker.
        application: Option<ApplicationId>,
        /// Who.
        by: String,
    },
    /// A run gives up before its point of no return: what was done is undone and the old primary serves again.
    UndoBegun {
        /// Which run.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// No planned move until it is lifted. A failover is not held.
    Held {
        /// Which application.
        application: ApplicationId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Ends a hold.
    Unheld {
        /// Which application.
        application: ApplicationId,
        /// Who.
        by: String,
    },
    /// An operator orders a failover. The leader carries it out when its ground is there.
    FailoverOrdered {
        /// Which application.
        application: ApplicationId,
        /// At which epoch.
        epoch: Epoch,
        /// Who, to where, why, and what is allowed.
        wish: Wish,
    },
    /// A failover is due, and the document asks a human.
    FailoverDue {
        /// Which application.
        application: ApplicationId,
        /// At which epoch.
        epoch: Epoch,
        /// Why, for humans.
        detail: String,
    },
    /// A human's yes to a failover that was ordered or is due.
    OrderApproved {
        /// Which application.
        application: ApplicationId,
        /// The order's number.
        order: LogIndex,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Nobody has said yes in time, or it could not be carried out.
    OrderTimedOut {
        /// Which application.
        application: ApplicationId,
        /// The order's number.
        order: LogIndex,
    },
    /// An order is taken back, or what it was for is over.
    OrderClosed {
        /// Which application.
        application: ApplicationId,
        /// The order's number.
        order: LogIndex,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// A finished switchover stands: its commit window closes.
    Committed {
        /// Which application.
        application: ApplicationId,
        /// The switchover.
        run: RunId,
        /// Who; none: its time has passed.
        by: Option<String>,
    },
    /// An operator ends a run that is under way.
    Aborted {
        /// Which run.
        run: RunId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// What an automatic run was begun for, or a switchover rests on, is gone, and nothing of the run was begun: it ends.
    /// Ignored if an intent came before it in the log: what has begun goes on.
    CauseGone {
        /// Which run.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// A human's yes to the question of an `approve` step.
    Approved {
        /// Of which run.
        run: RunId,
        /// Which step.
        step: StepId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator's word on a stuck step.
    Cleared {
        /// Which run.
        run: RunId,
        /// Which step.
        step: StepId,
        /// Try again, or take it as done.
        how: Clearing,
        /// Who.
        by: String,
        /// Why; may be empty for another try.
        #[serde(default)]
        reason: String,
    },
    /// An automatic action was not taken. Proposed once for each change of the reason.
    Refused {
        /// Which application.
        application: ApplicationId,
        /// Stable code of the rule.
        rule: String,
        /// For humans.
        detail: String,
    },
    /// The breaker: too many clusters look lost at once.
    Frozen {
        /// Clusters that stand lost.
        clusters: BTreeSet<ClusterId>,
    },
    /// The breaker's condition has been gone for D.
    Thawed,
    /// An operator wants one coordinator more, or fewer.
    MemberChange {
        /// Which.
        change: MemberChange,
        /// Who.
        by: String,
        /// Why it goes on though an agent has not confirmed the present voters.
        overridden: Option<String>,
    },
    /// An agent found databases open where the terms say standby, or none any more.
    RogueWriters {
        /// Of which application.
        application: ApplicationId,
        /// Where.
        cluster: ClusterId,
        /// Which; empty: it is over.
        resources: BTreeSet<ResourceId>,
    },
    /// The blast-radius limit of the group.
    LimitSet {
        /// The new one.
        limit: Limit,
        /// Who.
        by: String,
    },
    /// After a restoration: the agents of all clusters have reported what they have stored.
    Recovered {
        /// Which application.
        application: ApplicationId,
        /// What each said.
        reports: BTreeMap<ClusterId, AgentReport>,
    },
    /// After a restoration: an operator attests that the databases of a cluster are off.
    AttestedOff {
        /// Of which application.
        application: ApplicationId,
        /// Where.
        cluster: ClusterId,
        /// Who.
        by: String,
        /// How that is known.
        reason: String,
    },
    /// After a restoration: an operator decides which cluster goes on as primary.
    PrimaryChosen {
        /// Of which application.
        application: ApplicationId,
        /// Which.
        cluster: ClusterId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Raft's membership is as it was wished.
    MemberChangeEnded {
        /// Whom the change concerned.
        id: CoordinatorId,
    },
}

/// A coordinator as the group knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinator {
    /// Raft id.
    pub id: CoordinatorId,
    /// Identity of its data directory.
    pub identity: IdentityId,
    /// Where it stands.
    pub region: RegionId,
    /// host:port of its gRPC server.
    pub grpc: String,
    /// host:port of its dashboard.
    pub dashboard: String,
    /// host:port of its DNS server.
    pub dns: String,
}

/// An agent as the group knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its cluster; one agent each.
    pub cluster: ClusterId,
    /// Where it stands.
    pub region: RegionId,
    /// Identity of its data directory.
    pub installation: InstallationId,
    /// Which process of it; 0 in entries without this.
    #[serde(default)]
    pub incarnation: Incarnation,
    /// The boot of its machine in which that process runs; empty if it did not say.
    #[serde(default)]
    pub boot: String,
    /// host:port of its PeerAgentService.
    pub peer_address: String,
    /// Ed25519 public key that signs witness nonces.
    pub witness_key: Vec<u8>,
    /// Where it has what.
    pub endpoints: BTreeMap<ApplicationId, BTreeMap<ResourceId, Endpoint>>,
}

impl Agent {
    /// Why another process of the same installation may not follow this one, if it may not: it is an older one whose
    /// entry or stream came late, or there are two, since a data directory counts its processes.
    #[must_use]
    pub fn overtakes(&self, incarnation: Incarnation, boot: &str) -> Option<String> {
        let (known, cluster) = (self.incarnation, &self.cluster);
        let elsewhere = !self.boot.is_empty() && self.boot != boot;
        if incarnation < known {
            Some(format!(
                "process {incarnation} of the agent of {cluster} is older than the registered process {known}"
            ))
        } else if incarnation == known && elsewhere {
            Some(format!(
                "process {known} of the agent of {cluster} runs on two machines: its data directory was copied"
            ))
        } else {
            None
        }
    }
}

/// Where a cluster has a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Driver that serves it.
    pub kind: String,
    /// `dns` only: what the name answers for this cluster.
    pub addresses: Vec<String>,
    /// The fence acts on another machine than the agent's.
    pub remote_fence: bool,
}

/// Identity of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// E.g. PostgreSQL's system identifier.
    pub system_id: SystemId,
    /// Timeline; 0 if the engine has none.
    pub timeline: u64,
}

/// Why a run began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// The region is lost.
    RegionLost,
    /// A guarded resource failed while its agent talks.
    ResourceFailed {
        /// Which.
        resource: ResourceId,
        /// What was seen.
        detail: String,
    },
    /// The agent reaches some coordinator but not a majority, and its database lives.
    AgentUnreachable,
    /// The agent talks and has fenced its primaries itself: what would let it serve again does not come.
    SelfFenced,
    /// An operator's planned switchover.
    Switchover {
        /// Who.
        by: String,
        /// Without a decision so long after writes were first kept out, everything is undone.
        #[serde(default = "default::max_write_outage")]
        max_write_outage: Span,
        /// A switchover, the way back, or a rollback.
        #[serde(default)]
        purpose: Purpose,
    },
    /// An operator's failover.
    Forced {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator takes a cluster back as a standby. It moves no primary.
    Rejoin {
        /// Who.
        by: String,
        /// A fresh copy is allowed.
        reclone: bool,
    },
    /// The group was restored from a backup: the primary that the agents had stored is opened again.
    Recovered,
    /// A failover is rehearsed in isolation. It moves no primary.
    Drill {
        /// Who.
        by: String,
    },
}

impl Cause {
    /// Nobody asked for it: it counts for the cool-down and for the blast radius.
    #[must_use]
    pub const fn is_automatic(&self) -> bool {
        match self {
            Self::RegionLost | Self::ResourceFailed { .. } | Self::AgentUnreachable | Self::SelfFenced => true,
            Self::Switchover { .. }
            | Self::Forced { .. }
            | Self::Rejoin { .. }
            | Self::Recovered
            | Self::Drill { .. } => false,
        }
    }

    /// The run moves the primary, so service is away for a while and writes may be lost.
    #[must_use]
    pub const fn moves_primary(&self) -> bool {
        match self {
            Self::RegionLost
            | Self::ResourceFailed { .. }
            | Self::AgentUnreachable
            | Self::SelfFenced
            | Self::Switchover { .. }
            | Self::Forced { .. } => true,
            Self::Rejoin { .. } | Self::Recovered | Self::Drill { .. } => false,
        }
    }
}

/// What the proposer knew: for reports and audit, never a ground.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Finding {
    /// Sentences, most important first.
    pub reasons: Vec<String>,
    /// When the primary was last heard, by the proposer's wall clock; none if never.
    pub last_contact: Option<Timestamp>,
    /// Of each database with a position: what may be lost.
    pub gaps: BTreeMap<ResourceId, Gap>,
}

/// The distance between the last known position of the primary and the candidate's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Last position that the primary reported, in bytes; none if unknown.
    pub primary: Option<u64>,
    /// How old that was at the decision.
    pub primary_age: Option<Span>,
    /// The candidate's position; none if unknown.
    pub candidate: Option<u64>,
    /// How far behind the candidate said it was, in time; none if unknown.
    pub lag: Option<Span>,
    /// Position in the engine's own writing, primary's and candidate's; or that the candidate has nothing but a backup.
    pub text: String,
}

/// On what a change of primary rests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ground {
    /// A majority of voters lost contact and D has passed since.
    Lost {
        /// The log index of each vote.
        votes: BTreeSet<LogIndex>,
    },
    /// Commanded fences with committed success cover every guarded resource.
    Fenced {
        /// The run whose fences these are.
        run: RunId,
    },
    /// The same, plus catch-up to the final position.
    Switched {
        /// The run whose fences and catch-ups these are.
        run: RunId,
    },
    /// Break-glass.
    Forced {
        /// Who.
        operator: String,
        /// The second person.
        second: Option<String>,
        /// That the primary is off.
        attestation: String,
        /// Why.
        reason: String,
    },
    /// After a restoration: what all agents had stored. It changes no primary.
    Recovered,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is so.
    Succeeded(Report),
    /// It is not so.
    Failed {
        /// Stable code.
        code: String,
        /// For humans, without secrets.
        message: String,
        /// Another attempt may succeed.
        retryable: bool,
    },
}

/// What a successful step measured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// What was done, for humans.
    pub message: String,
    /// Time the driver itself took.
    pub driver: Span,
    /// Position afterwards, in bytes, where the engine has one.
    pub position: Option<u64>,
    /// Timeline afterwards; 0 if the engine has none.
    pub timeline: u64,
    /// Reality already was as asked.
    pub already: bool,
    /// `fence`: the gentle way was not confirmed, and the processes were ended.
    #[serde(default)]
    pub hard: bool,
    /// `redirect`: servers that still gave an old answer, or from which no new one could be had.
    pub stale_answers: Vec<StaleAnswer>,
    /// Steps of a drill: how long the same would take in earnest, where that is not the whole of the step. A promotion
    /// is rehearsed with a copy, and the time of the copying is not its own.
    #[serde(default)]
    pub rehearsed: Option<Span>,
}

/// A server that still gave an old answer, or from which no new one could be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleAnswer {
    /// Its address.
    pub server: String,
    /// For how long after the redirect it was seen to give an old answer; zero if it never was.
    pub lasted: Span,
    /// It gave the new answer when the step ended.
    pub cleared: bool,
    /// False if nothing came back from it when it was last asked; so it was in every uncleared record without this.
    #[serde(default)]
    pub reached: bool,
}

/// An operator's word on a stuck step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clearing {
    /// Try again with a fresh budget of attempts.
    Retry,
    /// It has been done by hand.
    Done,
}
