//! How the client finds the service: asks the authoritative servers in turn, and keeps an answer for its time to live.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::UdpSocket;

/// For one server; they are all near, and the next one may know.
const PATIENCE: Duration = Duration::from_millis(100);

/// An answer of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Where the service is.
    pub address: Ipv4Addr,
    /// How long that may be believed.
    pub ttl: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
    kept: Option<(IpAddr, Instant)>,
}

impl Resolver {
    /// Of these servers, the first that answers is asked first from then on.
    #[must_use]
    pub const fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, kept: None }
    }

    /// The address of `name`.
    ///
    /// # Errors
    /// No server gives one.
    pub async fn resolve(&mut self, name: &str) -> Result<IpAddr> {
        if let Some((address, _)) = self.kept.filter(|(_, until)| Instant::now() < *until) {
            return Ok(address);
        }
        let mut reasons = Vec::new();
        for index in 0..self.servers.len() {
            let asked = Instant::now();
            match ask(self.servers[index], name).await {
                Ok(answer) => {
                    self.servers.rotate_left(index);
                    let address = IpAddr::V4(answer.address);
                    self.kept = Some((address, asked + answer.ttl));
                    return Ok(address);
                }
                Err(error) => reasons.push(format!("{error:#}")),
            }
        }
        bail!("no server answers for {name}: {}", reasons.join("; "))
    }
}

/// Asks one server for the address of `name`, by UDP.
///
/// # Errors
/// It does not answer in time, does not know, or is not an authority.
pub async fn ask(server: SocketAddr, name: &str) -> Result<Answer> {
    let answer = exchange(server, name, RecordType::A).await?;
    let found = answer.answers.iter().find_map(|record| match &record.data {
        RData::A(address) => Some(Answer { address: address.0, ttl: Duration::from_secs(record.ttl.into()) }),
        _ => None,
    });
    found.with_context(|| format!("{server} has no address for {name}"))
}

/// Asks one server for the serial number of a zone, by UDP: it rises with every change.
///
/// # Errors
/// It does not answer in time, does not know, or is not an authority.
pub async fn serial(server: SocketAddr, zone: &str) -> Result<u32> {
    let answer = exchange(server, zone, RecordType::SOA).await?;
    let found = answer.answers.iter().find_map(|record| match &record.data {
        RData::SOA(authority) => Some(authority.serial),
        _ => None,
    });
    found.with_context(|| format!("{server} has no authority for {zone}"))
}

async fn exchange(server: SocketAddr, name: &str, kind: RecordType) -> Result<Message> {
    let id = u16::from_be_bytes(*uuid::Uuid::new_v4().as_bytes().first_chunk().context("no identity")?);
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_ascii(name).context("not a name")?, kind));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.context("no socket")?;
    socket.connect(server).await.with_context(|| format!("cannot reach {server}"))?;
    let exchange = async {
        socket.send(&question.to_vec()?).await?;
        let mut buffer = [0_u8; 1500];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let answer = Message::from_vec(&buffer[..length])?;
            if answer.metadata.id == id {
                return anyhow::Ok(answer);
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, exchange)
        .await
        .with_context(|| format!("{server} does not answer"))?
        .with_context(|| format!("{server} gives no proper answer"))?;
    if answer.metadata.response_code != ResponseCode::NoError || !answer.metadata.authoritative {
        bail!("{server} says {} for {name}", answer.metadata.response_code);
    }
    Ok(answer)
}
