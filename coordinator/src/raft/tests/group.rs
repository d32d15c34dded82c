//! A group of coordinators in one process: real files, real mutual TLS on the loopback.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use regent_core::entry::{Coordinator, Entry};
use regent_core::id::{ClusterId, CoordinatorId, LogIndex, RegionId};
use regent_core::state::Applied;
use regent_proto::agent::v1::StepCommand;
use regent_proto::peer::v1::ObserveRequest;
use regent_proto::tls::Identity;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use super::certificates::Authority;
use super::record;
use crate::api::peer::PeerHooks;
use crate::raft::{OpenError, RaftHandle, RaftOptions, open};

/// Long enough for a machine that has other things to do.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Heard {
    pub(super) observed: Mutex<Vec<(CoordinatorId, ObserveRequest)>>,
    pub(super) relayed: Mutex<Vec<(ClusterId, StepCommand)>>,
}

impl PeerHooks for Heard {
    fn observe(&self, from: CoordinatorId, request: ObserveRequest) {
        self.observed.lock().unwrap().push((from, request));
    }

    fn relay(&self, cluster: &ClusterId, step: StepCommand) -> bool {
        self.relayed.lock().unwrap().push((cluster.clone(), step));
        true
    }
}

pub(super) struct Member {
    pub(super) handle: RaftHandle,
    pub(super) heard: Arc<Heard>,
    server: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

pub(super) struct Group {
    pub(super) folder: TempDir,
    pub(super) authority: Authority,
    pub(super) addresses: BTreeMap<CoordinatorId, String>,
    pub(super) members: BTreeMap<u64, Member>,
    /// For who is started next.
    pub(super) snapshot_every: u64,
}

pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Group {
    pub(super) fn new() -> Self {
        // RUST_LOG tells what happened.
        let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).try_init();
        Self {
            folder: TempDir::new().unwrap(),
            authority: Authority::new(),
            addresses: BTreeMap::new(),
            members: BTreeMap::new(),
            snapshot_every: 5000,
        }
    }

    /// Starts these members at once, and awaits a leader.
    pub(super) async fn of(ids: &[u64]) -> Self {
        let mut group = Self::new();
        group.begin(ids).await;
        group.leader().await;
        group
    }

    pub(super) async fn begin(&mut self, ids: &[u64]) {
        let mut listeners = Vec::new();
        for id in ids {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            self.addresses.insert(CoordinatorId(*id), listener.local_addr().unwrap().to_string());
            listeners.push((*id, listener));
        }
        for (id, listener) in listeners {
            self.serve(id, listener, self.addresses.clone()).await.unwrap();
        }
    }

    pub(super) fn data(&self, id: u64) -> PathBuf {
        self.folder.path().join(format!("data-{id}"))
    }

    pub(super) async fn serve(
        &mut self,
        id: u64,
        listener: TcpListener,
        peers: BTreeMap<CoordinatorId, String>,
    ) -> Result<(), OpenError> {
        let mut options = RaftOptions::new(CoordinatorId(id), peers, self.data(id));
        options.bootstrap = true;
        options.snapshot_every = self.snapshot_every;
        options.keep_entries = self.snapshot_every.min(20);
        let tls = self.authority.issue(self.folder.path(), &Identity::Coordinator(id));
        let mut handle = open(options, tls.clone()).await?;
        let heard = Arc::new(Heard::default());
        let service = handle.peer_service(heard.clone());
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move {
            let mut server = Server::builder().tls_config(tls.server_config()).unwrap();
            let incoming = TcpListenerStream::new(listener);
            let stopped = async { drop(stopped.await) };
            let _ = server.add_service(service).serve_with_incoming_shutdown(incoming, stopped).await;
        });
        handle.run();
        self.members.insert(id, Member { handle, heard, server, stop });
        Ok(())
    }

    /// Ends a member.
    pub(super) async fn stop(&mut self, id: u64) {
        let member = self.members.remove(&id).unwrap();
        // Its connections end with it; a call that is still under way gets its answer from raft's end.
        let _ = member.stop.send(());
        member.handle.shutdown().await;
        member.server.await.unwrap();
    }

    /// Starts a member again at its old address.
    pub(super) async fn start(&mut self, id: u64) {
        let address = self.addresses[&CoordinatorId(id)].clone();
        let begun = Instant::now();
        let listener = loop {
            match TcpListener::bind(&address).await {
                Ok(listener) => break listener,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{address}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        self.serve(id, listener, self.addresses.clone()).await.unwrap();
    }

    /// The leader that all members know of.
    pub(super) async fn leader(&self) -> u64 {
        let leaders = || -> Vec<_> {
            let of = |member: &Member| member.handle.replica().leadership().borrow().leader;
            self.members.values().map(of).collect()
        };
        until("one leader", || {
            let leaders = leaders();
            leaders[0].is_some() && leaders.iter().all(|leader| *leader == leaders[0])
        })
        .await;
        leaders()[0].unwrap().0
    }

    pub(super) fn follower(&self, leader: u64) -> u64 {
        *self.members.keys().find(|id| **id != leader).unwrap()
    }

    pub(super) async fn propose(&self, at: u64, request: &str) -> LogIndex {
        match self.members[&at].handle.replica().propose(record(request, "test")).await.unwrap() {
            Applied::Done(index) | Applied::Repeated(index) => index,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn applied(&self, id: u64) -> LogIndex {
        self.members[&id].handle.replica().read(|state| state.applied)
    }

    pub(super) async fn all_apply(&self, index: LogIndex) {
        for id in self.members.keys() {
            until("all have applied", || self.applied(*id) >= index).await;
        }
    }

    /// Binds every member's id to its identity.
    pub(super) async fn introduce_all(&self) {
        let mut last = LogIndex(0);
        for (id, member) in &self.members {
            let id = CoordinatorId(*id);
            let coordinator = Coordinator {
                id,
                identity: member.handle.identity().clone(),
                region: RegionId::new("here").unwrap(),
                grpc: self.addresses[&id].clone(),
                dashboard: String::new(),
                dns: String::new(),
            };
            let mut joined = record("", "test");
            joined.request = None;
            joined.entry = Entry::CoordinatorJoined(coordinator);
            match member.handle.replica().propose(joined).await.unwrap() {
                Applied::Done(index) => last = index,
                other => panic!("{other:?}"),
            }
        }
        self.all_apply(last).await;
    }
}
