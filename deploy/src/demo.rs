//! The demonstration's service: takes numbered rows over HTTP and writes them into PostgreSQL and Redis of its cluster.
//!
//! | request | answer |
//! |---|---|
//! | `POST /rows` `{"n": 1}` | 201 after both have committed; 503 otherwise |
//! | `GET /rows/max` | `{"n": 1}`, the highest number in PostgreSQL, or `null` |
//! | `GET /healthz` | 200 `ok` only if both databases accept writes |
//!
//! It knows one cluster only: which cluster's service is used is decided by the DNS name alone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub mod daemon;
pub mod server;

/// The service's file. It holds passwords.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DemoConfig {
    /// Where clients reach it.
    pub listen: SocketAddr,
    /// A connection string of PostgreSQL.
    pub postgres: String,
    /// A URL of Redis.
    pub redis: String,
    /// Names the process while it runs.
    pub pid_file: PathBuf,
    /// Where it logs.
    pub log: PathBuf,
}

impl DemoConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or is not such a file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_saphyr::from_str(&text).with_context(|| format!("{} is not a file of this service", path.display()))
    }
}
