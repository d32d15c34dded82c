//! Asks until everyone gives the new answer.
//!
//! Each server has its own rhythm: asked at once, again after 100 ms while it gives an old answer, and no more once it
//! has given the new one. A server that fails twice in a row counts as unreachable and holds nobody up: the DNS server of
//! a dead region must not block the failover out of it. It is asked on while others are awaited, and is listed at the
//! end as not cleared: apart from those that gave an old answer, and told from those that answered with an error.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::Instant;

use super::wire::{self, WireError};
use crate::driver::{DriverError, StaleAnswer};

/// Bounds one look at one server.
const LOOK_LIMIT: Duration = Duration::from_millis(300);
/// Between two looks at a server that gave an old answer.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Failures in a row after which a server counts as unreachable.
const UNREACHABLE_AFTER: u32 = 2;

/// What must be answered, by whom, and until when.
pub(super) struct Expectation<'a> {
    pub(super) name: &'a Name,
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) authorities: &'a [SocketAddr],
    pub(super) resolvers: &'a [SocketAddr],
    pub(super) deadline: Duration,
}

/// One look at one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// The addresses that it gives; none if it says that there are none.
    Answer(BTreeSet<IpAddr>),
    /// It answers, but with an error.
    Error(ResponseCode),
    /// Nothing useful came back. Refused: certainly nobody listens.
    Silent { reason: String, refused: bool },
}

enum State {
    /// Not known yet: not asked, or failed once.
    Open,
    Old(BTreeSet<IpAddr>),
    New,
    /// It failed again and again; whether at least an error came back from it the last time.
    Unreachable {
        answered: bool,
    },
}

struct Server {
    address: SocketAddr,
    authority: bool,
    state: State,
    failures: u32,
    /// The last moment at which it was seen to give an old answer.
    old_until: Option<Duration>,
    cleared_after: Duration,
}

/// Waits until every server that can be reached gives exactly the new addresses, and at least one authority does.
pub(super) async fn until_new(expected: &Expectation<'_>) -> Result<Vec<StaleAnswer>, DriverError> {
    let started = Instant::now();
    let mut servers = servers(expected);
    let look = |index: usize, server: &Server, delay: Duration| {
        let (address, recursive) = (server.address, !server.authority);
        async move {
            tokio::time::sleep(delay).await;
            (index, look(address, expected.name, recursive).await)
        }
    };
    let mut looks: FuturesUnordered<_> =
        servers.iter().enumerate().map(|(index, server)| look(index, server, Duration::ZERO)).collect();
    while let Ok(Some((index, seen))) = tokio::time::timeout_at(started + expected.deadline, looks.next()).await {
        let Some(server) = servers.get_mut(index) else { continue };
        let again = server.take(seen, &expected.addresses, started.elapsed());
        if let Some(delay) = again {
            looks.push(look(index, server, delay));
        }
        let settled = servers.iter().all(|server| matches!(server.state, State::New | State::Unreachable { .. }));
        let confirmed = servers.iter().any(|server| server.authority && matches!(server.state, State::New));
        if settled && confirmed {
            return Ok(stale_answers(&servers));
        }
    }
    Err(too_late(expected, &servers))
}

/// Authorities first; a server that is listed twice is asked once.
fn servers(expected: &Expectation<'_>) -> Vec<Server> {
    let mut seen = BTreeSet::new();
    let listed = expected.authorities.iter().map(|address| (address, true));
    listed
        .chain(expected.resolvers.iter().map(|address| (address, false)))
        .filter(|(address, _)| seen.insert(**address))
        .map(|(address, authority)| Server {
            address: *address,
            authority,
            state: State::Open,
            failures: 0,
            old_until: None,
            cleared_after: Duration::ZERO,
        })
        .collect()
}

impl Server {
    /// Takes in a look; gives the delay to the next one, if there must be one.
    fn take(&mut self, seen: Look, wanted: &BTreeSet<IpAddr>, now: Duration) -> Option<Duration> {
        match seen {
            Look::Answer(addresses) if addresses == *wanted => {
                self.state = State::New;
                self.cleared_after = now;
                None
            }
            Look::Answer(addresses) => {
                self.state = State::Old(addresses);
                self.failures = 0;
                self.old_until = Some(now);
                Some(LOOK_INTERVAL)
            }
            Look::Error(_) | Look::Silent { .. } => {
                let answered = matches!(seen, Look::Error(_));
                self.failures += 1;
                if self.failures < UNREACHABLE_AFTER {
                    return Some(Duration::ZERO);
                }
                self.state = State::Unreachable { answered };
                Some(LOOK_INTERVAL)
            }
        }
    }
}

fn stale_answers(servers: &[Server]) -> Vec<StaleAnswer> {
    servers
        .iter()
        .filter_map(|server| {
            let (lasted, cleared, reached) = match server.state {
                State::New => server.old_until.map(|_| (server.cleared_after, true, true))?,
                // What it gives now is not known; only what it was seen to give counts as an old answer.
                State::Unreachable { answered } => (server.old_until.unwrap_or_default(), false, answered),
                State::Open | State::Old(_) => return None,
            };
            Some(StaleAnswer { server: server.address.to_string(), lasted, cleared, reached })
        })
        .collect()
}

fn too_late(expected: &Expectation<'_>, servers: &[Server]) -> DriverError {
    let (name, seconds) = (expected.name, expected.deadline.as_secs_f32());
    let old: Vec<String> = servers
        .iter()
        .filter_map(|server| match &server.state {
            State::Old(addresses) => Some(format!("{} gives {}", server.address, list(addresses))),
            State::Open | State::New | State::Unreachable { .. } => None,
        })
        .collect();
    if old.is_empty() {
        let authorities: Vec<String> = expected.authorities.iter().map(ToString::to_string).collect();
        let message = format!(
            "no authority for {name} answered within {seconds} s ({}); see that one runs and is reachable",
            authorities.join(", ")
        );
        return DriverError::retryable("dns-no-authority", message);
    }
    let message = format!(
        "{name} should give {}, but after {seconds} s: {}; see whether these servers follow the primary, or wait for \
         the old TTL",
        list(&expected.addresses),
        old.join("; ")
    );
    DriverError::retryable("dns-still-old", message)
}

pub(super) fn list(addresses: &BTreeSet<IpAddr>) -> String {
    if addresses.is_empty() {
        return "no address".to_owned();
    }
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Asks one server for both kinds of address.
pub(super) async fn look(server: SocketAddr, name: &Name, recursive: bool) -> Look {
    let ask = |kind| async move {
        let question = wire::question(name, kind, recursive);
        wire::ask(server, &question, LOOK_LIMIT).await
    };
    let answers = match futures::try_join!(ask(RecordType::A), ask(RecordType::AAAA)) {
        Ok((four, six)) => [four, six],
        Err(error) => return silent(&error),
    };
    let mut addresses = BTreeSet::new();
    for answer in &answers {
        if !matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain) {
            return Look::Error(answer.response_code);
        }
        for record in &answer.answers {
            match record.data {
                RData::A(A(address)) => drop(addresses.insert(address.into())),
                RData::AAAA(AAAA(address)) => drop(addresses.insert(address.into())),
                _ => {}
            }
        }
    }
    Look::Answer(addresses)
}

fn silent(error: &WireError) -> Look {
    Look::Silent { reason: error.to_string(), refused: error.is_refused() }
}
