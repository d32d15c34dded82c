//! Names to addresses, with hickory-resolver: the hosts file first, then the resolvers of resolv.conf.
//!
//! An answer is kept for its TTL and no longer. The two files are read again when they change, so that neither a moved
//! coordinator nor a moved resolver needs a restart of the agent. Everything is bounded well below the time that a dial
//! has, max(1 s, 4 RTT): a name server that does not answer must not eat up the time for the coordinator.

use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::future::{Either, select};
use hickory_proto::op::Query;
use hickory_proto::rr::{Name, RecordType};
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::lookup::Lookup as Answer;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use regent_proto::tls::Lookup;

/// For one look-up in all; half of the shortest time that a dial has.
const LIMIT: Duration = Duration::from_millis(500);
/// For one question to one resolver: leaves time for a second one within the limit.
const QUESTION: Duration = Duration::from_millis(240);
/// After the addresses of one family have come, those of the other are waited for no longer (RFC 8305): there are name
/// servers that do not answer one of the two questions.
const OTHER_FAMILY: Duration = Duration::from_millis(50);
/// That there is no such name is believed for no longer, whatever the zone says: a lease may hang on it.
const NEGATIVE: Duration = Duration::from_secs(1);

/// Looks names up. Cheap to clone; clones share what is kept.
#[derive(Clone)]
pub struct Names(Arc<Inner>);

struct Inner {
    hosts: PathBuf,
    resolvers: PathBuf,
    /// In place of port 53.
    port: Option<u16>,
    current: Mutex<Option<(Stamp, Arc<Current>)>>,
}

/// When the two files were last changed; none for one that is not there.
type Stamp = [Option<SystemTime>; 2];

/// As the files say it.
struct Current {
    hosts: Hosts,
    resolver: Result<TokioResolver, String>,
}

impl Default for Names {
    /// By the configuration of the system.
    fn default() -> Self {
        Self::new(Path::new("/etc/hosts"), Path::new("/etc/resolv.conf"), None)
    }
}

impl Names {
    pub(super) fn new(hosts: &Path, resolvers: &Path, port: Option<u16>) -> Self {
        let (hosts, resolvers) = (hosts.to_owned(), resolvers.to_owned());
        Self(Arc::new(Inner { hosts, resolvers, port, current: Mutex::default() }))
    }

    /// For a channel.
    #[must_use]
    pub fn lookup(&self) -> Lookup {
        let names = self.clone();
        Arc::new(move |host| {
            let names = names.clone();
            Box::pin(async move { names.find(&host).await })
        })
    }

    /// All addresses of a name; at least one.
    ///
    /// # Errors
    /// If there is none, or nobody told in time.
    pub async fn find(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let missing = |kind, why: &str| {
            let remedy = "correct the name, or see that a resolver which knows it answers";
            let resolvers = self.0.resolvers.display();
            io::Error::new(kind, format!("no address for the name {host}: {why}; {remedy} ({resolvers})"))
        };
        let none = |why: &str| missing(io::ErrorKind::NotFound, why);
        let name = Name::from_utf8(host).map_err(|error| none(&error.to_string()))?;
        let current = self.0.current();
        let listed = current.listed(&name);
        if !listed.is_empty() {
            return Ok(listed);
        }
        let resolver = current.resolver.as_ref().map_err(|why| none(why))?;
        let asking = both(ask(resolver, &name, RecordType::A), ask(resolver, &name, RecordType::AAAA));
        match tokio::time::timeout(LIMIT, asking).await {
            Ok(Ok(found)) if found.is_empty() => Err(none("the name has none")),
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(none(&error.to_string())),
            Err(_) => {
                Err(missing(io::ErrorKind::TimedOut, &format!("nobody answered within {} ms", LIMIT.as_millis())))
            }
        }
    }
}

impl Inner {
    /// Made anew when the files have changed; answers that were kept are then forgotten.
    fn current(&self) -> Arc<Current> {
        let changed = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
        let stamp = [changed(&self.hosts), changed(&self.resolvers)];
        let mut kept = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, current)) = kept.as_ref()
            && *of == stamp
        {
            return current.clone();
        }
        let current = Arc::new(Current { hosts: self.hosts(), resolver: self.resolver() });
        *kept = Some((stamp, current.clone()));
        current
    }

    fn hosts(&self) -> Hosts {
        let mut hosts = Hosts::default();
        if let Err(error) = File::open(&self.hosts).and_then(|file| hosts.read_hosts_conf(file)) {
            tracing::warn!(path = %self.hosts.display(), %error, "the hosts file cannot be read");
        }
        hosts
    }

    fn resolver(&self) -> Result<TokioResolver, String> {
        let (mut configuration, mut options) = fs::read(&self.resolvers)
            .map_err(NetError::from)
            .and_then(system_conf::parse_resolv_conf)
            .map_err(|error| format!("the configuration of the resolvers cannot be used, {error}"))?;
        if let Some(port) = self.port {
            let servers = configuration.name_servers.iter_mut();
            servers.flat_map(|server| &mut server.connections).for_each(|connection| connection.port = port);
        }
        options.timeout = QUESTION;
        options.attempts = 1;
        // Looked at before, without asking a resolver for the other family.
        options.use_hosts_file = ResolveHosts::Never;
        options.negative_max_ttl = Some(NEGATIVE);
        let builder = TokioResolver::builder_with_config(configuration, TokioRuntimeProvider::default());
        let builder = builder.with_options(options);
        builder.build().map_err(|error| error.to_string())
    }
}

impl Current {
    /// What the hosts file says.
    fn listed(&self, name: &Name) -> Vec<IpAddr> {
        let of = |kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
        [of(RecordType::A), of(RecordType::AAAA)].iter().flatten().flat_map(addresses).collect()
    }
}

async fn ask(resolver: &TokioResolver, name: &Name, kind: RecordType) -> Result<Vec<IpAddr>, NetError> {
    Ok(addresses(&resolver.lookup(name.clone(), kind).await?))
}

fn addresses(answer: &Answer) -> Vec<IpAddr> {
    answer.answers().iter().filter_map(|record| record.data.ip_addr()).collect()
}

/// The addresses of both families, as far as they come in time.
pub(super) async fn both(
    four: impl Future<Output = Result<Vec<IpAddr>, NetError>>,
    six: impl Future<Output = Result<Vec<IpAddr>, NetError>>,
) -> Result<Vec<IpAddr>, NetError> {
    match select(pin!(four), pin!(six)).await {
        Either::Left((first, other)) => joined(first, other).await,
        Either::Right((first, other)) => joined(first, other).await,
    }
}

async fn joined(
    first: Result<Vec<IpAddr>, NetError>,
    other: impl Future<Output = Result<Vec<IpAddr>, NetError>>,
) -> Result<Vec<IpAddr>, NetError> {
    match first {
        Ok(mut found) if !found.is_empty() => {
            if let Ok(Ok(more)) = tokio::time::timeout(OTHER_FAMILY, other).await {
                found.extend(more);
            }
            Ok(found)
        }
        _ => other.await,
    }
}
