//! The client end: asks another cluster's agent for a sign of life at every interval, and for promises.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use regent_core::id::{ApplicationId, ClusterId, Epoch, InstallationId};
use regent_proto::agent::v1::peer_agent_service_client::PeerAgentServiceClient;
use regent_proto::agent::v1::{PromiseRequest, SignedLease, WitnessRequest, WitnessResponse};
use regent_proto::line::Line;
use regent_proto::watch;
use tokio::sync::mpsc;

use crate::guard::clock::Clock;
use crate::journal::Peer;
use crate::lease::{Question, Reading};
use crate::settings::{Dial, Expected};
use crate::uplink::convert::wire_token;
use crate::witness::sign;

/// A nonce of so many bytes.
const NONCE: usize = 32;
/// A question that is not answered by then is asked anew by the lease.
const PATIENCE: Duration = Duration::from_secs(1);

/// What comes of it.
#[derive(Debug, Clone)]
pub enum PeerEvent {
    /// A sign of life, or none.
    Sign(Sign),
    /// The answer to a question.
    Promise {
        /// Of which application.
        application: ApplicationId,
        /// To which question.
        number: u64,
        /// Whose.
        cluster: ClusterId,
        /// Promised.
        promised: bool,
        /// Its own epoch.
        epoch: Epoch,
        /// Why not.
        reason: String,
    },
}

/// What a probe of another cluster's witness port gave.
#[derive(Debug, Clone)]
pub struct Sign {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// When it was asked for.
    pub at: Reading,
    /// It answered, with a valid signature.
    pub answered: bool,
    /// What it signed for.
    pub leases: Vec<SignedLease>,
}

/// A question for a promise, on its way.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Of which application.
    pub application: ApplicationId,
    /// The asker.
    pub cluster: ClusterId,
    /// Its installation.
    pub installation: InstallationId,
    /// The question.
    pub question: Question,
}

/// How another cluster's agent is reached, and how often.
pub struct Reach {
    /// Dials it.
    pub dial: Dial,
    /// Between two signs of life.
    pub interval: Duration,
    /// Dates what it says.
    pub clock: Arc<dyn Clock>,
}

/// Looks after one other cluster until its questions' channel is closed.
pub async fn keep(
    cluster: ClusterId,
    mut peer: watch::Receiver<Peer>,
    reach: Reach,
    mut asks: mpsc::Receiver<Ask>,
    events: mpsc::UnboundedSender<PeerEvent>,
) {
    let Reach { dial, interval, clock } = reach;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut line: Option<Line> = None;
    loop {
        tokio::select! {
            biased;
            changed = peer.changed() => {
                if changed.is_err() { return }
                line = None;
            }
            ask = asks.recv() => {
                let Some(ask) = ask else { return };
                let address = peer.borrow().address.clone();
                if let Some(to) = open(&mut line, &dial, &cluster, &address) {
                    tokio::spawn(promise(to, cluster.clone(), ask, events.clone()));
                }
            }
            _ = ticks.tick() => {
                let (address, key) = { let peer = peer.borrow(); (peer.address.clone(), peer.witness_key.clone()) };
                let at = clock.reading();
                let answer = match open(&mut line, &dial, &cluster, &address) {
                    Some(to) => sign_of_life(to, &cluster, &key).await,
                    None => None,
                };
                if answer.is_none() {
                    // The next one dials anew and resolves the name again.
                    line = None;
                }
                let answered = answer.is_some();
                let leases = answer.unwrap_or_default();
                let sign = Sign { cluster: cluster.clone(), at, answered, leases };
                if events.send(PeerEvent::Sign(sign)).is_err() { return }
            }
        }
    }
}

fn open(line: &mut Option<Line>, dial: &Dial, cluster: &ClusterId, address: &str) -> Option<Line> {
    if line.is_none() && !address.is_empty() {
        let dialled = dial(address, &Expected::Agent(cluster.clone()), PATIENCE);
        *line = dialled.ok().map(|dialled| dialled.line);
    }
    line.clone()
}

async fn sign_of_life(line: Line, cluster: &ClusterId, key: &[u8]) -> Option<Vec<SignedLease>> {
    let mut nonce = vec![0; NONCE];
    rand::fill(&mut nonce).ok()?;
    let request = WitnessRequest { nonce: nonce.clone() };
    let mut client = PeerAgentServiceClient::new(line);
    let answer = tokio::time::timeout(PATIENCE, client.witness(request)).await.ok()?.ok()?.into_inner();
    let WitnessResponse { cluster: said, installation, leases, signature } = answer;
    let text = sign::canonical(&nonce, &said, &installation, &leases);
    let genuine = said == cluster.as_str() && sign::verify(key, &text, &signature);
    if !genuine {
        tracing::warn!(%cluster, "a witness answer is not signed by the key that is enrolled for the cluster");
    }
    genuine.then_some(leases)
}

async fn promise(line: Line, cluster: ClusterId, ask: Ask, events: mpsc::UnboundedSender<PeerEvent>) {
    let Ask { application, question, .. } = ask;
    let request = PromiseRequest {
        cluster: ask.cluster.to_string(),
        installation: ask.installation.to_string(),
        application: application.to_string(),
        epoch: question.epoch.0,
        terms: Some(wire_token(question.terms)),
        fail_over_after_ms: question.fail_over_after.millis(),
    };
    let mut client = PeerAgentServiceClient::new(line);
    let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, client.promise(request)).await else { return };
    let answer = answer.into_inner();
    let _ = events.send(PeerEvent::Promise {
        application,
        number: question.number,
        cluster,
        promised: answer.promised,
        epoch: Epoch(answer.epoch),
        reason: answer.reason,
    });
}
