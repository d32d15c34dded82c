//! Proposals and linearizable reads, from wherever they are asked for.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, RaftError};
use regent_core::entry::Record;
use regent_core::id::CoordinatorId;
use regent_core::state::Applied;
use regent_proto::peer::v1 as proto;
use regent_proto::watch;
use tokio::time::Instant;
use tonic::Code;

use super::codec;
use super::peers::{Lane, PeerError, Peers};
use super::types::{Proposal, Raft};
use crate::replica::{Leadership, Propose, ProposeError};

/// Proposes here if this node leads, else at the leader.
#[derive(Clone)]
pub(crate) struct Proposer {
    pub(super) raft: Raft,
    pub(super) peers: Arc<Peers>,
    pub(super) leadership: watch::Receiver<Leadership>,
}

/// One try that did not end the matter.
enum Try {
    /// Nothing came of it, or nothing is known of it: again, as long as there is time.
    Again,
    Failed(ProposeError),
}

impl Proposer {
    async fn at_the_leader(&self, record: &Record, deadline: Instant) -> Result<Applied, Try> {
        let leadership = self.leadership.borrow().clone();
        match leadership.leader {
            Some(leader) if leader == leadership.me => self.here(record.clone(), deadline).await,
            Some(leader) => self.there(leader, record, deadline).await,
            None => Err(Try::Again),
        }
    }

    async fn here(&self, record: Record, deadline: Instant) -> Result<Applied, Try> {
        let write = self.raft.client_write(Proposal(Ok(record)));
        match tokio::time::timeout_at(deadline, write).await {
            Err(_) => Err(Try::Failed(ProposeError::NoQuorum)),
            Ok(Ok(response)) => Ok(response.data.0),
            Ok(Err(RaftError::Fatal(fatal))) => Err(Try::Failed(ProposeError::Storage(fatal.to_string()))),
            // Discarded in a change of leaders: it may still come, and a second one is ignored or repeats it.
            Ok(Err(RaftError::APIError(
                ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_),
            ))) => Err(Try::Again),
            Ok(Err(RaftError::APIError(other))) => Err(Try::Failed(ProposeError::Garbled(other.to_string()))),
        }
    }

    /// In one round, if this node leads. Ends before the first record that was not taken.
    async fn together(&self, records: &[Record], deadline: Instant) -> Vec<Result<Applied, ProposeError>> {
        let mut results = Vec::new();
        if !self.leadership.borrow().is_leader() {
            return results;
        }
        let Ok(mut written) =
            self.raft.client_write_many(records.iter().cloned().map(|record| Proposal(Ok(record)))).await
        else {
            return results;
        };
        loop {
            match tokio::time::timeout_at(deadline, written.try_next()).await {
                Err(_) => {
                    results.resize_with(records.len(), || Err(ProposeError::NoQuorum));
                    return results;
                }
                Ok(Ok(Some(Ok(response)))) => results.push(Ok(response.response.0)),
                Ok(Ok(Some(Err(_)) | None) | Err(_)) => return results,
            }
        }
    }

    async fn there(&self, leader: CoordinatorId, record: &Record, deadline: Instant) -> Result<Applied, Try> {
        let garbled = |detail: String| Try::Failed(ProposeError::Garbled(detail));
        let message =
            proto::ProposeRequest { record: codec::encode(record).map_err(|error| garbled(error.to_string()))? };
        let mut client = self.peers.client(leader, Lane::Control).map_err(|_| Try::Again)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let mut request = self.peers.request(leader, message);
        request.set_timeout(left);
        let call = self.peers.call(leader, left, client.propose(request));
        match self.while_it_leads(leader, call).await? {
            Ok(answer) => codec::decode(&answer.applied).map_err(|error| garbled(error.to_string())),
            Err(PeerError::Status { status, .. }) if status.code() == Code::InvalidArgument => {
                Err(garbled(status.message().to_owned()))
            }
            Err(_) => Err(Try::Again),
        }
    }

    /// What was asked of a leader whose machine is gone is asked of the next one as soon as there is one: nobody waits for an
    /// answer that cannot come.
    async fn while_it_leads<R>(&self, leader: CoordinatorId, call: impl Future<Output = R>) -> Result<R, Try> {
        let mut leadership = self.leadership.clone();
        let another = async move {
            let other = |now: &Leadership| now.leader.is_some_and(|now| now != leader);
            if leadership.wait_for(other).await.is_err() {
                // This node is ending, and with it the call.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            answer = call => Ok(answer),
            () = another => Err(Try::Again),
        }
    }

    /// The index up to which a reader must have applied, once this node is known to lead still.
    async fn read_index_here(&self) -> Result<u64, Try> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::Fatal(fatal)) => Err(Try::Failed(ProposeError::Storage(fatal.to_string()))),
            Err(RaftError::APIError(_)) => Err(Try::Again),
        }
    }

    async fn read_index(&self, deadline: Instant) -> Result<u64, Try> {
        let leadership = self.leadership.borrow().clone();
        let left = deadline.saturating_duration_since(Instant::now());
        match leadership.leader {
            Some(leader) if leader == leadership.me => {
                tokio::time::timeout(left, self.read_index_here()).await.unwrap_or(Err(Try::Again))
            }
            Some(leader) => {
                let mut client = self.peers.client(leader, Lane::Control).map_err(|_| Try::Again)?;
                let mut request = self.peers.request(leader, proto::ReadIndexRequest {});
                request.set_timeout(left);
                let call = self.peers.call(leader, left, client.read_index(request));
                self.while_it_leads(leader, call).await?.map(|answer| answer.index).map_err(|_| Try::Again)
            }
            None => Err(Try::Again),
        }
    }

    /// Applies a record that a follower sent, if this node leads.
    pub(crate) async fn serve_propose(&self, record: Record) -> Result<Applied, tonic::Status> {
        let deadline = Instant::now() + self.peers.options().propose_timeout;
        self.here(record, deadline).await.map_err(refusal)
    }

    /// Answers a follower that wants to read.
    pub(crate) async fn serve_read_index(&self) -> Result<u64, tonic::Status> {
        self.read_index_here().await.map_err(refusal)
    }

    /// A quarter of a heartbeat: a leader that is just being elected is worth asking soon. False when the time is up.
    async fn pause(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        tokio::time::sleep(left.min(self.pace())).await;
        true
    }

    fn pace(&self) -> Duration {
        self.peers.options().heartbeat / 4
    }
}

fn refusal(error: Try) -> tonic::Status {
    match error {
        Try::Again => tonic::Status::unavailable("this coordinator does not lead"),
        Try::Failed(ProposeError::NoQuorum) => tonic::Status::deadline_exceeded("no majority answered"),
        Try::Failed(error @ (ProposeError::Storage(_) | ProposeError::Garbled(_))) => {
            tonic::Status::unavailable(error.to_string())
        }
    }
}

impl Propose for Proposer {
    fn propose(&self, record: Record) -> BoxFuture<'_, Result<Applied, ProposeError>> {
        Box::pin(async move {
            let deadline = Instant::now() + self.peers.options().propose_timeout;
            loop {
                match self.at_the_leader(&record, deadline).await {
                    Ok(applied) => return Ok(applied),
                    Err(Try::Failed(error)) => return Err(error),
                    Err(Try::Again) => {}
                }
                if !self.pause(deadline).await {
                    return Err(ProposeError::NoQuorum);
                }
            }
        })
    }

    fn propose_in_order(&self, records: Vec<Record>) -> BoxFuture<'_, Vec<Result<Applied, ProposeError>>> {
        Box::pin(async move {
            let deadline = Instant::now() + self.peers.options().propose_timeout;
            let mut results = self.together(&records, deadline).await;
            // What was not taken here goes the usual way; nothing may stand before what was proposed before it.
            for record in records.into_iter().skip(results.len()) {
                results.push(self.propose(record).await);
            }
            results
        })
    }

    fn linearize(&self) -> BoxFuture<'_, Result<(), ProposeError>> {
        Box::pin(async move {
            let deadline = Instant::now() + self.peers.options().propose_timeout;
            let index = loop {
                match self.read_index(deadline).await {
                    Ok(index) => break index,
                    Err(Try::Failed(error)) => return Err(error),
                    Err(Try::Again) => {}
                }
                if !self.pause(deadline).await {
                    return Err(ProposeError::NoQuorum);
                }
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let applied = self.raft.wait(Some(left)).applied_index_at_least(Some(index), "linearize").await;
            applied.map(|_| ()).map_err(|_| ProposeError::NoQuorum)
        })
    }
}
