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

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regent_core::id::{ApplicationId, ResourceId};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::sync::Notify;

use crate::driver::{Driver, FenceReach};
use crate::guard::clock::Clock;
use crate::guard::watchdog::Watchdog;
use crate::journal::chain;
use crate::lease::{Arm, Deadline};

mod client;
pub mod clock;
mod door;
pub mod kept;
mod known;
mod table;
mod watchdog;

pub use client::{Door, Entering, GuardClient, GuardEvent, Talk};
pub use door::{ProcessDoor, Spawner};
pub use known::{Known, Reread};
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
/// After one that a human must make possible.
const HOPELESS: Duration = Duration::from_secs(5);
/// A hard fence that takes longer is begun anew.
const ATTEMPT: Duration = Duration::from_secs(10);

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

/// What an agent asks of the guard. One JSON document a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// Nothing: shows that the guard answers.
    Status {},
    /// Count by this.
    Arm {
        /// Application.
        application: ApplicationId,
        /// What to end.
        resources: BTreeSet<ResourceId>,
        /// The lease.
        arm: Arm,
    },
    /// The gentle fence has begun.
    Move {
        /// Application.
        application: ApplicationId,
        /// New deadline.
        until: Deadline,
    },
    /// Forget the application.
    Disarm {
        /// Application.
        application: ApplicationId,
    },
    /// End, if nothing is armed.
    End {},
}

/// The guard's answer to every request: everything it counts by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reply {
    /// By application.
    pub entries: BTreeMap<ApplicationId, Watched>,
    /// Why the request was refused: this guard could not end these, for lack of a driver, or of a process that is found
    /// and may be ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unknown: BTreeMap<ApplicationId, BTreeSet<ResourceId>>,
}

/// Where guard and agent meet.
#[must_use]
pub fn socket(runtime: &Path) -> PathBuf {
    runtime.join("guard.sock")
}

/// So long does it count that a hard fence was shown to work.
const SHOWN_FOR: Duration = Duration::from_secs(5);
/// Showing it may take so long: an agent waits for the answer, and takes a slow guard for none.
const SHOW_LIMIT: Duration = Duration::from_millis(200);

struct Shared {
    file: PathBuf,
    /// When the hard fence of each resource was last shown to work.
    shown: Mutex<BTreeMap<(ApplicationId, ResourceId), tokio::time::Instant>>,
    table: Mutex<Table>,
    changed: Notify,
    end: Notify,
    agents: AtomicUsize,
    known: Known,
    /// Remote resources that were told of.
    told: Mutex<BTreeSet<(ApplicationId, ResourceId)>>,
    clock: Arc<dyn Clock>,
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

/// Ends every guarded database of the application, again and again until it has been seen gone.
async fn fire(shared: Arc<Shared>, application: ApplicationId) {
    let watched = shared.table().entries().get(&application).cloned();
    let Some(watched) = watched else { return };
    tracing::error!(%application, epoch = watched.arm.epoch.0, "nobody else fences: fencing hard");
    let fences = watched.resources.iter().map(|resource| {
        let driver = shared.known.driver(&application, resource);
        fire_resource(application.clone(), resource.clone(), driver)
    });
    if !futures::future::join_all(fences).await.into_iter().all(|gone| gone) {
        // Not seen gone, so never said to be: a guard that knows it goes on at its start.
        return;
    }
    shared.table().fired(&application);
    shared.store();
    shared.changed.notify_one();
    tracing::error!(%application, epoch = watched.arm.epoch.0, "fenced hard: every guarded database is gone");
}

async fn fire_resource(application: ApplicationId, resource: ResourceId, driver: Option<Arc<dyn Driver>>) -> bool {
    let Some(driver) = driver else {
        tracing::error!(
            %application, %resource,
            "cannot fence what this guard's configuration does not name; add it to agent.yaml and restart the guard"
        );
        return false;
    };
    let mut said = None;
    while driver.fence_reach() != FenceReach::Nothing {
        let mut pause = RETRY;
        match tokio::time::timeout(ATTEMPT, driver.fence_hard()).await {
            Ok(Ok(_)) => return true,
            // What will not change by itself is said once; a human may end the database, or list a command.
            Ok(Err(error)) if !error.retryable => {
                if said.replace(error.code) != Some(error.code) {
                    tracing::error!(%application, %resource, code = error.code, %error, "hard fence not possible");
                }
                pause = HOPELESS;
            }
            Ok(Err(error)) => tracing::error!(%application, %resource, code = error.code, %error, "hard fence failed"),
            Err(_) => tracing::error!(%application, %resource, "hard fence takes too long"),
        }
        tokio::time::sleep(pause).await;
    }
    true
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

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file is written before the answer: a guard that starts anew counts by what was acknowledged.
    async fn answer(&self, request: Request) -> Reply {
        let lacking = match &request {
            Request::Arm { application, resources, .. } => self.cannot_end(application, resources).await,
            Request::Status {} | Request::Move { .. } | Request::Disarm { .. } | Request::End {} => BTreeSet::new(),
        };
        let mut table = self.table();
        let before = table.clone();
        let mut unknown = BTreeMap::new();
        match request {
            Request::Status {} => {}
            Request::Arm { application, resources, arm } if lacking.is_empty() => {
                self.say_remote(&application, &resources);
                table.arm(&application, resources, arm);
            }
            Request::Arm { application, .. } => {
                // The agent asks again; by then the file may have been read.
                self.known.read_again();
                unknown.insert(application, lacking);
            }
            Request::Move { application, until } => table.move_once(&application, until),
            Request::Disarm { application } => table.disarm(&application),
            Request::End {} if table.is_idle() => self.end.notify_one(),
            Request::End {} => {}
        }
        if *table != before {
            if let Err(error) = table.store(&self.file) {
                tracing::error!(error = chain(&error), "the guard's file cannot be written: nothing is extended");
                *table = before;
            }
            self.changed.notify_one();
        }
        Reply { entries: table.entries().clone(), unknown }
    }

    /// What has no driver here, or whose hard fence is not shown to work.
    async fn cannot_end(&self, application: &ApplicationId, resources: &BTreeSet<ResourceId>) -> BTreeSet<ResourceId> {
        let looks = resources.iter().map(|resource| async move {
            let can = match self.known.driver(application, resource) {
                Some(driver) => self.is_shown(application, resource, driver.as_ref()).await,
                None => false,
            };
            (!can).then(|| resource.clone())
        });
        futures::future::join_all(looks).await.into_iter().flatten().collect()
    }

    /// What was shown a moment ago is not looked for again, and what was shown once holds where a look does not come to
    /// an end: a machine that is short of time is no reason to fence.
    async fn is_shown(&self, application: &ApplicationId, resource: &ResourceId, driver: &dyn Driver) -> bool {
        let name = (application.clone(), resource.clone());
        let before = self.shown().get(&name).copied();
        if driver.fence_reach() != FenceReach::Local || before.is_some_and(|at| at.elapsed() < SHOWN_FOR) {
            return true;
        }
        match tokio::time::timeout(SHOW_LIMIT, driver.can_end()).await {
            Ok(Ok(())) => {
                self.shown().insert(name, tokio::time::Instant::now());
                true
            }
            Ok(Err(error)) => {
                tracing::error!(%application, %resource, code = error.code, %error, "a hard fence would not work");
                self.shown().remove(&name);
                false
            }
            Err(_) => before.is_some(),
        }
    }

    fn shown(&self) -> MutexGuard<'_, BTreeMap<(ApplicationId, ResourceId), tokio::time::Instant>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this guard cannot do is said when it is armed, not when it would be needed.
    fn say_remote(&self, application: &ApplicationId, resources: &BTreeSet<ResourceId>) {
        for resource in resources {
            let remote =
                self.known.driver(application, resource).is_some_and(|one| one.fence_reach() == FenceReach::Remote);
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if remote && told.insert((application.clone(), resource.clone())) {
                tracing::warn!(
                    %application, %resource,
                    "it runs on another machine: this guard ends it only by its hardFence command, if one is listed and that \
                     machine can be reached; the coordinators take no silence of this agent for a fence"
                );
            }
        }
    }

    fn store(&self) {
        if let Err(error) = self.table().store(&self.file) {
            tracing::error!(error = chain(&error), "the guard's file cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use regent_core::id::{Epoch, Token};
    use regent_core::time::Span;

    use super::*;

    struct Nothing;

    #[async_trait::async_trait]
    impl Driver for Nothing {
        fn kind(&self) -> &'static str {
            "nothing"
        }

        async fn probe(&self) -> crate::driver::Probe {
            crate::driver::Probe::without_answer(crate::driver::Health::Unknown, "nothing")
        }
    }

    fn shared(file: PathBuf, names: &[&str]) -> Arc<Shared> {
        let driver = |name: &&str| (ResourceId::new(name).unwrap(), Arc::new(Nothing) as Arc<dyn Driver>);
        let drivers = names.iter().map(driver).collect();
        Arc::new(Shared {
            file,
            shown: Mutex::default(),
            table: Mutex::new(Table::new("boot".to_owned())),
            changed: Notify::new(),
            end: Notify::new(),
            agents: AtomicUsize::new(0),
            known: BTreeMap::from([(ApplicationId::new("shop").unwrap(), drivers)]).into(),
            told: Mutex::default(),
            clock: clock::of_this_machine(),
        })
    }

    #[tokio::test]
    async fn what_it_cannot_end_it_is_not_armed_for_and_never_said_gone() {
        let place = tempfile::tempdir().unwrap();
        let shop = ApplicationId::new("shop").unwrap();
        let resources: BTreeSet<_> = ["db", "cache"].into_iter().map(|name| ResourceId::new(name).unwrap()).collect();
        let until = clock::of_this_machine().reading().after(Span::ZERO);
        let span = Span::from_secs(1);
        let arm = Arm { epoch: Epoch(1), terms: Token::default(), until, span, paused: false, early: false };
        let ask = || Request::Arm { application: shop.clone(), resources: resources.clone(), arm };

        let knows = shared(place.path().join("guard.json"), &["db", "cache"]);
        assert!(knows.answer(ask()).await.entries.contains_key(&shop));

        let lacks = shared(place.path().join("guard.json"), &["db"]);
        let refused = lacks.answer(ask()).await;
        assert!(refused.entries.is_empty(), "{refused:?}");
        assert_eq!(refused.unknown[&shop], [ResourceId::new("cache").unwrap()].into());
        // Left over from a guard that knew it.
        lacks.table().arm(&shop, resources.clone(), arm);
        assert_eq!(lacks.table().take_due(clock::of_this_machine().reading(), false), std::slice::from_ref(&shop));
        fire(lacks.clone(), shop.clone()).await;
        assert_eq!(lacks.table().entries()[&shop].state, WatchState::Firing);
    }

    /// A database whose process is not found, as long as that is said.
    struct Hidden(std::sync::atomic::AtomicBool);

    #[async_trait::async_trait]
    impl Driver for Hidden {
        fn kind(&self) -> &'static str {
            "hidden"
        }

        fn fence_reach(&self) -> FenceReach {
            FenceReach::Local
        }

        async fn probe(&self) -> crate::driver::Probe {
            crate::driver::Probe::without_answer(crate::driver::Health::Unknown, "hidden")
        }

        async fn can_end(&self) -> Result<(), crate::driver::DriverError> {
            let hidden = || crate::driver::DriverError::retryable("redis-hidden", "not found");
            if self.0.load(Ordering::Relaxed) { Err(hidden()) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn it_is_not_armed_for_a_database_whose_hard_fence_was_not_shown_to_work() {
        let place = tempfile::tempdir().unwrap();
        let (shop, db) = (ApplicationId::new("shop").unwrap(), ResourceId::new("db").unwrap());
        let driver = Arc::new(Hidden(true.into()));
        let mut shared = shared(place.path().join("guard.json"), &[]);
        let known: Drivers =
            BTreeMap::from([(shop.clone(), BTreeMap::from([(db.clone(), driver.clone() as Arc<dyn Driver>)]))]);
        Arc::get_mut(&mut shared).unwrap().known = known.into();
        let until = clock::of_this_machine().reading().after(Span::ZERO);
        let span = Span::from_secs(1);
        let arm = Arm { epoch: Epoch(1), terms: Token::default(), until, span, paused: false, early: false };
        let ask = || Request::Arm { application: shop.clone(), resources: [db.clone()].into(), arm };
        let refused = shared.answer(ask()).await;
        assert!(refused.entries.is_empty(), "{refused:?}");
        assert_eq!(refused.unknown[&shop], [db.clone()].into());
        driver.0.store(false, Ordering::Relaxed);
        assert!(shared.answer(ask()).await.unknown.is_empty());
        // Its process is lost sight of: the lease that runs is extended no more, once that has been looked for again.
        driver.0.store(true, Ordering::Relaxed);
        assert!(shared.answer(ask()).await.unknown.is_empty());
        shared.shown().values_mut().for_each(|at| *at -= SHOWN_FOR);
        assert_eq!(shared.answer(ask()).await.unknown[&shop], [db.clone()].into());
    }

    #[tokio::test]
    async fn what_the_agent_brings_along_is_read_and_what_has_left_the_file_stays_known() {
        let place = tempfile::tempdir().unwrap();
        let shop = ApplicationId::new("shop").unwrap();
        let [db, cache] = ["db", "cache"].map(|name| ResourceId::new(name).unwrap());
        let until = clock::of_this_machine().reading().after(Span::from_secs(60));
        let span = Span::from_secs(60);
        let arm = Arm { epoch: Epoch(1), terms: Token::default(), until, span, paused: false, early: false };
        let ask = |resource: &ResourceId| Request::Arm {
            application: shop.clone(),
            resources: [resource.clone()].into(),
            arm,
        };
        let named = |resource: &ResourceId| {
            let driver = Arc::new(Nothing) as Arc<dyn Driver>;
            Drivers::from([(shop.clone(), BTreeMap::from([(resource.clone(), driver)]))])
        };
        let file = Arc::new(Mutex::new(Err("a mistake in line 3".to_owned())));
        let reading = file.clone();
        let reread: Reread = Arc::new(move || reading.lock().unwrap().clone());
        let known = Known::with_reread(named(&db), reread);
        let shared = Arc::new(Shared {
            file: place.path().join("guard.json"),
            shown: Mutex::default(),
            table: Mutex::new(Table::new("boot".to_owned())),
            changed: Notify::new(),
            end: Notify::new(),
            agents: AtomicUsize::new(0),
            known,
            told: Mutex::default(),
            clock: clock::of_this_machine(),
        });
        assert_eq!(shared.answer(ask(&cache)).await.unknown[&shop], [cache.clone()].into());
        assert!(shared.answer(ask(&db)).await.unknown.is_empty(), "a file with mistakes changes nothing");
        *file.lock().unwrap() = Ok(named(&cache));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !shared.answer(ask(&cache)).await.unknown.is_empty() {
            assert!(tokio::time::Instant::now() < deadline, "it was never read");
            tokio::task::yield_now().await;
        }
        assert!(shared.answer(ask(&db)).await.unknown.is_empty(), "a deadline may stand for it");
    }
}
