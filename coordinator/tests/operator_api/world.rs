//! Coordinators in this process: the real services on loopback with mutual TLS, over a log that is applied in memory.
#![allow(dead_code, reason = "two test programs share it, and neither uses all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use regent_coordinator::api::{Parts, TransferLeader, routes};
use regent_coordinator::members::Awaited;
use regent_coordinator::node::Node;
use regent_coordinator::observer::Post;
use regent_coordinator::proposals::Proposals;
use regent_coordinator::replica::{Leadership, Propose, ProposeError, Replica, Shared};
use regent_core::application::{Application, ResourceKind, parse};
use regent_core::entry::{
    Agent, Coordinator, Database, Endpoint, Entry, FORMAT, Finding, Gap, Ground, Outcome, Record, Report, StaleAnswer,
};
use regent_core::evidence::{
    Beat, Contact, FenceState, Health, LastPosition, LeaseState, Role, Sighting, Track, UpstreamSight,
};
use regent_core::id::{
    ApplicationId, Attempt, ClusterId, CoordinatorId, Epoch, GroupId, IdentityId, Incarnation, InstallationId,
    RegionId, ResourceId, RunId, StepId, SystemId, VoteNumber,
};
use regent_core::state::{Applied, State};
use regent_core::time::{Span, Timestamp};
use regent_proto::agent::v1::{self as heard_of, connect_response as said};
use regent_proto::tls::{ChannelOptions, Identity, Tls, TlsFiles};
use regentctl::certs::Folder;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Server};

/// How long a test waits for what must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Certificates of one group, in a folder that goes away with it.
pub(crate) struct Authority {
    pub(crate) dir: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new(group: &str) -> Self {
        let authority = Self { dir: tempfile::tempdir().unwrap() };
        authority.folder().authority(group, 1).unwrap();
        authority
    }

    fn folder(&self) -> Folder {
        Folder { dir: self.dir.path().to_owned(), force: true }
    }

    pub(crate) fn files(&self, stem: &str, identity: &Identity) -> TlsFiles {
        let made = self.folder().issue(stem, identity, &[], 1).unwrap();
        TlsFiles { ca: self.dir.path().join("ca.pem"), certificate: made.certificate, key: made.key }
    }

    pub(crate) fn tls(&self, identity: &Identity) -> Tls {
        self.files(&identity.to_string().replace('/', "-"), identity).load().unwrap()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
}

/// A coordinator that answers.
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: String,
    pub(crate) log: Arc<Log>,
    /// Where agents would be heard.
    pub(crate) post: Post,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

/// Stands for raft: applies at once, or says that there is no quorum.
pub(crate) struct Log {
    shared: Arc<Shared>,
    pub(crate) quorum: AtomicBool,
    pub(crate) transferred: Mutex<Vec<CoordinatorId>>,
}

impl Propose for Log {
    fn propose(&self, record: Record) -> BoxFuture<'_, Result<Applied, ProposeError>> {
        Box::pin(async move {
            if !self.quorum.load(Ordering::SeqCst) {
                return Err(ProposeError::NoQuorum);
            }
            Ok(self.shared.write(|state| {
                let index = state.applied.next();
                state.apply(index, &record)
            }))
        })
    }

    fn linearize(&self) -> BoxFuture<'_, Result<(), ProposeError>> {
        let quorum = self.quorum.load(Ordering::SeqCst);
        Box::pin(async move { if quorum { Ok(()) } else { Err(ProposeError::NoQuorum) } })
    }
}

impl TransferLeader for Log {
    fn transfer(&self, to: CoordinatorId) -> BoxFuture<'_, Result<(), String>> {
        self.transferred.lock().unwrap().push(to);
        self.shared.lead(Leadership {
            me: CoordinatorId(1),
            term: 2,
            leader: Some(to),
            quorum_at: Some(Instant::now()),
            ..Leadership::default()
        });
        Box::pin(async { Ok(()) })
    }
}

impl World {
    /// A coordinator over a state, that knows this leader.
    pub(crate) async fn start(authority: &Authority, id: u64, leader: Option<u64>, state: State) -> Self {
        let shared = Shared::new(state);
        let me = CoordinatorId(id);
        shared.lead(Leadership {
            me,
            term: 1,
            leader: leader.map(CoordinatorId),
            // Nobody renews it here, so it lies ahead: it is fresh for as long as the test runs.
            quorum_at: leader.map(|_| Instant::now() + Duration::from_secs(3600)),
            ..Leadership::default()
        });
        let log = Arc::new(Log {
            shared: shared.clone(),
            quorum: AtomicBool::new(leader.is_some()),
            transferred: Mutex::default(),
        });
        let replica = Replica::new(shared.clone(), log.clone());
        Self::serve(authority, Node::new(me, replica), shared, log).await
    }

    async fn serve(authority: &Authority, node: Node, shared: Arc<Shared>, log: Arc<Log>) -> Self {
        let tls = authority.tls(&Identity::Coordinator(node.id.0));
        let stop = CancellationToken::new();
        let (transfer, awaited) = (log.clone(), Awaited::default());
        let (post, _) = Post::new(node.clone(), Proposals::new(node.clone()), Incarnation(1));
        let for_parts = post.clone();
        let parts =
            Parts { node: node.clone(), tls: tls.clone(), transfer, awaited, post: for_parts, stop: stop.clone() };
        let routes = routes(parts).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stopped = stop.clone();
        let server = tokio::spawn(async move {
            Server::builder()
                .tls_config(tls.server_config())
                .unwrap()
                .add_routes(routes)
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped.cancelled())
                .await
                .unwrap();
        });
        Self { node, shared, address, log, post, stop, server }
    }

    /// The example application, decided to move away from a lost region, its steps still to be done.
    pub(crate) async fn with_run(authority: &Authority) -> (Self, u64) {
        let mut state = shop_state();
        let run = lose_region(&mut state);
        (Self::start(authority, 1, Some(1), state).await, run)
    }

    pub(crate) fn apply(&self, entry: Entry) -> Applied {
        self.shared.write(|state| {
            let index = state.applied.next();
            state.apply(index, &record(entry))
        })
    }

    pub(crate) fn channel(&self, tls: &Tls) -> Channel {
        tls.channel(&self.address, ChannelOptions::default()).unwrap()
    }

    /// An agent's stream ends here, and whenever it is asked to look it finds this lacking.
    pub(crate) fn finds_lacking(&self, name: &'static str, lack: &'static str) {
        let (sender, mut heard) = tokio::sync::mpsc::channel(16);
        self.post.attach(&cluster(name), sender);
        let post = self.post.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = heard.recv().await {
                let Some(said::Body::LookNow(asked)) = message.body else { continue };
                answer_look(&post, name, asked.number, lack);
            }
        });
    }

    /// Ends the streams and waits until the server has drained.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.server).await.expect("the server drains").unwrap();
    }
}

/// An agent answers a question by a look that finds this lacking.
pub(crate) fn answer_look(post: &Post, name: &str, number: u64, lack: &str) {
    let installation = format!("installation-{name}");
    let facts = heard_of::ResourceFacts {
        application: shop().to_string(),
        resource: "orders-db".into(),
        interval_ms: 60_000,
        lacks: vec![lack.into()],
        ..Default::default()
    };
    let report = heard_of::Report { facts: vec![facts], ..Default::default() };
    let beat = heard_of::Heartbeat {
        stamp: Some(heard_of::Stamp { installation, incarnation: 1, number }),
        report: Some(report),
        looked: number,
        ..Default::default()
    };
    post.heartbeat(&cluster(name), "", &beat);
}

fn record(entry: Entry) -> Record {
    let millis = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    Record { format: FORMAT, at: Timestamp(i64::try_from(millis).unwrap()), request: None, entry }
}

/// Applies an entry that must take effect; its index.
pub(crate) fn commit(state: &mut State, entry: Entry) -> u64 {
    let index = state.applied.next();
    let (applied, _) = state.apply(index, &record(entry));
    assert_eq!(applied, Applied::Done(index));
    index.0
}

pub(crate) fn cluster(name: &str) -> ClusterId {
    ClusterId::new(name).unwrap()
}

pub(crate) fn resource(name: &str) -> ResourceId {
    ResourceId::new(name).unwrap()
}

pub(crate) fn shop() -> ApplicationId {
    ApplicationId::new("shop").unwrap()
}

/// A PostgreSQL database, a DNS name and a check, in two clusters.
pub(crate) const SHOP: &str = "\
apiVersion: regent/v1
kind: Application
metadata: { name: shop }
spec:
  objectives: { rto: 1h, rpo: 5m }
  clusters: [eu-west-1, eu-central-1]
  resources:
    orders-db: { kind: postgres }
    www: { kind: dns, name: shop.regent.test., ttl: 30s }
    checks: { kind: http }
  automation: { mode: automatic, failoverAfter: 60s }
  runbooks:
    failover:
      - promote: [orders-db]
        retries: 0
      - redirect: [www]
      - verify: [checks]
";

pub(crate) fn application() -> Application {
    parse(SHOP).unwrap()
}

/// Three coordinators, two agents, and the example application adopted and confirmed in eu-west-1.
pub(crate) fn shop_state() -> State {
    let mut state = State::default();
    commit(&mut state, Entry::GroupCreated { group: GroupId("5f0e".into()) });
    for (id, region) in [(1, "eu-west"), (2, "eu-central"), (3, "eu-north")] {
        commit(&mut state, Entry::CoordinatorJoined(coordinator(id, region, &format!("127.0.0.1:710{id}"))));
    }
    let index = state.applied.next();
    state.apply_membership(index, vec![(1..=3).map(CoordinatorId).collect()]);
    for (name, region, address) in
        [("eu-west-1", "eu-west", "127.0.0.11"), ("eu-central-1", "eu-central", "127.0.0.12")]
    {
        commit(&mut state, Entry::AgentRegistered(agent(name, region, address)));
    }
    commit(&mut state, Entry::Applied { application: Box::new(application()), by: "ann".into() });
    let databases =
        BTreeMap::from([(resource("orders-db"), Database { system_id: SystemId("7".into()), timeline: 1 })]);
    let primary = cluster("eu-west-1");
    commit(&mut state, Entry::Adopt { application: shop(), primary: primary.clone(), databases: databases.clone() });
    let terms = state.applications[&shop()].terms.last().unwrap().number;
    let installation = InstallationId("installation-eu-west-1".into());
    commit(&mut state, Entry::TermsConfirmed { application: shop(), terms, cluster: primary, installation, databases });
    state
}

pub(crate) fn coordinator(id: u64, region: &str, grpc: &str) -> Coordinator {
    Coordinator {
        id: CoordinatorId(id),
        identity: IdentityId(format!("identity-{id}")),
        region: RegionId::new(region).unwrap(),
        grpc: grpc.to_owned(),
        dashboard: format!("127.0.0.1:720{id}"),
        dns: format!("127.0.0.1:730{id}"),
    }
}

fn agent(name: &str, region: &str, address: &str) -> Agent {
    let endpoint = |kind: ResourceKind, addresses: Vec<String>| Endpoint {
        kind: kind.as_str().to_owned(),
        addresses,
        remote_fence: false,
    };
    let endpoints = BTreeMap::from([
        (resource("orders-db"), endpoint(ResourceKind::Postgres, Vec::new())),
        (resource("www"), endpoint(ResourceKind::Dns, vec![address.to_owned()])),
        (resource("checks"), endpoint(ResourceKind::Http, Vec::new())),
    ]);
    Agent {
        cluster: cluster(name),
        region: RegionId::new(region).unwrap(),
        installation: InstallationId(format!("installation-{name}")),
        incarnation: Incarnation(1),
        boot: String::new(),
        peer_address: "127.0.0.1:7401".to_owned(),
        witness_key: vec![0; 32],
        endpoints: BTreeMap::from([(shop(), endpoints)]),
    }
}

/// Two observers vote eu-west-1 lost, and the group decides; the run that follows.
pub(crate) fn lose_region(state: &mut State) -> u64 {
    let mut votes = BTreeSet::new();
    for observer in [1, 2].map(CoordinatorId) {
        let (incarnation, number) = (Incarnation(1), VoteNumber(1));
        commit(state, Entry::ObserverStarted { observer, incarnation });
        let silence = Span::from_secs(15);
        let vote = Entry::Vote { observer, incarnation, cluster: cluster("eu-west-1"), number, silence };
        votes.insert(regent_core::id::LogIndex(commit(state, vote)));
    }
    let gap = Gap {
        primary: Some(50_331_648),
        primary_age: Some(Span::from_secs(61)),
        candidate: Some(50_327_552),
        lag: Some(Span::from_millis(200)),
        text: "0/3000000 and 0/2FFF000".into(),
    };
    let last_contact = Timestamp(record(Entry::Thawed).at.0 - 61_000);
    let finding = Finding {
        reasons: vec!["2 of 3 coordinators have not heard the agent of eu-west-1 for 1m".into()],
        last_contact: Some(last_contact),
        gaps: BTreeMap::from([(resource("orders-db"), gap)]),
    };
    let terms = state.applications[&shop()].terms.last().unwrap().number;
    commit(
        state,
        Entry::Decide {
            application: shop(),
            from: Epoch(1),
            to: cluster("eu-central-1"),
            terms,
            ground: Ground::Lost { votes },
            finding,
        },
    )
}

/// The entries that do a step, one after the other.
pub(crate) fn done(run: u64, step: u64, report: Report) -> [Entry; 2] {
    attempt(run, step, 1, Outcome::Succeeded(report))
}

/// The entries that try a step.
pub(crate) fn attempt(run: u64, step: u64, attempt: u64, outcome: Outcome) -> [Entry; 2] {
    let (run, step, attempt) = (RunId(run), StepId(step), Attempt(attempt));
    [Entry::StepIntent { run, step, attempt }, Entry::StepOutcome { run, step, attempt, outcome }]
}

/// Does every step of the run that is awaited.
pub(crate) fn finish(run: u64, world: &World) {
    let steps = world.node.replica.read(|state| state.runs[&RunId(run)].steps.clone());
    for step in steps.iter().filter(|step| !step.detached) {
        for entry in done(run, step.id.0, report()) {
            assert!(matches!(world.apply(entry), Applied::Done(_)), "step {}", step.id);
        }
    }
}

pub(crate) fn report() -> Report {
    Report {
        message: "it is so".into(),
        driver: Span::from_millis(120),
        stale_answers: vec![StaleAnswer {
            server: "127.0.0.1:7303".into(),
            lasted: Span::from_millis(1_200),
            cleared: true,
            reached: true,
        }],
        ..Report::default()
    }
}

/// What an agent of the primary, or of a standby, says when all is well.
pub(crate) fn contact(node: &Node, primary: bool) -> Contact {
    let now = node.now();
    let database = Sighting {
        at: now,
        interval: Span::from_secs(3600),
        health: Health::Healthy,
        failures: 0,
        role: if primary { Role::Primary } else { Role::Standby },
        writable: primary,
        system_id: SystemId("7".into()),
        previous: None,
        timeline: 1,
        position: Some(50_331_648),
        position_text: "0/3000000".into(),
        advanced: Some(now),
        ailing_since: None,
        closed_since: None,
        unlinked_since: None,
        track: Track::default(),
        last_position: Some(LastPosition { at: now, position: 50_331_648, text: "0/3000000".into() }),
        upstream: (!primary).then(|| UpstreamSight {
            connected: true,
            last_heard: Some(now),
            lag_bytes: Some(4096),
            lag: Some(Span::from_millis(200)),
            cluster: None,
        }),
        detail: "accepts connections".into(),
    };
    let serves = Sighting { role: Role::None, writable: false, upstream: None, ..database.clone() };
    let beat = Beat {
        epoch: Epoch(1),
        lease: if primary { LeaseState::Held } else { LeaseState::None },
        lease_left: Span::from_secs(40),
        fence: FenceState::Open,
        guarded: primary,
        guard_alive: true,
        ..Beat::default()
    };
    Contact {
        last_beat: Some(now),
        two_way: Some(now),
        reported: Some(now),
        beats: BTreeMap::from([(shop(), beat)]),
        resources: BTreeMap::from([(
            shop(),
            BTreeMap::from([
                (resource("www"), serves.clone()),
                (resource("checks"), serves),
                (resource("orders-db"), database),
            ]),
        )]),
        ..Contact::default()
    }
}

/// Both agents are heard, now.
pub(crate) fn hear(node: &Node) {
    for (name, primary) in [("eu-west-1", true), ("eu-central-1", false)] {
        let contact = contact(node, primary);
        node.note(|evidence| evidence.contacts.insert(cluster(name), contact));
    }
}
