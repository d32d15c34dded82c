//! The agent's end: starts a guard where none runs, attaches to it, and notices when it stops answering.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use regent_core::id::{ApplicationId, ResourceId};
use regent_core::planted::{self, Mistake};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::guard::{Reply, Request, Watched};
use crate::journal::chain;

/// Between two signs of life.
const PING: Duration = Duration::from_millis(100);
/// A guard that owes an answer for so long does not answer.
const SILENCE: Duration = Duration::from_millis(400);
/// Between two attempts to reach or start one.
const RETRY: Duration = Duration::from_millis(50);

/// Both directions of a conversation with the guard.
pub trait Talk: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Talk for T {}

/// Being let in by the guard.
pub type Entering<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Talk>>> + Send + 'a>>;

/// Where the guard of this machine is found.
pub trait Door: Send + Sync {
    /// Lets the agent in, if a guard is there.
    fn enter(&self) -> Entering<'_>;
    /// Starts a guard, unless the one that was started last still runs.
    ///
    /// # Errors
    /// If it cannot be started.
    fn start(&self) -> io::Result<()>;
}

/// What the agent hears of its guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardEvent {
    /// It answers, for the first time or again.
    Up(BTreeMap<ApplicationId, Watched>),
    /// What it counts by now.
    Counts(BTreeMap<ApplicationId, Watched>),
    /// It does not answer.
    Lost,
    /// It refused to be armed, because it could not end these.
    Unknown(ApplicationId, BTreeSet<ResourceId>),
}

/// A handle to the guard.
#[derive(Debug, Clone)]
pub struct GuardClient {
    requests: mpsc::UnboundedSender<Request>,
}

impl GuardClient {
    /// Attaches to the guard behind this door for as long as the handle and the receiver of events live.
    #[must_use]
    pub fn attach(door: Arc<dyn Door>, events: mpsc::UnboundedSender<GuardEvent>) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        tokio::spawn(keep(door, receiver, events));
        Self { requests }
    }

    /// Asks; what comes of it is an event. Requests while the guard does not answer are lost.
    pub fn ask(&self, request: Request) {
        let _ = self.requests.send(request);
    }
}

async fn keep(
    door: Arc<dyn Door>,
    mut requests: mpsc::UnboundedReceiver<Request>,
    events: mpsc::UnboundedSender<GuardEvent>,
) {
    let mut said = String::new();
    let mut entered = false;
    loop {
        match door.enter().await {
            Ok(stream) => {
                said.clear();
                entered = true;
                let ended = talk(stream, &mut requests, &events).await;
                if ended.is_break() || events.send(GuardEvent::Lost).is_err() {
                    return;
                }
            }
            Err(_) => {
                if !(entered && planted::makes(Mistake::GuardNotStarted))
                    && let Err(error) = door.start()
                {
                    // The same trouble at every attempt is one line.
                    let error = chain(&error);
                    if error != said {
                        tracing::error!(error, "cannot start the guard");
                        said = error;
                    }
                }
            }
        }
        tokio::time::sleep(RETRY).await;
        while let Ok(_lost) = requests.try_recv() {}
        if requests.is_closed() || events.is_closed() {
            return;
        }
    }
}

/// Until the connection ends. Break: the agent itself has ended.
async fn talk(
    stream: Box<dyn Talk>,
    requests: &mut mpsc::UnboundedReceiver<Request>,
    events: &mpsc::UnboundedSender<GuardEvent>,
) -> std::ops::ControlFlow<()> {
    let (reading, mut writing) = tokio::io::split(stream);
    let mut lines = BufReader::new(reading).lines();
    let mut pings = tokio::time::interval(PING);
    let (mut owed, mut oldest, mut up) = (0usize, Instant::now(), false);
    loop {
        let request = tokio::select! {
            biased;
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return std::ops::ControlFlow::Continue(()) };
                let Ok(reply) = serde_json::from_str::<Reply>(&line) else {
                    tracing::error!("the guard's answer cannot be read: end the guard of the other release");
                    return std::ops::ControlFlow::Continue(());
                };
                owed = owed.saturating_sub(1);
                oldest = Instant::now();
                let event = if up { GuardEvent::Counts(reply.entries) } else { GuardEvent::Up(reply.entries) };
                up = true;
                let refused = reply.unknown.into_iter().map(|(of, names)| GuardEvent::Unknown(of, names));
                for event in std::iter::once(event).chain(refused) {
                    if events.send(event).is_err() {
                        return std::ops::ControlFlow::Break(());
                    }
                }
                continue;
            }
            request = requests.recv() => match request {
                Some(request) => request,
                None => return std::ops::ControlFlow::Break(()),
            },
            _ = pings.tick() => {
                if owed > 0 && oldest.elapsed() >= SILENCE {
                    if up && events.send(GuardEvent::Lost).is_err() {
                        return std::ops::ControlFlow::Break(());
                    }
                    up = false;
                    continue;
                }
                Request::Status {}
            }
        };
        if owed == 0 {
            oldest = Instant::now();
        }
        owed += 1;
        let Ok(mut text) = serde_json::to_vec(&request) else { continue };
        text.push(b'\n');
        let sent = tokio::time::timeout(SILENCE, writing.write_all(&text)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return std::ops::ControlFlow::Continue(());
        }
    }
}
