//! Who takes part, and with what: coordinators, agents, and their databases.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{
    ApplicationId, ClusterId, CoordinatorId, IdentityId, Incarnation, InstallationId, RegionId, ResourceId, SystemId,
};

/// A coordinator as the group knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinator {
    /// Raft id.
    pub id: CoordinatorId,
    /// Identity of its data directory.
    pub identity: IdentityId,
    /// Where it stands.
    pub region: RegionId,
    /// host:port of its gRPC server.
    pub grpc: String,
    /// host:port of its dashboard.
    pub dashboard: String,
    /// host:port of its DNS server.
    pub dns: String,
}

/// An agent as the group knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its cluster; one agent each.
    pub cluster: ClusterId,
    /// Where it stands.
    pub region: RegionId,
    /// Identity of its data directory.
    pub installation: InstallationId,
    /// Which process of it; 0 in entries without this.
    #[serde(default)]
    pub incarnation: Incarnation,
    /// The boot of its machine in which that process runs; empty if it did not say.
    #[serde(default)]
    pub boot: String,
    /// host:port of its PeerAgentService.
    pub peer_address: String,
    /// Ed25519 public key that signs witness nonces.
    pub witness_key: Vec<u8>,
    /// Where it has what.
    pub endpoints: BTreeMap<ApplicationId, BTreeMap<ResourceId, Endpoint>>,
}

impl Agent {
    /// Why another process of the same installation may not follow this one, if it may not: it is an older one whose
    /// entry or stream came late, or there are two, since a data directory counts its processes.
    #[must_use]
    pub fn overtakes(&self, incarnation: Incarnation, boot: &str) -> Option<String> {
        let (known, cluster) = (self.incarnation, &self.cluster);
        let elsewhere = !self.boot.is_empty() && self.boot != boot;
        if incarnation < known {
            Some(format!(
                "process {incarnation} of the agent of {cluster} is older than the registered process {known}"
            ))
        } else if incarnation == known && elsewhere {
            Some(format!(
                "process {known} of the agent of {cluster} runs on two machines: its data directory was copied"
            ))
        } else {
            None
        }
    }

    /// Whether this process speaks for the agent: it is the registered one, or a newer one of the same boot, which has the
    /// lock of the data directory, so that the one before is dead. One of another boot may be a copy until it is registered.
    #[must_use]
    pub fn speaks(&self, incarnation: Incarnation, boot: &str) -> bool {
        self.overtakes(incarnation, boot).is_none() && (incarnation == self.incarnation || boot == self.boot)
    }
}

/// Where a cluster has a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Driver that serves it.
    pub kind: String,
    /// `dns` only: what the name answers for this cluster.
    pub addresses: Vec<String>,
    /// The fence acts on another machine than the agent's.
    pub remote_fence: bool,
}

/// Identity of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// E.g. PostgreSQL's system identifier.
    pub system_id: SystemId,
    /// Timeline; 0 if the engine has none.
    pub timeline: u64,
}
