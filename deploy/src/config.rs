//! The files that coordinators, agents and the application are told what to do with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::place;
use crate::postgres::{self, Postgres};
use crate::redis::{self, Redis};

/// The zone that the coordinators answer for.
pub const ZONE: &str = "regent.test.";
/// The application.
pub const APPLICATION: &str = "shop";
/// The service's name, which follows the primary.
pub const NAME: &str = "shop.regent.test.";
/// Names of the application's resources.
pub const DATABASE: &str = "orders-db";
/// See [`DATABASE`].
pub const CACHE: &str = "cache";

/// Where one coordinator listens.
#[derive(Debug, Clone, Copy)]
pub struct CoordinatorPlace {
    /// Its raft id.
    pub id: u64,
    /// gRPC.
    pub listen: SocketAddr,
    /// HTTP.
    pub dashboard: SocketAddr,
    /// Embedded DNS.
    pub dns: SocketAddr,
}

/// Where one agent listens.
#[derive(Debug, Clone, Copy)]
pub struct AgentPlace {
    /// gRPC, for other agents.
    pub listen: SocketAddr,
    /// HTTP.
    pub admin: SocketAddr,
}

/// A certificate with its key and authority.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// Its own.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Credentials {
    /// Of a node, in the folder that `regentctl certs` fills.
    #[must_use]
    pub fn of(folder: &Path, node: &str) -> Self {
        Self {
            ca: folder.join("ca.pem"),
            certificate: folder.join(format!("{node}.pem")),
            key: folder.join(format!("{node}-key.pem")),
        }
    }

    fn value(&self) -> Value {
        json!({ "ca": self.ca, "certificate": self.certificate, "key": self.key })
    }
}

/// `coordinator.yaml`.
#[must_use]
pub fn coordinator(
    own: &CoordinatorPlace,
    region: &str,
    all: &[CoordinatorPlace],
    data: &Path,
    credentials: &Credentials,
    log: &str,
) -> Value {
    let peers: Vec<Value> = all.iter().map(|peer| json!({ "id": peer.id, "address": peer.listen })).collect();
    json!({
        "id": own.id,
        "region": region,
        "listen": own.listen,
        "dashboard": own.dashboard,
        "dns": { "listen": own.dns, "zone": ZONE },
        "peers": peers,
        "dataDirectory": data,
        "tls": credentials.value(),
        // One of them makes the group; the others wait to be taken in.
        "bootstrap": own.id == 1,
        "log": log,
    })
}

/// What an agent is told.
pub struct AgentFile<'a> {
    /// Its cluster.
    pub cluster: &'a str,
    /// Its region.
    pub region: &'a str,
    /// Where it listens.
    pub place: AgentPlace,
    /// All coordinators.
    pub coordinators: &'a [CoordinatorPlace],
    /// Its own folder.
    pub data: &'a Path,
    /// In memory.
    pub runtime: &'a Path,
    /// Its certificate.
    pub credentials: &'a Credentials,
    /// How often it looks at its databases.
    pub probe_interval: Duration,
    /// Tracing filter.
    pub log: &'a str,
    /// Its PostgreSQL.
    pub postgres: &'a Postgres,
    /// Its Redis.
    pub redis: &'a Redis,
    /// The other clusters with theirs.
    pub others: &'a [(&'a str, &'a Postgres, &'a Redis)],
    /// The command that controls the service, without its action, and the service's file.
    pub service: (&'a Path, &'a Path),
    /// The kubeconfig of the cluster whose Deployment the service is; none if the command controls it.
    pub kubernetes: Option<&'a Path>,
    /// Where the service answers.
    pub service_address: SocketAddr,
}

impl AgentFile<'_> {
    /// `agent.yaml`.
    ///
    /// # Errors
    /// There is no user to run PostgreSQL as.
    pub fn value(&self) -> Result<Value> {
        let servers: Vec<SocketAddr> = self.coordinators.iter().map(|coordinator| coordinator.dns).collect();
        let coordinators: Vec<SocketAddr> = self.coordinators.iter().map(|coordinator| coordinator.listen).collect();
        Ok(json!({
            "cluster": self.cluster,
            "region": self.region,
            "coordinators": coordinators,
            "listen": self.place.listen,
            "admin": self.place.admin,
            "dataDirectory": self.data,
            "runtimeDirectory": self.runtime,
            "tls": self.credentials.value(),
            "probeInterval": milliseconds(self.probe_interval),
            "resolvers": servers,
            "log": self.log,
            "applications": { APPLICATION: {
                DATABASE: self.postgres_value()?,
                CACHE: self.redis_value(),
                "service": self.service_value(),
                "www": { "kind": "dns", "addresses": [self.service_address.ip()], "authorities": servers },
                "checks": {
                    "kind": "http",
                    "url": format!("http://{}/healthz", self.service_address),
                    "expectBody": "ok",
                    "timeout": "2s",
                },
            } },
        }))
    }

    fn service_value(&self) -> Value {
        let service = |action: &str| json!([self.service.0, action, "--config", self.service.1]);
        match self.kubernetes {
            None => json!({
                "kind": "command",
                "activate": service("start"),
                "deactivate": service("stop"),
                "status": service("status"),
                "timeout": "30s",
            }),
            Some(kubeconfig) => json!({
                "kind": "kubernetes",
                "kubeconfig": kubeconfig,
                "namespace": APPLICATION,
                "workloads": [{ "deployment": APPLICATION, "replicas": 2 }],
                "argocd": {
                    "application": APPLICATION,
                    "by": "helm",
                    "active": { "replicaCount": "2" },
                    "atRest": { "replicaCount": "0" },
                },
                "timeout": "30s",
            }),
        }
    }

    fn postgres_value(&self) -> Result<Value> {
        let others: Vec<(&str, &Postgres)> = self.others.iter().map(|(cluster, other, _)| (*cluster, *other)).collect();
        database(self.postgres, &others)
    }

    fn redis_value(&self) -> Value {
        let own = self.redis;
        let password = |user: &str| secret(&own.password_file(user));
        let upstreams = self.others.iter().map(|(cluster, _, other)| {
            let (host, port) = other.address();
            let user = redis::REPLICATOR;
            ((*cluster).to_owned(), json!({ "host": host, "port": port, "user": user, "password": password(user) }))
        });
        let (host, port) = own.address();
        json!({
            "kind": "redis",
            "host": host,
            "port": port,
            "user": redis::AGENT,
            "password": password(redis::AGENT),
            "clients": [redis::CLIENT],
            "pidFile": own.pid_file(),
            "configFile": own.config_file(),
            "start": [own.start_script()],
            "stop": [own.stop_script()],
            "upstreams": Value::Object(upstreams.collect()),
            "scratch": { "directory": own.scratch() },
        })
    }
}

/// A PostgreSQL in `agent.yaml`; `others` are the other clusters with theirs.
pub(crate) fn database(own: &Postgres, others: &[(&str, &Postgres)]) -> Result<Value> {
    let password = |role: &str| secret(&own.password_file(role));
    let reach = |role: &str, end: &str| -> Value {
        let all = others.iter().map(|(cluster, other)| {
            let (address, port) = other.address();
            let text = format!("host={address} port={port} user={role} password={}{end}", password(role));
            ((*cluster).to_owned(), Value::String(text))
        });
        Value::Object(all.collect())
    };
    let (address, port) = own.address();
    Ok(json!({
        "kind": "postgres",
        "dataDirectory": own.data(),
        "host": address,
        "port": port,
        "socketDirectory": own.socket_folder(),
        "user": postgres::AGENT,
        "password": password(postgres::AGENT),
        "owner": postgres::OWNER,
        "database": postgres::OWNER,
        "binDirectory": own.programs(),
        "osUser": place::postgres_user()?.name,
        "start": [own.start_script()],
        "stop": [own.stop_script()],
        "upstreams": reach(postgres::AGENT, " dbname=postgres"),
        "replication": reach(postgres::REPLICATOR, ""),
        "scratch": { "directory": own.scratch() },
        "checks": [{ "query": "SELECT count(*) > 0 FROM rows" }],
    }))
}

/// The Application document; the service is of this kind.
#[must_use]
pub fn application(clusters: &[&str], failover_after: Duration, max_data_loss: Duration, service: &str) -> String {
    format!(
        "apiVersion: regent/v1
kind: Application
metadata:
  name: {APPLICATION}
spec:
  objectives: {{ rto: 1m, rpo: 5s }}
  clusters: [{clusters}]
  resources:
    {DATABASE}: {{ kind: postgres }}
    {CACHE}: {{ kind: redis }}
    service: {{ kind: {service} }}
    www: {{ kind: dns, name: {NAME}, ttl: 1s }}
    checks: {{ kind: http }}
  automation:
    mode: automatic
    failoverAfter: {failover_after}
    cooldown: 1h
    maxDataLoss: {max_data_loss}
    beyondMaxDataLoss: refuse
    onCoordinatorLoss: failsafe
  runbooks:
    failover:
      - promote: [{DATABASE}, {CACHE}]
      - redirect: [www]
      - activate: [service]
      - verify: [checks]
    switchover:
      - catchUp: [{DATABASE}, {CACHE}]
      - promote: [{DATABASE}, {CACHE}]
      - redirect: [www]
      - activate: [service]
      - verify: [checks]
      - rejoin: [{DATABASE}, {CACHE}]
      - deactivate: [service]
    drill:
      - promote: [{DATABASE}, {CACHE}]
      - verify: [{DATABASE}, {CACHE}]
",
        clusters = clusters.join(", "),
        failover_after = milliseconds(failover_after),
        max_data_loss = milliseconds(max_data_loss),
    )
}

/// The same document with a switchover that begins with a quiesce of PostgreSQL.
#[must_use]
pub(crate) fn quiesced_first(document: &str) -> String {
    document.replace("    switchover:\n", &format!("    switchover:\n      - quiesce: [{DATABASE}]\n"))
}

/// Writes a value as YAML.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, value: &Value) -> Result<()> {
    let text = serde_saphyr::to_string(value).with_context(|| format!("cannot write {} as YAML", path.display()))?;
    place::write_secret(path, &text)
}

fn secret(path: &Path) -> String {
    format!("${{file:{}}}", path.display())
}

/// As documents and files have it.
pub(crate) fn milliseconds(span: Duration) -> String {
    format!("{}ms", span.as_millis())
}
