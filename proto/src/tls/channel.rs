//! Dialling: a channel to whoever is expected, by an address or by a name that is looked up at every connection.
//!
//! ```text
//!  host:port ── an IP ─────────────────────► TCP ──► TLS: authority, host name, group, expected identity ──► HTTP/2
//!          └─── a name ──► looked up ──► all addresses, the next one soon after the last
//! ```
//!
//! Where a name leads is only a hint: what is verified is the name that was asked for, whatever the address.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Uri};

use super::verify::{Expect, SameGroup, Seen};
use super::{Identity, Tls, TlsError, provider};
use crate::line::{Line, line};

/// An address that has not answered for this long is not waited for alone: the next one is tried beside it (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);

/// Finds the addresses of a host name, best first.
pub type Lookup = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> + Send + Sync>;

/// How a channel behaves.
#[derive(Debug, Clone)]
pub struct ChannelOptions {
    /// For finding the address, the TCP connection and the TLS handshake together.
    pub connect_timeout: Duration,
    /// How often the connection is probed with an HTTP/2 ping, also when idle.
    pub keep_alive: Duration,
    /// A ping that is not answered for this long ends the connection; the next call dials anew, without back-off.
    pub keep_alive_timeout: Duration,
    /// Who must stand at the other end.
    pub expected: Expect,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self::heartbeat(Duration::from_secs(1))
    }
}

impl ChannelOptions {
    /// A connection silent for three heartbeats is dropped (safety.md, "One knob"). Any coordinator is expected.
    #[must_use]
    pub fn heartbeat(interval: Duration) -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            keep_alive: interval,
            keep_alive_timeout: interval * 2,
            expected: Expect::AnyCoordinator,
        }
    }

    /// Only this one may stand at the other end.
    #[must_use]
    pub fn expecting(mut self, identity: Identity) -> Self {
        self.expected = Expect::Exactly(identity);
        self
    }
}

/// A line, and who stands at its other end.
#[derive(Debug, Clone)]
pub struct Dialled {
    /// For clients.
    pub line: Line,
    /// Whom the certificate at the other end names.
    pub peer: Seen,
}

impl Tls {
    /// A channel that dials when it is first used, and again whenever the connection was lost. Names are looked up as
    /// the system does it. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the address is not host:port.
    pub fn channel(&self, address: &str, options: ChannelOptions) -> Result<Channel, TlsError> {
        let (endpoint, _) = self.endpoint(address, options)?;
        Ok(endpoint.connect_lazy())
    }

    /// As [`Self::channel`], but a name is looked up by `lookup` whenever a connection is made, and one can see who
    /// answered.
    ///
    /// # Errors
    /// If the address is not host:port.
    pub fn dial(&self, address: &str, options: ChannelOptions, lookup: Lookup) -> Result<Dialled, TlsError> {
        let (endpoint, peer) = self.endpoint(address, options)?;
        let connector = tower::service_fn(move |to: Uri| {
            let lookup = lookup.clone();
            async move { reach(&to, &lookup).await.map(TokioIo::new) }
        });
        Ok(Dialled { line: line(endpoint.connect_with_connector_lazy(connector)), peer })
    }

    fn endpoint(&self, address: &str, options: ChannelOptions) -> Result<(Endpoint, Seen), TlsError> {
        let bad = || TlsError::BadAddress { address: address.to_owned() };
        let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
        if host.is_empty() || port.parse::<u16>().is_err() || host.contains('/') {
            return Err(bad());
        }
        let seen = Seen::default();
        let verifier =
            SameGroup::new(&self.0.roots, &provider(), self.0.group.clone(), options.expected, seen.clone())?;
        let tls = ClientTlsConfig::new().identity(self.0.pair.clone()).timeout(options.connect_timeout);
        let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(|_| bad())?;
        let endpoint = endpoint
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(options.keep_alive)
            .keep_alive_timeout(options.keep_alive_timeout)
            .keep_alive_while_idle(true)
            .tls_config_with_verifier(tls, Arc::new(verifier))
            .map_err(|source| TlsError::Channel { address: address.to_owned(), source })?;
        Ok((endpoint, seen))
    }
}

/// A TCP connection to host and port of the URI. The channel's `connect_timeout` bounds it.
async fn reach(to: &Uri, lookup: &Lookup) -> io::Result<TcpStream> {
    let nowhere = || io::Error::new(io::ErrorKind::InvalidInput, format!("{to} has no host and port"));
    let (host, port) = (to.host().ok_or_else(nowhere)?, to.port_u16().ok_or_else(nowhere)?);
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let addresses = match literal {
        Ok(address) => vec![address],
        Err(_) => lookup(host.to_owned()).await?,
    };
    first(host, addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect()).await
}

/// The first connection that comes about. One dead address must not eat up the time that a dial has (max(1 s, 4 RTT)):
/// the next one is tried as soon as one fails, or has not answered for a while.
async fn first(host: &str, addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    let mut rest = addresses.into_iter();
    let mut trying = JoinSet::new();
    loop {
        let next = rest.next();
        let last = next.is_none();
        if let Some(address) = next {
            trying.spawn(async move { connect(address).await });
        }
        let tried = match tokio::time::timeout(STAGGER, trying.join_next()).await {
            Ok(tried) => tried,
            Err(_) if last => trying.join_next().await,
            Err(_) => continue,
        };
        match tried {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => failed = error,
            Some(Err(error)) => failed = io::Error::other(error),
            None => return Err(failed),
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot connect to {address}: {error}"));
    let stream = TcpStream::connect(address).await.map_err(named)?;
    // Heartbeats are small and must not wait for each other.
    stream.set_nodelay(true)?;
    Ok(stream)
}
