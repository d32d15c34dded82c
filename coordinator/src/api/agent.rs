//! The server side of the agents' streams.

use std::time::Duration;

use regent_core::copied;
use regent_core::entry::{Agent, Entry};
use regent_core::evidence::Evidence;
use regent_core::id::{ClusterId, Incarnation};
use regent_core::state::{Applied, State};
use regent_proto::agent::v1::agent_service_server::AgentService;
use regent_proto::agent::v1::connect_request::Body as Said;
use regent_proto::agent::v1::connect_response::Body;
use regent_proto::agent::v1::{Answer, ConnectRequest, ConnectResponse, Hello, Refusal, Stamp};
use regent_proto::tls::{Identity, peer_identity};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::observer::{Post, STREAM_ROOM};

pub mod convert;
pub(crate) mod stored;
mod text;

/// How long a new stream may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries to register an agent while there is no quorum.
const REGISTER_AGAIN: Duration = Duration::from_millis(500);

/// Serves agents.
pub struct Agents {
    post: Post,
}

impl Agents {
    /// On top of the observation post.
    #[must_use]
    pub const fn new(post: Post) -> Self {
        Self { post }
    }
}

type Sender = mpsc::Sender<Result<ConnectResponse, Status>>;

#[tonic::async_trait]
impl AgentService for Agents {
    type ConnectStream = ReceiverStream<Result<ConnectResponse, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let Identity::Agent(certified) = peer_identity(&request)? else {
            return Err(Status::permission_denied("this service is for agents; use an agent's certificate"));
        };
        let mut stream = request.into_inner();
        let post = self.post.clone();
        let (sender, receiver) = mpsc::channel(STREAM_ROOM);
        tokio::spawn(async move {
            if let Err(status) = speak(&post, &certified, &mut stream, &sender).await {
                warn!(cluster = certified, %status, "an agent's stream ended");
                // The agent is gone or will read it; nothing else is to be done.
                let _ = sender.try_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

async fn speak(
    post: &Post,
    certified: &str,
    stream: &mut Streaming<ConnectRequest>,
    sender: &Sender,
) -> Result<(), Status> {
    let first = tokio::time::timeout(HELLO_WITHIN, stream.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no Hello came"))??;
    let Some(Said::Hello(hello)) = first.and_then(|first| first.body) else {
        return Err(Status::invalid_argument("the first message must be Hello"));
    };
    let cluster = accept(post, certified, &hello)?;
    if let Some(refusal) = foreign_installation(post, &cluster, &hello) {
        // Before the stream is attached: a stranger with the right certificate must not push the agent out.
        let _ = sender.try_send(Ok(ConnectResponse { body: Some(Body::Refusal(refusal)) }));
        return Err(Status::failed_precondition("this cluster belongs to another installation of the agent"));
    }
    if let Some(refusal) = doubled(post, &cluster, &hello) {
        warn!(%cluster, reason = refusal.message, "a second process of an agent was refused");
        let _ = sender.try_send(Ok(ConnectResponse { body: Some(Body::Refusal(refusal)) }));
        return Err(Status::failed_precondition("another process of this agent is registered"));
    }
    // Welcome is the first message: what changes while the stream is being attached is offered again afterwards.
    let welcome = ConnectResponse { body: Some(Body::Welcome(post.welcome(&cluster))) };
    sender.try_send(Ok(welcome)).map_err(|_| Status::unavailable("the stream is not being read"))?;
    let number = post.attach(&cluster, sender.clone());
    post.note_stored(&cluster, &hello);
    info!(%cluster, release = hello.release, "an agent connected");
    let process = (Incarnation(hello.incarnation), hello.boot.clone());
    let registering = tokio::spawn(register(post.clone(), hello, cluster.clone(), sender.clone()));
    let ended = listen(post, &cluster, &process, stream).await;
    registering.abort();
    post.detach(&cluster, number);
    info!(%cluster, "an agent's stream closed");
    ended
}

async fn listen(
    post: &Post,
    cluster: &ClusterId,
    (incarnation, boot): &(Incarnation, String),
    stream: &mut Streaming<ConnectRequest>,
) -> Result<(), Status> {
    while let Some(message) = stream.message().await? {
        match message.body {
            Some(Said::Heartbeat(heartbeat)) => post.heartbeat(cluster, boot, &heartbeat),
            Some(Said::StepStatus(status)) if post.speaks(cluster, *incarnation, boot) => {
                post.step_status(cluster, status);
            }
            // Of a copy it would confirm a fence that only the copy has. Once it is registered the step is sent again, and
            // answered from the record.
            Some(Said::StepStatus(_)) => {}
            Some(Said::Hello(_)) => return Err(Status::invalid_argument("Hello came twice")),
            None => return Err(Status::invalid_argument("an empty message came")),
        }
    }
    Ok(())
}

/// The certificate, and nothing else, says which cluster speaks.
fn accept(post: &Post, certified: &str, hello: &Hello) -> Result<ClusterId, Status> {
    if hello.cluster != certified {
        return Err(Status::permission_denied(format!(
            "the certificate is that of agent {certified}, the message says {:?}",
            hello.cluster
        )));
    }
    let group = post.node().replica.read(|state| state.group.0.clone());
    if group.is_empty() {
        return Err(Status::unavailable("the group does not exist yet; try again"));
    }
    if !hello.group.is_empty() && hello.group != group {
        return Err(Status::failed_precondition(format!(
            "this agent belongs to group {}, this is {group}; an agent changes its group only with a fresh data directory",
            hello.group
        )));
    }
    if hello.installation.is_empty() {
        return Err(Status::invalid_argument("the installation id is missing"));
    }
    if let Some(field) = text::too_long(hello) {
        let limit = text::TEXT_LIMIT;
        return Err(Status::invalid_argument(format!("{field} is longer than {limit} bytes, or names too many")));
    }
    let agent = convert::agent(hello).map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(agent.cluster)
}

fn foreign_installation(post: &Post, cluster: &ClusterId, hello: &Hello) -> Option<Refusal> {
    let known =
        post.node().replica.read(|state| state.agents.get(cluster).map(|agent| agent.installation.0.clone()))?;
    (known != hello.installation).then(|| Refusal {
        code: "foreign-installation".to_owned(),
        message: format!(
            "cluster {cluster} belongs to installation {known}; bring its data directory back, or, if that is gone for good, \
             take this one: regentctl rejoin APP {cluster} --installation {}",
            hello.installation
        ),
    })
}

/// An older process, or a copy of one that is heard here: it must not push that one out.
fn doubled(post: &Post, cluster: &ClusterId, hello: &Hello) -> Option<Refusal> {
    let incarnation = Incarnation(hello.incarnation);
    let known = post.node().replica.read(|state| state.agents.get(cluster).cloned())?;
    let now = post.node().now();
    let copied = || {
        let node = post.node();
        node.replica.read(|state| node.see(|evidence| copied::lives(state, evidence, now, cluster, &hello.boot)))
    };
    let why = known.overtakes(incarnation, &hello.boot).or_else(copied)?;
    Some(Refusal { code: "agent-doubled".to_owned(), message: why })
}

/// Why the registered process of an agent must not be followed by one in another boot now, if it must not: by what is heard
/// here, and by what the others relay if this coordinator leads.
pub(crate) fn refuses(post: &Post, agent: &Agent) -> Option<Applied> {
    let node = post.node();
    let now = node.now();
    let leads = node.replica.leadership().borrow().is_leader();
    let look = |state: &State, evidence: &Evidence| {
        if leads {
            copied::refuses(state, evidence, now, agent)
        } else {
            copied::lives(state, evidence, now, &agent.cluster, &agent.boot)
        }
    };
    let why = node.replica.read(|state| node.see(|evidence| look(state, evidence)));
    why.map(|detail| Applied::Refused { rule: "agent-doubled".to_owned(), detail })
}

/// Commits who the agent is, until that is done or refused; without it there are neither receipts nor grants.
async fn register(post: Post, hello: Hello, cluster: ClusterId, sender: Sender) {
    let Ok(agent) = convert::agent(&hello) else { return };
    let known = || post.node().replica.read(|state| state.agents.get(&cluster) == Some(&agent));
    let mut waited = false;
    loop {
        if known() {
            if waited {
                wake(&hello, &sender);
            }
            return;
        }
        waited = true;
        let record = post.proposals().record(Entry::AgentRegistered(agent.clone()));
        let answer = match refuses(&post, &agent) {
            Some(refused) => Ok(refused),
            None => post.node().replica.propose(record).await,
        };
        match answer {
            Ok(Applied::Done(_) | Applied::Repeated(_) | Applied::Ignored(_)) if known() => continue,
            Ok(Applied::Done(_) | Applied::Repeated(_) | Applied::Ignored(_)) => {}
            Ok(Applied::Refused { rule, detail }) => {
                warn!(%cluster, rule, detail, "an agent was refused");
                let refusal = Refusal { code: rule, message: detail };
                // If the stream is full or gone the agent learns nothing, and gets nothing either.
                let _ = sender.try_send(Ok(ConnectResponse { body: Some(Body::Refusal(refusal)) }));
                return;
            }
            Err(_) => {}
        }
        tokio::time::sleep(REGISTER_AGAIN).await;
    }
}

/// An answer to nothing. What the agent said before it was registered did not count; whoever has no receipt yet says it
/// again at once, and not at its next heartbeat.
fn wake(hello: &Hello, sender: &Sender) {
    let stamp = Stamp { installation: hello.installation.clone(), incarnation: hello.incarnation, number: 0 };
    let answer = Answer { stamp: Some(stamp), ..Answer::default() };
    // If the stream is full the agent beats by itself.
    let _ = sender.try_send(Ok(ConnectResponse { body: Some(Body::Answer(answer)) }));
}
