//! A region: a coordinator and, except for the witness, a cluster with its databases, its agent and its service.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Pid;

use crate::clock::WallClock;
use crate::config::{AgentPlace, CoordinatorPlace};
use crate::demo::daemon;
use crate::ground::Ground;
use crate::keeper::{Keeper, Process, Program};
use crate::place;
use crate::postgres::Postgres;
use crate::redis::Redis;
use crate::tree;
use crate::wait;

const PATIENCE: Duration = Duration::from_secs(30);

/// The name of the file whose being there keeps everything in the region down.
pub(crate) const SWITCH: &str = "off";

/// See the module.
pub struct Region {
    name: String,
    keeper: Arc<Keeper>,
    coordinator: Node,
    listens: CoordinatorPlace,
    cluster: Option<Cluster>,
    place: Place,
}

/// Where a region stands.
pub(crate) struct Place {
    pub(crate) ground: Arc<Ground>,
    /// Among the regions.
    pub(crate) index: usize,
    pub(crate) folder: PathBuf,
    pub(crate) clock: Option<WallClock>,
    /// What its coordinator and its agent are started with.
    pub(crate) environment: BTreeMap<String, String>,
}

impl Region {
    pub(crate) fn new(
        name: &str,
        keeper: Arc<Keeper>,
        (program, listens): (&'static str, CoordinatorPlace),
        cluster: Option<Cluster>,
        place: Place,
    ) -> Self {
        let coordinator = Node::new(program, &place.folder, &place.folder.join("coordinator.yaml"));
        Self { name: name.to_owned(), keeper, coordinator, listens, cluster, place }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its coordinator listens.
    #[must_use]
    pub const fn place(&self) -> CoordinatorPlace {
        self.listens
    }

    /// Its coordinator.
    #[must_use]
    pub const fn coordinator(&self) -> &Node {
        &self.coordinator
    }

    /// Its keeper.
    #[must_use]
    pub const fn keeper(&self) -> &Arc<Keeper> {
        &self.keeper
    }

    /// Its cluster.
    ///
    /// # Errors
    /// It is the witness and has none.
    pub fn cluster(&self) -> Result<&Cluster> {
        self.cluster.as_ref().with_context(|| format!("the region {} has no cluster", self.name))
    }

    /// True unless it is the witness.
    #[must_use]
    pub const fn has_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// Starts its coordinator and waits until it listens.
    ///
    /// # Errors
    /// It does not come up; with the end of its log.
    pub async fn start_coordinator(&self) -> Result<()> {
        self.coordinator.start(&self.keeper, self.environment()).await?;
        self.answers(&self.coordinator, self.listens.dashboard).await
    }

    /// Starts its agent and waits until it listens.
    ///
    /// # Errors
    /// It does not come up; with the end of its log.
    pub async fn start_agent(&self) -> Result<()> {
        let cluster = self.cluster()?;
        cluster.agent.start(&self.keeper, self.environment()).await?;
        self.answers(&cluster.agent, cluster.place.admin).await
    }

    /// Sets the wall clock of the region so many seconds ahead, or behind.
    ///
    /// # Errors
    /// It goes by the machine's clock.
    pub fn step_clock(&self, seconds: i64) -> Result<()> {
        self.place.clock.as_ref().context("it goes by the machine's clock")?.step(seconds)
    }

    /// What its wall clock shows.
    #[must_use]
    pub fn wall_clock(&self) -> jiff::Timestamp {
        self.place.clock.as_ref().map_or_else(jiff::Timestamp::now, WallClock::now)
    }

    /// How far its wall clock ever was from the machine's.
    #[must_use]
    pub fn clock_error(&self) -> Duration {
        self.place.clock.as_ref().map(WallClock::widest).unwrap_or_default()
    }

    /// What its programs are started with.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        self.place.environment.clone()
    }

    /// Waits until a program that was just started answers.
    pub(crate) async fn answers(&self, node: &Node, http: SocketAddr) -> Result<()> {
        let (program, process) = (node.program, node.process().context("it was not started")?);
        let alive = format!("http://{http}/livez");
        let work = async move {
            wait::until(program, PATIENCE, || async {
                if !process.is_running() {
                    return Ok(Err(process.last_words()));
                }
                let answer = client()?.get(&alive).send().await.with_context(|| format!("no answer at {alive}"))?;
                ensure!(answer.status().is_success(), "{alive} says {}", answer.status());
                Ok(Ok(()))
            })
            .await
            .with_context(|| format!("its log ends so:\n{}", process.last_words()))?
            .or_else(|words| bail!("{program} ended at once; its log ends so:\n{words}"))
        };
        self.place.ground.within(self.place.index, work).await?
    }

    /// The guard of its agent, if one runs.
    #[must_use]
    pub fn guard(&self) -> Option<Pid> {
        let is_guard =
            |pid: &Pid| tree::is_running(*pid) && tree::words(*pid).get(1).is_some_and(|word| word == "guard");
        self.keeper.processes().into_iter().find(is_guard)
    }

    /// Whether its coordinator calls itself ready, and what it says.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn readiness(&self) -> Result<(bool, String)> {
        let url = format!("http://{}/readyz", self.listens.dashboard);
        let page = async move {
            let answer = client()?.get(url).send().await?;
            let ready = answer.status().is_success();
            anyhow::Ok((ready, answer.text().await?))
        };
        self.place.ground.within(self.place.index, page).await?
    }

    /// A page of its coordinator's dashboard.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn page(&self, path: &str) -> Result<String> {
        let url = format!("http://{}{path}", self.listens.dashboard);
        let page = async move { anyhow::Ok(client()?.get(url).send().await?.error_for_status()?.text().await?) };
        self.place.ground.within(self.place.index, page).await?
    }

    /// The metrics of its coordinator, as text.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&self) -> Result<String> {
        let url = format!("http://{}/metrics", self.listens.dashboard);
        let page = async move { anyhow::Ok(client()?.get(url).send().await?.text().await?) };
        self.place.ground.within(self.place.index, page).await?
    }

    /// Kills everything in it with SIGKILL, at once, and keeps its databases from being started; gives the number of
    /// processes.
    ///
    /// # Errors
    /// Its keeper is gone.
    pub async fn lose(&self) -> Result<usize> {
        std::fs::write(self.place.folder.join(SWITCH), "lost\n").context("cannot switch the region off")?;
        self.keeper.kill_all().await
    }

    /// Lets things be started in it again; starts nothing.
    ///
    /// # Errors
    /// The switch cannot be removed.
    pub fn give_back(&self) -> Result<()> {
        std::fs::remove_file(self.place.folder.join(SWITCH))
            .with_context(|| format!("the region {} is not lost", self.name))
    }
}

/// A cluster: what an agent looks after.
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Where its databases and its service listen.
    pub address: IpAddr,
    /// Its PostgreSQL.
    pub postgres: Postgres,
    /// Its Redis.
    pub redis: Redis,
    /// Its agent.
    pub agent: Node,
    /// Where its agent listens.
    pub place: AgentPlace,
    /// The service's file.
    pub service: PathBuf,
}

impl Cluster {
    /// The service's process, if it runs.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub fn service(&self) -> Result<Option<Pid>> {
        daemon::status(&self.service)
    }
}

/// A coordinator or an agent: one program with one file, which may be started again.
pub struct Node {
    program: &'static str,
    folder: PathBuf,
    config: PathBuf,
    process: Mutex<Option<Process>>,
}

impl Node {
    pub(crate) fn new(program: &'static str, folder: &Path, config: &Path) -> Self {
        Self { program, folder: folder.to_owned(), config: config.to_owned(), process: Mutex::new(None) }
    }

    /// Its file.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its process, if it was started; it may have ended.
    #[must_use]
    pub fn process(&self) -> Option<Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It and the processes that it started itself, each with the largest memory that it ever had in KiB.
    #[must_use]
    pub fn memory(&self) -> Vec<(Pid, u64)> {
        let Some(own) = self.process().filter(Process::is_running) else { return Vec::new() };
        let below = tree::descendants(own.pid()).into_iter().filter(|pid| tree::same_program(*pid, own.pid()));
        std::iter::once(own.pid()).chain(below).filter_map(|pid| Some((pid, tree::peak_memory(pid)?))).collect()
    }

    /// Ends it as a service manager would, with SIGTERM.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop(&self) -> Result<()> {
        let Some(process) = self.process() else { return Ok(()) };
        process.signal(nix::sys::signal::Signal::SIGTERM);
        process.ended(PATIENCE).await?;
        Ok(())
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// It does not end.
    pub async fn kill(&self) -> Result<()> {
        let Some(process) = self.process() else { return Ok(()) };
        process.kill();
        process.ended(PATIENCE).await?;
        Ok(())
    }

    pub(crate) async fn start(&self, keeper: &Keeper, environment: BTreeMap<String, String>) -> Result<()> {
        ensure!(!self.process().is_some_and(|process| process.is_running()), "{} runs already", self.program);
        let program = place::binary(self.program)?.display().to_string();
        let command = [program, "--config".into(), self.config.display().to_string()];
        let program = Program { environment, ..Program::new(self.program, &self.folder, command) };
        let process = keeper.spawn(program).await?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        Ok(())
    }
}

fn client() -> Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build().context("no HTTP client")
}
