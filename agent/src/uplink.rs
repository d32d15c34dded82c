//! Dials every coordinator, one stream each, and never gives up.
//!
//! ```text
//!  dial ──► Hello ──► Welcome ──► heartbeats and statuses up, answers, terms and steps down
//!   ▲                                   │ ended, refused, or silent for three heartbeats
//!   └───────── one pause ◄──────────────┘
//! ```
//!
//! A stream carries what the agent says and hands back what it hears; it decides nothing. Dialling has a time-out of
//! max(1 s, 4 RTT) and no back-off above D/20: kernel retransmission would notice a healed partition too late
//! (safety.md, "One knob").

use std::sync::Arc;
use std::time::Duration;

use regent_core::id::CoordinatorId;
use regent_core::planted::{self, Mistake};
use regent_proto::agent::v1::agent_service_client::AgentServiceClient;
use regent_proto::agent::v1::connect_request::Body as Say;
use regent_proto::agent::v1::connect_response::Body as Heard;
use regent_proto::agent::v1::{ConnectRequest, Hello, Refusal, Welcome};
use regent_proto::tls::{Identity, Seen};
use regent_proto::watch;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::journal::chain;
use crate::settings::{Dial, Expected};

pub mod convert;
mod pace;

pub use pace::Pace;

/// Messages that wait for one coordinator; when it does not take them they are dropped, and a fresh heartbeat follows.
const ROOM: usize = 256;

/// The code of a refusal for another process than the registered one.
const DOUBLED: &str = "agent-doubled";

/// Names one of the configured addresses.
pub type LinkId = usize;

/// What comes from a stream.
#[derive(Debug)]
pub enum LinkEvent {
    /// It is up.
    Up {
        /// What the coordinator said first.
        welcome: Welcome,
        /// Where to say things.
        say: mpsc::Sender<ConnectRequest>,
    },
    /// It says something.
    Heard(Heard),
    /// It refused this process, because another one of this agent is registered.
    Doubled,
    /// It is down.
    Down,
}

/// Says it, unless the stream does not take it.
pub fn say(to: &mpsc::Sender<ConnectRequest>, body: Say) -> bool {
    to.try_send(ConnectRequest { body: Some(body) }).is_ok()
}

/// Keeps one address dialled until `events` is closed.
pub async fn keep(
    link: LinkId,
    address: String,
    dial: Dial,
    hello: watch::Receiver<Arc<Hello>>,
    pace: watch::Receiver<Pace>,
    events: mpsc::UnboundedSender<(LinkId, LinkEvent)>,
) {
    let mut said = String::new();
    while !events.is_closed() {
        let begun = tokio::time::Instant::now();
        let ended = once(link, &address, &dial, &hello, &pace, &events).await;
        let doubled = matches!(&ended, Err(Ended::Refused { code, .. }) if code == DOUBLED);
        let silent = matches!(&ended, Err(Ended::Silent(_)));
        let why = ended.map_or_else(|ended| ended.to_string(), |never| match never {});
        if doubled {
            let _ = events.send((link, LinkEvent::Doubled));
        }
        // The same trouble at every heartbeat is one line.
        if why != said {
            tracing::warn!(address, why, "no stream to the coordinator");
            said = why;
        }
        let _ = events.send((link, LinkEvent::Down));
        if silent && planted::makes(Mistake::NeverRedialled) {
            return;
        }
        let pause = pace.borrow().pause();
        tokio::time::sleep_until(begun + pause).await;
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("{0}")]
    Dial(String),
    #[error("the coordinator did not answer within {} ms", .0.as_millis())]
    NoAnswer(Duration),
    #[error("the coordinator ended the stream: {0}")]
    Status(String),
    #[error("the coordinator closed the stream")]
    Closed,
    #[error("the coordinator was silent for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("the coordinator refuses this agent: {message} ({code})")]
    Refused { code: String, message: String },
    #[error("the coordinator broke the protocol: no Welcome came first")]
    Protocol,
    #[error(
        "it calls itself coordinator {named}, but its certificate is that of {certified}; correct the coordinator's id \
         or its certificate"
    )]
    Impostor { named: u64, certified: String },
    #[error("the agent ends")]
    AgentEnds,
}

pub(crate) enum Never {}

pub(crate) async fn once(
    link: LinkId,
    address: &str,
    dial: &Dial,
    hello: &watch::Receiver<Arc<Hello>>,
    pace: &watch::Receiver<Pace>,
    events: &mpsc::UnboundedSender<(LinkId, LinkEvent)>,
) -> Result<Never, Ended> {
    let patience = pace.borrow().dial_timeout();
    let opening = open(address, dial, hello, patience);
    let (welcome, say, mut stream) =
        tokio::time::timeout(patience, opening).await.map_err(|_| Ended::NoAnswer(patience))??;
    tracing::info!(address, coordinator = welcome.coordinator, "stream to the coordinator is up");
    events.send((link, LinkEvent::Up { welcome, say })).map_err(|_| Ended::AgentEnds)?;
    loop {
        let silence = pace.borrow().silence();
        let next = tokio::time::timeout(silence, stream.message()).await.map_err(|_| Ended::Silent(silence))?;
        let body = next.map_err(|error| status(&error))?.ok_or(Ended::Closed)?.body;
        let Some(body) = body else { continue };
        if let Heard::Refusal(refusal) = &body {
            return Err(refused(refusal));
        }
        events.send((link, LinkEvent::Heard(body))).map_err(|_| Ended::AgentEnds)?;
    }
}

type Opened = (Welcome, mpsc::Sender<ConnectRequest>, Streaming<regent_proto::agent::v1::ConnectResponse>);

async fn open(
    address: &str,
    dial: &Dial,
    hello: &watch::Receiver<Arc<Hello>>,
    patience: Duration,
) -> Result<Opened, Ended> {
    // A fresh channel each time: its name is resolved anew, no dead connection is used again, and who was seen at the
    // other end is who speaks on the stream.
    let dialled = dial(address, &Expected::Coordinator, patience).map_err(|error| Ended::Dial(chain(&error)))?;
    let (say, said) = mpsc::channel(ROOM);
    let first = ConnectRequest { body: Some(Say::Hello((**hello.borrow()).clone())) };
    say.try_send(first).map_err(|_| Ended::Closed)?;
    let answered = AgentServiceClient::new(dialled.line).connect(ReceiverStream::new(said)).await;
    let mut stream = answered.map_err(|error| status(&error))?.into_inner();
    match stream.message().await.map_err(|error| status(&error))?.and_then(|first| first.body) {
        Some(Heard::Welcome(welcome)) if welcome.coordinator > 0 => {
            certified(&welcome, &dialled.peer)?;
            Ok((welcome, say, stream))
        }
        Some(Heard::Refusal(refusal)) => Err(refused(&refusal)),
        _ => Err(Ended::Protocol),
    }
}

/// Grants are counted by coordinator: one that spoke under two ids would be a majority of its own.
fn certified(welcome: &Welcome, peer: &Seen) -> Result<(), Ended> {
    match peer.identity() {
        Some(Identity::Coordinator(id)) if id == welcome.coordinator => Ok(()),
        other => {
            let certified = other.map_or_else(|| "nobody".to_owned(), |identity| identity.to_string());
            Err(Ended::Impostor { named: welcome.coordinator, certified })
        }
    }
}

fn refused(refusal: &Refusal) -> Ended {
    Ended::Refused { code: refusal.code.clone(), message: refusal.message.clone() }
}

fn status(status: &tonic::Status) -> Ended {
    let source = std::error::Error::source(status).map(chain);
    Ended::Status(match source {
        Some(source) => source,
        None => status.message().to_owned(),
    })
}

/// The coordinator of a Welcome.
#[must_use]
pub const fn coordinator(welcome: &Welcome) -> CoordinatorId {
    CoordinatorId(welcome.coordinator)
}
