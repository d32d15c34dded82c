//! Raft's calls to other coordinators, over gRPC.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, RaftNetworkFactory, RaftNetworkV2};
use regent_core::id::CoordinatorId;
use regent_proto::peer::v1 as proto;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError};
use super::leadership::Pulse;
use super::peers::{Lane, PeerError, Peers};
use super::types::{Snapshot, SnapshotMeta, Types, Vote};

/// Size of the pieces in which a snapshot travels.
const CHUNK: usize = 256 << 10;

/// What goes before the pieces of a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotHeader {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pub(crate) length: u64,
}

/// Makes connections for raft.
pub(super) struct Network {
    pub(super) peers: Arc<Peers>,
    pub(super) pulse: Arc<Pulse>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Connection {
        self.peers.learn(target, &node.addr);
        Connection { to: CoordinatorId(target), peers: self.peers.clone(), pulse: self.pulse.clone() }
    }
}

/// To one coordinator.
pub(super) struct Connection {
    to: CoordinatorId,
    peers: Arc<Peers>,
    pulse: Arc<Pulse>,
}

enum Failure {
    Peer(PeerError),
    Codec(CodecError),
}

impl From<PeerError> for Failure {
    fn from(error: PeerError) -> Self {
        Self::Peer(error)
    }
}

impl From<CodecError> for Failure {
    fn from(error: CodecError) -> Self {
        Self::Codec(error)
    }
}

impl From<Failure> for RPCError<Types> {
    fn from(failure: Failure) -> Self {
        match failure {
            // A slow answer is asked for again at once; who cannot be reached, after a heartbeat.
            Failure::Peer(error @ PeerError::Timeout { .. }) => Self::Network(NetworkError::new(&error)),
            Failure::Peer(error) => Self::Unreachable(Unreachable::new(&error)),
            Failure::Codec(error) => Self::Unreachable(Unreachable::new(&error)),
        }
    }
}

impl Connection {
    fn rpc_timeout(&self) -> Duration {
        self.peers.options().rpc_timeout
    }

    async fn send_append(&self, rpc: AppendEntriesRequest<Types>) -> Result<AppendEntriesResponse<Types>, Failure> {
        let message = proto::AppendEntriesRequest {
            payload: codec::encode(&rpc)?,
            quorum_age_ms: self.pulse.quorum_age().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        };
        let mut client = self.peers.client(self.to, Lane::Control)?;
        let call = client.append_entries(self.peers.request(self.to, message));
        decoded(&self.peers.call(self.to, self.rpc_timeout(), call).await?.payload)
    }

    async fn send_vote(&self, rpc: VoteRequest<Types>) -> Result<VoteResponse<Types>, Failure> {
        let message = proto::VoteRequest { payload: codec::encode(&rpc)? };
        let mut client = self.peers.client(self.to, Lane::Control)?;
        let call = client.vote(self.peers.request(self.to, message));
        decoded(&self.peers.call(self.to, self.rpc_timeout(), call).await?.payload)
    }

    async fn send_pre_vote(&self, rpc: VoteRequest<Types>) -> Result<VoteResponse<Types>, Failure> {
        let message = proto::PreVoteRequest { payload: codec::encode(&rpc)? };
        let mut client = self.peers.client(self.to, Lane::Control)?;
        let call = client.pre_vote(self.peers.request(self.to, message));
        decoded(&self.peers.call(self.to, self.rpc_timeout(), call).await?.payload)
    }

    async fn send_transfer(&self, rpc: TransferLeaderRequest<Types>) -> Result<TransferLeaderResponse<Types>, Failure> {
        let message = proto::TransferLeaderRequest { payload: codec::encode(&rpc)? };
        let mut client = self.peers.client(self.to, Lane::Control)?;
        let call = client.transfer_leader(self.peers.request(self.to, message));
        decoded(&self.peers.call(self.to, self.rpc_timeout(), call).await?.payload)
    }

    async fn send_snapshot(&self, vote: Vote, snapshot: Snapshot) -> Result<SnapshotResponse<Types>, Failure> {
        let bytes = snapshot.snapshot;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let header = codec::encode(&SnapshotHeader { vote, meta: snapshot.meta, length })?;
        let first = proto::InstallSnapshotRequest { header, chunk: Vec::new() };
        let chunks = (0..bytes.len()).step_by(CHUNK).map(move |from| {
            let chunk = bytes.slice(from..bytes.len().min(from + CHUNK));
            proto::InstallSnapshotRequest { header: Vec::new(), chunk: chunk.to_vec() }
        });
        let messages = stream::iter(std::iter::once(first).chain(chunks));
        let mut client = self.peers.client(self.to, Lane::Bulk)?;
        let call = client.install_snapshot(self.peers.request(self.to, messages));
        decoded(&self.peers.call(self.to, self.peers.options().snapshot_timeout, call).await?.payload)
    }
}

fn decoded<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Failure> {
    Ok(codec::decode(payload)?)
}

impl RaftNetworkV2<Types> for Connection {
    type SnapshotData = bytes::Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Ok(self.send_append(rpc).await?)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Ok(self.send_vote(rpc).await?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Ok(self.send_pre_vote(rpc).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot) => {
                sent.map_err(|failure| RPCError::from(failure).into())
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        Ok(self.send_transfer(rpc).await?)
    }

    fn backoff(&self) -> Option<Backoff> {
        // No back-off: dialling repeats every heartbeat (safety.md, "One knob").
        Some(Backoff::new(std::iter::repeat(self.peers.options().heartbeat)))
    }
}
