//! `kind: dns`: a name that points at the cluster that serves.
//!
//! With the embedded provider the coordinators answer from their applied state, and the answer has flipped when the step
//! begins: only what is really answered is verified. With RFC 2136 the records are changed first; and before a switchover keeps
//! writes out their TTL is shortened, so that no client holds the old answer for long.

mod facts;
mod guard;
mod rfc2136;
mod ttl;
mod verify;
mod wire;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};

use self::rfc2136::{Updated, Updater};
use self::verify::{Expectation, Look};
use super::{Done, Driver, DriverError, DriverResult, Found, Health, Probe, Redirect, Role};
use crate::config::DnsOptions;

/// Bounds a probe of one server.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// Old answers may always last this long.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(30);
/// Bounds the `verify` step: a name that was redirected is expected to answer right soon.
const VERIFY_DEADLINE: Duration = Duration::from_secs(5);

/// A name.
pub struct DnsDriver {
    options: DnsOptions,
    /// Authorities and the update server, each once.
    authorities: Vec<SocketAddr>,
    resolvers: Vec<SocketAddr>,
    updater: Option<Updater>,
    /// The configured name, or that of the last redirect.
    name: Mutex<Option<Name>>,
}

/// Parses a name and makes it absolute.
fn absolute(text: &str) -> Result<Name, DriverError> {
    let mut name = Name::from_utf8(text).map_err(|error| {
        DriverError::permanent("dns-configuration", format!("{text:?} is not a DNS name ({error}); correct it"))
    })?;
    name.set_fqdn(true);
    Ok(name)
}

impl DnsDriver {
    /// A driver for one name; `resolvers` are asked after a redirect beside the authorities.
    ///
    /// # Errors
    /// If the name, the zone or the key in the options is malformed.
    pub fn new(options: DnsOptions, resolvers: Vec<SocketAddr>) -> Result<Self, DriverError> {
        let updater = options.update.as_ref().map(Updater::new).transpose()?;
        let name = options.name.as_deref().map(absolute).transpose()?;
        let mut seen = BTreeSet::new();
        let authorities = options
            .authorities
            .iter()
            .copied()
            .chain(updater.as_ref().map(Updater::server))
            .filter(|server| seen.insert(*server))
            .collect();
        Ok(Self { options, authorities, resolvers, updater, name: Mutex::new(name) })
    }

    fn known_name(&self) -> Option<Name> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn deadline(&self, ttl: u32) -> Duration {
        let twice = Duration::from_secs(u64::from(ttl) * 2 + 10);
        self.options.timeout.unwrap_or_else(|| twice.max(SHORTEST_DEADLINE))
    }

    fn expectation<'a>(
        &'a self,
        name: &'a Name,
        addresses: &[std::net::IpAddr],
        deadline: Duration,
    ) -> Expectation<'a> {
        Expectation {
            name,
            addresses: addresses.iter().copied().collect(),
            authorities: &self.authorities,
            resolvers: &self.resolvers,
            deadline,
        }
    }

    /// What each authority says to a question that it should be able to answer.
    async fn looks(&self) -> Vec<Look> {
        if let Some(name) = self.known_name() {
            let name = &name;
            return join_all(self.authorities.iter().map(|server| verify::look(*server, name, false))).await;
        }
        // Before the first redirect the name is not known here: ask for the zone, or for anything.
        let (name, kind) = match &self.updater {
            Some(updater) => (updater.zone().clone(), RecordType::SOA),
            None => (Name::root(), RecordType::NS),
        };
        let any = self.updater.is_none();
        let question = &wire::question(&name, kind, false);
        join_all(self.authorities.iter().map(|server| async move {
            match wire::ask(*server, question, PROBE_LIMIT).await {
                // A server that refuses a name outside its zone works as it should.
                Ok(answer) if any || answer.response_code == ResponseCode::NoError => Look::Answer(BTreeSet::new()),
                Ok(answer) => Look::Error(answer.response_code),
                Err(error) => Look::Silent { reason: error.to_string(), refused: error.is_refused() },
            }
        }))
        .await
    }
}

#[async_trait]
impl Driver for DnsDriver {
    fn kind(&self) -> &'static str {
        "dns"
    }

    async fn probe(&self) -> Probe {
        let looks = self.looks().await;
        let mut words = Vec::new();
        let (mut answering, mut uncertain) = (0_usize, false);
        for (server, look) in self.authorities.iter().zip(&looks) {
            words.push(match look {
                Look::Answer(addresses) if addresses.is_empty() => {
                    answering += 1;
                    format!("{server} answers")
                }
                Look::Answer(addresses) => {
                    answering += 1;
                    format!("{server} gives {}", verify::list(addresses))
                }
                Look::Error(code) => format!("{server}: {code}"),
                Look::Silent { reason, refused } => {
                    uncertain |= !refused;
                    format!("{server}: {reason}")
                }
            });
        }
        let detail = words.join("; ");
        match (answering, uncertain) {
            (0, true) => Probe::without_answer(Health::Unknown, detail),
            (0, false) => Probe { role: Role::None, ..Probe::without_answer(Health::Failed, detail) },
            _ => Probe { role: Role::None, ..Probe::without_answer(Health::Healthy, detail) },
        }
    }

    async fn redirect(&self, redirect: &Redirect) -> DriverResult {
        let name = absolute(&redirect.name)?;
        if redirect.ttl_only {
            return self.change_ttl(&name, redirect).await;
        }
        if redirect.addresses.is_empty() {
            return Err(rfc2136::would_be_empty(&name));
        }
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.clone());
        let updated = match &self.updater {
            Some(updater) => Some(updater.redirect(&name, redirect).await?),
            None => None,
        };
        let expected = self.expectation(&name, &redirect.addresses, self.deadline(redirect.ttl));
        let stale_answers = verify::until_new(&expected).await?;
        let addresses = verify::list(&expected.addresses);
        let message = match updated {
            Some(Updated::Already) => format!("{name} already gave {addresses} by this epoch"),
            Some(Updated::Changed) => format!("{name} was changed to {addresses}, and answers so"),
            None => format!("{name} answers {addresses}"),
        };
        Ok(Done { already: updated == Some(Updated::Already), message, stale_answers, ..Done::default() })
    }

    async fn facts(&self) -> Option<Found> {
        Some(self.look_around().await)
    }

    async fn verify(&self) -> DriverResult {
        let Some(name) = self.known_name() else {
            let message = "the name is not known here before its first redirect; set `name` in agent.yaml";
            return Err(DriverError::permanent("dns-name-unknown", message));
        };
        let expected = self.expectation(&name, &self.options.addresses, VERIFY_DEADLINE);
        let stale_answers = verify::until_new(&expected).await?;
        let message = format!("{name} answers {}", verify::list(&expected.addresses));
        Ok(Done { already: true, message, stale_answers, ..Done::default() })
    }
}
