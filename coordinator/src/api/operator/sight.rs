//! What is seen of clusters and databases. Stale or missing telemetry is unknown: never healthy, never dead.

use regent_core::evidence::{Contact, Evidence, FenceState, Health, LeaseState, Role, Sighting};
use regent_core::id::{ApplicationId, ClusterId, CoordinatorId, ResourceId};
use regent_core::state::{ApplicationState, State};
use regent_core::time::{Moment, Span, Timestamp};
use regent_proto::operator::v1 as wire;

use crate::api::convert::{span, time};

/// One coordinator's look at one moment.
pub(super) struct Look<'a> {
    /// Which coordinator.
    pub(super) me: CoordinatorId,
    /// The applied state.
    pub(super) state: &'a State,
    /// What it saw, and what was relayed to it.
    pub(super) evidence: &'a Evidence,
    /// By its monotonic clock.
    pub(super) now: Moment,
    /// By its wall clock.
    pub(super) wall: Timestamp,
}

/// What one coordinator sees of one cluster's agent, as far as it is known here.
pub(super) fn sight(look: &Look<'_>, cluster: &ClusterId, observer: CoordinatorId, patience: Span) -> wire::Sight {
    let seen: Option<Option<&Contact>> = if observer == look.me {
        Some(look.evidence.contacts.get(cluster))
    } else {
        look.evidence.relayed.get(&observer).map(|relayed| relayed.get(cluster))
    };
    let two_way = seen.flatten().and_then(|contact| contact.two_way);
    let heard = two_way.map(|at| look.now.since(at));
    let contact = match (seen, heard) {
        (None, _) => wire::Contact::Unknown,
        (Some(_), None) => wire::Contact::Never,
        (Some(_), Some(age)) if age <= patience => wire::Contact::Heard,
        (Some(_), Some(_)) => wire::Contact::Silent,
    };
    let region = look.state.coordinators.get(&observer).map(|known| known.region.to_string());
    wire::Sight {
        observer: observer.0,
        region: region.unwrap_or_default(),
        contact: contact.into(),
        heard: heard.map(span),
        voted: look.state.standing(cluster, observer).map(|vote| time(vote.at)),
    }
}

/// An application in one cluster, by the newest word of its agent that is known here.
pub(super) fn placement(
    look: &Look<'_>,
    id: &ApplicationId,
    known: &ApplicationState,
    cluster: &ClusterId,
) -> wire::Placement {
    let excluded = known.excluded.get(cluster);
    let role = match &known.primary {
        None => wire::PlacementRole::None,
        Some(primary) if primary == cluster => wire::PlacementRole::Primary,
        Some(_) if excluded.is_some() => wire::PlacementRole::Excluded,
        Some(_) => wire::PlacementRole::Standby,
    };
    let heard = look.evidence.last_two_way(cluster).max(look.evidence.last_beat(cluster));
    let age = heard.map(|at| look.now.since(at));
    // What an agent said of lease and fence counts only as long as its silence is no reason for a vote.
    let patience = known.document.automation.bound.suspicion();
    let beat = look.evidence.beat(cluster, id).filter(|_| age.is_some_and(|age| age <= patience));
    let lease = beat.map(|beat| match beat.lease {
        LeaseState::None => wire::LeaseState::None,
        LeaseState::Lacked => wire::LeaseState::Lacked,
        LeaseState::Held => wire::LeaseState::Held,
    });
    let fence = beat.map(|beat| match beat.fence {
        FenceState::Open => wire::FenceState::Open,
        FenceState::SelfFenced => wire::FenceState::SelfFenced,
        FenceState::Commanded => wire::FenceState::Commanded,
        FenceState::Unconfirmed => wire::FenceState::Unconfirmed,
    });
    let left = beat.filter(|beat| beat.lease == LeaseState::Held).map(|beat| {
        let since = look.evidence.last_beat(cluster).map_or(Span::ZERO, |at| look.now.since(at));
        beat.lease_left.minus(since)
    });
    wire::Placement {
        cluster: cluster.to_string(),
        role: role.into(),
        excluded: excluded.cloned().unwrap_or_default(),
        rogues: known.rogues.get(cluster).into_iter().flatten().map(ToString::to_string).collect(),
        lease: lease.unwrap_or(wire::LeaseState::Unknown).into(),
        lease_left: left.map(span),
        fence: fence.unwrap_or(wire::FenceState::Unknown).into(),
        epoch: beat.map_or(0, |beat| beat.epoch.0),
        guarded: beat.is_some_and(|beat| beat.guarded),
        guard_alive: beat.is_some_and(|beat| beat.guard_alive),
        failsafe: beat.is_some_and(|beat| beat.failsafe),
        heard: age.map(span),
        resources: known
            .document
            .resources
            .iter()
            .map(|(name, spec)| {
                let seen = look.evidence.sighting(cluster, id, name);
                resource(name, spec.kind.as_str(), seen, look.now)
            })
            .collect(),
    }
}

fn resource(name: &ResourceId, kind: &str, seen: Option<&Sighting>, now: Moment) -> wire::ResourceState {
    let mut state = wire::ResourceState {
        name: name.to_string(),
        kind: kind.to_owned(),
        health: wire::Health::Unknown.into(),
        role: wire::DatabaseRole::Unknown.into(),
        ..wire::ResourceState::default()
    };
    let Some(seen) = seen else {
        "never probed".clone_into(&mut state.detail);
        return state;
    };
    let age = now.since(seen.at);
    state.age = Some(span(age));
    if !seen.is_fresh(now) {
        state.detail = format!("the last probe is {age} old; it said: {}", seen.detail);
        return state;
    }
    state.health = match seen.health {
        Health::Healthy => wire::Health::Healthy,
        Health::Failed => wire::Health::Failed,
        Health::Unknown => wire::Health::Unknown,
    }
    .into();
    state.role = match seen.role {
        Role::Primary => wire::DatabaseRole::Primary,
        Role::Standby => wire::DatabaseRole::Standby,
        Role::None => wire::DatabaseRole::None,
        Role::Unknown => wire::DatabaseRole::Unknown,
    }
    .into();
    state.writable = seen.writable;
    state.position = seen.position;
    state.position_text.clone_from(&seen.position_text);
    state.timeline = seen.timeline;
    state.detail.clone_from(&seen.detail);
    if let Some(upstream) = &seen.upstream {
        state.connected = Some(upstream.connected);
        state.lag_bytes = upstream.lag_bytes;
        state.lag = upstream.lag.map(span);
    }
    state
}

#[cfg(test)]
mod tests {
    use regent_core::evidence::Track;
    use regent_core::id::SystemId;

    use super::*;

    fn seen(at: Moment) -> Sighting {
        Sighting {
            at,
            interval: Span::from_secs(1),
            health: Health::Healthy,
            failures: 0,
            role: Role::Primary,
            writable: true,
            system_id: SystemId::default(),
            previous: None,
            timeline: 1,
            position: Some(7),
            position_text: "0/7".into(),
            advanced: None,
            ailing_since: None,
            closed_since: None,
            unlinked_since: None,
            track: Track::default(),
            last_position: None,
            upstream: None,
            detail: "accepts connections".into(),
        }
    }

    #[test]
    fn an_old_probe_is_unknown_and_says_what_it_was() {
        let name = ResourceId::new("orders-db").unwrap();
        let fresh = resource(&name, "postgres", Some(&seen(Moment(1_000))), Moment(3_000));
        assert_eq!(fresh.health(), wire::Health::Healthy);
        let old = resource(&name, "postgres", Some(&seen(Moment(1_000))), Moment(5_000));
        assert_eq!((old.health(), old.role()), (wire::Health::Unknown, wire::DatabaseRole::Unknown));
        assert_eq!(old.detail, "the last probe is 4s old; it said: accepts connections");
        assert_eq!(resource(&name, "postgres", None, Moment(0)).health(), wire::Health::Unknown);
    }

    #[test]
    fn what_another_coordinator_sees_is_unknown_until_it_tells() {
        let (state, mut evidence) = (State::default(), Evidence::default());
        let (cluster, patience) = (ClusterId::new("eu-west-1").unwrap(), Span::from_secs(15));
        let contact = |state: &State, evidence: &Evidence, observer| {
            let look = Look { me: CoordinatorId(1), state, evidence, now: Moment(100_000), wall: Timestamp(0) };
            sight(&look, &cluster, CoordinatorId(observer), patience).contact()
        };
        assert_eq!(contact(&state, &evidence, 2), wire::Contact::Unknown);
        assert_eq!(contact(&state, &evidence, 1), wire::Contact::Never);
        let heard = |at| Contact { two_way: Some(Moment(at)), ..Contact::default() };
        evidence.contacts.insert(cluster.clone(), heard(99_000));
        evidence.relayed.entry(CoordinatorId(2)).or_default().insert(cluster.clone(), heard(80_000));
        assert_eq!(contact(&state, &evidence, 1), wire::Contact::Heard);
        assert_eq!(contact(&state, &evidence, 2), wire::Contact::Silent);
    }
}
