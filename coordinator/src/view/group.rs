//! The group itself: who belongs to it, who leads, whether there is a quorum.

use regent_core::id::CoordinatorId;
use regent_core::state::Pause;
use serde::Serialize;

use super::{Inputs, millis, rfc3339};

/// The coordinator that made a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MeView {
    /// Its raft id.
    pub id: u64,
    /// Where it stands; empty until it has joined.
    pub region: String,
    /// It leads.
    pub leader: bool,
}

/// Whether a majority is in contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuorumView {
    /// A leader is known and a majority was in contact just now.
    pub held: bool,
    /// Raft term.
    pub term: u64,
    /// The leader, if one is known.
    pub leader: Option<u64>,
    /// How long ago a majority was last known to be in contact: so old may this view be. None: never since the start.
    pub view_age_ms: Option<u64>,
    /// The same as a wall clock.
    pub last_held: Option<String>,
    /// How long this coordinator has known of a leader without a break.
    pub led_for_ms: Option<u64>,
    /// Voters of the group, in joint consensus of both sets.
    pub voters: Vec<u64>,
}

/// A coordinator of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CoordinatorView {
    /// Raft id.
    pub id: u64,
    /// Where it stands.
    pub region: String,
    /// host:port of its gRPC server.
    pub grpc: String,
    /// host:port of its dashboard.
    pub dashboard: String,
    /// host:port of its DNS server.
    pub dns: String,
    /// It made this view.
    pub me: bool,
    /// It leads, as far as is known here.
    pub leader: bool,
    /// It votes.
    pub voter: bool,
    /// When the leader last heard it. None if this coordinator does not lead, or never heard it.
    pub heard_age_ms: Option<u64>,
    /// Heard just now; none if it is not known here.
    pub reachable: Option<bool>,
    /// How long calls from here to it and back take, but for the slowest in a hundred; none if it is not known.
    pub round_trip_ms: Option<u64>,
    /// That is a heartbeat of raft or longer: leadership does not last.
    pub too_far: bool,
}

/// Automatic action is switched off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PauseView {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: String,
}

impl PauseView {
    pub(super) fn build(pause: &Pause) -> Self {
        Self { by: pause.by.clone(), reason: pause.reason.clone(), at: rfc3339(pause.at) }
    }
}

impl MeView {
    pub(super) fn build(inputs: &Inputs<'_>) -> Self {
        let known = inputs.state.coordinators.get(&inputs.me);
        Self {
            id: inputs.me.0,
            region: known.map_or_else(String::new, |known| known.region.to_string()),
            leader: inputs.leads(),
        }
    }
}

impl QuorumView {
    pub(super) fn build(inputs: &Inputs<'_>) -> Self {
        let leadership = inputs.leadership;
        let quorum = leadership.quorum(&inputs.state.voters, inputs.instant);
        let view_age_ms = quorum.age.map(millis);
        let last_held = view_age_ms.and_then(|age| Some(inputs.wall.0.saturating_sub(i64::try_from(age).ok()?)));
        let mut voters: Vec<u64> = inputs.state.voters.iter().flatten().map(|voter| voter.0).collect();
        voters.sort_unstable();
        voters.dedup();
        Self {
            held: quorum.held,
            term: leadership.term,
            leader: leadership.leader.map(|leader| leader.0),
            view_age_ms,
            last_held: last_held.map(|at| rfc3339(regent_core::time::Timestamp(at))),
            led_for_ms: inputs.evidence.led_since.map(|since| inputs.age_ms(since)),
            voters,
        }
    }
}

impl CoordinatorView {
    pub(super) fn all(inputs: &Inputs<'_>) -> Vec<Self> {
        inputs
            .state
            .coordinators
            .values()
            .map(|known| {
                let heard_age_ms = heard_age_ms(inputs, known.id);
                let reachable = heard_age_ms.map(|age| age <= millis(inputs.leadership.patience()));
                Self {
                    id: known.id.0,
                    region: known.region.to_string(),
                    grpc: known.grpc.clone(),
                    dashboard: known.dashboard.clone(),
                    dns: known.dns.clone(),
                    me: known.id == inputs.me,
                    leader: inputs.leadership.leader == Some(known.id),
                    voter: inputs.state.is_voter(known.id),
                    heard_age_ms,
                    reachable: if inputs.leads() { reachable.or(Some(false)) } else { reachable },
                    round_trip_ms: inputs.leadership.round_trips.get(&known.id).copied().map(millis),
                    too_far: inputs.leadership.too_far().any(|(id, _)| id == known.id),
                }
            })
            .collect()
    }
}

fn heard_age_ms(inputs: &Inputs<'_>, coordinator: CoordinatorId) -> Option<u64> {
    if coordinator == inputs.me {
        return Some(0);
    }
    let leadership = inputs.leadership;
    if inputs.leads() {
        return leadership.heard.get(&coordinator).map(|at| inputs.instant_age_ms(*at));
    }
    // A follower that is in contact with the quorum hears the leader.
    (leadership.leader == Some(coordinator)).then(|| leadership.quorum_at.map(|at| inputs.instant_age_ms(at))).flatten()
}
