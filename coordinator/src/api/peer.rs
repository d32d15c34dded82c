//! What coordinators ask of each other. Raft's calls go to raft; the rest to whoever observes and dispatches.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::raft::AppendEntriesResponse;
use regent_core::entry::Record;
use regent_core::id::{ClusterId, CoordinatorId};
use regent_core::state::Applied;
use regent_proto::agent::v1::StepCommand;
use regent_proto::peer::v1 as proto;
use regent_proto::peer::v1::peer_service_server::PeerService;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::{Request, Response, Status, Streaming};

use crate::raft::codec;
use crate::raft::network::SnapshotHeader;
use crate::raft::types::{Proposal, Raft, Snapshot, Types};
use crate::raft::{LogStore, Peers, Proposer, Pulse};

/// Largest snapshot that is taken from a peer.
const SNAPSHOT_LIMIT: u64 = 512 << 20;

/// Who handles what raft does not.
pub trait PeerHooks: Send + Sync + 'static {
    /// Another coordinator tells what it hears from agents.
    fn observe(&self, from: CoordinatorId, request: proto::ObserveRequest);
    /// Sends a step down the stream to a cluster's agent. False if there is no stream.
    fn relay(&self, cluster: &ClusterId, step: StepCommand) -> bool;
    /// The answer to a record that is not to be committed, by what this coordinator sees as the leader.
    fn refuses(&self, _record: &Record) -> Option<Applied> {
        None
    }
}

/// Serves `PeerService`. Only coordinators get past it, each under its own id and identity.
pub struct PeerServer {
    raft: Raft,
    peers: Arc<Peers>,
    pulse: Arc<Pulse>,
    proposer: Proposer,
    log: LogStore,
    hooks: Arc<dyn PeerHooks>,
}

impl PeerServer {
    pub(crate) fn new(
        raft: Raft,
        peers: Arc<Peers>,
        pulse: Arc<Pulse>,
        proposer: Proposer,
        log: LogStore,
        hooks: Arc<dyn PeerHooks>,
    ) -> Self {
        Self { raft, peers, pulse, proposer, log, hooks }
    }

    /// Beside raft's own calls, members alone are heard: the certificate of a coordinator that was removed, or never
    /// added, proposes nothing. A node that knows of no group yet hears them all.
    fn hears(&self, id: CoordinatorId) -> Result<(), Status> {
        let members: BTreeSet<u64> = self.raft.voter_ids().chain(self.raft.learner_ids()).collect();
        if members.is_empty() || members.contains(&id.0) {
            return Ok(());
        }
        Err(Status::permission_denied(format!("coordinator {id} is no member of the group; add it first")))
    }
}

fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Status> {
    codec::decode(payload).map_err(|error| Status::invalid_argument(format!("the payload is not raft's: {error}")))
}

fn written<T: Serialize>(value: &T) -> Result<Vec<u8>, Status> {
    codec::encode(value).map_err(|error| Status::internal(error.to_string()))
}

/// Raft has stopped here: the caller sees a node that is gone.
fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("raft has stopped here: {error}"))
}

#[tonic::async_trait]
impl PeerService for PeerServer {
    async fn append_entries(
        &self,
        request: Request<proto::AppendEntriesRequest>,
    ) -> Result<Response<proto::AppendEntriesResponse>, Status> {
        self.peers.admit(&request)?;
        let message = request.into_inner();
        let answer = self.raft.append_entries(read(&message.payload)?).await.map_err(stopped)?;
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.pulse.heard(message.quorum_age_ms.map(Duration::from_millis));
        }
        Ok(self.peers.sign(proto::AppendEntriesResponse { payload: written(&answer)? }))
    }

    async fn pre_vote(
        &self,
        request: Request<proto::PreVoteRequest>,
    ) -> Result<Response<proto::PreVoteResponse>, Status> {
        self.peers.admit(&request)?;
        let answer = self.raft.pre_vote(read(&request.get_ref().payload)?).await.map_err(stopped)?;
        Ok(self.peers.sign(proto::PreVoteResponse { payload: written(&answer)? }))
    }

    async fn vote(&self, request: Request<proto::VoteRequest>) -> Result<Response<proto::VoteResponse>, Status> {
        self.peers.admit(&request)?;
        let answer = self.raft.vote(read(&request.get_ref().payload)?).await.map_err(stopped)?;
        Ok(self.peers.sign(proto::VoteResponse { payload: written(&answer)? }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<proto::InstallSnapshotRequest>>,
    ) -> Result<Response<proto::InstallSnapshotResponse>, Status> {
        self.peers.admit(&request)?;
        let mut messages = request.into_inner();
        let first = messages.message().await?.ok_or_else(|| Status::invalid_argument("the header is missing"))?;
        let header: SnapshotHeader = read(&first.header)?;
        if header.length > SNAPSHOT_LIMIT {
            return Err(Status::invalid_argument(format!("a snapshot has at most {SNAPSHOT_LIMIT} bytes")));
        }
        let length =
            usize::try_from(header.length).map_err(|_| Status::invalid_argument("the snapshot is too long"))?;
        let mut bytes = first.chunk;
        while let Some(message) = messages.message().await? {
            bytes.extend_from_slice(&message.chunk);
            if bytes.len() > length {
                break;
            }
        }
        if bytes.len() != length {
            return Err(Status::data_loss("the snapshot does not have the length that was announced"));
        }
        let snapshot = Snapshot { meta: header.meta, snapshot: bytes.into() };
        let answer = self.raft.install_full_snapshot(header.vote, snapshot).await.map_err(stopped)?;
        self.pulse.heard(None);
        Ok(self.peers.sign(proto::InstallSnapshotResponse { payload: written(&answer)? }))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderResponse>, Status> {
        self.peers.admit(&request)?;
        let transfer = read(&request.get_ref().payload)?;
        let answer: openraft::raft::TransferLeaderResponse<Types> =
            self.raft.handle_transfer_leader(transfer).await.map_err(stopped)?;
        Ok(self.peers.sign(proto::TransferLeaderResponse { payload: written(&answer)? }))
    }

    async fn introduce(
        &self,
        request: Request<proto::IntroduceRequest>,
    ) -> Result<Response<proto::IntroduceResponse>, Status> {
        self.peers.admit(&request)?;
        Ok(self.peers.sign(proto::IntroduceResponse { has_group: !self.log.is_empty() }))
    }

    async fn propose(
        &self,
        request: Request<proto::ProposeRequest>,
    ) -> Result<Response<proto::ProposeResponse>, Status> {
        self.hears(self.peers.admit(&request)?)?;
        let proposal: Proposal = codec::decode(&request.get_ref().record)
            .map_err(|error| Status::invalid_argument(format!("the record cannot be read: {error}")))?;
        // Not committed, so it harms nobody: who proposed it asks again until a coordinator of its release leads.
        let record = proposal.0.map_err(|other| Status::failed_precondition(other.to_string()))?;
        let applied = match self.hooks.refuses(&record) {
            Some(refused) => refused,
            None => self.proposer.serve_propose(record).await?,
        };
        Ok(self.peers.sign(proto::ProposeResponse { applied: written(&applied)? }))
    }

    async fn read_index(
        &self,
        request: Request<proto::ReadIndexRequest>,
    ) -> Result<Response<proto::ReadIndexResponse>, Status> {
        self.peers.admit(&request)?;
        let index = self.proposer.serve_read_index().await?;
        Ok(self.peers.sign(proto::ReadIndexResponse { index }))
    }

    async fn observe(
        &self,
        request: Request<proto::ObserveRequest>,
    ) -> Result<Response<proto::ObserveResponse>, Status> {
        let from = self.peers.admit_colleague(&request)?;
        self.hears(from)?;
        let message = request.into_inner();
        if message.coordinator != from.0 {
            return Err(Status::permission_denied(format!("coordinator {from} may speak for itself only")));
        }
        self.hooks.observe(from, message);
        Ok(self.peers.sign(proto::ObserveResponse {}))
    }

    async fn relay(&self, request: Request<proto::RelayRequest>) -> Result<Response<proto::RelayResponse>, Status> {
        self.hears(self.peers.admit_colleague(&request)?)?;
        let message = request.into_inner();
        let cluster = ClusterId::new(&message.cluster).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let step = message.step.ok_or_else(|| Status::invalid_argument("the step is missing"))?;
        Ok(self.peers.sign(proto::RelayResponse { sent: self.hooks.relay(&cluster, step) }))
    }
}
