//! What the agent's configuration says of a PostgreSQL server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regent_core::time::Span;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::programs::Major;
use crate::driver::backup::BackupOptions;
use crate::driver::elsewhere::FenceAt;
use crate::driver::scratch::{Check, ScratchOptions};
use crate::secret::Secret;

/// Nobody can write meanwhile but those that were at it: a longer one had better be an outage that was planned.
const LONGEST_GRACE: Duration = Duration::from_secs(30);

/// One PostgreSQL server on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PostgresOptions {
    /// PGDATA.
    pub data_directory: PathBuf,
    /// Where clients connect from outside.
    #[serde(default = "loopback")]
    pub host: String,
    /// Its port.
    #[serde(default = "port")]
    pub port: u16,
    /// Folder of the Unix socket; the agent's own login goes over it.
    #[serde(default = "socket_directory")]
    pub socket_directory: PathBuf,
    /// The agent's own login, a superuser.
    #[serde(default = "user")]
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The role whose writes must be seen refused.
    pub owner: String,
    /// The database that the owner writes to.
    pub database: String,
    /// Folder of `pg_rewind` and the others; found if absent.
    #[serde(default)]
    pub bin_directory: Option<PathBuf>,
    /// Programs run as this user.
    #[serde(default = "os_user")]
    pub os_user: String,
    /// Starts the server and returns.
    pub start: Vec<String>,
    /// Stops the server and returns.
    pub stop: Vec<String>,
    /// How long transactions may take to end by themselves once a `quiesce` step has shut the doors to new logins; then
    /// they are cut. It counts within `maxWriteOutage`. No fence waits for it, and no undo: that breaks it off. Default:
    /// `100ms`; at most `30s`; `0s` cuts at once.
    #[serde(default = "grace", deserialize_with = "limited")]
    pub grace: Duration,
    /// Where its processes are: `remote` if not on this machine, and PGDATA is only reached from here. Default: `local`.
    #[serde(default)]
    pub fence: FenceAt,
    /// `remote` only: ends the server on its own machine, and returns when it is gone.
    #[serde(default)]
    pub hard_fence: Vec<String>,
    /// By cluster: how a superuser reaches its server, for `pg_rewind`; `key=value` pairs as libpq reads them.
    #[serde(default)]
    pub upstreams: BTreeMap<String, Secret>,
    /// By cluster: `primary_conninfo` to follow it.
    #[serde(default)]
    pub replication: BTreeMap<String, Secret>,
    /// Where drills may work. Default: none; the resource cannot be copied in a drill.
    #[serde(default)]
    pub scratch: Option<ScratchOptions>,
    /// Queries that a copy, or what was restored, must answer. Default: none; rows are counted.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// Where its backups are. Default: none; it cannot be restored.
    #[serde(default)]
    pub backups: Option<BackupOptions>,
}

fn loopback() -> String {
    "127.0.0.1".to_owned()
}

fn port() -> u16 {
    5432
}

fn socket_directory() -> PathBuf {
    PathBuf::from("/var/run/postgresql")
}

fn user() -> String {
    "regent".to_owned()
}

fn os_user() -> String {
    "postgres".to_owned()
}

fn grace() -> Duration {
    Duration::from_millis(100)
}

fn limited<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let span = Span::deserialize(deserializer)?;
    let grace = Duration::from_millis(span.millis());
    if grace > LONGEST_GRACE {
        let most = LONGEST_GRACE.as_secs();
        return Err(D::Error::custom(format!(
            "a grace of {span} is too long: whoever else wants to write waits for it; write at most {most}s"
        )));
    }
    Ok(grace)
}

impl PostgresOptions {
    /// The major version of the server: that of its data, else that of the programs which start it, if their path says it.
    #[must_use]
    pub(super) fn major(&self) -> Option<Major> {
        let version = std::fs::read_to_string(self.data_directory.join("PG_VERSION")).unwrap_or_default();
        Major::parse(&version).or_else(|| Major::of_path(Path::new(self.start.first()?)))
    }

    /// The folder of PostgreSQL's programs: the configured one, else the one that fits the version of the server, else the
    /// newest that is installed.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        if let Some(folder) = &self.bin_directory {
            return folder.clone();
        }
        let version = self.major().map(|major| major.to_string()).unwrap_or_default();
        if version.is_empty() {
            // There is no database yet, or no longer.
            if let Some(folder) = newest_programs(Path::new("/usr/lib/postgresql")) {
                return folder;
            }
        }
        [
            PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")),
            PathBuf::from(format!("/usr/pgsql-{version}/bin")),
            PathBuf::from("/usr/local/pgsql/bin"),
            PathBuf::from("/usr/local/bin"),
        ]
        .into_iter()
        .find(|folder| folder.join("pg_rewind").exists())
        .unwrap_or_else(|| PathBuf::from("/usr/bin"))
    }
}

fn newest_programs(versions: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(versions).ok()?.flatten();
    let numbered = entries.filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let folder = entry.path().join("bin");
        folder.join("pg_rewind").exists().then_some((version, folder))
    });
    numbered.max().map(|(_, folder)| folder)
}
