//! Changes records by RFC 2136 with TSIG.
//!
//! One UPDATE message, which the server carries out whole or not at all: the guard record must still be what was read;
//! the addresses and the guard are replaced. Reading is not signed: whatever was read, the signed update only succeeds
//! if it was true.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm as Algorithm, TsigError};
use hickory_proto::rr::rdata::{A, AAAA, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, TSigner};

use super::guard::Guard;
use super::wire::{self, Connection, WireError};
use crate::config::{TsigAlgorithm, UpdateOptions};
use crate::driver::{DriverError, Redirect};

/// Bounds each of: connecting, sending, receiving.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(3);
/// How far the clocks may be apart, as RFC 8945 recommends.
const FUDGE_SECONDS: u16 = 300;

/// What an update found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Updated {
    /// The server had these addresses by this epoch.
    Already,
    /// The server has taken the change.
    Changed,
}

/// The server and key of one zone.
pub(super) struct Updater {
    server: SocketAddr,
    zone: Name,
    key_name: String,
    signer: TSigner,
}

/// What the server had when it was asked. An update made from it only succeeds while the guard is the same.
pub(super) struct Seen {
    guard: Vec<TXT>,
    addresses: BTreeSet<IpAddr>,
    /// Of the addresses, in seconds.
    ttls: BTreeSet<u32>,
}

impl Updater {
    pub(super) fn new(options: &UpdateOptions) -> Result<Self, DriverError> {
        let wrong = |what: &str| DriverError::permanent("dns-configuration", what.to_owned());
        let key = data_encoding::BASE64.decode(options.key.secret.expose().trim().as_bytes()).map_err(|_| {
            wrong(&format!("the secret of TSIG key {} is not base64; correct agent.yaml", options.key.name))
        })?;
        let algorithm = match options.key.algorithm {
            TsigAlgorithm::HmacSha256 => Algorithm::HmacSha256,
            TsigAlgorithm::HmacSha384 => Algorithm::HmacSha384,
            TsigAlgorithm::HmacSha512 => Algorithm::HmacSha512,
        };
        let name = super::absolute(&options.key.name)?;
        let signer = TSigner::new(key, algorithm, name, FUDGE_SECONDS)
            .map_err(|error| wrong(&format!("TSIG key {} cannot be used: {error}", options.key.name)))?;
        let zone = super::absolute(&options.zone)?;
        Ok(Self { server: options.server, zone, key_name: options.key.name.clone(), signer })
    }

    pub(super) fn server(&self) -> SocketAddr {
        self.server
    }

    pub(super) fn zone(&self) -> &Name {
        &self.zone
    }

    /// Shows, without a change, whether the server lets the key update the zone: an update of nothing, if the zone is
    /// there, sent and signed as a real one. A server that grants single names may still refuse one of those.
    pub(super) async fn change_nothing(&self) -> Result<(), DriverError> {
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Update;
        message.add_query(Query::query(self.zone.clone(), RecordType::SOA));
        // RFC 2136, 2.4.4.
        message.add_answer(without_data(&self.zone, RecordType::ANY, DNSClass::ANY));
        self.send(&self.zone, &mut message).await
    }

    /// Reads, then changes what has to be changed.
    pub(super) async fn redirect(&self, name: &Name, redirect: &Redirect) -> Result<Updated, DriverError> {
        let seen = self.read(name).await?;
        self.write(name, redirect, &seen).await
    }

    /// Reads the guard and the addresses.
    pub(super) async fn read(&self, name: &Name) -> Result<Seen, DriverError> {
        if !self.zone.zone_of(name) {
            let message = format!("{name} is not in zone {}; correct `zone` of the update in agent.yaml", self.zone);
            return Err(DriverError::permanent("dns-not-in-zone", message));
        }
        let guard_name = guard_name(name)?;
        let questions = [(&guard_name, RecordType::TXT), (name, RecordType::A), (name, RecordType::AAAA)];
        let answers = self.ask(&questions).await?;
        let mut seen = Seen { guard: Vec::new(), addresses: BTreeSet::new(), ttls: BTreeSet::new() };
        for record in answers.iter().flat_map(|answer| &answer.answers) {
            match &record.data {
                RData::TXT(text) if record.name == guard_name => seen.guard.push(text.clone()),
                RData::A(A(address)) if record.name == *name => seen.take((*address).into(), record.ttl),
                RData::AAAA(AAAA(address)) if record.name == *name => seen.take((*address).into(), record.ttl),
                // RFC 2136 says that adding an address beside an alias is silently ignored.
                RData::CNAME(_) if record.name == *name => {
                    let message = format!(
                        "{name} is an alias (CNAME) at {}; remove it, or name its target in the Application document",
                        self.server
                    );
                    return Err(DriverError::permanent("dns-alias", message));
                }
                _ => {}
            }
        }
        Ok(seen)
    }

    /// Sends all questions at once and gives the answers.
    async fn ask(&self, questions: &[(&Name, RecordType)]) -> Result<Vec<Message>, DriverError> {
        let exchange = async {
            let mut connection = Connection::open(self.server, EXCHANGE_LIMIT).await?;
            let mut open = HashMap::new();
            for (name, kind) in questions {
                let mut message = wire::question(name, *kind, false);
                while open.contains_key(&message.id) {
                    message = wire::question(name, *kind, false);
                }
                connection.send(&wire::encode(&message)?).await?;
                open.insert(message.id, message.queries);
            }
            let mut answers = Vec::new();
            while !open.is_empty() {
                let (_, answer) = connection.receive().await?;
                if open.get(&answer.id) == Some(&answer.queries) {
                    open.remove(&answer.id);
                    answers.push(answer);
                }
            }
            Ok(answers)
        };
        let answers = exchange.await.map_err(|error| self.unreachable(&error))?;
        for answer in &answers {
            if !matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain) {
                return Err(self.refused(answer.response_code, None));
            }
        }
        Ok(answers)
    }

    /// Makes the change, if the guard is still as it was seen.
    pub(super) async fn write(&self, name: &Name, redirect: &Redirect, seen: &Seen) -> Result<Updated, DriverError> {
        let wanted: BTreeSet<IpAddr> = redirect.addresses.iter().copied().collect();
        if wanted.is_empty() {
            return Err(would_be_empty(name));
        }
        let ours = Guard { application: redirect.application.clone(), epoch: redirect.epoch };
        if self.check(name, &ours, seen)? && seen.addresses == wanted {
            return Ok(Updated::Already);
        }
        let mut message = self.message(name, &ours, &wanted, redirect.ttl, seen)?;
        self.send(name, &mut message).await?;
        Ok(Updated::Changed)
    }

    /// Gives the addresses that are there another TTL, if they and the guard are still as they are seen now. The guard stays:
    /// nothing that it stands for has changed.
    pub(super) async fn change_ttl(&self, name: &Name, redirect: &Redirect) -> Result<Updated, DriverError> {
        let seen = self.read(name).await?;
        let ours = Guard { application: redirect.application.clone(), epoch: redirect.epoch };
        self.check(name, &ours, &seen)?;
        if seen.ttls.iter().all(|ttl| *ttl == redirect.ttl) {
            return Ok(Updated::Already);
        }
        let guard_name = guard_name(name)?;
        let mut message = self.update_if(&guard_name, &seen);
        for address in &seen.addresses {
            message.add_answer(Record::from_rdata(name.clone(), 0, data_of(*address)));
        }
        let kinds = [(RecordType::A, true), (RecordType::AAAA, false)];
        for (kind, four) in kinds {
            if seen.addresses.iter().any(|address| address.is_ipv4() == four) {
                message.add_authority(without_data(name, kind, DNSClass::ANY));
            }
        }
        for address in &seen.addresses {
            message.add_authority(Record::from_rdata(name.clone(), redirect.ttl, data_of(*address)));
        }
        self.send(name, &mut message).await?;
        Ok(Updated::Changed)
    }

    /// Whether the guard that was seen is ours already. A newer or foreign one is a refusal.
    fn check(&self, name: &Name, ours: &Guard, seen: &Seen) -> Result<bool, DriverError> {
        let server = self.server;
        let [record] = seen.guard.as_slice() else {
            if seen.guard.is_empty() {
                return Ok(false);
            }
            let message = format!("_regent.{name} has several TXT records at {server}; remove those that are foreign");
            return Err(DriverError::permanent("dns-guard-unreadable", message));
        };
        let Some(guard) = Guard::read(record) else {
            let message = format!(
                "the TXT record _regent.{name} at {server} was not written by Regent, or by a newer one; remove it if \
                 nobody else needs it"
            );
            return Err(DriverError::permanent("dns-guard-unreadable", message));
        };
        if guard.application != ours.application {
            let message = format!(
                "{name} belongs to application {} by the record _regent.{name} at {server}; give {} a name of its own",
                guard.application, ours.application
            );
            return Err(DriverError::permanent("dns-foreign-guard", message));
        }
        if guard.epoch > ours.epoch {
            let message = format!(
                "{name} was written by epoch {} at {server}, and this redirect is of epoch {}; it is out of date, \
                 and nothing was changed",
                guard.epoch, ours.epoch
            );
            return Err(DriverError::permanent("dns-stale-epoch", message));
        }
        Ok(guard.epoch == ours.epoch)
    }

    fn message(
        &self,
        name: &Name,
        ours: &Guard,
        wanted: &BTreeSet<IpAddr>,
        ttl: u32,
        seen: &Seen,
    ) -> Result<Message, DriverError> {
        let guard_name = guard_name(name)?;
        let mut message = self.update_if(&guard_name, seen);
        // Update: both kinds of address and the guard are replaced. RFC 2136, 2.5.2 and 2.5.1.
        for kind in [RecordType::A, RecordType::AAAA] {
            message.add_authority(without_data(name, kind, DNSClass::ANY));
        }
        message.add_authority(without_data(&guard_name, RecordType::TXT, DNSClass::ANY));
        for address in wanted {
            message.add_authority(Record::from_rdata(name.clone(), ttl, data_of(*address)));
        }
        let text = RData::TXT(TXT::new(vec![ours.to_text()]));
        message.add_authority(Record::from_rdata(guard_name, ttl, text));
        Ok(message)
    }

    /// An update with the prerequisite that the guard is exactly what was seen. RFC 2136, 2.4.2 and 2.4.3.
    fn update_if(&self, guard_name: &Name, seen: &Seen) -> Message {
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Update;
        message.add_query(Query::query(self.zone.clone(), RecordType::SOA));
        if seen.guard.is_empty() {
            message.add_answer(without_data(guard_name, RecordType::TXT, DNSClass::NONE));
        }
        for text in &seen.guard {
            message.add_answer(Record::from_rdata(guard_name.clone(), 0, RData::TXT(text.clone())));
        }
        message
    }

    async fn send(&self, name: &Name, message: &mut Message) -> Result<(), DriverError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let verifier = message
            .finalize(&self.signer, now)
            .map_err(|error| self.unreachable(&WireError::Malformed(error.to_string())))?;
        let exchange = async {
            let mut connection = Connection::open(self.server, EXCHANGE_LIMIT).await?;
            connection.send(&wire::encode(message)?).await?;
            loop {
                let (bytes, answer) = connection.receive().await?;
                if answer.id == message.id {
                    return Ok((bytes, answer));
                }
            }
        };
        let (bytes, answer) = exchange.await.map_err(|error| self.unreachable(&error))?;
        let complaint = answer.signature().and_then(|signature| signature.data.error);
        match (answer.response_code, complaint) {
            (ResponseCode::NoError, None) => {}
            // The guard, or an address, is not what it was when we read it: somebody wrote in between.
            (ResponseCode::NXRRSet | ResponseCode::YXRRSet, None) => {
                let message = format!(
                    "another writer changed {name} at {} in the meantime; nothing was changed, and the next attempt \
                     reads again",
                    self.server
                );
                return Err(DriverError::retryable("dns-raced", message));
            }
            (code, complaint) => return Err(self.refused(code, complaint)),
        }
        let proven = verifier.is_some_and(|mut verifier| verifier.verify(&bytes).is_ok());
        if !proven {
            let message = format!(
                "{} said that it took the update of {name}, but not signed with key {}; see what answers at this \
                 address",
                self.server, self.key_name
            );
            return Err(DriverError::retryable("dns-unsigned-answer", message));
        }
        Ok(())
    }

    fn unreachable(&self, error: &WireError) -> DriverError {
        let message =
            format!("the DNS server {} cannot be used ({error}); see that it runs and is reachable", self.server);
        DriverError::retryable("dns-unreachable", message)
    }

    fn refused(&self, code: ResponseCode, complaint: Option<TsigError>) -> DriverError {
        let (server, key, zone) = (self.server, &self.key_name, &self.zone);
        match (complaint, code) {
            (Some(TsigError::BadKey), _) | (None, ResponseCode::BADKEY) => DriverError::permanent(
                "dns-bad-key",
                format!(
                    // Knot says the same of a key that it knows and that the zone's ACL does not name.
                    "{server} does not know TSIG key {key}, or does not let it update zone {zone}; add it there, or \
                     correct its name in agent.yaml"
                ),
            ),
            // BADVERS and BADSIG share their number: in an answer to an update it is the signature.
            (Some(TsigError::BadSig | TsigError::BadTrunc), _)
            | (None, ResponseCode::BADSIG | ResponseCode::BADVERS | ResponseCode::BADTRUNC) => DriverError::permanent(
                "dns-bad-signature",
                format!("{server} has another secret for TSIG key {key}; copy the server's secret to this agent"),
            ),
            (Some(TsigError::BadTime), _) | (None, ResponseCode::BADTIME) => DriverError::permanent(
                "dns-clock",
                format!(
                    "the clocks of this machine and of {server} are more than {FUDGE_SECONDS} s apart (TSIG key \
                     {key}); set them"
                ),
            ),
            (_, ResponseCode::NotAuth) => DriverError::permanent(
                "dns-not-authoritative",
                format!("{server} is not authoritative for {zone}, or does not let key {key} update it; correct one"),
            ),
            (_, ResponseCode::Refused) => DriverError::permanent(
                "dns-refused",
                format!("{server} does not let key {key} update zone {zone}; allow it there"),
            ),
            (_, ResponseCode::NotZone) => {
                DriverError::permanent("dns-not-in-zone", format!("{server}: the name is not in zone {zone}"))
            }
            (_, ResponseCode::FormErr | ResponseCode::NotImp) => DriverError::permanent(
                "dns-no-updates",
                format!("{server} does not take RFC 2136 updates of zone {zone} ({code}); enable them there"),
            ),
            (_, code) => DriverError::retryable(
                "dns-server-failure",
                format!("{server} failed to handle zone {zone} ({code}); see its log"),
            ),
        }
    }
}

impl Seen {
    fn take(&mut self, address: IpAddr, ttl: u32) {
        self.addresses.insert(address);
        self.ttls.insert(ttl);
    }
}

fn data_of(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

pub(super) fn would_be_empty(name: &Name) -> DriverError {
    let message = format!("the redirect of {name} has no address and would leave it without an answer; list addresses");
    DriverError::permanent("dns-would-be-empty", message)
}

fn guard_name(name: &Name) -> Result<Name, DriverError> {
    name.prepend_label("_regent").map_err(|_| {
        let message = format!("{name} is too long for its guard record _regent.{name}; use a shorter name");
        DriverError::permanent("dns-configuration", message)
    })
}

fn without_data(name: &Name, kind: RecordType, class: DNSClass) -> Record {
    let mut record = Record::update0(name.clone(), 0, kind);
    record.dns_class = class;
    record
}
