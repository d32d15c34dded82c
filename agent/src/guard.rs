//! The guard: a process of its own that fences when the agent cannot.
//!
//! ```text
//!  agent ── arm until lease end ──► guard ── file in tmpfs
//!        ◄── acknowledged ───────         └─ deadline passed: every guarded database is ended, hard
//! ```
//!
//! It knows deadlines and nothing else: no coordinator, no disk. The agent extends a lease only with its
//! acknowledgement, so a guard that is stopped stops the lease as well. It outlives the agent, re-reads its file at
//! its start, and ends by itself once nothing is armed and no agent has been there for a while. An agent that comes
//! with a newer agent.yaml lets it read that too, beside the counting (`known`).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use regent_core::id::{ApplicationId, ResourceId};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::sync::Notify;

use crate::driver::Driver;
use crate::guard::clock::Clock;
use crate::guard::fire::fire;
use crate::guard::shared::Shared;
use crate::guard::watchdog::Watchdog;
use crate::journal::chain;

mod client;
pub mod clock;
mod door;
mod fire;
pub mod kept;
mod known;
mod request;
mod shared;
mod table;
mod watchdog;

pub use client::{Door, Entering, GuardClient, GuardEvent, Talk};
pub use door::{ProcessDoor, Spawner};
pub use known::{Known, Reread};
pub use request::{Reply, Request};
pub use table::{Table, WatchState, Watched};

/// The drivers of one application.
pub type Drivers = BTreeMap<ApplicationId, BTreeMap<ResourceId, Arc<dyn Driver>>>;

/// So long does a guard with nothing to do wait for an agent.
const IDLE: Duration = Duration::from_secs(10);
/// Sleeps are cut so short because they stand still while the machine is suspended.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);
/// After a hard fence that failed.
const RETRY: Duration = Duration::from_millis(200);
/// So long does a guard that is told to end wait whether an agent is there: both may be on their way.
const SETTLE: Duration = Duration::from_secs(1);

/// Why there is no guard.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Another guard runs here; the agent will attach to it.
    #[error("{0} is locked: a guard runs already, and the agent attaches to it")]
    Running(PathBuf),
    /// The runtime directory cannot be used.
    #[error("cannot use {path}: check that the runtime directory is writable and in memory")]
    Runtime {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Where guard and agent meet.
#[must_use]
pub fn socket(runtime: &Path) -> PathBuf {
    runtime.join("guard.sock")
}

/// Sets this process apart from the agent that started it.
pub fn protect() {
    // A session of its own: Ctrl-C at the agent's terminal does not reach it. Fails if systemd has seen to it.
    let _ = nix::unistd::setsid();
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::info!(error = chain(&error), "not protected from the out-of-memory killer");
    }
}

/// Runs the guard until nothing is armed and no agent is left. With `stay` it waits for agents for ever. Once `stop`
/// is done it leaves, but not what nobody would fence.
///
/// # Errors
/// If another guard runs, or the runtime directory cannot be used.
pub async fn run(runtime: &Path, known: Known, stay: bool, stop: impl Future<Output = ()>) -> Result<(), GuardError> {
    let bad = |path: &Path| {
        let path = path.to_owned();
        move |source| GuardError::Runtime { path, source }
    };
    let (shared, _lock) = begin(runtime, known, clock::of_this_machine())?;
    let path = socket(runtime);
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(bad(&path))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(bad(&path))?;
    tracing::info!(path = %path.display(), "guard is ready");
    let watchdog = Watchdog::of_environment();
    let accepting = tokio::spawn(accept(listener, shared.clone()));
    tokio::select! {
        () = watch(&shared, stay, &watchdog) => tracing::info!("guard ends: nothing is armed"),
        () = stop => leave(&shared).await,
    }
    accepting.abort();
    let _ = std::fs::remove_file(&path);
    Ok(())
}

/// As [`run`], for agents that come in by another way than the socket, and by another clock.
///
/// # Errors
/// As [`run`].
pub async fn run_behind(
    mut door: tokio::sync::mpsc::Receiver<Box<dyn Talk>>,
    runtime: &Path,
    drivers: Drivers,
    clock: Arc<dyn Clock>,
) -> Result<(), GuardError> {
    let (shared, _lock) = begin(runtime, drivers.into(), clock)?;
    let inside = shared.clone();
    let accepting = tokio::spawn(async move {
        while let Some(agent) = door.recv().await {
            tokio::spawn(serve(agent, inside.clone()));
        }
    });
    watch(&shared, true, &Watchdog::default()).await;
    accepting.abort();
    Ok(())
}

/// What an earlier guard of this boot knew is taken up. Only one guard holds the lock.
fn begin(runtime: &Path, known: Known, clock: Arc<dyn Clock>) -> Result<(Arc<Shared>, File), GuardError> {
    let bad = |path: &Path| {
        let path = path.to_owned();
        move |source| GuardError::Runtime { path, source }
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(runtime).map_err(bad(runtime))?;
    let lock = lock(&runtime.join("guard.lock"))?;
    let file = runtime.join("guard.json");
    let table = Table::load(&file, &clock.boot_id()).map_err(bad(&file))?;
    let shared = Shared {
        file,
        shown: Mutex::default(),
        table: Mutex::new(table),
        changed: Notify::new(),
        end: Notify::new(),
        agents: AtomicUsize::new(0),
        known,
        told: Mutex::default(),
        clock,
    };
    Ok((Arc::new(shared), lock))
}

fn lock(path: &Path) -> Result<File, GuardError> {
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let file = opened.map_err(|source| GuardError::Runtime { path: path.to_owned(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(GuardError::Running(path.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(GuardError::Runtime { path: path.to_owned(), source }),
    }
}

/// Until nothing is left to do.
async fn watch(shared: &Arc<Shared>, stay: bool, watchdog: &Watchdog) {
    let mut again = true;
    let mut idle_since = tokio::time::Instant::now();
    loop {
        watchdog.tell();
        let due = shared.table().take_due(shared.clock.reading(), again);
        again = false;
        if !due.is_empty() {
            shared.store();
        }
        for application in due {
            tokio::spawn(fire(shared.clone(), application));
        }
        let idle = shared.table().is_idle() && shared.agents.load(Ordering::Relaxed) == 0;
        if !idle {
            idle_since = tokio::time::Instant::now();
        } else if !stay && idle_since.elapsed() >= IDLE {
            return;
        }
        let next = shared.table().next(shared.clock.reading());
        let sleep = next.map_or(LONGEST_SLEEP, |next| Duration::from_millis(next.millis()).min(LONGEST_SLEEP));
        tokio::select! {
            biased;
            () = shared.end.notified() => return,
            () = shared.changed.notified() => {}
            () = tokio::time::sleep(watchdog.rest(sleep)) => {}
        }
    }
}

/// Told to end (SIGTERM). Where an agent is attached it goes: the agent extends nothing without a guard, and fences by
/// itself. Where none is, nobody would be there at the end of the lease: what counts is ended now.
async fn leave(shared: &Arc<Shared>) {
    if shared.table().is_idle() {
        tracing::info!("guard ends as told: nothing is armed");
        return;
    }
    let settled = tokio::time::Instant::now() + SETTLE;
    tokio::time::sleep_until(settled).await;
    if shared.agents.load(Ordering::Relaxed) > 0 {
        tracing::warn!("guard ends as told: until another one answers, the agent extends no lease");
        return;
    }
    let left = shared.table().take_all();
    shared.store();
    if !left.is_empty() {
        tracing::error!("told to end while a lease is armed, and no agent is there: fencing hard before it ends");
    }
    futures::future::join_all(left.into_iter().map(|application| fire(shared.clone(), application))).await;
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(Box::new(stream), shared.clone()));
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "cannot accept an agent");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn serve(stream: Box<dyn Talk>, shared: Arc<Shared>) {
    shared.agents.fetch_add(1, Ordering::Relaxed);
    // It may have been started with a newer file.
    shared.known.read_again();
    let (reading, mut writing) = tokio::io::split(stream);
    let mut lines = BufReader::new(reading).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(request) = serde_json::from_str::<Request>(&line) else {
            tracing::error!("a request to the guard cannot be read: agent and guard are of different releases");
            break;
        };
        let reply = shared.answer(request).await;
        let Ok(mut text) = serde_json::to_vec(&reply) else { break };
        text.push(b'\n');
        if writing.write_all(&text).await.is_err() {
            break;
        }
    }
    shared.agents.fetch_sub(1, Ordering::Relaxed);
    shared.changed.notify_one();
}
