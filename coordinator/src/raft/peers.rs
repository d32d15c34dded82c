//! The other coordinators: lines to them, and who they are.
//!
//! A raft id is bound to the identity of a data directory. A coordinator whose directory was wiped has forgotten
//! its votes and acknowledgements; under its old id it could help to elect a leader without committed entries. So
//! the same id with another identity is refused, whoever asks and whoever answers (safety.md, "Identity and
//! numbers").

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regent_core::id::{CoordinatorId, IdentityId};
use regent_proto::line::{Line, line};
use regent_proto::peer::v1::peer_service_client::PeerServiceClient;
use regent_proto::peer::v1::{ObserveRequest, RelayRequest};
use regent_proto::tls::{ChannelOptions, Identity, Tls, TlsError, peer_identity};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status};

use super::distance::Distances;
use super::options::RaftOptions;
use crate::replica::Shared;

const COORDINATOR: &str = "regent-coordinator";
const IDENTITY: &str = "regent-identity";
const EXPECTS: &str = "regent-expects";

/// Largest message: a batch of entries with large documents in them.
pub(crate) const MESSAGE_LIMIT: usize = 64 << 20;

/// Why a peer gave no answer that counts.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Neither the configuration nor the membership says where it is.
    #[error("the address of coordinator {0} is not known")]
    NoAddress(CoordinatorId),
    /// Its address or our certificates cannot be used.
    #[error("no channel to coordinator {id}")]
    Channel {
        /// To whom.
        id: CoordinatorId,
        /// Why.
        source: TlsError,
    },
    /// It did not answer in time.
    #[error("coordinator {id} did not answer within {after:?}")]
    Timeout {
        /// Who.
        id: CoordinatorId,
        /// After how long.
        after: Duration,
    },
    /// It could not be reached, or refused.
    #[error("coordinator {id} gave no answer")]
    Status {
        /// Who.
        id: CoordinatorId,
        /// What it said, or why it could not.
        #[source]
        status: Box<Status>,
    },
    /// Another data directory answers under its id.
    #[error("coordinator {id} answers with another identity than the group knows")]
    Stranger {
        /// Under which id.
        id: CoordinatorId,
    },
}

/// Makes a line to a coordinator at an address; it connects when it is first used, and again after every loss.
pub type DialPeer = Arc<dyn Fn(CoordinatorId, &str, &RaftOptions) -> Result<Line, TlsError> + Send + Sync>;

/// By this coordinator's certificate, to exactly the coordinator that is meant.
pub(super) fn over_tls(tls: Tls) -> DialPeer {
    Arc::new(move |id, address, raft| {
        let mut options = ChannelOptions::heartbeat(raft.heartbeat);
        options.connect_timeout = raft.connect_timeout;
        tls.channel(address, options.expecting(Identity::Coordinator(id.0))).map(line)
    })
}

/// Bulk goes another way than heartbeats, so that a snapshot does not hold them up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Control,
    Bulk,
}

/// The other coordinators, as this one sees them.
pub struct Peers {
    me: CoordinatorId,
    identity: IdentityId,
    dial: DialPeer,
    options: RaftOptions,
    shared: Arc<Shared>,
    lines: Mutex<BTreeMap<(CoordinatorId, Lane), (String, Line)>>,
    /// Learned from the membership: coordinators that the configuration does not name.
    members: Mutex<BTreeMap<CoordinatorId, String>>,
    /// Whom we could not reach last; each change is logged once.
    unreachable: Mutex<BTreeSet<CoordinatorId>>,
    /// Identities that were refused; each is logged once.
    refused: Mutex<BTreeSet<(CoordinatorId, String)>>,
    /// How far the others are.
    distances: Distances,
}

impl Peers {
    pub(super) fn new(options: RaftOptions, identity: IdentityId, dial: DialPeer, shared: Arc<Shared>) -> Self {
        Self {
            me: options.id,
            identity,
            dial,
            options,
            shared,
            lines: Mutex::default(),
            members: Mutex::default(),
            unreachable: Mutex::default(),
            refused: Mutex::default(),
            distances: Distances::default(),
        }
    }

    /// Tells another coordinator, in practice the leader, what is heard from agents.
    ///
    /// # Errors
    /// If it gave no answer that counts.
    pub async fn observe(&self, to: CoordinatorId, request: ObserveRequest) -> Result<(), PeerError> {
        let mut client = self.client(to, Lane::Control)?;
        let call = client.observe(self.request(to, request));
        self.call(to, self.options.rpc_timeout, call).await.map(|_| ())
    }

    /// Asks another coordinator to send a step down its stream to an agent. False if it has no such stream.
    ///
    /// # Errors
    /// If it gave no answer that counts; then the step may or may not have been sent.
    pub async fn relay(&self, to: CoordinatorId, request: RelayRequest) -> Result<bool, PeerError> {
        let mut client = self.client(to, Lane::Control)?;
        let call = client.relay(self.request(to, request));
        Ok(self.call(to, self.options.rpc_timeout, call).await?.sent)
    }

    pub(super) fn options(&self) -> &RaftOptions {
        &self.options
    }

    pub(super) const fn distances(&self) -> &Distances {
        &self.distances
    }

    /// Everyone but this coordinator, from the configuration and the membership.
    pub(super) fn others(&self) -> BTreeSet<CoordinatorId> {
        let members: Vec<CoordinatorId> = lock(&self.members).keys().copied().collect();
        self.options.peers.keys().copied().chain(members).filter(|id| *id != self.me).collect()
    }

    pub(super) fn learn(&self, id: u64, address: &str) {
        lock(&self.members).insert(CoordinatorId(id), address.to_owned());
    }

    /// A client on the kept line. The configuration goes before what the membership says, which only a leader is told of;
    /// to a leader that joined later a follower finds the way by what that one said of itself.
    pub(super) fn client(&self, id: CoordinatorId, lane: Lane) -> Result<PeerServiceClient<Line>, PeerError> {
        let configured = self.options.peers.get(&id).cloned();
        let told = || self.shared.read(|state| state.coordinators.get(&id).map(|coordinator| coordinator.grpc.clone()));
        let known = configured.or_else(|| lock(&self.members).get(&id).cloned()).or_else(told);
        let address = known.filter(|address| !address.is_empty()).ok_or(PeerError::NoAddress(id))?;
        let mut lines = lock(&self.lines);
        let line = match lines.get(&(id, lane)) {
            Some((known, line)) if *known == address => line.clone(),
            _ => {
                let line =
                    (self.dial)(id, &address, &self.options).map_err(|source| PeerError::Channel { id, source })?;
                lines.insert((id, lane), (address, line.clone()));
                line
            }
        };
        Ok(PeerServiceClient::new(line)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT))
    }

    /// A request that says who asks, and who should answer.
    pub(super) fn request<T>(&self, to: CoordinatorId, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert(COORDINATOR, MetadataValue::from(self.me.0));
        insert(metadata, IDENTITY, &self.identity);
        if let Some(expected) = self.known(to) {
            insert(metadata, EXPECTS, &expected);
        }
        request
    }

    /// Awaits an answer, and takes it only from whom the group knows under that id.
    pub(super) async fn call<T>(
        &self,
        id: CoordinatorId,
        timeout: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, PeerError> {
        let answer = match tokio::time::timeout(timeout, call).await {
            Err(_) => Err(PeerError::Timeout { id, after: timeout }),
            Ok(Err(status)) => Err(PeerError::Status { id, status: Box::new(status) }),
            Ok(Ok(response)) => {
                let named = response.metadata().get(IDENTITY).and_then(|value| value.to_str().ok());
                if self.accepts(id, named) { Ok(response.into_inner()) } else { Err(PeerError::Stranger { id }) }
            }
        };
        self.note(id, &answer);
        answer
    }

    /// Checks who sent a call of raft: a coordinator, under its own id, with the identity that the group knows, and
    /// meaning us.
    pub(crate) fn admit<T>(&self, request: &Request<T>) -> Result<CoordinatorId, Status> {
        let (id, identity) = self.caller(request)?;
        if identity.is_none() {
            return Err(Status::permission_denied(format!("coordinator {id} does not say which identity it has")));
        }
        Ok(id)
    }

    /// As [`Self::admit`], for calls that are not raft's: whoever does not name its identity is taken by its
    /// certificate alone.
    pub(crate) fn admit_colleague<T>(&self, request: &Request<T>) -> Result<CoordinatorId, Status> {
        self.caller(request).map(|(id, _)| id)
    }

    fn caller<'r, T>(&self, request: &'r Request<T>) -> Result<(CoordinatorId, Option<&'r str>), Status> {
        let Identity::Coordinator(certified) = peer_identity(request)? else {
            return Err(Status::permission_denied("only coordinators may call this"));
        };
        let text = |key: &str| request.metadata().get(key).and_then(|value| value.to_str().ok());
        let id = CoordinatorId(certified);
        if text(COORDINATOR).is_some_and(|named| named != certified.to_string()) {
            return Err(Status::permission_denied(format!("the certificate is of coordinator {id}")));
        }
        let identity = text(IDENTITY);
        if identity.is_some() && !self.accepts(id, identity) {
            return Err(self.sign_status(Status::failed_precondition(format!(
                "the group knows coordinator {id} under another identity: remove it, and add it anew under another id"
            ))));
        }
        if text(EXPECTS).is_some_and(|expected| expected != self.identity.0) {
            self.log_wiped(id);
            return Err(self.sign_status(Status::failed_precondition(format!(
                "coordinator {} has another identity than you expect: remove it, and add it anew under another id",
                self.me
            ))));
        }
        Ok((id, identity))
    }

    /// Says who answers.
    pub(crate) fn sign<T>(&self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        insert(response.metadata_mut(), IDENTITY, &self.identity);
        response
    }

    fn sign_status(&self, mut status: Status) -> Status {
        insert(status.metadata_mut(), IDENTITY, &self.identity);
        status
    }

    fn known(&self, id: CoordinatorId) -> Option<IdentityId> {
        self.shared.read(|state| state.coordinators.get(&id).map(|coordinator| coordinator.identity.clone()))
    }

    fn accepts(&self, id: CoordinatorId, named: Option<&str>) -> bool {
        let Some(named) = named else { return false };
        if self.shared.read(|state| state.removed.contains_key(&id)) {
            if lock(&self.refused).insert((id, named.to_owned())) {
                tracing::warn!(
                    coordinator = id.0,
                    identity = named,
                    "A coordinator that was removed still speaks: end it"
                );
            }
            return false;
        }
        match self.known(id) {
            Some(known) if known.0 != named => {
                if lock(&self.refused).insert((id, named.to_owned())) {
                    tracing::error!(
                        coordinator = id.0,
                        identity = named,
                        known = %known,
                        "A coordinator has another identity than the group knows: it is refused until it is \
                         removed from the group and added anew under another id"
                    );
                }
                false
            }
            _ => true,
        }
    }

    fn log_wiped(&self, by: CoordinatorId) {
        if lock(&self.refused).insert((self.me, self.identity.0.clone())) {
            tracing::error!(
                coordinator = self.me.0,
                by = by.0,
                identity = %self.identity,
                "The group knows this coordinator under another identity: remove it, and add it anew under another id"
            );
        }
    }

    /// Logs changes only: raft asks ten times a second.
    fn note<T>(&self, id: CoordinatorId, answer: &Result<T, PeerError>) {
        let lost = match answer {
            Ok(_) => None,
            Err(PeerError::Status { status, .. }) if std::error::Error::source(&**status).is_none() => {
                // It answered, with a refusal; and who it is may be the reason.
                if let Some(named) = status.metadata().get(IDENTITY).and_then(|value| value.to_str().ok()) {
                    self.accepts(id, Some(named));
                }
                None
            }
            Err(error @ (PeerError::Timeout { .. } | PeerError::Status { .. })) => Some(error),
            Err(PeerError::NoAddress(_) | PeerError::Channel { .. } | PeerError::Stranger { .. }) => return,
        };
        match lost {
            None => {
                if lock(&self.unreachable).remove(&id) {
                    tracing::info!(coordinator = id.0, "A coordinator can be reached again");
                }
            }
            Some(error) => {
                if lock(&self.unreachable).insert(id) {
                    tracing::warn!(coordinator = id.0, error = %with_sources(error), "A coordinator cannot be reached");
                }
            }
        }
    }
}

/// An error and what lies under it, for a log line, each once: tonic repeats what it wraps.
pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = match error.downcast_ref::<Status>() {
            Some(status) => status.message().to_owned(),
            None => error.to_string(),
        };
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}

fn insert(metadata: &mut MetadataMap, key: &'static str, identity: &IdentityId) {
    // A UUID is ASCII; anything else is not sent, and refused for its absence.
    if let Ok(value) = MetadataValue::try_from(identity.0.as_str()) {
        metadata.insert(key, value);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use regent_core::entry::Coordinator;
    use regent_core::id::RegionId;
    use regent_core::state::State;

    use super::*;

    /// A line to nowhere: who makes it has known the address.
    fn to_nowhere(asked: &Arc<Mutex<Vec<String>>>) -> DialPeer {
        let asked = asked.clone();
        Arc::new(move |_, address, _| {
            lock(&asked).push(address.to_owned());
            Err(TlsError::NotACertificate { path: address.into() })
        })
    }

    #[test]
    fn one_that_joined_later_is_found_by_what_it_said_of_itself() {
        let mut state = State::default();
        let joined = |id, grpc: &str| Coordinator {
            id,
            identity: IdentityId("x".to_owned()),
            region: RegionId::new("west").unwrap(),
            grpc: grpc.to_owned(),
            dashboard: String::new(),
            dns: String::new(),
        };
        for (id, grpc) in [(2, "moved:7400"), (4, "four:7400"), (5, "")] {
            state.coordinators.insert(CoordinatorId(id), joined(CoordinatorId(id), grpc));
        }
        let configured = [(1, "one:7400"), (2, "two:7400")].map(|(id, at)| (CoordinatorId(id), at.to_owned()));
        let options = RaftOptions::new(CoordinatorId(1), configured.into(), "/nowhere".into());
        let asked = Arc::default();
        let own = IdentityId("own".to_owned());
        let peers = Peers::new(options, own, to_nowhere(&asked), Shared::new(state));
        for id in [2, 4] {
            assert!(matches!(peers.client(CoordinatorId(id), Lane::Control), Err(PeerError::Channel { .. })));
        }
        for id in [3, 5] {
            assert!(matches!(peers.client(CoordinatorId(id), Lane::Control), Err(PeerError::NoAddress(_))));
        }
        assert_eq!(*lock(&asked), ["two:7400", "four:7400"], "the configuration goes first");
    }
}
