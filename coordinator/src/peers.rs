//! Channels to the other coordinators, for everything but raft itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use regent_core::id::CoordinatorId;
use regent_proto::peer::v1::peer_service_client::PeerServiceClient;
use regent_proto::tls::{ChannelOptions, Identity, Tls, TlsError};
use tonic::Status;
use tonic::transport::Channel;

/// Cheap to clone; channels connect when they are first used, and again by themselves.
#[derive(Clone)]
pub struct Peers {
    channels: Arc<BTreeMap<CoordinatorId, Channel>>,
}

impl Peers {
    /// One channel for each peer, which must show the certificate of that very coordinator.
    ///
    /// # Errors
    /// If an address is none.
    pub fn new(tls: &Tls, peers: &BTreeMap<CoordinatorId, String>) -> Result<Self, TlsError> {
        let mut channels = BTreeMap::new();
        for (id, address) in peers {
            let options = ChannelOptions::heartbeat(Duration::from_millis(500)).expecting(Identity::Coordinator(id.0));
            channels.insert(*id, tls.channel(address, options)?);
        }
        Ok(Self { channels: Arc::new(channels) })
    }

    /// A client for one of them.
    ///
    /// # Errors
    /// If there is no such peer in the configuration.
    pub fn client(&self, id: CoordinatorId) -> Result<PeerServiceClient<Channel>, Status> {
        self.channel(id).map(PeerServiceClient::new)
    }

    /// The channel to one of them.
    ///
    /// # Errors
    /// If there is no such peer in the configuration.
    pub fn channel(&self, id: CoordinatorId) -> Result<Channel, Status> {
        let known = self.channels.get(&id).cloned();
        known.ok_or_else(|| Status::unavailable(format!("coordinator {id} is not among the configured peers")))
    }

    /// Everyone.
    pub fn ids(&self) -> impl Iterator<Item = CoordinatorId> + '_ {
        self.channels.keys().copied()
    }
}
