//! Embedded authoritative DNS: the names of applications, answered from the applied state and nothing else.
//!
//! ```text
//!  query ──► handler (protocol: EDNS, opcodes, flags) ──► zone::Zone::look_up(state, name, type) ──► answer
//! ```
//!
//! The state is read at each query, without a cache in between, so an answer flips with the commit (safety.md, S3:
//! DNS answers *are* the applied state). Without quorum the state stands still, and so does the last answer. A name
//! whose answer would be empty is a server failure: resolvers then keep what they have or ask another coordinator,
//! where an empty answer would be believed.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_server::Server;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::node::Node;

mod handler;
mod zone;

pub use zone::{Found, Lookup, Zone, ZoneError};

/// What the DNS server needs to know.
#[derive(Debug, Clone)]
pub struct DnsOptions {
    /// Where it listens, UDP and TCP.
    pub listen: SocketAddr,
    /// The zone it is authoritative for, e.g. `regent.test.`
    pub zone: String,
    /// Names of the zone's servers; the first is the SOA's. Empty: `ns.ZONE`.
    pub name_servers: Vec<String>,
}

/// Why the DNS server does not run.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The configuration names an impossible zone.
    #[error("the zone of the DNS server is not usable")]
    Zone(#[from] ZoneError),
    /// The port could not be had.
    #[error(
        "cannot listen on {address} ({transport}) for DNS: free the port, change dns.listen, or for a port below 1024 \
         give the process CAP_NET_BIND_SERVICE"
    )]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// `udp` or `tcp`.
        transport: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A socket closed while it was needed.
    #[error("the DNS server on {address} stopped: restart the coordinator")]
    Stopped {
        /// Where it listened.
        address: SocketAddr,
        /// What happened.
        source: hickory_net::NetError,
    },
}

/// Both sockets, bound and not yet served.
#[derive(Debug)]
pub struct BoundDns {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
}

/// A TCP client that sends nothing for so long is disconnected.
const TCP_IDLE: Duration = Duration::from_secs(5);
/// Responses that one TCP connection may have waiting.
const TCP_RESPONSES: usize = 32;
/// With port 0, how often another port is tried when only one of the transports had it free.
const BIND_ATTEMPTS: usize = 16;

/// Binds UDP and TCP on the same port. Port 0: any port that is free for both.
///
/// # Errors
/// If the address cannot be had.
pub async fn bind(listen: SocketAddr) -> Result<BoundDns, DnsError> {
    let refused = |transport| move |source| DnsError::Bind { address: listen, transport, source };
    let mut attempts = BIND_ATTEMPTS;
    loop {
        let tcp = TcpListener::bind(listen).await.map_err(refused("tcp"))?;
        let address = tcp.local_addr().map_err(refused("tcp"))?;
        match UdpSocket::bind(address).await {
            Ok(udp) => return Ok(BoundDns { udp, tcp, address }),
            Err(_) if listen.port() == 0 && attempts > 0 => attempts -= 1,
            Err(source) => return Err(refused("udp")(source)),
        }
    }
}

/// Binds and serves until the token is cancelled.
///
/// # Errors
/// If the zone is not usable, the address cannot be had, or a socket fails for good.
pub async fn serve(options: DnsOptions, node: Node, shutdown: CancellationToken) -> Result<(), DnsError> {
    let zone = Zone::new(&options.zone, &options.name_servers)?;
    bind(options.listen).await?.serve(zone, node, shutdown).await
}

impl BoundDns {
    /// The address that was bound.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the token is cancelled.
    ///
    /// # Errors
    /// If a socket fails for good.
    pub async fn serve(self, zone: Zone, node: Node, shutdown: CancellationToken) -> Result<(), DnsError> {
        let address = self.address;
        // A server for each transport, so that the end of one is noticed while the other goes on.
        let mut udp = Server::new(handler::Handler::new(zone.clone(), node.clone()));
        udp.register_socket(self.udp);
        let mut tcp = Server::new(handler::Handler::new(zone, node));
        tcp.register_listener(self.tcp, TCP_IDLE, TCP_RESPONSES);
        tracing::info!(%address, "DNS server listens");
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            ended = udp.block_until_done() => ended,
            ended = tcp.block_until_done() => ended,
        };
        let stopped = |source| DnsError::Stopped { address, source };
        ended.map_err(stopped)?;
        udp.shutdown_gracefully().await.map_err(stopped)?;
        tcp.shutdown_gracefully().await.map_err(stopped)
    }
}
