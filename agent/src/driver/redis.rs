//! Redis on this machine.
//!
//! ```text
//!  at rest       min-replicas-to-write 65535 in redis.conf: every start refuses writes (NOREPLICAS)
//!  opened        the agent alone sets 0 at run time, under a lease; never CONFIG REWRITE
//!  fenced        65535 at run time, the clients' ACL users off, their connections killed; refusals seen
//!  fenced hard   the process killed
//!  replica       replicaof in redis.conf, from before it follows until it is promoted
//!  restarted     no full copy is handed out, and opened only with what it had before (`memory`)
//! ```
//!
//! Replication that runs is not touched by any of it: `min-replicas-to-write` concerns clients of a primary only.
//!
//! Invariant: between the look at the gate and the answer to the command that opens, the gate is held; a fence waits
//! for it, bounded, and an opening that meets a fence gives up.

mod check;
mod closed;
mod facts;
mod fence;
mod files;
mod history;
mod lab;
mod managed;
mod memory;
mod open;
mod options;
mod permission;
mod probe;
mod rehearse;
mod rejoin;
mod restore;
mod server;
mod session;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

pub use self::check::RedisCheck;
use self::closed::Before;
use self::files::Places;
pub(crate) use self::lab::tool;
use self::memory::Memory;
pub use self::options::{RedisOptions, RedisUpstream};
use self::session::{Failure, Login, Session, command};
use super::backup::Watch;
use super::elsewhere::{self, FenceAt};
use super::process::children::Children;
use super::process::table::Process;
use super::{Driver, DriverError, DriverResult, FenceReach, Found, Marker, Probe, Rehearsal, Rejoin};

/// A number of replicas that no primary has.
const CLOSED: &str = "65535";

/// One command.
const COMMAND_LIMIT: Duration = Duration::from_secs(1);

/// A file operation that must reach the disk.
const DISK_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at something that is about to change.
const GLANCE: Duration = Duration::from_millis(3);

/// One Redis server on this machine.
pub struct Redis {
    options: RedisOptions,
    cluster: String,
    probing: Session,
    acting: Session,
    /// Held by whoever opens or rebuilds the database; never by a fence.
    changing: tokio::sync::Mutex<()>,
    gate: Gate,
    known: Mutex<Known>,
    /// Held by whoever writes the configuration file.
    writing: Arc<Mutex<()>>,
    children: Children,
    backups: Watch,
    memory: Memory,
}

/// What the server said of itself, for the time when it does not answer.
#[derive(Debug, Default)]
struct Known {
    process: Option<Process>,
    config_file: Option<PathBuf>,
    /// Seconds between two pings to its replicas, while a fence keeps it from them.
    ping_period: Option<String>,
    /// Where the files of a process are, by its `run_id`.
    places: Option<(String, Places)>,
}

/// Orders fences before openings.
#[derive(Debug, Default)]
struct Gate {
    fences: AtomicU64,
    opening: tokio::sync::Mutex<()>,
}

impl Gate {
    /// What an opening begins with.
    fn count(&self) -> u64 {
        self.fences.load(Ordering::SeqCst)
    }

    /// A fence begins.
    fn begins(&self) {
        self.fences.fetch_add(1, Ordering::SeqCst);
    }

    /// Refuses to go on opening once a fence has begun.
    fn still(&self, count: u64) -> Result<(), DriverError> {
        if self.count() == count {
            return Ok(());
        }
        Err(DriverError::retryable("redis-fenced", "Redis was fenced while it was being opened; the fence stays"))
    }
}

impl Redis {
    /// A driver for this server, which belongs to this cluster. Connects to nothing yet.
    #[must_use]
    pub fn new(options: RedisOptions, cluster: &str) -> Self {
        let login = Login {
            host: options.host.clone(),
            port: options.port,
            user: Some(options.user.clone()),
            password: Some(options.password.clone()),
        };
        Self {
            probing: Session::new(login.clone()),
            acting: Session::new(login),
            changing: tokio::sync::Mutex::new(()),
            gate: Gate::default(),
            known: Mutex::default(),
            writing: Arc::default(),
            children: Children::default(),
            backups: Watch::default(),
            memory: Memory::default(),
            cluster: cluster.to_owned(),
            options,
        }
    }

    /// Its programs are recorded there.
    #[must_use]
    pub fn with_children(self, children: &Children) -> Self {
        Self { children: children.clone(), ..self }
    }

    /// What it has is recorded in this file, so that it is known after a restart of this machine, too.
    #[must_use]
    pub fn with_record(self, file: PathBuf) -> Self {
        Self { memory: Memory::at(file), ..self }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that says nothing but that it was done.
fn ok(answer: Result<redis::Value, Failure>) -> Result<(), DriverError> {
    answer.map(drop).map_err(DriverError::from)
}

#[async_trait]
impl Driver for Redis {
    fn kind(&self) -> &'static str {
        "redis"
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
        if self.config_file().is_none() {
            // Not met yet: where it was taken into guard, the file was known.
            return Ok(false);
        }
        // What an older agent did not write, nobody took out.
        Ok(self.close_file(false).await? == Before::Open)
    }

    async fn fence(&self) -> DriverResult {
        self.fence_gently().await
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

    /// A command is whole or was never there: once writes are refused, there is nothing to wait for.
    async fn quiesce(&self) -> DriverResult {
        self.fence_gently().await
    }

    async fn catch_up(&self, position: u64) -> DriverResult {
        self.wait_for(position).await
    }

    async fn promote(&self, position: Option<u64>) -> DriverResult {
        let _changing = self.changing.lock().await;
        self.become_primary(position).await
    }

    async fn facts(&self) -> Option<Found> {
        Some(self.look_around().await)
    }

    async fn restore(&self, run: u64) -> DriverResult {
        if self.options.fence == FenceAt::Remote {
            // Whether anybody works in its files cannot be seen from here.
            return Err(DriverError::unsupported("redis", "be restored from another machine"));
        }
        let _changing = self.changing.lock().await;
        let done = self.restore_in_place(run).await?;
        // What the snapshot lacks is known, and taken.
        self.memory.forget().await?;
        Ok(done)
    }

    async fn rehearse(&self, rehearsal: Rehearsal, run: u64) -> DriverResult {
        self.rehearse_in_scratch(rehearsal, run).await
    }

    async fn rejoin(&self, rejoin: &Rejoin) -> DriverResult {
        let _changing = self.changing.lock().await;
        self.become_replica(rejoin).await
    }

    async fn divergence(&self, upstream_cluster: &str) -> Result<Option<String>, DriverError> {
        self.measure_divergence(upstream_cluster).await
    }
}
