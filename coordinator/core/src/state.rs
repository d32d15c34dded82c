//! The replicated state, and how entries change it.
//!
//! `apply` is deterministic and total: an entry that is not valid leaves the state as it was and says why. Two
//! replicas that applied the same log are equal. Reading order: the types here, then one file per area under
//! `state/`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::application::Application;
use crate::blast::{Begun, Limit};
use crate::effect::Effect;
use crate::entry::{Agent, Coordinator, Database, FORMAT, Record};
use crate::id::{
    ApplicationId, ClusterId, CoordinatorId, Epoch, GroupId, IdentityId, Incarnation, LogIndex, RequestId, ResourceId,
    Revision, RunId, Token, VoteNumber,
};
use crate::members::MemberChange;
use crate::restore::Recovering;
use crate::run::Run;
use crate::terms::Terms;
use crate::time::{Span, Timestamp};

pub(crate) mod apply;
mod audit;
mod change;
pub(crate) mod drill;
mod hold;
mod members;
pub(crate) mod order;
mod recovery;
pub(crate) mod register;
mod rejoin;
mod rogue;
mod two_person;
mod votes;
pub(crate) mod window;

pub use audit::{AUDIT_LIMIT, AuditRecord};
pub use drill::{Drilled, Rehearsed};
pub use order::{Declined, ORDER_STANDS, Order, OrderState, Origin, Wish};
pub use two_person::Dropped;
pub use window::{CommitWindow, rolls_back};

/// How many request ids are remembered.
pub const REQUEST_LIMIT: usize = 4096;
/// How many finished runs are remembered.
pub const RUN_LIMIT: usize = 256;

/// Everything the group agrees on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// [`FORMAT`] of the writer.
    pub format: u16,
    /// The group's UUID; empty until `GroupCreated`.
    pub group: GroupId,
    /// Raised by each restoration from a backup.
    pub restoration: u64,
    /// Index of the last entry that was applied, of whatever kind.
    pub applied: LogIndex,
    /// Voters of the raft membership; in joint consensus both sets.
    pub voters: Vec<BTreeSet<CoordinatorId>>,
    /// Coordinators by raft id.
    pub coordinators: BTreeMap<CoordinatorId, Coordinator>,
    /// Coordinators that were removed, with their identity: their ids are used up.
    #[serde(default)]
    pub removed: BTreeMap<CoordinatorId, IdentityId>,
    /// A change of the members that is under way.
    #[serde(default)]
    pub changing: Option<MemberChange>,
    /// The incarnation of each observer that has effect.
    pub observers: BTreeMap<CoordinatorId, Incarnation>,
    /// Agents by cluster.
    pub agents: BTreeMap<ClusterId, Agent>,
    /// The last vote or withdrawal of each observer on each cluster.
    pub votes: BTreeMap<ClusterId, BTreeMap<CoordinatorId, Ballot>>,
    /// Applications by name.
    pub applications: BTreeMap<ApplicationId, ApplicationState>,
    /// Runs, also the finished ones, up to [`RUN_LIMIT`].
    pub runs: BTreeMap<RunId, Run>,
    /// The global pause.
    pub paused: Option<Pause>,
    /// The breaker: clusters that stood lost when it opened.
    pub frozen: Option<BTreeSet<ClusterId>>,
    /// Clusters whose loss a human has acknowledged: the breaker opens again only for others.
    #[serde(default)]
    pub acknowledged: BTreeSet<ClusterId>,
    /// The group's own blast-radius limit.
    #[serde(default)]
    pub limit: Limit,
    /// Automatic failovers that began, as far as they count for the limit.
    #[serde(default)]
    pub begun: VecDeque<Begun>,
    /// Rises whenever a DNS answer changes; the SOA's serial.
    pub dns_serial: u32,
    /// Outcomes of the last mutations by request id, oldest first.
    pub requests: VecDeque<(RequestId, Applied)>,
    /// The newest audit records, oldest first, up to [`AUDIT_LIMIT`].
    pub audit: VecDeque<AuditRecord>,
}

/// An observer's last word on a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    /// Incarnation of the observer that spoke last.
    pub incarnation: Incarnation,
    /// Its highest number in that incarnation.
    pub number: VoteNumber,
    /// The vote that stands, if the last word was a vote.
    pub standing: Option<StandingVote>,
}

/// A vote that has not been withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingVote {
    /// Its log index: the name under which a decision rests on it.
    pub index: LogIndex,
    /// How long the observer had not heard the agent, rounded down.
    pub silence: Span,
    /// For humans.
    pub at: Timestamp,
}

/// An application and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationState {
    /// The accepted document.
    pub document: Application,
    /// Counts accepted documents.
    pub revision: Revision,
    /// Counts changes of primary; 0 until adopted.
    pub epoch: Epoch,
    /// None until adopted.
    pub primary: Option<ClusterId>,
    /// What was adopted or confirmed, by cluster.
    pub databases: BTreeMap<ClusterId, BTreeMap<ResourceId, Database>>,
    /// From the last confirmed to the newest; empty until adopted.
    pub terms: Vec<Terms>,
    /// The first of `terms` is confirmed.
    pub confirmed: bool,
    /// Clusters that are no candidates until an operator's rejoin, with the reason.
    pub excluded: BTreeMap<ClusterId, String>,
    /// To which cluster each DNS name points.
    pub answers: BTreeMap<ResourceId, Answer>,
    /// The application's pause.
    pub paused: Option<Pause>,
    /// When the last automatic change began, for the cool-down; cleared by an acknowledgement.
    pub cooling_since: Option<Timestamp>,
    /// The last refusal, so that each is audited once.
    pub refusal: Option<(String, String)>,
    /// The run that is under way, if any.
    pub run: Option<RunId>,
    /// Databases that accepted writes where the terms say standby, by cluster.
    #[serde(default)]
    pub rogues: BTreeMap<ClusterId, BTreeSet<ResourceId>>,
    /// The group was restored, and not all agents have been heard: nothing is granted or decided.
    #[serde(default)]
    pub recovering: Option<Recovering>,
    /// Resources left half-changed, by the cluster where they are, with the run that left them so.
    pub stuck: BTreeMap<ClusterId, BTreeMap<ResourceId, RunId>>,
    /// What was rehearsed last.
    #[serde(default)]
    pub rehearsed: Rehearsed,
    /// No planned move begins; a failover does.
    #[serde(default)]
    pub held: Option<Pause>,
    /// The switchover that can still be rolled back.
    #[serde(default)]
    pub window: Option<CommitWindow>,
    /// The failover that was ordered, or that asks.
    #[serde(default)]
    pub order: Option<Order>,
    /// One person alone has taken `twoPerson` out of the document.
    #[serde(default)]
    pub dropped: Option<Dropped>,
    /// The epoch in which another boot of the primary's agent was last registered: one before it may hold a lease of this
    /// epoch. In all other epochs every grant went to the boot that is registered, since it was before they began.
    #[serde(default)]
    pub rebooted: Epoch,
}

/// What a DNS name answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The cluster it points to.
    pub cluster: ClusterId,
    /// The entry that made it so.
    pub since: Token,
}

/// Automatic action is switched off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// It took effect at this index.
    Done(LogIndex),
    /// It had taken effect before, at this index, and did nothing now.
    Repeated(LogIndex),
    /// It was late, doubled or overtaken, and did nothing.
    Ignored(String),
    /// A rule forbids it.
    Refused {
        /// Stable code of the rule.
        rule: String,
        /// For humans.
        detail: String,
    },
}

impl Default for State {
    fn default() -> Self {
        Self {
            format: FORMAT,
            group: GroupId::default(),
            restoration: 0,
            applied: LogIndex(0),
            voters: Vec::new(),
            coordinators: BTreeMap::new(),
            removed: BTreeMap::new(),
            changing: None,
            observers: BTreeMap::new(),
            agents: BTreeMap::new(),
            votes: BTreeMap::new(),
            applications: BTreeMap::new(),
            runs: BTreeMap::new(),
            paused: None,
            frozen: None,
            acknowledged: BTreeSet::new(),
            limit: Limit::default(),
            begun: VecDeque::new(),
            dns_serial: 1,
            requests: VecDeque::new(),
            audit: VecDeque::new(),
        }
    }
}

impl State {
    /// Applies one entry of the log. The index is the entry's own and above all earlier ones.
    pub fn apply(&mut self, index: LogIndex, record: &Record) -> (Applied, Vec<Effect>) {
        apply::apply(self, index, record)
    }

    /// Takes over a raft membership that was committed at this index.
    pub fn apply_membership(&mut self, index: LogIndex, voters: Vec<BTreeSet<CoordinatorId>>) -> Vec<Effect> {
        apply::membership(self, index, voters)
    }

    /// Notes an entry without content.
    pub fn apply_blank(&mut self, index: LogIndex) {
        self.applied = index;
    }

    /// The token that an entry at this index gives out.
    #[must_use]
    pub const fn token(&self, index: LogIndex) -> Token {
        Token { restoration: self.restoration, index }
    }

    /// True if this coordinator is a voter of every set that counts.
    #[must_use]
    pub fn is_voter(&self, coordinator: CoordinatorId) -> bool {
        self.voters.iter().any(|set| set.contains(&coordinator))
    }

    /// True if a human has acknowledged the loss of each of these clusters.
    #[must_use]
    pub fn thawed_by_hand(&self, clusters: &BTreeSet<ClusterId>) -> bool {
        clusters.is_subset(&self.acknowledged)
    }

    /// The name of every vote that stands.
    pub fn standing_votes(&self) -> impl Iterator<Item = LogIndex> + '_ {
        let ballots = self.votes.values().flat_map(BTreeMap::values);
        ballots.filter_map(|ballot| ballot.standing.map(|vote| vote.index))
    }

    /// The vote of an observer that stands on a cluster.
    #[must_use]
    pub fn standing(&self, cluster: &ClusterId, observer: CoordinatorId) -> Option<StandingVote> {
        self.votes.get(cluster)?.get(&observer)?.standing
    }
}
