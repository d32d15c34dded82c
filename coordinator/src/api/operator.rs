//! `regent.operator.v1`: what operators and their tools can ask.
//!
//! ```text
//!  mutation ─► auth ─► parse ─► propose ─► applied at the leader ─► index, or the rule that refused
//!  read     ─► auth ─► linearize (unless stale_ok) ─► applied state here
//!  status, why ─► auth ─► the leader's evidence, else this coordinator's own
//! ```

use std::time::Duration;

use regent_core::entry::{Entry, FORMAT, Record};
use regent_core::id::{ApplicationId, LogIndex, RequestId};
use regent_proto::operator::v1 as wire;
use tokio::time::Instant;

use super::Parts;
use super::status::{Fault, outcome};
use crate::node::Node;
use crate::replica::{Leadership, ProposeError};

mod application;
mod audit;
mod cluster;
mod document;
mod drill;
pub(in crate::api) mod failover;
mod forward;
mod intervene;
mod limit;
mod looking;
mod members;
pub(in crate::api) mod plan;
mod readiness;
mod recovery;
mod report;
mod run;
mod sight;
mod switchover;
mod view;

use forward::Leader;

/// Longest accepted request id.
const REQUEST_ID_LIMIT: usize = 64;
/// Longest reason.
const REASON_LIMIT: usize = 500;
/// How long an answer waits until what it changed is applied here too.
const CATCH_UP: Duration = Duration::from_secs(2);

/// The four services. Cheap to clone.
#[derive(Clone)]
pub struct Operators {
    parts: Parts,
    leader: Leader,
}

impl Operators {
    /// Over the replicated state and the evidence of this process.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let leader = Leader::new(parts.tls.clone());
        Self { parts, leader }
    }

    const fn node(&self) -> &Node {
        &self.parts.node
    }

    fn leadership(&self) -> Leadership {
        self.node().replica.leadership().borrow().clone()
    }

    fn view(&self) -> wire::View {
        let leadership = self.leadership();
        let wall = self.node().wall();
        self.node().replica.read(|state| view::view(state, &leadership, Instant::now(), wall))
    }

    /// Proposes a mutation under its request id; the state machine applies it once.
    async fn propose(&self, request: RequestId, subject: &str, entry: Entry) -> Result<u64, Fault> {
        let record = Record { format: FORMAT, at: self.node().wall(), request: Some(request), entry };
        let applied = self.node().replica.propose(record).await.map_err(|error| self.fault(error))?;
        let index = outcome(applied, subject)?;
        self.catch_up(LogIndex(index)).await;
        Ok(index)
    }

    /// Whoever changed something here reads it here. Not awaited for long: the change itself is committed.
    async fn catch_up(&self, index: LogIndex) {
        let mut applied = self.node().replica.applied();
        let _ = tokio::time::timeout(CATCH_UP, applied.wait_for(|reached| *reached >= index)).await;
    }

    /// Waits until this coordinator has applied all that was committed before, unless stale is good enough.
    async fn fresh(&self, stale_ok: bool) -> Result<(), Fault> {
        if stale_ok {
            return Ok(());
        }
        self.node().replica.linearize().await.map_err(|error| self.fault(error))
    }

    fn fault(&self, error: ProposeError) -> Fault {
        let coordinator = self.node().id.0;
        match error {
            ProposeError::NoQuorum => {
                let leader = self.leadership().leader;
                let address = |id| self.node().replica.read(|state| Some(state.coordinators.get(&id)?.grpc.clone()));
                Fault::NoQuorum { coordinator, leader: leader.and_then(address) }
            }
            source @ (ProposeError::Storage(_) | ProposeError::Garbled(_)) => Fault::Internal { coordinator, source },
        }
    }

    /// An application that is named must exist here; the state machine checks it once more.
    fn known(&self, name: &str) -> Result<ApplicationId, Fault> {
        let id = application_id(name)?;
        let exists = self.node().replica.read(|state| state.applications.contains_key(&id));
        if exists { Ok(id) } else { Err(unknown_application(name)) }
    }

    /// Empty means everything.
    fn known_or_all(&self, name: &str) -> Result<Option<ApplicationId>, Fault> {
        if name.is_empty() { Ok(None) } else { self.known(name).map(Some) }
    }
}

fn application_id(name: &str) -> Result<ApplicationId, Fault> {
    ApplicationId::new(name).map_err(|error| Fault::Field { field: "application", problem: error.to_string() })
}

fn unknown_application(name: &str) -> Fault {
    Fault::Unknown { kind: "application", name: name.to_owned() }
}

/// Every mutation carries one, so that repeating it after a lost answer is safe.
fn request_id(given: &str) -> Result<RequestId, Fault> {
    let good =
        !given.is_empty() && given.len() <= REQUEST_ID_LIMIT && given.bytes().all(|byte| byte.is_ascii_graphic());
    if good {
        return Ok(RequestId(given.to_owned()));
    }
    let problem =
        format!("give an id of 1 to {REQUEST_ID_LIMIT} visible ASCII characters, e.g. a UUID, new for each mutation");
    Err(Fault::Field { field: "request_id", problem })
}

/// What others will read in the audit.
fn reason(given: &str) -> Result<String, Fault> {
    let text = given.trim();
    let plain = !text.chars().any(char::is_control);
    if plain && (1..=REASON_LIMIT).contains(&text.chars().count()) {
        return Ok(text.to_owned());
    }
    let problem = format!("say why, in one line of up to {REASON_LIMIT} characters; others will read it");
    Err(Fault::Field { field: "reason", problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_required_and_bounded() {
        assert!(request_id("0b5c8e0e-6a0d-4a54-9d0c-0a4f6cf7b2f5").is_ok());
        for bad in ["", "with space", "ümlaut", &"x".repeat(65)] {
            assert!(request_id(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
