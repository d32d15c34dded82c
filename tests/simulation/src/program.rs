//! The programs: the real works of a coordinator, the real agent and the real guard, on simulated machines.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regent_agent::agent::{self, Parts};
use regent_agent::driver::Driver;
use regent_agent::guard::{self, Door, Drivers, Entering, Talk};
use regent_agent::journal::{Journal, Writing};
use regent_agent::settings::{Dial, Expected, Settings};
use regent_agent::witness::{PeerServer, WitnessKey};
use regent_coordinator::admin::Readiness;
use regent_coordinator::node::Node;
use regent_coordinator::raft::{self, DialPeer, Membership, RaftOptions};
use regent_coordinator::works::Works;
use regent_core::entry::Coordinator;
use regent_core::id::{ApplicationId, ClusterId, CoordinatorId, RegionId, ResourceId};
use regent_proto::agent::v1::peer_agent_service_server::PeerAgentServiceServer;
use regent_proto::tls::{Dialled, Identity, Seen, peer_identity};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::carrier;
use crate::database::{Databases, NameDriver};
use crate::network::{MachineId, Network};
use crate::process::Program;
use crate::trace::Trace;

/// The application.
pub const APPLICATION: &str = "shop";
/// The second one, where there are two.
pub const SECOND: &str = "books";
/// The database of either.
pub const DATABASE: &str = "orders-db";
/// Its name.
pub const NAME: &str = "www";

/// A coordinator as the world sees it.
#[derive(Clone)]
pub struct Seat {
    /// Its applied state.
    pub node: Node,
    /// To hand over.
    pub membership: Membership,
}

/// The coordinators that run.
pub type Seats = Arc<Mutex<BTreeMap<u64, Seat>>>;

/// Where a coordinator listens.
pub(super) fn coordinator_address(id: u64) -> String {
    format!("coordinator-{id}:7400")
}

fn agent_address(cluster: &str) -> String {
    format!("agent-{cluster}:7500")
}

/// What a coordinator is started with.
pub(super) struct CoordinatorPlan {
    pub(super) id: u64,
    pub(super) machine: MachineId,
    pub(super) region: String,
    pub(super) all: Vec<u64>,
    pub(super) data: PathBuf,
    pub(super) network: Network,
    pub(super) seats: Seats,
    pub(super) trace: Trace,
}

/// A coordinator's process.
pub(super) fn coordinator(plan: CoordinatorPlan) -> Program {
    Box::new(move |clock| {
        Box::pin(async move {
            let CoordinatorPlan { id, machine, region, all, data, network, seats, trace } = plan;
            let peers = all.iter().map(|id| (CoordinatorId(*id), coordinator_address(*id))).collect();
            let place = data.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
            let mut options = RaftOptions::new(CoordinatorId(id), peers, data);
            options.bootstrap = id == 1;
            let over = network.clone();
            let dial: DialPeer =
                Arc::new(move |_, address, _| Ok(carrier::dial(&over, machine, Identity::Coordinator(id), address)));
            let raft = match raft::open_with(options, dial, raft::Writing::InPlace).await {
                Ok(raft) => raft,
                // Where its disk is, is drawn anew in every run.
                Err(error) => {
                    let why = error.to_string().replace(&place, "");
                    return trace.say(format_args!("coordinator {id} cannot start: {why}"));
                }
            };
            let works = Works::new(CoordinatorId(id), raft, clock);
            let myself = Coordinator {
                id: CoordinatorId(id),
                identity: works.raft().identity().clone(),
                region: RegionId::new(&region).expect("a region's name"),
                grpc: coordinator_address(id),
                dashboard: String::new(),
                dns: String::new(),
            };
            let seat = Seat { node: works.node().clone(), membership: works.raft().membership() };
            seats.lock().unwrap_or_else(PoisonError::into_inner).insert(id, seat);
            let routes = works.add_services(Routes::default());
            let listener = network.listen(&coordinator_address(id), machine);
            tokio::spawn(carrier::serve(listener, routes));
            let stop = CancellationToken::new();
            let (raft, mut parts) = works.start(myself, Readiness::default(), &stop);
            tokio::select! {
                biased;
                reason = raft.failed() => trace.say(format_args!("coordinator {id}: replication failed: {reason}")),
                ended = parts.join_next() => trace.say(format_args!("coordinator {id}: a part ended: {ended:?}")),
            }
        })
    })
}

/// The door between an agent and the guard of its machine.
#[derive(Default)]
pub(super) struct GuardDoor {
    inbox: Mutex<Option<mpsc::Sender<Box<dyn Talk>>>>,
    wanted: AtomicBool,
}

impl GuardDoor {
    /// The agent asked for a guard.
    pub(super) fn take_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }
}

impl Door for GuardDoor {
    fn enter(&self) -> Entering<'_> {
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let (own, guards) = tokio::io::duplex(64 << 10);
            inbox.ok_or_else(refused)?.try_send(Box::new(guards)).map_err(|_| refused())?;
            Ok(Box::new(own) as Box<dyn Talk>)
        })
    }

    fn start(&self) -> io::Result<()> {
        self.wanted.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// What an agent and its guard are started with.
#[derive(Clone)]
pub(super) struct ClusterPlan {
    pub(super) cluster: String,
    pub(super) machine: MachineId,
    pub(super) region: String,
    pub(super) coordinators: Vec<u64>,
    /// On the disk.
    pub(super) data: PathBuf,
    /// In memory: gone with the boot.
    pub(super) runtime: PathBuf,
    pub(super) network: Network,
    pub(super) databases: Databases,
    /// Those of the second application, where there is one.
    pub(super) second: Option<Databases>,
    pub(super) trace: Trace,
    pub(super) door: Arc<GuardDoor>,
}

impl ClusterPlan {
    fn drivers(&self) -> Drivers {
        let name: Arc<dyn Driver> = Arc::new(NameDriver(self.trace.clone(), self.cluster.clone()));
        let resources =
            BTreeMap::from([(resource(DATABASE), self.databases.driver(&self.cluster)), (resource(NAME), name)]);
        let mut all = BTreeMap::from([(application(), resources)]);
        if let Some(databases) = &self.second {
            all.insert(second(), BTreeMap::from([(resource(DATABASE), databases.driver(&self.cluster))]));
        }
        all
    }

    fn settings(&self) -> Settings {
        Settings {
            cluster: ClusterId::new(&self.cluster).expect("a cluster's name"),
            region: RegionId::new(&self.region).expect("a region's name"),
            coordinators: self.coordinators.iter().map(|id| coordinator_address(*id)).collect(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7500)),
            advertise: agent_address(&self.cluster),
            data_directory: self.data.clone(),
            runtime_directory: self.runtime.clone(),
            probe_interval: Duration::from_millis(500),
            addresses: BTreeMap::from([((application(), resource(NAME)), vec!["192.0.2.1".to_owned()])]),
            certificate_until: None,
        }
    }

    fn dial(&self) -> Dial {
        let (network, machine, cluster) = (self.network.clone(), self.machine, self.cluster.clone());
        Arc::new(move |address: &str, expected: &Expected, _| {
            let peer = match expected {
                Expected::Coordinator => {
                    let id = address.trim_start_matches("coordinator-").trim_end_matches(":7400").parse();
                    Identity::Coordinator(id.unwrap_or(0))
                }
                Expected::Agent(cluster) => Identity::Agent(cluster.to_string()),
            };
            let line = carrier::dial(&network, machine, Identity::Agent(cluster.clone()), address);
            Ok(Dialled { line, peer: Seen::known(peer) })
        })
    }
}

pub(super) fn application() -> ApplicationId {
    ApplicationId::new(APPLICATION).expect("a name")
}

pub(super) fn second() -> ApplicationId {
    ApplicationId::new(SECOND).expect("a name")
}

pub(super) fn resource(name: &str) -> ResourceId {
    ResourceId::new(name).expect("a name")
}

/// An agent's process.
pub(super) fn agent(plan: ClusterPlan) -> Program {
    Box::new(move |clock| {
        Box::pin(async move {
            let failed = |what: &dyn std::fmt::Display| {
                let why = what.to_string().replace(&plan.data.display().to_string(), "");
                plan.trace.say(format_args!("agent {} cannot start: {why}", plan.cluster));
            };
            let journal = match Journal::open_with(&plan.data, Writing::InPlace) {
                Ok(journal) => journal,
                Err(error) => return failed(&error),
            };
            let key = match open_key(&plan.data) {
                Ok(key) => key,
                Err(error) => return failed(&error),
            };
            let settings = plan.settings();
            let parts = Parts {
                settings: settings.clone(),
                drivers: plan.drivers(),
                journal,
                key: key.clone(),
                dial: plan.dial(),
                door: plan.door.clone(),
                clock: clock.clone(),
                onlooker: None,
            };
            let installation = parts.journal.view().installation.clone();
            let (handles, running) = agent::start(parts, CancellationToken::new());
            let peers = PeerServer {
                cluster: settings.cluster,
                installation,
                key,
                word: handles.word.clone(),
                asked: handles.asked.clone(),
                clock,
                identify: Arc::new(peer_identity),
            };
            let listener = plan.network.listen(&settings.advertise, plan.machine);
            tokio::spawn(carrier::serve(listener, Routes::default().add_service(PeerAgentServiceServer::new(peers))));
            let ended = running.await;
            plan.trace.say(format_args!("agent {} ends: {ended:?}", plan.cluster));
        })
    })
}

fn open_key(data: &Path) -> Result<Arc<WitnessKey>, regent_agent::witness::KeyError> {
    WitnessKey::open(data).map(Arc::new)
}

/// A guard's process.
pub(super) fn guard(plan: ClusterPlan) -> Program {
    let (sender, receiver) = mpsc::channel(16);
    *plan.door.inbox.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    Box::new(move |clock| {
        Box::pin(async move {
            let ended = guard::run_behind(receiver, &plan.runtime, plan.drivers(), clock).await;
            plan.trace.say(format_args!("guard {} ends: {ended:?}", plan.cluster));
        })
    })
}
