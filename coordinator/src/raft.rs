//! Replication: openraft on redb, between coordinators over gRPC with mutual TLS.
//!
//! ```text
//!   Replica ── propose, linearize ──► Proposer ──► openraft ──► LogStore ──► writer thread ──► log.redb
//!      ▲                                  │           │  ▲
//!      └── state, effects ◄── Shared ◄── StateMachine ┘  └── PeerServer ◄── Network of the other coordinators
//! ```
//!
//! Invariants: what is acknowledged has reached the disk; a directory that was damaged or wiped is not taken for a
//! fresh one; a raft id with another identity is refused in both directions; a node that cannot write stops.

use std::sync::Arc;
use std::time::Duration;

use regent_core::id::{CoordinatorId, IdentityId, Incarnation};
use regent_proto::peer::v1::peer_service_server::PeerServiceServer;
use regent_proto::tls::{Identity, Tls};
use regent_proto::watch;
use tokio::task::JoinHandle;

use crate::api::peer::{PeerHooks, PeerServer};
use crate::replica::{Leadership, Replica, Shared};

mod bootstrap;
pub(crate) mod codec;
mod distance;
mod leadership;
mod log_store;
mod membership;
pub(crate) mod network;
mod ondisk;
mod options;
mod peers;
mod propose;
mod restore;
mod runtime;
mod snapshot_file;
mod state_machine;
mod store;
pub(crate) mod types;
mod writer;

pub use codec::CodecError;
pub use membership::{Membership, MembershipError};
pub use ondisk::DiskError;
pub use options::{OptionsError, RaftOptions};
pub use peers::{DialPeer, PeerError, Peers};
pub use restore::{RestoreError, restore};
pub use runtime::seed_this_thread;
pub use writer::Writing;

pub(crate) use leadership::Pulse;
pub(crate) use log_store::LogStore;
pub(crate) use peers::MESSAGE_LIMIT;
pub(crate) use propose::Proposer;

/// Why replication cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The settings contradict each other.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The certificate is another one's.
    #[error("the certificate names {certificate}, but this is coordinator {id}: correct `id` or `tls`")]
    Certificate {
        /// Whom it names.
        certificate: Identity,
        /// Who this is.
        id: CoordinatorId,
    },
    /// Raft refuses what it found in the log.
    #[error("raft cannot start from what is in {directory}: {detail}")]
    Raft {
        /// The data directory.
        directory: String,
        /// What it says.
        detail: String,
    },
}

/// Replication in one process.
pub struct RaftHandle {
    replica: Replica,
    identity: IdentityId,
    incarnation: Incarnation,
    raft: types::Raft,
    shared: Arc<Shared>,
    peers: Arc<Peers>,
    pulse: Arc<Pulse>,
    proposer: Proposer,
    log: LogStore,
    /// The thread that writes the log, if there is one.
    writer: Option<std::thread::JoinHandle<()>>,
    leadership: watch::Sender<Leadership>,
    failed: watch::Sender<Option<String>>,
    tasks: Vec<JoinHandle<()>>,
}

/// Opens the data directory, raises the incarnation, and loads the state. Nothing runs before [`RaftHandle::run`],
/// so that listeners can be set up and no applied entry is missed.
///
/// # Errors
/// If the directory, the certificate or the settings cannot be used; the message names what to do.
pub async fn open(options: RaftOptions, tls: Tls) -> Result<RaftHandle, OpenError> {
    if *tls.identity() != Identity::Coordinator(options.id.0) {
        return Err(OpenError::Certificate { certificate: tls.identity().clone(), id: options.id });
    }
    open_with(options, peers::over_tls(tls), Writing::ByThread).await
}

/// As [`open`], with another way to the other coordinators and to the disk.
///
/// # Errors
/// As [`open`].
pub async fn open_with(options: RaftOptions, dial: DialPeer, writing: Writing) -> Result<RaftHandle, OpenError> {
    let config = Arc::new(options.config()?);
    let (path, id) = (options.data_directory.clone(), options.id);
    let refused = |detail: String| OpenError::Raft { directory: options.data_directory.display().to_string(), detail };
    let opened = match writing {
        Writing::InPlace => store::Store::open(&path, id, writing),
        Writing::ByThread => {
            let opening = tokio::task::spawn_blocking(move || store::Store::open(&path, id, writing));
            opening.await.map_err(|error| refused(error.to_string()))?
        }
    };
    let store::Store { log, machine, owner, writer } = opened?;

    let shared = machine.shared();
    let peers = Arc::new(Peers::new(options.clone(), owner.identity.clone(), dial, shared.clone()));
    let pulse = Arc::new(Pulse::default());
    let network = network::Network { peers: peers.clone(), pulse: pulse.clone() };
    let raft = types::Raft::build(id.0, config, network, log.clone(), machine)
        .await
        .map_err(|fatal| refused(fatal.to_string()))?;

    let (leadership, watched) = watch::channel(Leadership { me: id, ..Leadership::default() });
    shared.lead(leadership.borrow().clone());
    let proposer = Proposer { raft: raft.clone(), peers: peers.clone(), leadership: watched };
    Ok(RaftHandle {
        replica: Replica::new(shared.clone(), Arc::new(proposer.clone())),
        identity: owner.identity,
        incarnation: owner.incarnation,
        raft,
        shared,
        peers,
        pulse,
        proposer,
        log,
        writer,
        leadership,
        failed: watch::Sender::new(None),
        tasks: Vec::new(),
    })
}

impl RaftHandle {
    /// Starts to vote, to follow and to lead. The peer service should be served by now.
    pub fn run(&mut self) {
        if !self.tasks.is_empty() {
            return;
        }
        self.raft.run();
        let options = self.peers.options();
        let follow = leadership::Follow {
            me: options.id,
            peers: self.peers.clone(),
            raft: self.raft.clone(),
            shared: self.shared.clone(),
            pulse: self.pulse.clone(),
            heartbeat: options.heartbeat,
            lease: options.election_max,
            leadership: self.leadership.clone(),
            failed: self.failed.clone(),
        };
        self.tasks.push(tokio::spawn(follow.run()));
        let bootstrap = bootstrap::bootstrap(self.raft.clone(), self.log.clone(), self.peers.clone());
        self.tasks.push(tokio::spawn(bootstrap));
        self.tasks.push(tokio::spawn(distance::measure(self.peers.clone())));
    }

    /// The replicated state.
    #[must_use]
    pub fn replica(&self) -> Replica {
        self.replica.clone()
    }

    /// Identity of the data directory.
    #[must_use]
    pub fn identity(&self) -> &IdentityId {
        &self.identity
    }

    /// Incarnation of this process: stored, and never used before.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The other coordinators.
    #[must_use]
    pub fn peers(&self) -> Arc<Peers> {
        self.peers.clone()
    }

    /// Changes of the membership.
    #[must_use]
    pub fn membership(&self) -> Membership {
        Membership { raft: self.raft.clone() }
    }

    /// What other coordinators call. It answers also before [`Self::run`]: calls wait for it.
    pub fn peer_service(&self, hooks: Arc<dyn PeerHooks>) -> PeerServiceServer<PeerServer> {
        let server = PeerServer::new(
            self.raft.clone(),
            self.peers.clone(),
            self.pulse.clone(),
            self.proposer.clone(),
            self.log.clone(),
            hooks,
        );
        PeerServiceServer::new(server).max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// Resolves when replication has stopped in this process, with the reason: the log cannot be written, or it was
    /// shut down. The process should end then; what was acknowledged is on the disk.
    pub fn failed(&self) -> impl Future<Output = String> + Send + 'static {
        let mut failed = self.failed.subscribe();
        async move {
            match failed.wait_for(Option::is_some).await {
                Ok(reason) => reason.unwrap_or_default(),
                Err(_) => "raft ended".to_owned(),
            }
        }
    }

    /// Takes a snapshot now and compacts the log behind it.
    ///
    /// # Errors
    /// If raft has stopped.
    pub async fn snapshot(&self) -> Result<(), OpenError> {
        let directory = self.peers.options().data_directory.display().to_string();
        self.raft.trigger().snapshot().await.map_err(|fatal| OpenError::Raft { directory, detail: fatal.to_string() })
    }

    /// Stops, writes what is left, closes the files and gives the directory free.
    pub async fn shutdown(mut self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(error = %error, "Raft did not end in order");
        }
        for task in self.tasks.drain(..) {
            task.abort();
        }
        if let Err(error) = self.log.close().await {
            tracing::warn!(error = %error, "The log was not closed in order");
        }
        let Some(writer) = self.writer.take() else { return };
        let joined = tokio::task::spawn_blocking(move || writer.join());
        // It has answered; only its file is still to be closed.
        let _ = tokio::time::timeout(Duration::from_secs(5), joined).await;
    }
}

impl Drop for RaftHandle {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests;
