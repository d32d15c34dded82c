//! Coordinators, agents and guards of one test, all on loopback and in temporary folders.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use regent_agent::agent::{self, Parts};
use regent_agent::driver::Driver;
use regent_agent::guard::{self, Drivers, ProcessDoor, Spawner, clock};
use regent_agent::journal::{Journal, JournalError};
use regent_agent::settings::{Dial, DialError, Expected, Settings};
use regent_agent::witness::{PeerServer, WitnessKey};
use regent_core::id::{ApplicationId, ClusterId, RegionId, ResourceId};
use regent_proto::agent::v1::peer_agent_service_server::PeerAgentServiceServer;
use regent_proto::agent::v1::*;
use regent_proto::line::line;
use regent_proto::tls::{Dialled, Identity, Seen};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use super::coordinator::Coordinator;
use super::recorder::Recorder;

pub(crate) const SHOP: &str = "shop";
pub(crate) const DB: &str = "db";
pub(crate) const CACHE: &str = "cache";
pub(crate) const UPLOADS: &str = "uploads";

pub(crate) fn names() -> (ApplicationId, ResourceId) {
    (ApplicationId::new(SHOP).unwrap(), ResourceId::new(DB).unwrap())
}

/// Polls until it is so, with a deadline.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn terms(
    number: u64,
    epoch: u64,
    primary: &str,
    fail_over_after_ms: u64,
    agents: &[&Member],
) -> TermsUpdate {
    let listed = |member: &&Member| ListedCluster {
        cluster: member.cluster.clone(),
        installation: member.installation.clone(),
        excluded: false,
        peer_address: member.address.to_string(),
        witness_key: member.key.public(),
    };
    TermsUpdate {
        application: SHOP.to_owned(),
        number: Some(Token { restoration: 0, index: number }),
        epoch,
        primary: primary.to_owned(),
        fail_over_after_ms,
        fence_budget_ms: fail_over_after_ms / 6,
        clusters: agents.iter().map(listed).collect(),
        guarded: vec![DB.to_owned()],
        voters: vec![VoterSet { coordinators: vec![1, 2, 3] }],
        failsafe: true,
        paused: false,
    }
}

pub(crate) fn command(token: u64, epoch: u64, kind: StepKind) -> StepCommand {
    StepCommand {
        run: 7,
        step: u32::try_from(token).unwrap(),
        attempt: 1,
        token: Some(Token { restoration: 0, index: token }),
        application: SHOP.to_owned(),
        resource: DB.to_owned(),
        epoch,
        kind: kind.into(),
        timeout_ms: 15_000,
        ..StepCommand::default()
    }
}

/// Without TLS: coordinators are told apart by their addresses.
pub(crate) fn plain_dial(coordinators: &[String]) -> Dial {
    let coordinators = coordinators.to_vec();
    Arc::new(move |address: &str, expected: &Expected, patience: Duration| {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(|_| DialError::Address { address: address.to_owned() })?;
        let peer = match expected {
            Expected::Agent(cluster) => Identity::Agent(cluster.to_string()),
            Expected::Coordinator => {
                let at = coordinators.iter().position(|coordinator| coordinator == address).unwrap();
                Identity::Coordinator(at as u64 + 1)
            }
        };
        Ok(Dialled { line: line(endpoint.connect_timeout(patience).connect_lazy()), peer: Seen::known(peer) })
    })
}

pub(crate) fn settings(cluster: &str, directory: &Path, address: SocketAddr, coordinators: Vec<String>) -> Settings {
    Settings {
        cluster: ClusterId::new(cluster).unwrap(),
        region: RegionId::new("here").unwrap(),
        coordinators,
        listen: address,
        advertise: address.to_string(),
        data_directory: directory.join("data"),
        runtime_directory: directory.join("run"),
        probe_interval: Duration::from_millis(50),
        addresses: BTreeMap::new(),
        certificate_until: None,
    }
}

/// One agent's place: what stays when its process ends.
pub(crate) struct Member {
    pub(crate) cluster: String,
    pub(crate) installation: String,
    pub(crate) address: SocketAddr,
    pub(crate) key: Arc<WitnessKey>,
    pub(crate) driver: Arc<Recorder>,
    /// Of a second database, which only some terms guard.
    pub(crate) cache: Arc<Recorder>,
    /// What is no database; few tests have it.
    pub(crate) uploads: Option<Arc<Recorder>>,
    pub(crate) directory: tempfile::TempDir,
    listener: std::net::TcpListener,
    pub(crate) coordinators: Vec<String>,
}

/// A running agent.
pub(crate) struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Member {
    pub(crate) async fn new(cluster: &str, coordinators: &[Coordinator]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("data")).unwrap();
        let key = Arc::new(WitnessKey::open(&directory.path().join("data")).unwrap());
        let journal = Journal::open(&directory.path().join("data")).unwrap();
        let installation = journal.view().installation.to_string();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self {
            cluster: cluster.to_owned(),
            installation,
            address: listener.local_addr().unwrap(),
            key,
            driver: Arc::new(Recorder::default()),
            cache: Arc::new(Recorder::default()),
            uploads: None,
            directory,
            listener,
            coordinators: coordinators.iter().map(|coordinator| coordinator.address.to_string()).collect(),
        }
    }

    pub(crate) fn drivers(&self) -> Drivers {
        let (application, resource) = names();
        let (driver, cache): (Arc<dyn Driver>, Arc<dyn Driver>) = (self.driver.clone(), self.cache.clone());
        let second = ResourceId::new(CACHE).unwrap();
        let mut drivers = BTreeMap::from([(resource, driver), (second, cache)]);
        if let Some(uploads) = self.uploads.clone() {
            drivers.insert(ResourceId::new(UPLOADS).unwrap(), uploads);
        }
        BTreeMap::from([(application, drivers)])
    }

    pub(crate) fn runtime(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// A guard within this process.
    pub(crate) async fn guard(&self) -> tokio::task::JoinHandle<()> {
        let (runtime, drivers) = (self.runtime(), self.drivers());
        let task =
            tokio::spawn(
                async move { guard::run(&runtime, drivers.into(), true, std::future::pending()).await.unwrap() },
            );
        let socket = guard::socket(&self.runtime());
        until("the guard's socket", || std::os::unix::net::UnixStream::connect(&socket).is_ok()).await;
        task
    }

    /// A guard whose connections end with it, as those of a process do.
    pub(crate) async fn guard_apart(&self, stop: CancellationToken) -> std::thread::JoinHandle<()> {
        let (runtime, drivers) = (self.runtime(), self.drivers());
        let thread = std::thread::spawn(move || {
            let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            own.block_on(guard::run(&runtime, drivers.into(), true, stop.cancelled_owned())).unwrap();
        });
        let socket = guard::socket(&self.runtime());
        until("the guard's socket", || std::os::unix::net::UnixStream::connect(&socket).is_ok()).await;
        thread
    }

    pub(crate) async fn journal(&self) -> Journal {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match Journal::open(&self.directory.path().join("data")) {
                Ok(journal) => return journal,
                Err(JournalError::Locked { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        settings(&self.cluster, self.directory.path(), self.address, self.coordinators.clone())
    }

    pub(crate) async fn start(&self) -> Running {
        let no_guard: Spawner = Box::new(|| Err(std::io::Error::other("the test starts the guard")));
        let settings = self.settings();
        let parts = Parts {
            settings: settings.clone(),
            drivers: self.drivers(),
            journal: self.journal().await,
            key: self.key.clone(),
            dial: plain_dial(&self.coordinators),
            door: Arc::new(ProcessDoor::new(&settings.runtime_directory, no_guard)),
            clock: clock::of_this_machine(),
            onlooker: None,
        };
        let installation = parts.journal.view().installation.clone();
        let stop = CancellationToken::new();
        let (handles, task) = agent::start(parts, stop.clone());
        let other = if self.cluster == "a" { "b" } else { "a" };
        let server = PeerServer {
            cluster: settings.cluster,
            installation,
            key: self.key.clone(),
            word: handles.word.clone(),
            asked: handles.asked,
            clock: clock::of_this_machine(),
            identify: Arc::new(move |_| Ok(Identity::Agent(other.to_owned()))),
        };
        let listener = tokio::net::TcpListener::from_std(self.listener.try_clone().unwrap()).unwrap();
        let serving = tonic::transport::Server::builder().add_service(PeerAgentServiceServer::new(server));
        let ended = stop.clone().cancelled_owned();
        tokio::spawn(serving.serve_with_incoming_shutdown(TcpListenerStream::new(listener), ended));
        Running { stop, task }
    }
}

impl Running {
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// Three coordinators, and the primary's agent with its guard.
pub(crate) async fn coordinators() -> [Coordinator; 3] {
    [Coordinator::start(1).await, Coordinator::start(2).await, Coordinator::start(3).await]
}
