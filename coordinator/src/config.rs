//! `coordinator.yaml`: every option, its default and its checks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use regent_core::id::{CoordinatorId, RegionId};
use regent_proto::tls::TlsFiles;
use serde::{Deserialize, Serialize};

mod raft;

pub use raft::Raft;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is no configuration; the message names the line.
    #[error("{path} is not a coordinator's configuration: {message}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// A value makes no sense.
    #[error("{path}: {}{key}: {message}", line.map_or_else(String::new, |line| format!("line {line}: ")))]
    Value {
        /// Which.
        path: PathBuf,
        /// Where it stands, if that is known.
        line: Option<u64>,
        /// The option.
        key: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
}

/// The whole configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Raft id; for good bound to the data directory.
    pub id: u64,
    /// Where it stands.
    pub region: RegionId,
    /// gRPC for operators, agents and peers; mutual TLS.
    pub listen: SocketAddr,
    /// host:port by which others reach it. Default: `listen`.
    #[serde(default)]
    pub advertise: Option<String>,
    /// HTTP: dashboard, health, metrics; must be a loopback address.
    pub dashboard: SocketAddr,
    /// The embedded DNS server. Default: none.
    #[serde(default)]
    pub dns: Option<Dns>,
    /// All coordinators, this one included. Of one that joins: itself, and those that it is to find there.
    pub peers: Vec<Peer>,
    /// Log, state and identity.
    pub data_directory: PathBuf,
    /// Certificate of this coordinator.
    pub tls: TlsFiles,
    /// May create the group if none of the peers has one. Default: false.
    #[serde(default)]
    pub bootstrap: bool,
    /// Joins an existing group, which must add it (`regentctl members add`). Default: false.
    #[serde(default)]
    pub join: bool,
    /// Times and sizes of replication, the same in all coordinators. Default: see there.
    #[serde(default)]
    pub raft: Raft,
    /// Filter of the log. Default: info.
    #[serde(default = "default_log")]
    pub log: String,
}

/// The embedded DNS server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dns {
    /// UDP and TCP.
    pub listen: SocketAddr,
    /// The zone it is authoritative for, absolute.
    pub zone: String,
    /// Names of its servers. Default: `ns.` before the zone.
    #[serde(default)]
    pub name_servers: Vec<String>,
}

/// One coordinator.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Peer {
    /// Raft id.
    pub id: u64,
    /// host:port of its gRPC server.
    pub address: String,
}

fn default_log() -> String {
    "info".to_owned()
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Names the file, the option or the line, and what would be right.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        let config: Self = serde_saphyr::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: path.to_path_buf(), message: error.to_string() })?;
        let path = path.to_path_buf();
        if let Err((key, message)) = config.check() {
            return Err(ConfigError::Value { path, line: None, key, message });
        }
        match config.raft.check() {
            Ok(()) => Ok(config),
            Err(raft::Contradiction { key, line, message }) => Err(ConfigError::Value { path, line, key, message }),
        }
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        let ids: BTreeMap<u64, &str> = self.peers.iter().map(|peer| (peer.id, peer.address.as_str())).collect();
        if ids.len() != self.peers.len() {
            return Err(("peers", "an id stands twice".to_owned()));
        }
        if !ids.contains_key(&self.id) {
            return Err(("peers", format!("coordinator {} itself is missing; list all coordinators", self.id)));
        }
        if self.join && self.bootstrap {
            return Err(("join", "a coordinator that joins a group creates none: take `bootstrap` out".to_owned()));
        }
        // Only the group's beginning: while members change there are others, too.
        if self.bootstrap && self.peers.len().is_multiple_of(2) {
            return Err((
                "peers",
                format!("{} coordinators tolerate no more loss than one fewer; use 1, 3 or 5", self.peers.len()),
            ));
        }
        if !self.dashboard.ip().is_loopback() {
            return Err((
                "dashboard",
                "it has no login yet; listen on a loopback address and put a proxy before it".to_owned(),
            ));
        }
        if !self.data_directory.is_absolute() {
            return Err(("dataDirectory", "must be an absolute path".to_owned()));
        }
        if let Some(dns) = &self.dns
            && !dns.zone.ends_with('.')
        {
            return Err(("dns.zone", format!("write it absolute: {}.", dns.zone)));
        }
        Ok(())
    }

    /// host:port by which others reach it.
    #[must_use]
    pub fn advertised(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.listen.to_string())
    }

    /// Every peer's address by raft id.
    #[must_use]
    pub fn addresses(&self) -> BTreeMap<CoordinatorId, String> {
        self.peers.iter().map(|peer| (CoordinatorId(peer.id), peer.address.clone())).collect()
    }
}
