//! Heartbeats: when they are due on each link, and what they say.

use std::collections::BTreeMap;
use std::time::Duration;

use regent_core::id::{ApplicationId, CoordinatorId};
use regent_core::time::Span;
use regent_proto::agent::v1 as wire;
use regent_proto::agent::v1::ConnectRequest;
use regent_proto::agent::v1::connect_request::Body as Say;
use tokio::sync::mpsc;

use crate::agent::Agent;
use crate::lease::{Fence, Lease, Reading};
use crate::uplink::convert::wire_token;
use crate::uplink::{LinkId, Pace, say};

/// Between two words on this machine over one stream: its clock and its certificate.
const NODE_INTERVAL: Span = Span::from_secs(60);

/// A stream that is up.
pub(super) struct Link {
    pub(super) coordinator: CoordinatorId,
    pub(super) say: mpsc::Sender<ConnectRequest>,
    /// The last receipt heard, and the last one named to it.
    pub(super) receipt: u64,
    pub(super) named_receipt: u64,
    last_beat: Option<Reading>,
    /// More is to be said than can wait for the next heartbeat.
    pub(super) soon: bool,
    /// Up to where results have been reported over this stream.
    reported: u64,
    /// When something was last said of this machine.
    node_said: Option<Reading>,
    /// The newest question of this stream for a look at everything, the newest that the last round was begun for, and the
    /// newest that is answered; 0: none.
    pub(super) asked_to_look: u64,
    pub(super) looking_for: u64,
    pub(super) looked: u64,
    /// When the heartbeats in flight were sent.
    in_flight: BTreeMap<u64, Reading>,
}

impl Link {
    pub(super) const fn new(coordinator: CoordinatorId, say: mpsc::Sender<ConnectRequest>) -> Self {
        let in_flight = BTreeMap::new();
        Self {
            coordinator,
            say,
            receipt: 0,
            named_receipt: 0,
            last_beat: None,
            soon: true,
            reported: 0,
            node_said: None,
            asked_to_look: 0,
            looking_for: 0,
            looked: 0,
            in_flight,
        }
    }

    /// Until its next heartbeat.
    pub(super) fn due_in(&self, now: Reading, pace: Pace) -> Duration {
        let Some(last) = self.last_beat else { return Duration::ZERO };
        let wait = if self.soon { pace.least() } else { pace.heartbeat() };
        wait.saturating_sub(Duration::from_millis(now.held_since(last).millis()))
    }

    /// Whether something is to be said of this machine again.
    fn node_due(&self, now: Reading) -> bool {
        self.node_said.is_none_or(|said| now.held_since(said) >= NODE_INTERVAL)
    }

    /// How long the answer to a heartbeat took; none if it is not of this stream.
    pub(super) fn answered(&mut self, number: u64, now: Reading) -> Option<Span> {
        let sent = self.in_flight.remove(&number)?;
        self.in_flight = self.in_flight.split_off(&number);
        Some(now.held_since(sent))
    }
}

impl Agent {
    pub(super) fn send_due(&mut self) {
        let now = self.clock.reading();
        let pace = *self.pace.borrow();
        if std::mem::take(&mut self.beat_now) {
            self.links.values_mut().for_each(|link| link.soon = true);
        }
        let due: Vec<LinkId> =
            self.links.iter().filter(|(_, link)| link.due_in(now, pace) == Duration::ZERO).map(|(id, _)| *id).collect();
        for link in due {
            self.beat(link);
        }
    }

    fn beat(&mut self, id: LinkId) {
        self.beat += 1;
        let number = self.beat;
        // Read before it is sent: a right never counts from later than its sending.
        let now = self.clock.reading();
        let applications = self.leases.values().map(|lease| self.application_beat(lease, now)).collect();
        let Some(link) = self.links.get(&id) else { return };
        let report = self.report_since(link.reported, link.node_due(now), now);
        let of_node = report.as_ref().is_some_and(|report| report.node.is_some());
        let heartbeat = wire::Heartbeat {
            stamp: Some(wire::Stamp {
                installation: self.installation.to_string(),
                incarnation: self.incarnation.0,
                number,
            }),
            receipt: link.receipt,
            applications,
            report,
            looked: link.looked,
        };
        let coordinator = link.coordinator;
        let sent = say(&link.say, Say::Heartbeat(heartbeat));
        for lease in self.leases.values_mut().filter(|_| sent) {
            lease.heartbeat_sent(now, coordinator, number);
        }
        let sequence = self.sequence;
        let Some(link) = self.links.get_mut(&id) else { return };
        link.last_beat = Some(now);
        link.soon = false;
        if sent {
            link.named_receipt = link.receipt;
            link.reported = sequence;
            link.node_said = if of_node { Some(now) } else { link.node_said };
            link.in_flight.insert(number, now);
            while link.in_flight.len() > 64 {
                link.in_flight.pop_first();
            }
        }
    }

    fn application_beat(&self, lease: &Lease, now: Reading) -> wire::ApplicationBeat {
        let application = lease.application();
        let end = lease.end(now);
        let state = match end {
            Some(_) => wire::LeaseState::Held,
            None if lease.is_primary() => wire::LeaseState::Lacked,
            None => wire::LeaseState::None,
        };
        wire::ApplicationBeat {
            application: application.to_string(),
            epoch: lease.epoch().0,
            terms_stored: lease.terms().map(|terms| wire_token(terms.number)),
            terms_named: lease.named().map(wire_token),
            lease: state.into(),
            lease_left_ms: end.map_or(0, |end| end.left_for_holder(now).millis()),
            fence: self.fence_state(application, lease, now).into(),
            guarded: lease.is_guarded(),
            guard_alive: lease.guard_alive(),
            failsafe: lease.by_promises(now),
            rogues: self.rogues_of(application).iter().map(ToString::to_string).collect(),
        }
    }

    pub(super) fn fence_state(&self, application: &ApplicationId, lease: &Lease, now: Reading) -> wire::FenceState {
        let failed = self.confirmed.iter().any(|((of, _), confirmed)| of == application && !confirmed);
        let guarded = self.guarded(application);
        // A service that was told to be quiet is no fence of the databases.
        let holds = self.journal.view().applications.get(application).is_some_and(|view| {
            let held = view.holds();
            held.keys().any(|resource| guarded.contains_key(resource))
        });
        let lacks = lease.is_primary() && lease.end(now).is_none();
        match lease.fence() {
            Fence::Unconfirmed { .. } => wire::FenceState::Unconfirmed,
            _ if failed => wire::FenceState::Unconfirmed,
            // A command that was left standing must not hide that the lease is gone.
            Fence::Closing { .. } | Fence::Closed { .. } if lacks => wire::FenceState::Self_,
            _ if holds => wire::FenceState::Commanded,
            Fence::Closing { .. } | Fence::Closed { .. } => wire::FenceState::Self_,
            Fence::None | Fence::Open | Fence::Lifting { .. } => wire::FenceState::Open,
        }
    }

    /// Results that are newer than what this stream has heard, and a word on this machine where one is due; none if there
    /// is neither.
    fn report_since(&self, sequence: u64, node_due: bool, now: Reading) -> Option<wire::Report> {
        let new = |number: &u64| *number > sequence;
        let resources = self.sights.values().filter(|(number, _)| new(number)).map(|(_, sight)| sight.report(now));
        let witnesses = self.signs.values().filter(|(number, _)| new(number)).map(|(_, sign)| wire::WitnessReport {
            cluster: sign.cluster.to_string(),
            age_ms: now.held_since(sign.at).millis(),
            leases: sign.leases.clone(),
            answered: sign.answered,
        });
        let asked = self.questions.iter().filter(|(_, (number, ..))| new(number)).map(
            |((application, cluster), (_, at, epoch))| wire::PromiseAsked {
                application: application.to_string(),
                cluster: cluster.to_string(),
                epoch: epoch.0,
                age_ms: now.held_since(*at).millis(),
            },
        );
        let facts: Vec<_> =
            self.facts.values().filter(|(number, _)| new(number)).map(|(_, fact)| fact.report(now)).collect();
        let node = node_due.then(|| wire::NodeFacts {
            wall_ms: self.clock.wall().0,
            certificate_until_ms: self.settings.certificate_until.map(|until| until.0),
        });
        let report = wire::Report {
            facts,
            node,
            resources: resources.collect(),
            witnesses: witnesses.collect(),
            promises_asked: asked.collect(),
        };
        let empty = report.resources.is_empty()
            && report.witnesses.is_empty()
            && report.promises_asked.is_empty()
            && report.facts.is_empty()
            && report.node.is_none();
        (!empty).then_some(report)
    }
}
