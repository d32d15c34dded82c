//! Followers tell the leader what they hear: an agent that reaches any coordinator has reached the leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use regent_core::evidence::{Beat, Contact, FenceState, Health, LeaseState, Role, Sighting};
use regent_core::facts::NodeFacts;
use regent_core::id::{ApplicationId, ClusterId, CoordinatorId, Incarnation, InstallationId, ResourceId};
use regent_core::time::{Moment, Span, Timestamp};
use regent_proto::agent::v1 as wire;
use regent_proto::peer::v1::{Observation, ObserveRequest, RelayedStatus};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Post, Said, lock};
use crate::api::agent::{convert, stored};
use crate::raft::Peers;

/// Between two messages to the leader. Small against three intervals of the shortest D, 600 ms.
const INTERVAL: Duration = Duration::from_millis(150);

/// Sends what this coordinator hears to the leader, while another one leads.
pub async fn run(post: Post, peers: Arc<Peers>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = tick.tick() => {}
        }
        let node = post.node();
        let leader = node.replica.leadership().borrow().leader;
        let Some(leader) = leader.filter(|leader| *leader != node.id) else { continue };
        let request = observe(&post);
        let statuses = request.step_statuses.clone();
        match tokio::time::timeout(INTERVAL * 4, peers.observe(leader, request)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                debug!(leader = leader.0, %error, "the leader did not take the observations");
                statuses.iter().filter_map(said).for_each(|said| post.keep_for_leader(&said));
            }
            Err(_) => {
                debug!(leader = leader.0, "the leader did not answer in time");
                statuses.iter().filter_map(said).for_each(|said| post.keep_for_leader(&said));
            }
        }
    }
}

impl Post {
    /// This process, and the number of its next relay.
    fn next_relay(&self) -> (u64, u64) {
        (self.inner.incarnation.0, self.inner.relays.fetch_add(1, Ordering::Relaxed))
    }

    /// False if a later relay of the same coordinator was taken. Without a number it comes from an older release.
    fn is_newest_relay(&self, from: CoordinatorId, relay: (u64, u64)) -> bool {
        newest(&mut lock(&self.inner.relayed), from, relay)
    }
}

fn relayed(said: Said) -> RelayedStatus {
    RelayedStatus { cluster: said.cluster.to_string(), status: Some(said.status) }
}

fn said(relayed: &RelayedStatus) -> Option<Said> {
    Some(Said { cluster: ClusterId::new(&relayed.cluster).ok()?, status: relayed.status.clone()? })
}

fn observe(post: &Post) -> ObserveRequest {
    let node = post.node();
    let now = node.now();
    // The state first, as everywhere: with the locks taken the other way round, two readers and two writers that wait
    // between them would wait for ever.
    let observations = node.replica.read(|state| {
        // Of use only to a group that was restored.
        let recovers = state.applications.values().any(|known| known.recovering.is_some());
        let said = |contact: &Contact| {
            contact.stored.as_ref().filter(|_| recovers).map(|reports| stored::to_wire(state, reports))
        };
        node.see(|evidence| {
            let all = evidence.contacts.iter();
            all.map(|(cluster, contact)| observation(cluster, contact, now, said(contact))).collect()
        })
    });
    let (incarnation, number) = post.next_relay();
    ObserveRequest {
        coordinator: node.id.0,
        incarnation,
        number,
        observations,
        step_statuses: post.kept_for_leader().into_iter().map(relayed).collect(),
        wall_ms: Some(node.wall().0),
        certificate_until_ms: node.see(|evidence| evidence.papers.certificate_until).map(|until| until.0),
    }
}

/// What a coordinator says of its machine, heard at this moment and this time; none from an older release.
fn machine(request: &ObserveRequest, now: Moment, wall: Timestamp) -> Option<NodeFacts> {
    let said = wire::NodeFacts { wall_ms: request.wall_ms?, certificate_until_ms: request.certificate_until_ms };
    Some(convert::of_node(&said, now, wall))
}

/// The leader dates what another coordinator heard by its own clock.
pub fn take(post: &Post, from: CoordinatorId, request: &ObserveRequest) {
    let node = post.node();
    let (now, wall) = (node.now(), node.wall());
    // One that was given up may come after the next: what it says of heartbeats and fences has been overtaken.
    let newest = post.is_newest_relay(from, (request.incarnation, request.number));
    node.note(|evidence| {
        if !newest {
            return;
        }
        if let Some(machine) = machine(request, now, wall) {
            evidence.machines.insert(from, machine);
        }
        let relayed = evidence.relayed.entry(from).or_default();
        for observation in &request.observations {
            let Ok(cluster) = ClusterId::new(&observation.cluster) else { continue };
            take_one(relayed.entry(cluster).or_default(), observation, now);
        }
    });
    for said in request.step_statuses.iter().filter_map(said) {
        post.step_status(&said.cluster, said.status);
    }
}

/// Takes note of a relay by process and number, unless a later one of the same coordinator was taken before.
fn newest(taken: &mut BTreeMap<CoordinatorId, (u64, u64)>, from: CoordinatorId, relay: (u64, u64)) -> bool {
    let before = taken.get(&from).copied().unwrap_or_default();
    taken.insert(from, before.max(relay));
    relay.1 == 0 || relay >= before
}

fn take_one(contact: &mut Contact, observation: &Observation, now: Moment) {
    let date = |age: Option<u64>| age.map(|age| now.before(Span::from_millis(age)));
    contact.installation = InstallationId(observation.installation.clone());
    contact.incarnation = Incarnation(observation.incarnation);
    contact.stored =
        observation.has_stored.then(|| stored::reports(&observation.stored, &observation.installation)).flatten();
    contact.two_way = contact.two_way.max(date(observation.two_way_ms));
    contact.beats = convert::beats(&observation.applications, Some(contact), now);
    contact.last_beat = contact.last_beat.max(date(observation.beat_ms));
    if let Some(report) = &observation.report {
        convert::take_report(contact, report, now.before(Span::from_millis(observation.report_age_ms)));
    }
}

fn observation(
    cluster: &ClusterId,
    contact: &Contact,
    now: Moment,
    stored: Option<Vec<wire::StoredTerms>>,
) -> Observation {
    let has_stored = stored.is_some();
    let stored = stored.unwrap_or_default();
    let age = |at: Option<Moment>| at.map(|at| now.since(at).millis());
    let reported = contact.reported.unwrap_or(now);
    Observation {
        cluster: cluster.to_string(),
        installation: contact.installation.to_string(),
        incarnation: contact.incarnation.0,
        two_way_ms: age(contact.two_way),
        beat_ms: age(contact.last_beat),
        applications: contact.beats.iter().map(|(id, beat)| beat_of(id, beat)).collect(),
        report: contact.reported.map(|_| report(contact, reported)),
        report_age_ms: now.since(reported).millis(),
        stored,
        has_stored,
    }
}

/// A report whose ages count from `sent`.
fn report(contact: &Contact, sent: Moment) -> wire::Report {
    let resources = contact
        .resources
        .iter()
        .flat_map(|(application, seen)| seen.iter().map(move |(resource, sighting)| (application, resource, sighting)))
        .map(|(application, resource, seen)| resource_report(application, resource, seen, sent))
        .collect();
    let witnesses = contact
        .witnesses
        .iter()
        .map(|(cluster, seen)| wire::WitnessReport {
            cluster: cluster.to_string(),
            age_ms: sent.since(seen.at).millis(),
            leases: seen
                .leases
                .iter()
                .map(|(id, epoch)| wire::SignedLease { application: id.to_string(), epoch: epoch.0 })
                .collect(),
            answered: seen.answered,
        })
        .collect();
    let promises_asked = contact
        .promises
        .iter()
        .flat_map(|(id, asked)| asked.iter().map(move |(cluster, sight)| (id, cluster, sight)))
        .map(|(id, cluster, sight)| wire::PromiseAsked {
            application: id.to_string(),
            cluster: cluster.to_string(),
            epoch: sight.epoch.0,
            age_ms: sent.since(sight.at).millis(),
        })
        .collect();
    // What changes seldom every agent tells every coordinator itself.
    wire::Report { resources, witnesses, promises_asked, ..wire::Report::default() }
}

fn resource_report(
    application: &ApplicationId,
    resource: &ResourceId,
    seen: &Sighting,
    sent: Moment,
) -> wire::ResourceReport {
    wire::ResourceReport {
        application: application.to_string(),
        resource: resource.to_string(),
        age_ms: sent.since(seen.at).millis(),
        health: match seen.health {
            Health::Healthy => wire::Health::Healthy,
            Health::Failed => wire::Health::Failed,
            Health::Unknown => wire::Health::Unknown,
        }
        .into(),
        role: match seen.role {
            Role::Primary => wire::Role::Primary,
            Role::Standby => wire::Role::Standby,
            Role::None => wire::Role::None,
            Role::Unknown => wire::Role::Unspecified,
        }
        .into(),
        writable: seen.writable,
        system_id: seen.system_id.0.clone(),
        timeline: seen.timeline,
        position: seen.position,
        upstream: seen.upstream.as_ref().map(|upstream| wire::Upstream {
            connected: upstream.connected,
            last_heard_ms: upstream.last_heard.map(|heard| sent.since(heard).millis()),
            lag_bytes: upstream.lag_bytes,
            lag_ms: upstream.lag.map(Span::millis),
            cluster: upstream.cluster.as_ref().map(ToString::to_string).unwrap_or_default(),
        }),
        detail: seen.detail.clone(),
        failures: seen.failures,
        interval_ms: seen.interval.millis(),
        position_text: seen.position_text.clone(),
        previous_id: seen.previous.as_ref().map(|(id, _)| id.0.clone()).unwrap_or_default(),
        previous_until: seen.previous.as_ref().map_or(0, |(_, until)| *until),
    }
}

fn beat_of(id: &ApplicationId, beat: &Beat) -> wire::ApplicationBeat {
    wire::ApplicationBeat {
        application: id.to_string(),
        epoch: beat.epoch.0,
        terms_stored: beat.terms_stored.map(convert::token),
        terms_named: beat.terms_named.map(convert::token),
        lease: match beat.lease {
            LeaseState::None => wire::LeaseState::None,
            LeaseState::Lacked => wire::LeaseState::Lacked,
            LeaseState::Held => wire::LeaseState::Held,
        }
        .into(),
        lease_left_ms: beat.lease_left.millis(),
        fence: match beat.fence {
            FenceState::Open => wire::FenceState::Open,
            FenceState::SelfFenced => wire::FenceState::Self_,
            FenceState::Commanded => wire::FenceState::Commanded,
            FenceState::Unconfirmed => wire::FenceState::Unconfirmed,
        }
        .into(),
        guarded: beat.guarded,
        guard_alive: beat.guard_alive,
        failsafe: beat.failsafe,
        rogues: beat.rogues.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_tells_its_clock_and_its_certificate() {
        let (now, wall) = (Moment(7), Timestamp(10_000));
        let said = ObserveRequest { wall_ms: Some(7_000), certificate_until_ms: Some(99), ..Default::default() };
        let wanted = NodeFacts { at: now, ahead_ms: -3_000, certificate_until: Some(Timestamp(99)) };
        assert_eq!(machine(&said, now, wall), Some(wanted));
        assert_eq!(machine(&ObserveRequest::default(), now, wall), None, "an older release says nothing");
    }

    #[test]
    fn a_relay_that_was_overtaken_says_nothing() {
        let mut taken = BTreeMap::new();
        let mut takes = |from, relay| newest(&mut taken, CoordinatorId(from), relay);
        assert!(takes(2, (1, 1)) && takes(2, (1, 3)));
        assert!(!takes(2, (1, 2)), "it was given up, and the next one came before it");
        assert!(takes(3, (1, 1)), "each coordinator counts by itself");
        assert!(takes(2, (2, 1)), "a new process begins anew");
        assert!(!takes(2, (1, 9)), "what its older process had on the way is older");
        assert!(takes(2, (0, 0)), "an older release numbers nothing");
    }
}
