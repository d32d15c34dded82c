//! PostgreSQL on this machine.
//!
//! ```text
//!  at rest           standby.signal in PGDATA: every start comes up in recovery and refuses writes
//!  opened            the agent alone promotes, under a lease, and puts standby.signal back at once
//!  fenced            a block at the top of pg_hba.conf, reloaded; every client backend ended; refusals seen
//!  fenced hard       every process that works in PGDATA killed; needs no disk and no connection
//! ```
//!
//! Invariants
//! - Between the moment PostgreSQL removes `standby.signal` (in a promotion) and the moment it is back, the fence block
//!   stands in `pg_hba.conf`: there is no instant at which a crash leaves an open database at rest.
//! - `primary_conninfo` is empty on a primary and set on a standby: after a restart in recovery this tells a primary
//!   that is closed at rest from a standby.
//! - A fence never waits for an opening that is under way; an opening that meets a fence gives up and leaves it.

mod archive;
mod canary;
mod checkpoint;
mod configured;
mod conninfo;
mod copied;
mod diverged;
mod facts;
mod fence;
mod files;
mod follow;
mod fork;
mod hba;
mod hidden;
mod lab;
mod managed;
mod open;
mod options;
mod outside;
mod permission;
mod place;
mod probe;
pub mod programs;
mod rehearse;
mod rejoin;
mod renew;
mod restore;
mod roles;
mod server;
mod session;
mod verify;
mod wal;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

pub use self::options::PostgresOptions;
use self::session::Session;
use super::backup::Watch;
use super::elsewhere::{self, FenceAt};
use super::process::children::Children;
use super::{Driver, DriverError, DriverResult, FenceReach, Found, Marker, Probe, Rehearsal, Rejoin};

/// A statement that only looks or signals.
const STATEMENT_LIMIT: Duration = Duration::from_secs(2);

/// A file operation that must reach the disk.
const DISK_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at something that is about to change.
const GLANCE: Duration = Duration::from_millis(3);

/// One PostgreSQL server on this machine.
pub struct Postgres {
    options: PostgresOptions,
    cluster: String,
    /// PGDATA as the process table shows it; resolved early, because a fence must not need the disk.
    data: PathBuf,
    probing: Session,
    acting: Session,
    /// For what goes on beside the acting one.
    aside: Session,
    canary: canary::Kept,
    checkpoint: checkpoint::Kept,
    /// Held by whoever opens or rebuilds the database; never by a fence.
    changing: tokio::sync::Mutex<()>,
    gate: Gate,
    hba_file: Mutex<Option<PathBuf>>,
    config_file: Mutex<Option<PathBuf>>,
    children: Children,
    backups: Watch,
    /// By cluster: when a login there as its standby last went well.
    reached: Mutex<BTreeMap<String, Instant>>,
}

impl Postgres {
    /// A driver for this server, which belongs to this cluster. Connects to nothing yet.
    #[must_use]
    pub fn new(options: PostgresOptions, cluster: &str) -> Self {
        let data = std::fs::canonicalize(&options.data_directory).unwrap_or_else(|_| options.data_directory.clone());
        Self {
            probing: Session::new(&options),
            acting: Session::new(&options),
            aside: Session::new(&options),
            canary: canary::Kept::default(),
            checkpoint: checkpoint::Kept::default(),
            changing: tokio::sync::Mutex::new(()),
            gate: Gate::default(),
            hba_file: Mutex::new(None),
            config_file: Mutex::new(None),
            children: Children::default(),
            backups: Watch::default(),
            reached: Mutex::default(),
            cluster: cluster.to_owned(),
            data,
            options,
        }
    }

    /// Its programs are recorded there.
    #[must_use]
    pub fn with_children(self, children: &Children) -> Self {
        Self { children: children.clone(), ..self }
    }

    /// Where `pg_hba.conf` is: as the server last said, else in PGDATA.
    fn hba_file(&self) -> PathBuf {
        let known = self.hba_file.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone().unwrap_or_else(|| self.data.join("pg_hba.conf"))
    }

    /// Where `postgresql.conf` is: as the server last said, else in PGDATA.
    fn config_file(&self) -> PathBuf {
        let known = self.config_file.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone().unwrap_or_else(|| self.data.join("postgresql.conf"))
    }

    fn remember_files(&self, hba: Option<&str>, config: Option<&str>) {
        for (known, file) in [(&self.hba_file, hba), (&self.config_file, config)] {
            if let Some(file) = file {
                *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Path::new(file).to_owned());
            }
        }
    }

    async fn close_at_rest(&self) -> Result<bool, DriverError> {
        let data = self.data.clone();
        files::blocking(DISK_LIMIT, "closing the database at rest (standby.signal in PGDATA)", move || {
            files::close_at_rest(&data)
        })
        .await
    }
}

/// Orders fences before openings: a fence counts itself before it touches the file, an opening takes the block out
/// only while the count is the one it began with. A quiesce lets transactions end only while nobody has told it to break off
/// since it began.
#[derive(Debug, Default, Clone)]
struct Gate {
    fences: Arc<AtomicU64>,
    broken_off: Arc<AtomicU64>,
    file: Arc<Mutex<()>>,
}

impl Gate {
    /// What an opening begins with.
    fn count(&self) -> u64 {
        self.fences.load(Ordering::SeqCst)
    }

    /// A fence begins.
    fn fence_begins(&self) {
        self.fences.fetch_add(1, Ordering::SeqCst);
    }

    /// How often a quiesce was told to break off.
    fn broken_off(&self) -> u64 {
        self.broken_off.load(Ordering::SeqCst)
    }

    /// Refuses to go on opening once a fence has begun.
    fn still(&self, count: u64) -> Result<(), DriverError> {
        if self.count() == count { Ok(()) } else { Err(fenced_meanwhile()) }
    }
}

fn fenced_meanwhile() -> DriverError {
    DriverError::retryable("postgres-fenced", "the database was fenced while it was being opened; the fence stays")
}

#[async_trait]
impl Driver for Postgres {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn fence_reach(&self) -> FenceReach {
        self.options.fence.reach()
    }

    async fn probe(&self) -> Probe {
        self.look().await
    }

    async fn can_end(&self) -> Result<(), DriverError> {
        match self.fence_reach() {
            FenceReach::Local => self.can_be_ended().await,
            // No process here to be seen; what that means is said where the guard is armed.
            FenceReach::Remote | FenceReach::Nothing => Ok(()),
        }
    }

    async fn guard(&self, marker: &Marker) -> DriverResult {
        self.take_into_guard(marker).await
    }

    fn closes_at_rest(&self) -> bool {
        true
    }

    async fn keep_closed(&self) -> Result<bool, DriverError> {
        let Ok(_changing) = self.changing.try_lock() else { return Ok(false) };
        let data = self.data.clone();
        files::blocking(DISK_LIMIT, "closing the database at rest (standby.signal in PGDATA)", move || {
            // An emptied place is a restore's or a re-clone's.
            if data.join("PG_VERSION").exists() { files::close_at_rest(&data) } else { Ok(false) }
        })
        .await
    }

    async fn fence(&self) -> DriverResult {
        self.fence_gently(Duration::ZERO).await
    }

    async fn fence_hard(&self) -> DriverResult {
        match self.options.fence {
            FenceAt::Local => self.kill_all().await,
            FenceAt::Remote => elsewhere::end(&self.options.hard_fence, &self.options.host, self.options.port).await,
        }
    }

    async fn unfence(&self) -> DriverResult {
        let _changing = self.changing.lock().await;
        self.reopen().await
    }

    async fn quiesce(&self) -> DriverResult {
        self.fence_gently(self.options.grace).await
    }

    fn break_off(&self) {
        self.gate.broken_off.fetch_add(1, Ordering::SeqCst);
    }

    async fn catch_up(&self, position: u64) -> DriverResult {
        self.wait_for(position).await
    }

    async fn prepare(&self) -> DriverResult {
        self.prepare_to_open().await
    }

    async fn promote(&self, position: Option<u64>) -> DriverResult {
        let _changing = self.changing.lock().await;
        self.become_primary(position).await
    }

    async fn divergence(&self, upstream_cluster: &str) -> Result<Option<String>, DriverError> {
        self.measure_divergence(upstream_cluster).await
    }

    async fn facts(&self) -> Option<Found> {
        Some(self.look_around().await)
    }

    fn look_anew(&self) {
        self.reached_as_standby().clear();
    }

    async fn restore(&self, run: u64) -> DriverResult {
        if self.options.fence == FenceAt::Remote {
            // Whether anybody works in its files cannot be seen from here.
            return Err(DriverError::unsupported("postgres", "be restored from another machine"));
        }
        let _changing = self.changing.lock().await;
        self.restore_in_place(run).await
    }

    async fn rehearse(&self, rehearsal: Rehearsal, run: u64) -> DriverResult {
        self.rehearse_in_scratch(rehearsal, run).await
    }

    async fn rejoin(&self, rejoin: &Rejoin) -> DriverResult {
        let _changing = self.changing.lock().await;
        self.become_standby(rejoin).await
    }
}
