//! agent.yaml: what this agent is, whom it talks to, and where each resource of each application is.
//!
//! Every option has a default that is written at its field, unless it cannot have one. An unknown key is a mistake with
//! its line. Secrets are written as `${file:PATH}` or `${env:NAME}` inside the options that hold one; they are read
//! once, when the file is loaded.

mod databases;
mod expand;
mod kubernetes;
mod mistake;
mod options;
mod reader;
mod redact;
pub(crate) mod tree;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use regent_core::id::{ApplicationId, ClusterId, RegionId, ResourceId};
use serde::{Deserialize, Serialize};

pub use self::databases::{PostgresOptions, RedisOptions};
pub use self::kubernetes::{ArgoOptions, ArgoWay, KubernetesOptions, Quarantine, WorkloadOptions};
use self::mistake::Mistake;
pub use self::options::{
    CommandLine, CommandOptions, DnsOptions, HttpOptions, TsigAlgorithm, TsigKeyOptions, UpdateOptions,
};
use self::reader::Reader;
use self::tree::Node;

/// The whole of agent.yaml, with defaults filled in and secrets read.
#[derive(Debug, Clone)]
pub struct Config {
    /// This cluster's name, as Application documents list it. No default.
    pub cluster: ClusterId,
    /// The region that this cluster is in. No default.
    pub region: RegionId,
    /// `host:port` of every coordinator. No default.
    pub coordinators: Vec<String>,
    /// Where other agents ask for promises; mutual TLS. No default.
    pub listen: SocketAddr,
    /// `host:port` by which other agents reach `listen`. Default: `listen`.
    pub advertise: String,
    /// HTTP for `/livez`, `/readyz` and `/metrics`; loopback only, as it has no TLS. No default.
    pub admin: SocketAddr,
    /// The journal and the identity of this installation; survives a reboot. No default.
    pub data_directory: PathBuf,
    /// The guard's deadline and promises; on a tmpfs, as it must not survive a reboot. No default.
    pub runtime_directory: PathBuf,
    /// This agent's certificate. No default.
    pub tls: TlsFilesConfig,
    /// How often each resource is probed. Default: `1s`.
    pub probe_interval: Duration,
    /// Resolvers that are asked after a redirect, beside every authority. Default (none): the system's.
    pub resolvers: Option<Vec<SocketAddr>>,
    /// Filter of the log, as `tracing` writes it. Default: `info`.
    pub log: String,
    /// Where each resource is. Default: none.
    pub applications: BTreeMap<ApplicationId, BTreeMap<ResourceId, ResourceConfig>>,
    /// What was read, to show it again without the secrets.
    source: Source,
}

/// The PEM files of this agent's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFilesConfig {
    /// Certificates of the group's authority.
    pub ca: PathBuf,
    /// This agent's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Where one resource is and how it is handled, by `kind`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ResourceConfig {
    /// `kind: postgres`.
    Postgres(PostgresOptions),
    /// `kind: redis`.
    Redis(RedisOptions),
    /// `kind: command`.
    Command(CommandOptions),
    /// `kind: kubernetes`.
    Kubernetes(KubernetesOptions),
    /// `kind: dns`.
    Dns(DnsOptions),
    /// `kind: http`.
    Http(HttpOptions),
}

impl ResourceConfig {
    /// The kind as documents name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Redis(_) => "redis",
            Self::Command(_) => "command",
            Self::Kubernetes(_) => "kubernetes",
            Self::Dns(_) => "dns",
            Self::Http(_) => "http",
        }
    }
}

/// Why agent.yaml cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{} cannot be read; name an existing file with --config", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("{}: line {line}, column {column}: {message}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// From 1; 0 if unknown.
        line: u64,
        /// From 1; 0 if unknown.
        column: u64,
        /// What is wrong.
        message: String,
    },
    /// An option is wrong, missing or unknown.
    #[error("{}: line {line}, column {column}: {}{message}", file.display(), prefix(path))]
    Option {
        /// The file.
        file: PathBuf,
        /// The option, e.g. `applications.shop.www.addresses[0]`; empty for the file as a whole.
        path: String,
        /// From 1; 0 if unknown.
        line: u64,
        /// From 1; 0 if unknown.
        column: u64,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// What was read cannot be written again.
    #[error("the configuration cannot be shown")]
    Show {
        /// Why.
        #[from]
        source: serde_saphyr::SerializeError,
    },
}

/// The parser ends its messages with the place, which ours begin with.
fn without_place(message: String) -> String {
    match message.rsplit_once(" at line ") {
        Some((text, _)) => text.to_owned(),
        None => message,
    }
}

fn prefix(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

impl ConfigError {
    /// The line of the mistake; none if the file could not be read.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        match self {
            Self::Syntax { line, .. } | Self::Option { line, .. } => Some(*line),
            Self::Unreadable { .. } | Self::Show { .. } => None,
        }
    }
}

impl Config {
    /// Reads and checks a file, and reads the secrets that it refers to.
    ///
    /// # Errors
    /// The first mistake, with its line; or that the file cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { file: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// As [`Config::load`], from a text; `file` is named in messages, and relative secret files stand beside it.
    ///
    /// # Errors
    /// The first mistake, with its line.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        // A snippet of the text in the message could show a password.
        let options = serde_saphyr::options! { with_snippet: false };
        let tree: Node = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let place = error.location();
            ConfigError::Syntax {
                file: file.to_owned(),
                line: place.map_or(0, |place| place.line()),
                column: place.map_or(0, |place| place.column()),
                message: without_place(error.without_snippet().to_string()),
            }
        })?;
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        Self::from_tree(tree, &folder).map_err(|Mistake { path, place, message }| ConfigError::Option {
            file: file.to_owned(),
            path,
            line: place.line,
            column: place.column,
            message,
        })
    }

    fn from_tree(tree: Node, folder: &Path) -> Result<Self, Mistake> {
        let draft = Draft::deserialize(Reader::new(&tree, folder)).map_err(|mistake| mistake.at(tree.place))?;
        draft.check().map_err(|(option, message)| Mistake::new(tree.place_of(&[option]), message).under(option))?;
        Ok(Self {
            advertise: draft.advertise.unwrap_or_else(|| draft.listen.to_string()),
            cluster: draft.cluster,
            region: draft.region,
            coordinators: draft.coordinators,
            listen: draft.listen,
            admin: draft.admin,
            data_directory: draft.data_directory,
            runtime_directory: draft.runtime_directory,
            tls: draft.tls,
            probe_interval: draft.probe_interval,
            resolvers: draft.resolvers,
            log: draft.log,
            applications: draft.applications,
            source: Source(tree),
        })
    }

    /// What would be used, for `--check-config`: defaults filled in, references to secrets as they were written, and
    /// `***` in place of a secret that was written literally.
    ///
    /// # Errors
    /// If it cannot be written as YAML.
    pub fn to_yaml_redacted(&self) -> Result<String, ConfigError> {
        Ok(serde_saphyr::to_string(&redact::View::new(self, &self.source.0))?)
    }

    /// The resolvers that are asked after a redirect: the configured ones, or those of `/etc/resolv.conf`.
    #[must_use]
    pub fn resolver_addresses(&self) -> Vec<SocketAddr> {
        if let Some(resolvers) = &self.resolvers {
            return resolvers.clone();
        }
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("nameserver"))
            .filter_map(|address| address.trim().parse::<std::net::IpAddr>().ok())
            .map(|address| SocketAddr::new(address, 53))
            .collect()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Draft {
    cluster: ClusterId,
    region: RegionId,
    #[serde(deserialize_with = "options::host_ports")]
    coordinators: Vec<String>,
    #[serde(deserialize_with = "options::socket_address")]
    listen: SocketAddr,
    #[serde(default, deserialize_with = "options::optional_host_port")]
    advertise: Option<String>,
    #[serde(deserialize_with = "options::socket_address")]
    admin: SocketAddr,
    data_directory: PathBuf,
    runtime_directory: PathBuf,
    tls: TlsFilesConfig,
    #[serde(default = "options::one_second", deserialize_with = "options::duration")]
    probe_interval: Duration,
    #[serde(default, deserialize_with = "options::optional_socket_addresses")]
    resolvers: Option<Vec<SocketAddr>>,
    #[serde(default = "default_log")]
    log: String,
    #[serde(default)]
    applications: BTreeMap<ApplicationId, BTreeMap<ResourceId, ResourceConfig>>,
}

fn default_log() -> String {
    "info".to_owned()
}

impl Draft {
    /// What no single option can tell: the option that is wrong, and what would be right.
    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.coordinators.is_empty() {
            return Err(("coordinators", "list the address of every coordinator".to_owned()));
        }
        if !self.admin.ip().is_loopback() {
            let message = format!("{} is not a loopback address; it has no TLS, so use 127.0.0.1 or [::1]", self.admin);
            return Err(("admin", message));
        }
        if self.admin == self.listen && self.admin.port() != 0 {
            return Err(("admin", "listen has the same address; use another port".to_owned()));
        }
        if self.listen.ip().is_unspecified() && self.advertise.is_none() {
            let message = format!("other agents cannot reach {}; say by what address they can", self.listen);
            return Err(("advertise", message));
        }
        if same_folder(&self.data_directory, &self.runtime_directory) {
            let message = "dataDirectory is the same folder; what is in this one must not survive a reboot, so use a \
                           tmpfs such as /run/regent/agent";
            return Err(("runtimeDirectory", message.to_owned()));
        }
        for (option, folder) in [("dataDirectory", &self.data_directory), ("runtimeDirectory", &self.runtime_directory)]
        {
            if !folder.is_absolute() {
                return Err((option, format!("{} is not an absolute path", folder.display())));
            }
        }
        self.check_servers()?;
        tracing_subscriber::EnvFilter::try_new(&self.log)
            .map(drop)
            .map_err(|error| ("log", format!("not a filter ({error}); write info, or info,regent_agent=debug")))
    }
}

impl Draft {
    /// Two leases must never govern one server. By what a database says of itself the group cannot always tell: Redis
    /// takes another id with each promotion.
    fn check_servers(&self) -> Result<(), (&'static str, String)> {
        let mut known: BTreeMap<(&str, u16), String> = BTreeMap::new();
        for (application, resources) in &self.applications {
            for (resource, options) in resources {
                let (host, port) = match options {
                    ResourceConfig::Postgres(postgres) => (postgres.host.as_str(), postgres.port),
                    ResourceConfig::Redis(redis) => (redis.host.as_str(), redis.port),
                    ResourceConfig::Command(_) | ResourceConfig::Kubernetes(_) => continue,
                    ResourceConfig::Http(_) | ResourceConfig::Dns(_) => continue,
                };
                let host = if host.eq_ignore_ascii_case("localhost") { "127.0.0.1" } else { host };
                let name = format!("{application}.{resource}");
                if let Some(other) = known.insert((host, port), name.clone()) {
                    let message = format!("{other} and {name} are the same server, {host}:{port}; name it once");
                    return Err(("applications", message));
                }
            }
        }
        Ok(())
    }
}

fn same_folder(one: &Path, other: &Path) -> bool {
    let same_file = match (std::fs::canonicalize(one), std::fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        // Not made yet.
        _ => false,
    };
    same_file || written_out(one) == written_out(other)
}

/// The path without `.` and `..`, by its writing alone.
fn written_out(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(out.pop()),
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => out.push(component),
        }
    }
    out
}

/// The tree as it was read. It holds secrets that were written literally.
#[derive(Clone)]
struct Source(Node);

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}
