//! The group begins: once, and only where no peer has one.
//!
//! The peer with the lowest id asks all others; when every one of them has answered that it knows of no group, it
//! makes them all voters. A coordinator that lost its directory finds its group here instead of founding another.

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::BasicNode;
use regent_core::id::CoordinatorId;
use regent_proto::peer::v1 as proto;

use super::log_store::LogStore;
use super::peers::{Lane, PeerError, Peers};
use super::types::Raft;

/// Returns when there is nothing left to do.
pub(super) async fn bootstrap(raft: Raft, log: LogStore, peers: Arc<Peers>) {
    let options = peers.options().clone();
    if !options.bootstrap || options.peers.keys().next() != Some(&options.id) {
        return;
    }
    let mut told = false;
    while log.is_empty() {
        match missing(&peers, &options.peers, options.id).await {
            Answer::NoGroup => {
                let nodes: BTreeMap<u64, BasicNode> =
                    options.peers.iter().map(|(id, address)| (id.0, BasicNode::new(address))).collect();
                match raft.initialize(nodes).await {
                    Ok(()) => tracing::info!(voters = options.peers.len(), "The group was created"),
                    Err(error) => tracing::info!(error = %error, "The group was not created"),
                }
                return;
            }
            Answer::Group(id) => {
                tracing::info!(coordinator = id.0, "A group exists: this coordinator waits to be added to it");
                return;
            }
            Answer::Unknown(id) if !told => {
                tracing::info!(coordinator = id.0, "The group is created when every peer has answered");
                told = true;
            }
            Answer::Unknown(_) => {}
        }
        tokio::time::sleep(options.heartbeat).await;
    }
}

enum Answer {
    NoGroup,
    Group(CoordinatorId),
    Unknown(CoordinatorId),
}

async fn missing(peers: &Peers, all: &BTreeMap<CoordinatorId, String>, me: CoordinatorId) -> Answer {
    let mut unknown = None;
    for id in all.keys().copied().filter(|id| *id != me) {
        match introduce(peers, id).await {
            Ok(true) => return Answer::Group(id),
            Ok(false) => {}
            Err(_) => unknown = unknown.or(Some(id)),
        }
    }
    unknown.map_or(Answer::NoGroup, Answer::Unknown)
}

async fn introduce(peers: &Peers, id: CoordinatorId) -> Result<bool, PeerError> {
    let mut client = peers.client(id, Lane::Control)?;
    let call = client.introduce(peers.request(id, proto::IntroduceRequest {}));
    Ok(peers.call(id, peers.options().rpc_timeout, call).await?.has_group)
}
