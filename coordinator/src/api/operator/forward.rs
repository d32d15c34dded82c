//! Asking the leader on behalf of an operator: it has what all coordinators saw, a follower only what it saw itself.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regent_core::id::CoordinatorId;
use regent_proto::tls::{ChannelOptions, Identity, Tls};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::super::auth::FORWARDED;
use super::Operators;

/// After so long the coordinator answers by what it knows itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Channels to coordinators, kept for the next call. Cheap to clone.
#[derive(Clone)]
pub(super) struct Leader {
    tls: Tls,
    channels: Arc<Mutex<BTreeMap<(CoordinatorId, String), Channel>>>,
}

impl Leader {
    pub(super) fn new(tls: Tls) -> Self {
        Self { tls, channels: Arc::default() }
    }

    fn channel(&self, id: CoordinatorId, address: &str) -> Result<Channel, Status> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&(id, address.to_owned())) {
            return Ok(channel.clone());
        }
        let options = ChannelOptions::default().expecting(Identity::Coordinator(id.0));
        let channel = self.tls.channel(address, options).map_err(|error| {
            tracing::warn!(
                coordinator = id.0,
                address,
                error = &error as &dyn std::error::Error,
                "no channel to the leader"
            );
            Status::unavailable("the leader cannot be dialled")
        })?;
        channels.insert((id, address.to_owned()), channel.clone());
        Ok(channel)
    }
}

/// Who else could answer better.
pub(super) struct Elsewhere {
    /// The leader.
    pub(super) id: CoordinatorId,
    /// host:port of its gRPC server.
    pub(super) address: String,
}

impl Operators {
    /// The leader, if it is another coordinator and its address is known.
    pub(super) fn elsewhere(&self) -> Option<Elsewhere> {
        let leadership = self.leadership();
        let id = leadership.leader.filter(|leader| *leader != leadership.me)?;
        let address = self.node().replica.read(|state| Some(state.coordinators.get(&id)?.grpc.clone()))?;
        Some(Elsewhere { id, address })
    }

    /// Passes a call on, marked so that it is not passed on again.
    pub(super) async fn ask<Q, A, F, Fut>(&self, to: &Elsewhere, question: Q, call: F) -> Result<A, Status>
    where
        F: FnOnce(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let channel = self.leader.channel(to.id, &to.address)?;
        let mut request = Request::new(question);
        request.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
        match tokio::time::timeout(PATIENCE, call(channel, request)).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("the leader did not answer in time")),
        }
    }

    /// What an operator should know when the leader's better answer was not to be had.
    pub(super) fn own_view_notice(&self, leader: &Elsewhere) -> String {
        format!(
            "the leader, coordinator {} at {}, did not answer; this is what coordinator {} sees itself",
            leader.id,
            leader.address,
            self.node().id
        )
    }
}
