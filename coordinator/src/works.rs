//! The works of a coordinator: replication, the observation post and the engine, joined with each other.
//!
//! ```text
//!  agents ──► Agents ──► Post ──► proposals ──► raft ◄──► other coordinators
//!                         └──► Engine ──┘
//! ```
//!
//! Ports, certificates, dashboard and DNS are around it: whoever has other ones can run the same works.

use std::sync::Arc;

use regent_core::entry::{Coordinator, Entry, Record};
use regent_core::id::{ClusterId, CoordinatorId};
use regent_core::state::Applied;
use regent_proto::agent::v1::StepCommand;
use regent_proto::agent::v1::agent_service_server::AgentServiceServer;
use regent_proto::agent::v1::connect_response::Body;
use regent_proto::peer::v1::ObserveRequest;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::admin::Readiness;
use crate::api::agent::{Agents, refuses};
use crate::api::peer::PeerHooks;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::join;
use crate::members::{self, Awaited};
use crate::node::Node;
use crate::observer::{Heardings, Post, relay};
use crate::proposals::Proposals;
use crate::raft::RaftHandle;

/// Assembled, and standing still.
pub struct Works {
    node: Node,
    post: Post,
    heardings: Heardings,
    raft: RaftHandle,
    awaited: Awaited,
}

/// What other coordinators ask beside raft.
struct Hooks(Post);

impl PeerHooks for Hooks {
    fn observe(&self, from: CoordinatorId, request: ObserveRequest) {
        relay::take(&self.0, from, &request);
    }

    fn relay(&self, cluster: &ClusterId, step: StepCommand) -> bool {
        self.0.send(cluster, Body::Step(step))
    }

    fn refuses(&self, record: &Record) -> Option<Applied> {
        let Entry::AgentRegistered(agent) = &record.entry else { return None };
        let leads = self.0.node().replica.leadership().borrow().is_leader();
        leads.then(|| refuses(&self.0, agent)).flatten()
    }
}

impl Works {
    /// On top of replication that was opened and does not run yet.
    #[must_use]
    pub fn new(id: CoordinatorId, raft: RaftHandle, clock: Arc<dyn Clock>) -> Self {
        let node = Node::with_clock(id, raft.replica(), clock);
        let (post, heardings) = Post::new(node.clone(), Proposals::new(node.clone()), raft.incarnation());
        Self { node, post, heardings, raft, awaited: Awaited::default() }
    }

    /// What its parts share.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Replication.
    #[must_use]
    pub fn raft(&self) -> &RaftHandle {
        &self.raft
    }

    /// What hears the agents.
    #[must_use]
    pub fn post(&self) -> &Post {
        &self.post
    }

    /// What a change of the members waits for.
    #[must_use]
    pub fn awaited(&self) -> Awaited {
        self.awaited.clone()
    }

    /// Adds what agents and other coordinators call.
    #[must_use]
    pub fn add_services(&self, routes: Routes) -> Routes {
        routes
            .add_service(AgentServiceServer::new(Agents::new(self.post.clone())))
            .add_service(self.raft.peer_service(Arc::new(Hooks(self.post.clone()))))
    }

    /// Begins to observe, to decide and to replicate. Returns replication, and the parts: none of them ends before
    /// `stop`, unless something is wrong.
    pub fn start(
        self,
        myself: Coordinator,
        readiness: Readiness,
        stop: &CancellationToken,
    ) -> (RaftHandle, JoinSet<()>) {
        let Self { node, post, heardings, mut raft, awaited } = self;
        let (for_post, for_engine) = (node.replica.listen(), node.replica.listen());
        let mut parts = JoinSet::new();
        parts.spawn(post.clone().run(for_post, stop.clone()));
        parts.spawn(relay::run(post.clone(), raft.peers(), stop.clone()));
        let (membership, proposals) = (raft.membership(), post.proposals().clone());
        parts.spawn(members::run(node.clone(), proposals, membership, awaited, stop.clone()));
        parts.spawn(Engine::new(post, raft.peers()).run(heardings, for_engine, stop.clone()));
        tokio::spawn(join::run(node, myself, readiness, stop.clone()));
        raft.run();
        (raft, parts)
    }
}
