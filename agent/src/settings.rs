//! What the agent must know of itself, as values: where it is, whom it talks to, and how others are reached.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use regent_core::id::{ApplicationId, ClusterId, RegionId, ResourceId};
use regent_core::time::Timestamp;
use regent_proto::agent::v1::Endpoint;
use regent_proto::tls::Dialled;

use crate::driver::FenceReach;
use crate::guard::Drivers;

/// Of one agent.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its region.
    pub region: RegionId,
    /// host:port of every coordinator.
    pub coordinators: Vec<String>,
    /// Where other agents ask for promises.
    pub listen: SocketAddr,
    /// How they reach it; empty if it is the address that is bound in the end.
    pub advertise: String,
    /// Journal and identity.
    pub data_directory: PathBuf,
    /// The guard's file and promises; in memory.
    pub runtime_directory: PathBuf,
    /// Between two probes of one resource.
    pub probe_interval: Duration,
    /// What redirect makes the DNS name answer, by resource.
    pub addresses: std::collections::BTreeMap<(ApplicationId, ResourceId), Vec<String>>,
    /// When its certificate expires; none if that is not known.
    pub certificate_until: Option<Timestamp>,
}

/// Why there is no way to somebody.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address cannot be used.
    #[error("cannot use the address {address:?}: write host:port")]
    Address {
        /// The address.
        address: String,
    },
    /// TLS refuses.
    #[error("cannot set up a channel to {address}")]
    Tls {
        /// To where.
        address: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Whom to expect at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Any coordinator of the group.
    Coordinator,
    /// The agent of this cluster.
    Agent(ClusterId),
}

/// Makes a channel to an address: a name in it is looked up whenever a connection is made. The span is the time-out of
/// the connection and the beat of its keep-alive.
pub type Dial = Arc<dyn Fn(&str, &Expected, Duration) -> Result<Dialled, DialError> + Send + Sync>;

/// What this cluster has, for the coordinators. Carries no secret.
#[must_use]
pub fn endpoints(settings: &Settings, drivers: &Drivers) -> Vec<Endpoint> {
    let all = drivers.iter().flat_map(|(application, resources)| {
        resources.iter().map(move |(resource, driver)| (application, resource, driver))
    });
    all.map(|(application, resource, driver)| Endpoint {
        application: application.to_string(),
        resource: resource.to_string(),
        addresses: settings.addresses.get(&(application.clone(), resource.clone())).cloned().unwrap_or_default(),
        remote_fence: driver.fence_reach() == FenceReach::Remote,
        kind: driver.kind().to_owned(),
    })
    .collect()
}
