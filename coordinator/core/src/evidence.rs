//! What was seen, and when: the volatile half of a decision.
//!
//! Evidence is never replicated. Each coordinator has its own; followers relay theirs to the leader with ages, and
//! the leader dates them by its own clock. Stale or missing telemetry is *unknown*: never healthy, never dead.

mod track;

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{Facts, NodeFacts, Papers};
use crate::id::{
    ApplicationId, ClusterId, CoordinatorId, Epoch, Incarnation, InstallationId, LogIndex, ResourceId, RunId, SystemId,
    Token,
};
use crate::restore::AgentReport;
use crate::time::{Moment, Span};

pub use self::track::{Course, Growth, Pace, Track};

/// Everything one coordinator knows beside the applied state.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// From the agents' streams to this very coordinator.
    pub contacts: BTreeMap<ClusterId, Contact>,
    /// Leader only: what other coordinators relayed, dated by the leader's clock.
    pub relayed: BTreeMap<CoordinatorId, BTreeMap<ClusterId, Contact>>,
    /// Leader only: what other coordinators last said of their machines.
    pub machines: BTreeMap<CoordinatorId, NodeFacts>,
    /// This coordinator's own certificates.
    pub papers: Papers,
    /// When this process applied each standing vote; those from a snapshot or the disk: when it was loaded.
    pub votes_applied: BTreeMap<LogIndex, Moment>,
    /// Leader only: when each voter last acknowledged.
    pub voters_heard: BTreeMap<CoordinatorId, Moment>,
    /// Since when this coordinator leads; none if it does not.
    pub leading_since: Option<Moment>,
    /// Since when it has known of a leader without a break; none if it knows of none.
    pub led_since: Option<Moment>,
    /// Leader only: runs whose intents were applied here long after they were proposed, and whose cause has not been seen
    /// again since; see [`crate::cause`].
    pub late_runs: BTreeSet<RunId>,
    /// Leader only: since when it has seen, without a break, that not too many clusters are lost at once.
    pub calm_since: Option<Moment>,
}

/// What an agent said over one stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contact {
    /// Who spoke.
    pub installation: InstallationId,
    /// Which process of it.
    pub incarnation: Incarnation,
    /// Receipt of the last heartbeat.
    pub last_beat: Option<Moment>,
    /// Receipt of the last heartbeat that named a receipt sent less than D/4 before.
    pub two_way: Option<Moment>,
    /// How long the way there and back takes, but for the slowest in a hundred; none if not known. Not relayed.
    pub round_trip: Option<Span>,
    /// By application.
    pub beats: BTreeMap<ApplicationId, Beat>,
    /// When the last report arrived, corrected by its age if it was relayed.
    pub reported: Option<Moment>,
    /// The last probe results.
    pub resources: BTreeMap<ApplicationId, BTreeMap<ResourceId, Sighting>>,
    /// What it has stored of each application, as it said when it connected; none if it has not said so.
    pub stored: Option<BTreeMap<ApplicationId, AgentReport>>,
    /// What this agent's probes of other clusters' witness ports gave.
    pub witnesses: BTreeMap<ClusterId, WitnessSight>,
    /// When other clusters' agents last asked this one for a promise, by application.
    pub promises: BTreeMap<ApplicationId, BTreeMap<ClusterId, PromiseSight>>,
    /// What was last found that changes seldom. Not relayed: every agent tells every coordinator.
    pub facts: BTreeMap<ApplicationId, BTreeMap<ResourceId, Facts>>,
    /// Of the agent's machine. Not relayed.
    pub node: Option<NodeFacts>,
}

/// An agent's word on one application.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beat {
    /// The epoch it has stored.
    pub epoch: Epoch,
    /// Newest terms stored with fsync.
    pub terms_stored: Option<Token>,
    /// Newest terms named; see [`crate::terms`].
    pub terms_named: Option<Token>,
    /// Its lease.
    pub lease: LeaseState,
    /// How long it still ran when the heartbeat was sent.
    pub lease_left: Span,
    /// Its fence.
    pub fence: FenceState,
    /// It has written journal and marker.
    pub guarded: bool,
    /// Its guard process answers.
    pub guard_alive: bool,
    /// The lease goes on by promises of the other agents.
    pub failsafe: bool,
    /// Resources that it found open though its terms say standby.
    pub rogues: BTreeSet<ResourceId>,
    /// Since when, without a break and at this epoch, the agent has said that it holds no lease and has fenced itself.
    pub self_fenced_since: Option<Moment>,
    /// Since when, without a break and at this epoch, the agent has said that it is primary and holds no lease.
    pub lacking_since: Option<Moment>,
}

impl Beat {
    /// Carries on from the word before, which may be none.
    #[must_use]
    pub fn after(self, before: Option<&Self>, now: Moment) -> Self {
        let lacking = self.lease == LeaseState::Lacked && self.epoch > Epoch(0);
        let fenced = lacking && matches!(self.fence, FenceState::SelfFenced | FenceState::Unconfirmed);
        let before = before.filter(|before| before.epoch == self.epoch);
        let since = |before: Option<Moment>| Some(before.unwrap_or(now));
        Self {
            self_fenced_since: since(before.and_then(|before| before.self_fenced_since)).filter(|_| fenced),
            lacking_since: since(before.and_then(|before| before.lacking_since)).filter(|_| lacking),
            ..self
        }
    }
}

/// Lease of the primary's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LeaseState {
    /// Not primary, or no terms.
    #[default]
    None,
    /// Primary, but a majority of grants is lacking.
    Lacked,
    /// Running.
    Held,
}

/// Fence of an application in one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum FenceState {
    /// Not fenced.
    #[default]
    Open,
    /// The agent fenced by itself; never a confirmation.
    SelfFenced,
    /// A commanded fence or quiesce is stored.
    Commanded,
    /// Begun and not confirmed.
    Unconfirmed,
}

/// A probe result, dated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// When the probe was made, by this coordinator's clock.
    pub at: Moment,
    /// Between two probes.
    pub interval: Span,
    /// Whether it works.
    pub health: Health,
    /// Failed probes in a row.
    pub failures: u32,
    /// Role by its own word.
    pub role: Role,
    /// It accepts writes.
    pub writable: bool,
    /// Identity; empty if unknown.
    pub system_id: SystemId,
    /// For engines that name each history anew: the one that this one went on from, and up to which position.
    pub previous: Option<(SystemId, u64)>,
    /// Timeline; 0 if unknown.
    pub timeline: u64,
    /// Position in bytes; none: unknown.
    pub position: Option<u64>,
    /// The engine's own writing.
    pub position_text: String,
    /// When the position last advanced, at the earliest; see [`Sighting::advanced_since`].
    pub advanced: Option<Moment>,
    /// A standby's view of its upstream.
    pub upstream: Option<UpstreamSight>,
    /// Since which probe, without a break, it has not been healthy; none while it is.
    pub ailing_since: Option<Moment>,
    /// Since which probe, without a break, it has been healthy and refused writes; none while it accepts them or is not
    /// healthy. Of a standby that says nothing.
    pub closed_since: Option<Moment>,
    /// Since which probe, without a break, a standby has had no link to its upstream; none while it has one.
    pub unlinked_since: Option<Moment>,
    /// Of the last ten minutes; see [`Sighting::track_after`].
    pub track: Track,
    /// The last position that was reported, with its date: a database that has failed reports none.
    pub last_position: Option<LastPosition>,
    /// For humans.
    pub detail: String,
}

/// How far a database was, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastPosition {
    /// When the probe was made, by this coordinator's clock.
    pub at: Moment,
    /// In bytes.
    pub position: u64,
    /// The engine's own writing.
    pub text: String,
}

impl Sighting {
    /// Older than three of its intervals it says nothing.
    #[must_use]
    pub fn is_fresh(&self, now: Moment) -> bool {
        now.since(self.at) <= self.interval.times(3)
    }

    /// What is known of the position after this sighting, given the one before.
    #[must_use]
    pub fn last_position_after(&self, before: Option<&Self>) -> Option<LastPosition> {
        let reported = |position| LastPosition { at: self.at, position, text: self.position_text.clone() };
        self.position.map(reported).or_else(|| before.and_then(|before| before.last_position.clone()))
    }

    /// Since when it has not been healthy, given the sighting before.
    #[must_use]
    pub fn ailing_after(&self, before: Option<&Self>) -> Option<Moment> {
        match self.health {
            Health::Healthy => None,
            Health::Failed | Health::Unknown => {
                self.without_break(before).and_then(|before| before.ailing_since).or(Some(self.at))
            }
        }
    }

    /// Since when it has refused writes though it is healthy, given the sighting before.
    #[must_use]
    pub fn closed_after(&self, before: Option<&Self>) -> Option<Moment> {
        let closed = self.health == Health::Healthy && !self.writable;
        let since = self.without_break(before).and_then(|before| before.closed_since);
        closed.then(|| since.unwrap_or(self.at))
    }

    /// Since when it has had no link to its upstream, given the sighting before.
    #[must_use]
    pub fn unlinked_after(&self, before: Option<&Self>) -> Option<Moment> {
        let unlinked = self.upstream.as_ref().is_some_and(|upstream| !upstream.connected);
        let since = self.without_break(before).and_then(|before| before.unlinked_since);
        unlinked.then(|| since.unwrap_or(self.at))
    }

    /// The sighting before, unless so much time lies between that anything may have happened.
    fn without_break<'a>(&self, before: Option<&'a Self>) -> Option<&'a Self> {
        before.filter(|before| self.at.since(before.at) <= self.interval.max(before.interval).times(3))
    }

    /// When the position last advanced, given the sighting before: as early as it may have been, which is right after
    /// that one. A standby advances only by what it *receives*: without a link in both sightings it may be working off
    /// what it has had for long, and on another timeline or in another database a higher position is no advance.
    #[must_use]
    pub fn advanced_since(&self, before: &Self) -> Option<Moment> {
        let linked = |seen: &Self| seen.upstream.as_ref().is_some_and(|upstream| upstream.connected);
        let received = match self.role {
            Role::Standby => before.role == Role::Standby && linked(self) && linked(before),
            Role::Primary | Role::None | Role::Unknown => true,
        };
        let same = self.system_id == before.system_id && self.timeline == before.timeline;
        let moved = before.position.is_some() && self.position > before.position;
        if received && same && moved { Some(before.at) } else { before.advanced }
    }
}

/// Whether a resource works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It answered as it should.
    Healthy,
    /// It is certain that it does not work.
    Failed,
    /// The probe could not tell.
    Unknown,
}

/// Role of a resource by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Not in recovery, not a replica; perhaps fenced.
    Primary,
    /// Follows another.
    Standby,
    /// Not a replicated resource.
    None,
    /// It could not be told.
    Unknown,
}

/// A standby's view of its upstream, dated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSight {
    /// The link is established.
    pub connected: bool,
    /// When bytes or a keep-alive last came; none if none did.
    pub last_heard: Option<Moment>,
    /// Bytes behind; none if unknown.
    pub lag_bytes: Option<u64>,
    /// Time behind; none if unknown.
    pub lag: Option<Span>,
    /// The cluster that it is configured to follow, connected or not; none if its agent does not know.
    pub cluster: Option<ClusterId>,
}

impl UpstreamSight {
    /// What it says of its upstream is said of this cluster; so it is where it is not known whom it follows.
    #[must_use]
    pub fn is_of(&self, cluster: &ClusterId) -> bool {
        self.cluster.as_ref().is_none_or(|followed| followed == cluster)
    }
}

/// What a probe of a witness port gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessSight {
    /// When, by this coordinator's clock.
    pub at: Moment,
    /// It answered with a valid signature.
    pub answered: bool,
    /// Applications and epochs whose running lease it signed for.
    pub leases: BTreeMap<ApplicationId, Epoch>,
}

/// A promise was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromiseSight {
    /// When, by this coordinator's clock.
    pub at: Moment,
    /// For which epoch.
    pub epoch: Epoch,
}

impl Evidence {
    /// Every contact with a cluster's agent that is known here: this coordinator's own and the relayed ones.
    pub fn contacts_of(&self, cluster: &ClusterId) -> impl Iterator<Item = &Contact> + use<'_> {
        let wanted = cluster.clone();
        let relayed = self.relayed.values().filter_map(move |by_cluster| by_cluster.get(&wanted));
        self.contacts.get(cluster).into_iter().chain(relayed)
    }

    /// The contact with the newest report, wherever it arrived.
    #[must_use]
    pub fn freshest(&self, cluster: &ClusterId) -> Option<&Contact> {
        self.contacts_of(cluster).filter(|contact| contact.reported.is_some()).max_by_key(|contact| contact.reported)
    }

    /// When any coordinator that is heard here last had two-way contact with the agent.
    #[must_use]
    pub fn last_two_way(&self, cluster: &ClusterId) -> Option<Moment> {
        self.contacts_of(cluster).filter_map(|contact| contact.two_way).max()
    }

    /// When any heartbeat of the agent last arrived.
    #[must_use]
    pub fn last_beat(&self, cluster: &ClusterId) -> Option<Moment> {
        self.contacts_of(cluster).filter_map(|contact| contact.last_beat).max()
    }

    /// When the agent of this cluster was last seen to ask the others for promises: it holds a lease, and none of it may
    /// come from coordinators.
    #[must_use]
    pub fn last_asked(&self, cluster: &ClusterId) -> Option<Moment> {
        let all = self.contacts.values().chain(self.relayed.values().flat_map(BTreeMap::values));
        let asked = all.flat_map(|contact| contact.promises.values());
        asked.filter_map(|by_cluster| by_cluster.get(cluster)).map(|sight| sight.at).max()
    }

    /// The newest probe result of a resource in a cluster.
    #[must_use]
    pub fn sighting(
        &self,
        cluster: &ClusterId,
        application: &ApplicationId,
        resource: &ResourceId,
    ) -> Option<&Sighting> {
        self.contacts_of(cluster)
            .filter_map(|contact| contact.resources.get(application)?.get(resource))
            .max_by_key(|sighting| sighting.at)
    }

    /// The last position that a resource in a cluster reported, however its newest probe ended.
    #[must_use]
    pub fn last_position(
        &self,
        cluster: &ClusterId,
        application: &ApplicationId,
        resource: &ResourceId,
    ) -> Option<&LastPosition> {
        self.contacts_of(cluster)
            .filter_map(|contact| contact.resources.get(application)?.get(resource)?.last_position.as_ref())
            .max_by_key(|last| last.at)
    }

    /// The newest word of a cluster's agent on an application.
    #[must_use]
    pub fn beat(&self, cluster: &ClusterId, application: &ApplicationId) -> Option<&Beat> {
        self.contacts_of(cluster)
            .filter(|contact| contact.beats.contains_key(application))
            .max_by_key(|contact| contact.last_beat)
            .and_then(|contact| contact.beats.get(application))
    }
}
