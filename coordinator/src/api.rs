//! What a coordinator answers over gRPC. Every port is mutual TLS; who may do what is decided in [`auth`], per call.
//!
//! Nothing here changes the state directly: a mutation proposes an entry, and the state machine decides.

use std::sync::Arc;

use futures::future::BoxFuture;
use regent_core::id::CoordinatorId;
use regent_proto::operator::v1::application_service_server::ApplicationServiceServer;
use regent_proto::operator::v1::audit_service_server::AuditServiceServer;
use regent_proto::operator::v1::cluster_service_server::ClusterServiceServer;
use regent_proto::operator::v1::run_service_server::RunServiceServer;
use regent_proto::tls::Tls;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::members::Awaited;
use crate::node::Node;
use crate::observer::Post;

pub mod agent;
pub(crate) mod auth;
pub(crate) mod convert;
pub(crate) mod operator;
pub mod peer;
pub(crate) mod status;

pub use operator::Operators;

/// Hands leadership to another coordinator. Raft stands behind it.
pub trait TransferLeader: Send + Sync {
    /// Resolves when this node has asked the other one to take over; this node must lead.
    ///
    /// # Errors
    /// Says why it could not be asked, for humans.
    fn transfer(&self, to: CoordinatorId) -> BoxFuture<'_, Result<(), String>>;
}

/// What the operators' services need.
#[derive(Clone)]
pub struct Parts {
    /// The replicated state and the evidence.
    pub node: Node,
    /// This coordinator's own certificate, to ask the leader.
    pub tls: Tls,
    /// To hand over leadership.
    pub transfer: Arc<dyn TransferLeader>,
    /// What a change of the members waits for.
    pub awaited: Awaited,
    /// To ask agents to look anew.
    pub post: Post,
    /// Cancelled when the process stops: ends the streams, so that the server can drain.
    pub stop: CancellationToken,
}

/// The services for operators, with health and reflection. Others are added by [`Routes::add_service`].
///
/// # Errors
/// If the file descriptors for reflection cannot be read, which would be a fault of the build.
pub async fn routes(parts: Parts) -> Result<Routes, tonic_reflection::server::Error> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(regent_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    let (v1, v1alpha) = (reflection.build_v1()?, alpha()?);
    let (health, health_server) = tonic_health::server::health_reporter();
    let operators = Operators::new(parts);
    health.set_serving::<ApplicationServiceServer<Operators>>().await;
    health.set_serving::<RunServiceServer<Operators>>().await;
    health.set_serving::<ClusterServiceServer<Operators>>().await;
    health.set_serving::<AuditServiceServer<Operators>>().await;
    Ok(Routes::new(health_server)
        .add_service(v1)
        .add_service(v1alpha)
        .add_service(ApplicationServiceServer::new(operators.clone()))
        .add_service(RunServiceServer::new(operators.clone()))
        .add_service(ClusterServiceServer::new(operators.clone()))
        .add_service(AuditServiceServer::new(operators)))
}

/// The older reflection protocol, which grpcurl and others still speak.
fn alpha() -> Result<
    tonic_reflection::server::v1alpha::ServerReflectionServer<impl tonic_reflection::server::v1alpha::ServerReflection>,
    tonic_reflection::server::Error,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(regent_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1alpha()
}
