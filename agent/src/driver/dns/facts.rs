//! What a redirect would meet: asked of the servers, without a change.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::{join, join_all, join3};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use regent_core::facts::{AuthorityFacts, DnsFacts, Findings, ResolverFacts};
use regent_core::time::Span;

use super::{DnsDriver, PROBE_LIMIT, wire};
use crate::driver::{DriverError, Found};

/// Servers that were told of a change a moment ago are asked again after so long.
const SECOND_LOOK: Duration = Duration::from_secs(2);

impl DnsDriver {
    pub(super) async fn look_around(&self) -> Found {
        let (tried, mut dns) = join(self.try_update(), self.look_at_servers()).await;
        let mut lacks = Vec::new();
        match tried {
            Ok(()) => {}
            // A server that does not answer refuses nothing.
            Err(error) if error.retryable => dns.update = error.message,
            Err(error) => lacks.push(error.message),
        }
        Found { findings: Findings { lacks, dns: Some(dns), ..Findings::default() }, ..Found::default() }
    }

    async fn try_update(&self) -> Result<(), DriverError> {
        match &self.updater {
            Some(updater) => updater.change_nothing().await,
            None => Ok(()),
        }
    }

    async fn look_at_servers(&self) -> DnsFacts {
        let name = self.known_name();
        let Some(asked) = name.as_ref().or_else(|| Some(self.updater.as_ref()?.zone())) else {
            return DnsFacts::default();
        };
        let look = || join_all(self.authorities.iter().map(|server| look_at(*server, asked)));
        let mut looks = look().await;
        let serials: BTreeSet<u32> = looks.iter().filter_map(|(_, one)| one.serial).collect();
        if serials.len() > 1 {
            tokio::time::sleep(SECOND_LOOK).await;
            looks = look().await;
        }
        let zone = looks.iter().find_map(|(zone, _)| zone.clone());
        let resolvers = match &zone {
            Some(zone) => join_all(self.resolvers.iter().map(|server| look_through(*server, zone))).await,
            None => Vec::new(),
        };
        DnsFacts {
            zone: zone.map(|zone| zone.to_string()).unwrap_or_default(),
            authorities: looks.into_iter().map(|(_, one)| one).collect(),
            resolvers,
            update: String::new(),
        }
    }
}

/// What an authority says of a name, and of the zone that it is in.
async fn look_at(server: SocketAddr, asked: &Name) -> (Option<Name>, AuthorityFacts) {
    let mut facts = AuthorityFacts { server: server.to_string(), ..AuthorityFacts::default() };
    // Of a name below the apex it stands in the authority section.
    let answer = match ask(server, asked, RecordType::SOA, false).await {
        Ok(answer) => answer,
        Err(problem) => return (None, AuthorityFacts { problem, ..facts }),
    };
    if !matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return (None, AuthorityFacts { problem: format!("it says {}", answer.response_code), ..facts });
    }
    facts.authoritative = answer.authoritative;
    let soa = answer.answers.iter().chain(&answer.authorities).find_map(|record| match &record.data {
        RData::SOA(soa) if record.name.zone_of(asked) => Some((record.name.clone(), soa.serial)),
        _ => None,
    });
    let Some((zone, serial)) = soa else { return (None, facts) };
    facts.serial = Some(serial);
    let (four, six, servers) = join3(
        ask(server, asked, RecordType::A, false),
        ask(server, asked, RecordType::AAAA, false),
        ask(server, &zone, RecordType::NS, false),
    )
    .await;
    let records = [&four, &six].into_iter().flatten().flat_map(|answer| &answer.answers);
    facts.ttl = records.map(|record| record.ttl).max().map(|seconds| Span::from_secs(seconds.into()));
    facts.name_servers = servers.map(|answer| name_servers(&answer.answers, &zone)).unwrap_or_default();
    (Some(zone), facts)
}

/// What a resolver finds of a zone.
async fn look_through(server: SocketAddr, zone: &Name) -> ResolverFacts {
    let (problem, name_servers) = match ask(server, zone, RecordType::NS, true).await {
        Ok(answer) => match answer.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => (String::new(), name_servers(&answer.answers, zone)),
            // Whoever the zone was given to does not answer for it.
            ResponseCode::ServFail => (String::new(), BTreeSet::new()),
            code => (format!("it says {code}"), BTreeSet::new()),
        },
        Err(problem) => (problem, BTreeSet::new()),
    };
    ResolverFacts { server: server.to_string(), problem, name_servers }
}

fn name_servers(records: &[Record], zone: &Name) -> BTreeSet<String> {
    let named = records.iter().filter_map(|record| match &record.data {
        RData::NS(server) if record.name == *zone => Some(server.0.to_lowercase().to_string()),
        _ => None,
    });
    named.collect()
}

/// A datagram may be lost.
pub(super) async fn ask(server: SocketAddr, name: &Name, kind: RecordType, recursive: bool) -> Result<Message, String> {
    let question = wire::question(name, kind, recursive);
    match wire::ask(server, &question, PROBE_LIMIT).await {
        Err(error) if !error.is_refused() => wire::ask(server, &question, PROBE_LIMIT).await,
        answer => answer,
    }
    .map_err(|error| error.to_string())
}
