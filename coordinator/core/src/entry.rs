//! The entries of the replicated log: everything that can change the group's state.
//!
//! Closed enums, applied deterministically by [`crate::state::State::apply`]. Whoever proposes an entry, the state
//! machine checks its grounds when it is applied; a proposal is a wish, an applied entry is a fact.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::application::Application;
use crate::blast::Limit;
use crate::id::{
    ApplicationId, Attempt, ClusterId, CoordinatorId, Epoch, GroupId, Incarnation, InstallationId, LogIndex, RequestId,
    ResourceId, RunId, StepId, Token, VoteNumber,
};
use crate::members::MemberChange;
use crate::plan::Digest;
use crate::restore::AgentReport;
use crate::state::Wish;
use crate::time::{Span, Timestamp};

mod cause;
mod member;
mod outcome;

pub use cause::{Cause, Finding, Gap, Ground};
pub use member::{Agent, Coordinator, Database, Endpoint};
pub use outcome::{Clearing, Outcome, Report, StaleAnswer};

/// Format number of entries and state. Raised when a reader of the old form would misread the new one.
///
/// 1: the beginning. 2: changes of members, restorations, drills, and rules of decisions that did not count before. 3: other
/// plans: the wait before a switchover, and no restore where a standby is. States of lower numbers are read as they are, since
/// their runs have their plans with them; what they lack has its default.
pub const FORMAT: u16 = 3;

/// The lowest [`FORMAT`] of entries that are applied. Of what earlier builds wrote, the same entry would begin another plan
/// here than the one that was carried out, and what follows it in the log counts that plan's steps.
pub const OLDEST_ENTRY: u16 = 3;

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
    /// An order is taken back, a question is declined, or what it was for is over.
    OrderClosed {
        /// Which application.
        application: ApplicationId,
        /// The order's number.
        order: LogIndex,
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// An operator says it, not the leader: a question then stays declined. False in entries of before that.
        #[serde(default)]
        by_human: bool,
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
