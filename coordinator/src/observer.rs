//! The observation post: agents' streams in, receipts, grants and votes out.
//!
//! The rules stand in [`regent_core::observer`]; here are the streams, the clock and the evidence they leave.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regent_core::effect::Effect;
use regent_core::entry::Agent;
use regent_core::id::{ApplicationId, ClusterId, CoordinatorId, Epoch, Incarnation, InstallationId, ResourceId};
use regent_core::observer::{Heard, Observer};
use regent_core::state::Applied;
use regent_proto::agent::v1::connect_response::Body;
use regent_proto::agent::v1::{self as wire, ConnectResponse};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api::agent::{convert, stored};
use crate::node::Node;
use crate::proposals::Proposals;
use crate::replica::AppliedEvent;

mod looking;
pub mod relay;
mod terms;

pub use looking::ASK_AGAIN;

/// Between two looks at silence. Small against the shortest D/4, 500 ms.
const TICK: Duration = Duration::from_millis(50);
/// Messages that wait for one agent; a stream that is fuller than this is not being read and is dropped.
pub const STREAM_ROOM: usize = 256;

/// Cheap to clone.
#[derive(Clone)]
pub struct Post {
    inner: Arc<Inner>,
}

struct Inner {
    node: Node,
    proposals: Proposals,
    observer: Mutex<Observer>,
    streams: Mutex<BTreeMap<ClusterId, Stream>>,
    statuses: mpsc::UnboundedSender<Said>,
    connected: mpsc::UnboundedSender<ClusterId>,
    /// Final statuses heard while another coordinator leads: to be relayed.
    foreign: Mutex<Vec<Said>>,
    /// When an agent was last offered terms again.
    offered: Mutex<BTreeMap<ClusterId, Instant>>,
    /// Numbers streams, never the same twice.
    next_stream: AtomicU64,
    /// The applied index at which standing votes were last looked for.
    looked_at: AtomicU64,
    incarnation: Incarnation,
    /// Number of the next relay to the leader.
    relays: AtomicU64,
    /// The newest relay that was taken from each coordinator.
    relayed: Mutex<BTreeMap<CoordinatorId, (u64, u64)>>,
    /// Looks that agents were asked for.
    looks: looking::Looks,
}

/// A step's status, with whose word it is: the certificate's, not the message's.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// The cluster whose agent said it.
    pub cluster: ClusterId,
    /// What it said.
    pub status: wire::StepStatus,
}

/// An agent's stream.
struct Stream {
    number: u64,
    sender: mpsc::Sender<Result<ConnectResponse, tonic::Status>>,
}

/// What the engine hears from the post.
pub struct Heardings {
    /// Statuses of steps.
    pub statuses: mpsc::UnboundedReceiver<Said>,
    /// Agents that have just connected.
    pub connected: mpsc::UnboundedReceiver<ClusterId>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Post {
    /// A process that starts to observe; [`Post::run`] must run for it to grant or vote.
    #[must_use]
    pub fn new(node: Node, proposals: Proposals, incarnation: Incarnation) -> (Self, Heardings) {
        let observer = Mutex::new(Observer::new(node.id, incarnation, node.now()));
        let (statuses, statuses_out) = mpsc::unbounded_channel();
        let (connected, connected_out) = mpsc::unbounded_channel();
        let inner = Inner {
            node,
            proposals,
            observer,
            streams: Mutex::default(),
            statuses,
            connected,
            foreign: Mutex::default(),
            offered: Mutex::default(),
            next_stream: AtomicU64::new(1),
            looked_at: AtomicU64::new(u64::MAX),
            incarnation,
            relays: AtomicU64::new(1),
            relayed: Mutex::default(),
            looks: looking::Looks::default(),
        };
        (Self { inner: Arc::new(inner) }, Heardings { statuses: statuses_out, connected: connected_out })
    }

    /// Commits the start, then looks at silence until told to stop.
    pub async fn run(self, mut events: mpsc::UnboundedReceiver<AppliedEvent>, stop: CancellationToken) {
        let started = self.clone();
        let starting = tokio::spawn(async move { started.commit_start().await });
        self.load_votes();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = tick.tick() => self.tick(),
                event = events.recv() => match event {
                    Some(event) => self.applied(&event),
                    None => break,
                },
            }
        }
        starting.abort();
    }

    async fn commit_start(&self) {
        loop {
            let entry = lock(&self.inner.observer).start();
            match self.inner.node.replica.propose(self.inner.proposals.record(entry)).await {
                Ok(Applied::Done(_) | Applied::Repeated(_) | Applied::Ignored(_)) => {
                    info!("observing");
                    return;
                }
                Ok(Applied::Refused { rule, detail }) => {
                    error!(rule, detail, "this process must not observe; see deploy/runbooks");
                    return;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// Votes that stand in a state that was loaded, from the disk or as a snapshot, have the time of loading.
    fn load_votes(&self) {
        let node = &self.inner.node;
        let applied = node.replica.read(|state| state.applied);
        if self.inner.looked_at.swap(applied.0, Ordering::Relaxed) == applied.0 {
            return;
        }
        let now = node.now();
        let standing: Vec<_> = node.replica.read(|state| state.standing_votes().collect());
        node.note(|evidence| {
            for index in standing {
                evidence.votes_applied.entry(index).or_insert(now);
            }
        });
    }

    fn tick(&self) {
        let node = &self.inner.node;
        node.turns().post.fetch_add(1, Ordering::Relaxed);
        let (led, now) = (node.replica.leadership().borrow().leader.is_some(), node.now());
        node.note(|evidence| {
            if !led {
                evidence.led_since = None;
            } else if evidence.led_since.is_none() {
                evidence.led_since = Some(now);
            }
        });
        self.load_votes();
        let words = node.replica.read(|state| lock(&self.inner.observer).tick(state, now, led));
        for word in words {
            self.inner.proposals.offer(word);
        }
    }

    fn applied(&self, event: &AppliedEvent) {
        let node = &self.inner.node;
        // Later than it was applied, which is the safe side.
        let at = node.now();
        for effect in &event.effects {
            match effect {
                Effect::TermsChanged(application) => self.push_terms(application),
                Effect::VoteStands { cluster, observer, index } => {
                    warn!(%cluster, observer = observer.0, "a vote stands");
                    node.note(|evidence| evidence.votes_applied.insert(*index, at));
                }
                Effect::VoteWithdrawn { cluster, observer } => {
                    info!(%cluster, observer = observer.0, "a vote was withdrawn");
                    let standing: Vec<_> = node.replica.read(|state| state.standing_votes().collect());
                    node.note(|evidence| evidence.votes_applied.retain(|index, _| standing.contains(index)));
                }
                Effect::CoordinatorsChanged => self.push_coordinators(),
                Effect::AnswerChanged(..) | Effect::Dispatch(..) | Effect::RunChanged(_) | Effect::Audited => {}
            }
        }
    }

    /// Every agent hears whom it should dial.
    fn push_coordinators(&self) {
        let coordinators = self.inner.node.replica.read(convert::coordinators);
        let clusters: Vec<ClusterId> = lock(&self.inner.streams).keys().cloned().collect();
        for cluster in clusters {
            self.send(&cluster, Body::Coordinators(coordinators.clone()));
        }
    }

    /// Everything an agent must know when it connects.
    #[must_use]
    pub fn welcome(&self, cluster: &ClusterId) -> wire::Welcome {
        let me = self.inner.node.id.0;
        self.inner.node.replica.read(|state| {
            let listing = state.applications.iter().filter(|(_, known)| known.document.clusters.contains(cluster));
            let terms = listing
                .filter_map(|(application, known)| Some(convert::terms(state, application, known.terms.last()?)))
                .collect();
            let coordinators = Some(convert::coordinators(state));
            wire::Welcome { group: state.group.0.clone(), coordinator: me, terms, coordinators }
        })
    }

    /// An agent's stream is up; an older one of the same agent is dropped.
    pub fn attach(&self, cluster: &ClusterId, sender: mpsc::Sender<Result<ConnectResponse, tonic::Status>>) -> u64 {
        let mut streams = lock(&self.inner.streams);
        let number = self.inner.next_stream.fetch_add(1, Ordering::Relaxed);
        streams.insert(cluster.clone(), Stream { number, sender });
        drop(streams);
        let _ = self.inner.connected.send(cluster.clone());
        number
    }

    /// What an agent has stored, as it says when it connects.
    pub fn note_stored(&self, cluster: &ClusterId, hello: &wire::Hello) {
        let reports = stored::reports(&hello.stored, &hello.installation);
        if reports.is_none() {
            warn!(%cluster, "what an agent has stored cannot be understood: agent and coordinator differ in release");
        }
        self.inner.node.note(|evidence| {
            let contact = evidence.contacts.entry(cluster.clone()).or_default();
            contact.installation = InstallationId(hello.installation.clone());
            contact.stored = reports;
        });
    }

    /// An agent's stream has ended.
    pub fn detach(&self, cluster: &ClusterId, number: u64) {
        let mut streams = lock(&self.inner.streams);
        if streams.get(cluster).is_some_and(|stream| stream.number == number) {
            streams.remove(cluster);
        }
    }

    /// Sends down an agent's stream. False if there is none, or it is not being read.
    pub fn send(&self, cluster: &ClusterId, body: Body) -> bool {
        let mut streams = lock(&self.inner.streams);
        let Some(stream) = streams.get(cluster) else { return false };
        let sent = stream.sender.try_send(Ok(ConnectResponse { body: Some(body) })).is_ok();
        if !sent {
            streams.remove(cluster);
        }
        sent
    }

    /// A heartbeat: answered at once, then noted.
    pub fn heartbeat(&self, cluster: &ClusterId, boot: &str, heartbeat: &wire::Heartbeat) {
        let node = &self.inner.node;
        let Some(stamp) = heartbeat.stamp.clone() else { return };
        let now = node.now();
        let installation = InstallationId(stamp.installation.clone());
        let beats = node.see(|evidence| convert::beats(&heartbeat.applications, evidence.contacts.get(cluster), now));
        let epochs: BTreeMap<ApplicationId, Epoch> = beats.iter().map(|(id, beat)| (id.clone(), beat.epoch)).collect();
        let (incarnation, receipt) = (Incarnation(stamp.incarnation), heartbeat.receipt);
        let leased = &convert::leased(&beats);
        let asked = node.see(|evidence| evidence.last_asked(cluster));
        let said =
            Heard { cluster, installation: &installation, incarnation, boot, receipt, epochs: &epochs, leased, asked };
        let (answer, round_trip) = node.replica.read(|state| {
            let mut observer = lock(&self.inner.observer);
            (observer.heard(state, now, &said), observer.round_trip(cluster))
        });
        if answer.receipt == 0 {
            // Not the registered process of the installation: it gets nothing, and nothing that it says counts.
            return;
        }
        self.send(
            cluster,
            Body::Answer(wire::Answer {
                stamp: Some(stamp.clone()),
                receipt: answer.receipt,
                grants: answer
                    .grants
                    .iter()
                    .map(|(id, epoch)| wire::Grant { application: id.to_string(), epoch: epoch.0 })
                    .collect(),
                higher: answer
                    .higher
                    .iter()
                    .map(|(id, epoch)| wire::EpochNotice { application: id.to_string(), epoch: epoch.0 })
                    .collect(),
            }),
        );
        if let Some(withdrawal) = answer.proposal {
            self.inner.proposals.offer(withdrawal);
        }
        let wall = node.wall();
        let report = heartbeat.report.clone().map(|report| self.admit(cluster, report));
        node.note(|evidence| {
            let contact = evidence.contacts.entry(cluster.clone()).or_default();
            contact.installation = installation;
            contact.incarnation = incarnation;
            contact.last_beat = contact.last_beat.max(Some(now));
            if answer.two_way {
                contact.two_way = contact.two_way.max(Some(now));
            }
            contact.round_trip = round_trip;
            contact.beats = beats;
            if let Some(report) = &report {
                convert::take_report(contact, report, now);
                contact.node = report.node.as_ref().map(|found| convert::of_node(found, now, wall)).or(contact.node);
            }
        });
        self.inner.looks.note(cluster, heartbeat.looked);
        self.confirm_terms(cluster);
        self.offer_terms_again(cluster);
    }

    /// Only what a document knows is kept: one faulty agent must not fill the memory of every coordinator. Its texts are cut
    /// where they become evidence.
    fn admit(&self, cluster: &ClusterId, mut report: wire::Report) -> wire::Report {
        self.inner.node.replica.read(|state| {
            let listed = |application: &str| {
                let known = ApplicationId::new(application).ok().and_then(|id| state.applications.get(&id));
                known.filter(|known| known.document.clusters.contains(cluster))
            };
            report.resources.retain(|seen| {
                let resource = ResourceId::new(&seen.resource).ok();
                listed(&seen.application)
                    .zip(resource)
                    .is_some_and(|(known, resource)| known.document.resources.contains_key(&resource))
            });
            report.facts.retain(|found| {
                let resource = ResourceId::new(&found.resource).ok();
                listed(&found.application)
                    .zip(resource)
                    .is_some_and(|(known, resource)| known.document.resources.contains_key(&resource))
            });
            report.promises_asked.retain(|asked| listed(&asked.application).is_some());
            let agent = |name: &str| ClusterId::new(name).is_ok_and(|id| state.agents.contains_key(&id));
            report.witnesses.retain(|witness| agent(&witness.cluster));
        });
        report
    }

    /// Whether this process speaks for its agent, by what is applied here.
    #[must_use]
    pub fn speaks(&self, cluster: &ClusterId, incarnation: Incarnation, boot: &str) -> bool {
        let known = |agent: &Agent| agent.speaks(incarnation, boot);
        self.inner.node.replica.read(|state| state.agents.get(cluster).is_some_and(known))
    }

    /// A step's status, heard here or relayed: the engine decides what it means.
    pub fn step_status(&self, cluster: &ClusterId, status: wire::StepStatus) {
        let _ = self.inner.statuses.send(Said { cluster: cluster.clone(), status });
    }

    /// A final status that another coordinator, which leads, has to know.
    pub fn keep_for_leader(&self, said: &Said) {
        let mut foreign = lock(&self.inner.foreign);
        if foreign.len() < STREAM_ROOM && !foreign.contains(said) {
            foreign.push(said.clone());
        }
    }

    /// Takes what was kept for the leader.
    fn kept_for_leader(&self) -> Vec<Said> {
        std::mem::take(&mut lock(&self.inner.foreign))
    }

    /// The clock and state this post works with.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.inner.node
    }

    /// Where it proposes.
    #[must_use]
    pub fn proposals(&self) -> &Proposals {
        &self.inner.proposals
    }
}
