//! What agents say to each other: signs of life that no proxy can give, and promises not to promote.
//!
//! A signature names only leases that run at that moment; an agent that has fenced is no life. A promise is given by
//! the agent's own loop, in one line with the steps, so that none slips in beside it.

use std::sync::Arc;

use regent_core::id::{ClusterId, InstallationId};
use regent_proto::agent::v1::peer_agent_service_server::PeerAgentService;
use regent_proto::agent::v1::{PromiseRequest, PromiseResponse, SignedLease, WitnessRequest, WitnessResponse};
use regent_proto::tls::Identity;
use regent_proto::watch;
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

use crate::agent::Word;
use crate::guard::clock::Clock;

pub mod peer;
mod promises;
mod sign;

pub use promises::Promises;
pub use sign::{KeyError, WitnessKey, canonical, verify};

/// Who a request comes from.
pub type Identify = Arc<dyn Fn(&Request<()>) -> Result<Identity, Status> + Send + Sync>;

/// A question for a promise that waits for its answer.
#[derive(Debug)]
pub struct Asked {
    /// The question.
    pub request: PromiseRequest,
    /// Where the answer goes.
    pub answer: oneshot::Sender<PromiseResponse>,
}

/// The server end.
pub struct PeerServer {
    /// This cluster.
    pub cluster: ClusterId,
    /// This installation.
    pub installation: InstallationId,
    /// Signs.
    pub key: Arc<WitnessKey>,
    /// Which leases run.
    pub word: watch::Receiver<Arc<Word>>,
    /// To the agent's loop.
    pub asked: mpsc::Sender<Asked>,
    /// Of this machine.
    pub clock: Arc<dyn Clock>,
    /// By the caller's certificate.
    pub identify: Identify,
}

#[tonic::async_trait]
impl PeerAgentService for PeerServer {
    async fn promise(&self, request: Request<PromiseRequest>) -> Result<Response<PromiseResponse>, Status> {
        let (identity, request) = self.identified(request)?;
        // The certificate, and nothing else, says who asks.
        if identity != Identity::Agent(request.cluster.clone()) {
            return Err(Status::permission_denied("only a cluster's own agent may ask for promises for it"));
        }
        let (answer, answered) = oneshot::channel();
        self.asked.try_send(Asked { request, answer }).map_err(|_| Status::resource_exhausted("asked too often"))?;
        answered.await.map(Response::new).map_err(|_| Status::unavailable("the agent is ending"))
    }

    async fn witness(&self, request: Request<WitnessRequest>) -> Result<Response<WitnessResponse>, Status> {
        let (identity, request) = self.identified(request)?;
        if matches!(identity, Identity::Operator(_)) {
            return Err(Status::permission_denied("for agents and coordinators only"));
        }
        if !(16..=64).contains(&request.nonce.len()) {
            return Err(Status::invalid_argument("a nonce has 16 to 64 bytes"));
        }
        let now = self.clock.reading();
        let word = self.word.borrow().clone();
        let signed = word.signed_for(now).map(|(application, epoch)| SignedLease { application, epoch });
        let leases: Vec<_> = signed.collect();
        let (cluster, installation) = (self.cluster.to_string(), self.installation.to_string());
        let signature = self.key.sign(&canonical(&request.nonce, &cluster, &installation, &leases));
        Ok(Response::new(WitnessResponse { cluster, installation, leases, signature }))
    }
}

impl PeerServer {
    fn identified<T>(&self, request: Request<T>) -> Result<(Identity, T), Status> {
        let (metadata, extensions, message) = request.into_parts();
        let identity = (self.identify)(&Request::from_parts(metadata, extensions, ()))?;
        Ok((identity, message))
    }
}
