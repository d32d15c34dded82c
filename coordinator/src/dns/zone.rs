//! What the zone says: a pure function of the applied state.
//!
//! An answer that a run is about to change has a TTL of 0.

use std::net::{IpAddr, SocketAddr};

use hickory_proto::rr::rdata::{NS, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use regent_core::application::DnsProvider;
use regent_core::state::{ApplicationState, State};

/// A zone name that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// Not a domain name.
    #[error("{given:?} in dns.{key} is not a domain name: write e.g. regent.example.")]
    NotAName {
        /// Key of the configuration.
        key: &'static str,
        /// The text as it was given.
        given: String,
    },
}

/// The zone that this server is authoritative for.
#[derive(Debug, Clone)]
pub struct Zone {
    origin: Name,
    /// Lower case, with the final dot.
    origin_text: String,
    mailbox: Name,
    /// At least one; the first is the SOA's.
    servers: Vec<(String, Name)>,
}

/// What a lookup found.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// The name is not in the zone.
    Outside,
    /// Nobody has such a name.
    NoName {
        /// For the authority section.
        soa: Record,
    },
    /// The name exists and has nothing of this type.
    NoData {
        /// For the authority section.
        soa: Record,
    },
    /// There should be an answer, and there is none to give.
    Empty {
        /// Why, for the log.
        reason: String,
    },
    /// The records.
    Found(Found),
}

/// Records of an answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Found {
    /// What was asked for.
    pub answers: Vec<Record>,
    /// Addresses of name servers.
    pub additionals: Vec<Record>,
}

/// Negative answers are kept no longer than this by resolvers: a name that is adopted now shall work soon.
const NEGATIVE_TTL: u32 = 5;
/// Of the zone's own records.
const APEX_TTL: u32 = 30;
const REFRESH: i32 = 30;
const RETRY: i32 = 10;
const EXPIRE: i32 = 604_800;

/// What stands at a name.
#[derive(Default)]
struct Node {
    /// The name, or one below it, is known.
    exists: bool,
    soa: bool,
    servers: bool,
    addresses: Option<Result<Addresses, String>>,
}

struct Addresses {
    list: Vec<IpAddr>,
    ttl: u32,
}

impl Zone {
    /// From the configuration. No name server: `ns.ZONE`.
    ///
    /// # Errors
    /// If a name is not one.
    pub fn new(zone: &str, name_servers: &[String]) -> Result<Self, ZoneError> {
        let (origin_text, origin) = parse("zone", zone)?;
        let servers = if name_servers.is_empty() {
            vec![parse("zone", &format!("ns.{origin_text}"))?]
        } else {
            name_servers.iter().map(|server| parse("nameServers", server)).collect::<Result<_, _>>()?
        };
        let (_, mailbox) = parse("zone", &format!("hostmaster.{origin_text}"))?;
        Ok(Self { origin, origin_text, mailbox, servers })
    }

    /// The zone's name, lower case, with the final dot.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin_text
    }

    /// Looks a name up, as the state is now.
    #[must_use]
    pub fn look_up(&self, state: &State, name: &Name, record_type: RecordType) -> Lookup {
        let wanted = text_of(name);
        if !is_within(&wanted, &self.origin_text) {
            return Lookup::Outside;
        }
        let node = self.node(state, &wanted);
        if !node.exists {
            return Lookup::NoName { soa: self.soa(state, NEGATIVE_TTL) };
        }
        let asks = |kind: RecordType| record_type == kind || record_type == RecordType::ANY;
        let mut found = Found::default();
        if node.soa && asks(RecordType::SOA) {
            found.answers.push(self.soa(state, APEX_TTL));
        }
        if node.servers && asks(RecordType::NS) {
            for (text, server) in &self.servers {
                found.answers.push(Record::from_rdata(self.origin.clone(), APEX_TTL, RData::NS(NS(server.clone()))));
                if is_within(text, &self.origin_text) {
                    found
                        .additionals
                        .extend(server_addresses(state).into_iter().map(|ip| address(server, ip, APEX_TTL)));
                }
            }
        }
        if asks(RecordType::A) || asks(RecordType::AAAA) {
            match node.addresses {
                Some(Err(reason)) => return Lookup::Empty { reason },
                Some(Ok(Addresses { list, ttl })) => found.answers.extend(
                    list.into_iter()
                        .filter(|ip| asks(if ip.is_ipv4() { RecordType::A } else { RecordType::AAAA }))
                        .map(|ip| address(name, ip, ttl)),
                ),
                None => {}
            }
        }
        if found.answers.is_empty() {
            Lookup::NoData { soa: self.soa(state, NEGATIVE_TTL) }
        } else {
            Lookup::Found(found)
        }
    }

    fn node(&self, state: &State, wanted: &str) -> Node {
        let at_apex = wanted == self.origin_text;
        let mut node = Node { exists: at_apex, soa: at_apex, servers: at_apex, addresses: None };
        for (text, _) in &self.servers {
            node.exists |= is_within(text, wanted);
            if text == wanted {
                let list = server_addresses(state);
                node.addresses = (!list.is_empty()).then_some(Ok(Addresses { list, ttl: APEX_TTL }));
            }
        }
        for application in state.applications.values() {
            for (id, resource) in &application.document.resources {
                let Some(dns) = resource.dns.as_ref().filter(|dns| dns.provider == DnsProvider::Embedded) else {
                    continue;
                };
                if !is_within(&dns.name, wanted) {
                    continue;
                }
                node.exists = true;
                // Two applications with one name: the first that has an answer gives it.
                if dns.name == wanted && !matches!(node.addresses, Some(Ok(_))) {
                    // A client that is cut off while the answer is about to change asks again at once; what it is told
                    // then it must not keep.
                    let changes = || state.runs.get(application.run.as_ref()?).map(|run| run.will_redirect(id));
                    let ttl = if changes() == Some(true) { 0 } else { dns.ttl.millis() / 1000 };
                    let ttl = u32::try_from(ttl).unwrap_or(u32::MAX);
                    node.addresses = Some(addresses_of(state, application, id).map(|list| Addresses { list, ttl }));
                }
            }
        }
        node
    }

    fn soa(&self, state: &State, ttl: u32) -> Record {
        let server = self.servers.first().map_or_else(|| self.origin.clone(), |(_, name)| name.clone());
        let soa = SOA::new(server, self.mailbox.clone(), state.dns_serial, REFRESH, RETRY, EXPIRE, NEGATIVE_TTL);
        Record::from_rdata(self.origin.clone(), ttl, RData::SOA(soa))
    }
}

/// The addresses that a resource's name answers now, or why there are none.
fn addresses_of(
    state: &State,
    application: &ApplicationState,
    resource: &regent_core::id::ResourceId,
) -> Result<Vec<IpAddr>, String> {
    let Some(answer) = application.answers.get(resource) else {
        return Err("the name points to no cluster yet: the application has not been adopted".to_owned());
    };
    let cluster = &answer.cluster;
    let endpoint = state
        .agents
        .get(cluster)
        .and_then(|agent| agent.endpoints.get(&application.document.name)?.get(resource))
        .ok_or_else(|| format!("the agent of {cluster} declares no addresses for {resource}"))?;
    let list: Vec<IpAddr> = endpoint.addresses.iter().filter_map(|text| text.parse().ok()).collect();
    if list.is_empty() {
        return Err(format!("the agent of {cluster} declares no usable address for {resource}"));
    }
    Ok(list)
}

/// Every coordinator serves the zone, so any server name of the zone may answer with all of them.
fn server_addresses(state: &State) -> Vec<IpAddr> {
    let mut list: Vec<IpAddr> = state
        .coordinators
        .values()
        .filter_map(|coordinator| coordinator.dns.parse::<SocketAddr>().ok())
        .map(|address| address.ip())
        .filter(|ip| !ip.is_unspecified())
        .collect();
    list.sort();
    list.dedup();
    list
}

fn address(name: &Name, ip: IpAddr, ttl: u32) -> Record {
    let data = match ip {
        IpAddr::V4(ip) => RData::A(ip.into()),
        IpAddr::V6(ip) => RData::AAAA(ip.into()),
    };
    Record::from_rdata(name.clone(), ttl, data)
}

fn parse(key: &'static str, given: &str) -> Result<(String, Name), ZoneError> {
    let error = || ZoneError::NotAName { key, given: given.to_owned() };
    let mut text = given.to_ascii_lowercase();
    if !text.ends_with('.') {
        text.push('.');
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !text.bytes().all(plain) {
        return Err(error());
    }
    let name = Name::from_ascii(&text).map_err(|_| error())?;
    if name.is_root() {
        return Err(error());
    }
    Ok((text, name))
}

/// Lower case, with the final dot; unusual bytes are escaped, so that they match no document.
fn text_of(name: &Name) -> String {
    let mut text = name.to_ascii().to_ascii_lowercase();
    if !text.ends_with('.') {
        text.push('.');
    }
    text
}

fn is_within(name: &str, zone: &str) -> bool {
    name.strip_suffix(zone).is_some_and(|head| head.is_empty() || head.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_within_by_whole_labels() {
        assert!(is_within("www.regent.test.", "regent.test."));
        assert!(is_within("regent.test.", "regent.test."));
        assert!(!is_within("notregent.test.", "regent.test."));
        assert!(!is_within("test.", "regent.test."));
    }

    #[test]
    fn impossible_zones_are_refused() {
        for bad in ["", ".", "a b.test.", "a..b.", "ex<b>.test.", &"x".repeat(64)] {
            assert!(Zone::new(bad, &[]).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(Zone::new("Regent.Test", &[]).unwrap().origin(), "regent.test.");
        assert!(Zone::new("regent.test.", &["ns 1".to_owned()]).is_err());
    }
}
