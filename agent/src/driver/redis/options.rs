//! What the agent's configuration says of a Redis server.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::check::RedisCheck;
use crate::driver::backup::BackupOptions;
use crate::driver::elsewhere::FenceAt;
use crate::driver::scratch::ScratchOptions;
use crate::secret::Secret;

/// One Redis server on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisOptions {
    /// Where clients connect.
    #[serde(default = "loopback")]
    pub host: String,
    /// Its port.
    #[serde(default = "port")]
    pub port: u16,
    /// The agent's own ACL user.
    #[serde(default = "user")]
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// ACL users that the fence switches off; never the agent's own, nor the one replicas log in as.
    #[serde(default)]
    pub clients: Vec<String>,
    /// Where the server writes its process id.
    pub pid_file: PathBuf,
    /// The server's own configuration, which closes it at rest. Default: where a running server says it is; give it,
    /// so that the gate can check it before the server runs.
    #[serde(default)]
    pub config_file: Option<PathBuf>,
    /// Starts the server and returns.
    pub start: Vec<String>,
    /// Stops the server and returns.
    pub stop: Vec<String>,
    /// Where its process is: `remote` if not on this machine. Default: `local`.
    #[serde(default)]
    pub fence: FenceAt,
    /// `remote` only: ends the server on its own machine, and returns when it is gone.
    #[serde(default)]
    pub hard_fence: Vec<String>,
    /// By cluster: how to follow it.
    #[serde(default)]
    pub upstreams: BTreeMap<String, RedisUpstream>,
    /// Where drills may work. Default: none; the resource cannot be copied in a drill.
    #[serde(default)]
    pub scratch: Option<ScratchOptions>,
    /// Commands that a copy, or what was restored, must answer. Default: none; keys are counted.
    #[serde(default)]
    pub checks: Vec<RedisCheck>,
    /// Where its backups are. Default: none; it cannot be restored.
    #[serde(default)]
    pub backups: Option<BackupOptions>,
}

/// How a replica reaches its upstream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisUpstream {
    /// Where.
    pub host: String,
    /// Its port.
    #[serde(default = "port")]
    pub port: u16,
    /// ACL user for replication; may use `PSYNC`, `REPLCONF`, `PING` and `INFO`. None: the default user.
    #[serde(default)]
    pub user: Option<String>,
    /// Its password.
    #[serde(default)]
    pub password: Option<Secret>,
}

fn loopback() -> String {
    "127.0.0.1".to_owned()
}

fn port() -> u16 {
    6379
}

fn user() -> String {
    "regent".to_owned()
}
