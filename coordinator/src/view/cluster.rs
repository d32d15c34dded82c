//! The matrix: every cluster, and what each coordinator sees of it.

use std::collections::BTreeSet;

use regent_core::evidence::Contact;
use regent_core::id::{ClusterId, CoordinatorId};
use regent_core::terms;
use regent_core::time::Span;
use serde::Serialize;

use super::words::Contacted;
use super::{Inputs, ms, rfc3339};

/// A cluster with what each coordinator sees of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterView {
    /// Its name.
    pub name: String,
    /// Where it stands; empty if its agent has never registered.
    pub region: String,
    /// host:port of its agent; empty if it has never registered.
    pub agent_address: String,
    /// Its agent has registered.
    pub registered: bool,
    /// One for each coordinator, in the order of their ids.
    pub observers: Vec<SightView>,
    /// How many votes stand.
    pub votes_standing: usize,
    /// A majority of the voters has lost it.
    pub lost_by_majority: bool,
    /// What agents of other clusters got from its witness port.
    pub witnesses: Vec<WitnessView>,
    /// Applications that have their primary here.
    pub primary_of: Vec<String>,
}

/// What one coordinator sees of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SightView {
    /// Which coordinator.
    pub observer: u64,
    /// The short of it.
    pub contact: Contacted,
    /// Age of the last heartbeat that answered a receipt; none if there is none or it is not known here.
    pub two_way_age_ms: Option<u64>,
    /// Age of the last heartbeat of any kind.
    pub last_beat_age_ms: Option<u64>,
    /// Its vote, if one stands.
    pub vote: Option<VoteView>,
}

/// A vote that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VoteView {
    /// Its log index.
    pub index: u64,
    /// How long the observer had heard nothing when it voted.
    pub silence_ms: u64,
    /// When it voted.
    pub at: String,
}

/// What another cluster's agent got from this cluster's witness port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WitnessView {
    /// Whose agent asked.
    pub from_cluster: String,
    /// It got a valid signature.
    pub answered: bool,
    /// How long ago.
    pub age_ms: u64,
    /// Applications whose running lease was signed for, with their epochs.
    pub leases: Vec<(String, u64)>,
}

/// Contact is fresh for at least so long, whatever the time bound: relays come in steps.
const LEAST_FRESHNESS: Span = Span::from_secs(2);

/// For how long a contact with this cluster says something: D/4 of the most hasty application.
pub(super) fn freshness(inputs: &Inputs<'_>, cluster: &ClusterId) -> Span {
    let documents = inputs.state.applications.values().map(|known| &known.document);
    documents
        .filter(|document| document.clusters.contains(cluster))
        .map(|document| document.automation.bound.suspicion())
        .min()
        .unwrap_or(LEAST_FRESHNESS)
        .max(LEAST_FRESHNESS)
}

impl ClusterView {
    pub(super) fn all(inputs: &Inputs<'_>) -> Vec<Self> {
        let state = inputs.state;
        let listed = state.applications.values().flat_map(|known| &known.document.clusters);
        let names: BTreeSet<&ClusterId> = state.agents.keys().chain(listed).chain(state.votes.keys()).collect();
        names.into_iter().map(|name| Self::build(inputs, name)).collect()
    }

    fn build(inputs: &Inputs<'_>, cluster: &ClusterId) -> Self {
        let state = inputs.state;
        let agent = state.agents.get(cluster);
        let voted: BTreeSet<CoordinatorId> = state
            .coordinators
            .keys()
            .copied()
            .filter(|observer| state.standing(cluster, *observer).is_some())
            .collect();
        let primary_of = state
            .applications
            .iter()
            .filter(|(_, known)| known.primary.as_ref() == Some(cluster))
            .map(|(name, _)| name.to_string())
            .collect();
        Self {
            name: cluster.to_string(),
            region: agent.map_or_else(String::new, |agent| agent.region.to_string()),
            agent_address: agent.map_or_else(String::new, |agent| agent.peer_address.clone()),
            registered: agent.is_some(),
            observers: state.coordinators.keys().map(|observer| SightView::build(inputs, cluster, *observer)).collect(),
            votes_standing: voted.len(),
            lost_by_majority: terms::is_majority(&state.voters, &voted),
            witnesses: witnesses(inputs, cluster),
            primary_of,
        }
    }
}

impl SightView {
    fn build(inputs: &Inputs<'_>, cluster: &ClusterId, observer: CoordinatorId) -> Self {
        let contact = contact(inputs, cluster, observer);
        let two_way = contact.and_then(|contact| contact.two_way);
        let standing = inputs.state.standing(cluster, observer);
        let vote =
            standing.map(|vote| VoteView { index: vote.index.0, silence_ms: ms(vote.silence), at: rfc3339(vote.at) });
        let is_fresh = two_way.map(|at| inputs.now.since(at) <= freshness(inputs, cluster));
        // What others see is known to the leader only, and only as long as they relay it.
        let own = observer == inputs.me;
        let contacted = match (vote.is_some(), is_fresh) {
            (true, _) => Contacted::Lost,
            (false, Some(true)) => Contacted::Heard,
            (false, Some(false)) if own || is_relaying(inputs, observer) => Contacted::Silent,
            (false, None) if own && inputs.state.agents.contains_key(cluster) => Contacted::Silent,
            (false, Some(false) | None) => Contacted::Unknown,
        };
        Self {
            observer: observer.0,
            contact: contacted,
            two_way_age_ms: two_way.map(|at| inputs.age_ms(at)),
            last_beat_age_ms: contact.and_then(|contact| contact.last_beat).map(|at| inputs.age_ms(at)),
            vote,
        }
    }
}

fn contact<'a>(inputs: &Inputs<'a>, cluster: &ClusterId, observer: CoordinatorId) -> Option<&'a Contact> {
    if observer == inputs.me {
        inputs.evidence.contacts.get(cluster)
    } else {
        inputs.evidence.relayed.get(&observer)?.get(cluster)
    }
}

/// The observer is in contact with the leader, so that its silence about a cluster means something.
fn is_relaying(inputs: &Inputs<'_>, observer: CoordinatorId) -> bool {
    inputs.leads()
        && inputs
            .leadership
            .heard
            .get(&observer)
            .is_some_and(|at| inputs.instant.saturating_duration_since(*at) <= inputs.leadership.patience())
}

fn witnesses(inputs: &Inputs<'_>, cluster: &ClusterId) -> Vec<WitnessView> {
    let others = inputs.state.agents.keys().filter(|other| *other != cluster);
    others
        .filter_map(|other| {
            let seen = inputs.evidence.contacts_of(other).filter_map(|contact| contact.witnesses.get(cluster));
            let newest = seen.max_by_key(|sight| sight.at)?;
            Some(WitnessView {
                from_cluster: other.to_string(),
                answered: newest.answered,
                age_ms: inputs.age_ms(newest.at),
                leases: newest.leases.iter().map(|(name, epoch)| (name.to_string(), epoch.0)).collect(),
            })
        })
        .collect()
}
