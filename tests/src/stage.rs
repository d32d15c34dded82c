//! A protected world of namespaces with its crew at work: what incidents, faults and the soak are played on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use regent_deploy::config::APPLICATION;
use regent_deploy::ctl::{Application, Report};
use regent_deploy::ground::Ground;
use regent_deploy::net::{Net, Weather};
use regent_deploy::place;
use regent_deploy::region::Region;
use regent_deploy::wait;
use regent_deploy::world::{self, Options, World};

use crate::crew::{Crew, Sheet, Way};
use crate::epochs::Epochs;
use crate::oracle::{self, Evidence};

/// The primary's region at the start.
pub const WEST: usize = 0;
/// The standby's.
pub const CENTRAL: usize = 1;
/// The witness.
pub const NORTH: usize = 2;
/// All of them.
pub const ALL: [usize; 3] = [WEST, CENTRAL, NORTH];

/// See the module.
pub struct Stage {
    /// The world.
    pub world: Arc<World>,
    /// Its writers.
    pub crew: Crew,
    epochs: Epochs,
    /// The epoch at the start, and its primary.
    first: (u64, IpAddr),
    /// Of runs that are over, by their numbers.
    reports: BTreeMap<u64, Report>,
    cut_off: Vec<Instant>,
    /// By whose wall clock every decision was stamped, where that is known.
    stamped_by: Option<usize>,
    folder: tempfile::TempDir,
}

/// Plays a scene on a network of its own, and gives how it ended.
///
/// # Errors
/// There can be no such network, or the scene's own.
pub fn play<S: Future<Output = Result<()>>>(scene: impl FnOnce(Net) -> S) -> Result<()> {
    let net =
        Net::enter().context("this needs root and namespaces; tests/run leaves it out where they are not to be had")?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(scene(net))
}

impl Stage {
    /// A protected world with this D, its first region primary, and its crew at work.
    ///
    /// # Errors
    /// Whatever did not come up.
    pub async fn start(net: Net, failover_after: Duration) -> Result<Self> {
        Self::start_with(net, failover_after, |_| {}).await
    }

    /// The same with other options.
    ///
    /// # Errors
    /// Whatever did not come up.
    pub async fn start_with(net: Net, failover_after: Duration, change: impl FnOnce(&mut Options)) -> Result<Self> {
        Self::start_on(net, failover_after, change, async |_: &World| Ok(())).await
    }

    /// The same, with something to do when its files are written and nothing of it runs yet.
    ///
    /// # Errors
    /// Whatever did not come up.
    pub async fn start_on(
        net: Net,
        failover_after: Duration,
        change: impl FnOnce(&mut Options),
        prepare: impl AsyncFnOnce(&World) -> Result<()>,
    ) -> Result<Self> {
        let mut folder = tempfile::Builder::new().prefix("regent-").tempdir_in("/var/tmp")?;
        folder.disable_cleanup(std::env::var_os(world::KEEP).is_some());
        place::passable(folder.path())?;
        let mut options = Options::new(&folder.path().join("world"));
        options.failover_after = failover_after;
        options.probe_interval = Duration::from_millis(500);
        change(&mut options);
        let world = World::prepare_on(Ground::Namespaces(net), options).await?;
        prepare(&world).await?;
        world.begin().await?;
        let world = Arc::new(world);
        let epochs = Epochs::watch(&world)?;
        let application = world.ctl().status().await?.application(APPLICATION)?.clone();
        let primary = address(&world, &application.primary).context("there is no primary at the start")?;
        let first = (application.epoch, primary);
        let crew = Crew::start(&world).await?;
        Ok(Self { world, crew, epochs, first, reports: BTreeMap::new(), cut_off: Vec::new(), stamped_by: None, folder })
    }

    /// A region by its place.
    #[must_use]
    pub fn region(&self, index: usize) -> &Region {
        &self.world.regions()[index]
    }

    /// Changes the network.
    ///
    /// # Errors
    /// It cannot be changed.
    pub async fn weather(&self, change: impl FnOnce(&mut Weather)) -> Result<()> {
        self.world.net()?.change(change).await
    }

    /// Where the PostgreSQL of a region answers.
    ///
    /// # Errors
    /// It has none.
    pub fn far_address(&self, region: usize) -> Result<std::net::SocketAddr> {
        Ok(self.region(region).cluster()?.postgres.address().into())
    }

    /// Keeps the reports of the runs that are over: the coordinators remember a limited number of runs.
    ///
    /// # Errors
    /// No coordinator answers.
    pub async fn keep_reports(&mut self) -> Result<()> {
        keep_reports(&self.world, &mut self.reports).await
    }

    /// From now on the primary may acknowledge what it cannot report; what it reported up to now must not be lost silently.
    pub fn cut_off_from_now(&mut self) {
        // The last report may be one probe and one heartbeat old.
        self.cut_off.extend(Instant::now().checked_sub(Duration::from_millis(1500)));
    }

    /// Every decision was stamped by the wall clock of this region, as it goes now: the judge turns that back. Where nobody
    /// says so, and clocks were stepped, the judge has to allow for the widest step.
    pub const fn was_stamped_by(&mut self, region: usize) {
        self.stamped_by = Some(region);
    }

    /// Switches a lost region on again: its databases by hand and before its agent, as a careless person would. Gives
    /// nothing back but the region: it is quarantined.
    ///
    /// # Errors
    /// Something does not come up, or its agent does not learn the newest epoch.
    pub async fn bring_back(&self, region: usize) -> Result<()> {
        let place = self.region(region);
        let cluster = place.cluster()?;
        place.give_back()?;
        cluster.postgres.start().await?;
        cluster.redis.start().await?;
        for way in [Way::Postgres, Way::Redis] {
            self.crew.takes_nothing(region, way, Duration::from_millis(500)).await?;
        }
        place.start_coordinator().await?;
        place.start_agent().await?;
        wait::until("word of the region that came back", Duration::from_secs(30), || async {
            let application = self.application().await?;
            let known = application.stored_epoch(&cluster.name);
            ensure!(known == application.epoch, "its agent knows epoch {known}");
            Ok(())
        })
        .await
    }

    /// The application as operators see it.
    ///
    /// # Errors
    /// No coordinator answers.
    pub async fn application(&self) -> Result<Application> {
        Ok(self.world.ctl().status().await?.application(APPLICATION)?.clone())
    }

    /// How often the epoch rose so far.
    ///
    /// # Errors
    /// No coordinator answers.
    pub async fn changes(&self) -> Result<u64> {
        Ok(self.application().await?.epoch - self.first.0)
    }

    /// Has the coordinator of a region lead.
    ///
    /// # Errors
    /// It does not come to it.
    pub async fn lead_from(&self, region: usize) -> Result<()> {
        self.world.lead_from(self.region(region)).await
    }

    /// Waits until both databases of a region refuse what is written beside them; gives how long after `since` the last row
    /// was acknowledged there.
    ///
    /// # Errors
    /// They do not, within the time.
    pub async fn fenced(&self, region: usize, since: Instant, within: Duration) -> Result<Duration> {
        let mut last = Duration::ZERO;
        for way in [Way::Postgres, Way::Redis] {
            let at = self.crew.is_refused(region, way, within).await?;
            last = last.max(at.map(|at| at.saturating_duration_since(since)).unwrap_or_default());
        }
        Ok(last)
    }

    /// Waits until what is written through the name from a region is taken again, wherever that is.
    ///
    /// # Errors
    /// It is not within the time.
    pub async fn serves(&self, region: usize, within: Duration) -> Result<()> {
        let written = self.crew.writes(region, Way::Name, within).await;
        self.explained(written).await?;
        Ok(())
    }

    /// Waits until the newest run has succeeded and its region's cluster takes what is written through the name.
    ///
    /// # Errors
    /// It does not come to it.
    pub async fn failed_over_to(&self, region: usize, within: Duration) -> Result<()> {
        let name = &self.region(region).cluster()?.name;
        let done = wait::until("the failover", within, || async {
            let application = self.application().await?;
            ensure!(application.primary == *name, "the primary is {}", application.primary);
            let runs = self.world.ctl().runs().await?;
            let run = runs.first().context("there is no run")?;
            ensure!(run.status() == "succeeded", "run {} is {}", run.id, run.status());
            Ok(())
        });
        self.explained(done.await).await?;
        let written = self.crew.writes_to(region, &self.world, region, within).await;
        self.explained(written).await?;
        Ok(())
    }

    /// Adds to an error what operators would have seen.
    async fn explained<T>(&self, outcome: Result<T>) -> Result<T> {
        let Err(error) = outcome else { return outcome };
        let mut told = Vec::new();
        for words in [&["why", APPLICATION][..], &["status"], &["runs"]] {
            told.push(self.world.ctl().run(words).await.unwrap_or_else(|error| format!("{error:#}")));
        }
        Err(error.context(told.join("\n")))
    }

    /// Ends the crew and gives its sheets, after the judgement of the oracle.
    ///
    /// # Errors
    /// A promise was broken; or the world does not end.
    pub async fn judge(self) -> Result<Vec<Sheet>> {
        let Self { world, crew, epochs, first, reports, cut_off, stamped_by, folder } = self;
        let sheets = crew.stop().await?;
        // Asked again, since the network may be a bad one.
        let told = wait::until("what operators are told", Duration::from_secs(60), || told(&world, &reports, first.0));
        let (application, all) = told.await?;
        let (stamps, error) = match stamped_by {
            Some(region) => (world.regions()[region].wall_clock(), Duration::ZERO),
            None => {
                let clocks = world.regions().iter().map(Region::clock_error);
                (jiff::Timestamp::now(), clocks.max().unwrap_or_default())
            }
        };
        let now = (Instant::now(), stamps);
        let reigns = oracle::reigns(first, &all, |name| address(&world, name), now);
        let clusters = world.regions().iter().filter_map(|region| region.cluster().ok());
        let primary = clusters.into_iter().find(|cluster| cluster.name == application.primary).context("no primary")?;
        // It may just be opening again.
        let rows = wait::until("the rows of the primary", Duration::from_secs(30), || async {
            Ok([primary.postgres.rows().await?, primary.redis.rows().await?])
        });
        let rows = rows.await.with_context(|| {
            let log = regent_deploy::keeper::last_lines(&primary.postgres.log(), 20);
            format!("PostgreSQL of {}, whose log ends so:\n{log}", primary.name)
        })?;
        let evidence = Evidence {
            sheets: sheets.clone(),
            epochs: epochs.seen(),
            reigns,
            epoch: application.epoch,
            primary: primary.address,
            rows,
            cut_off,
            tolerance: oracle::TOLERANCE + error,
        };
        let broken = oracle::judge(&evidence);
        ensure!(broken.is_empty(), "{}", broken.join("\n"));
        clear(world, epochs, folder).await?;
        Ok(sheets)
    }

    /// Ends it without a judgement, where no primary is left to be asked.
    ///
    /// # Errors
    /// The world does not end.
    pub async fn end(self) -> Result<()> {
        self.crew.stop().await?;
        clear(self.world, self.epochs, self.folder).await
    }
}

/// Where the cluster of this name is.
fn address(world: &World, name: &str) -> Option<IpAddr> {
    let mut clusters = world.regions().iter().filter_map(|region| region.cluster().ok());
    clusters.find(|cluster| cluster.name == name).map(|cluster| cluster.address)
}

/// The application, and the reports of all runs: of the same moment, whoever answers.
async fn told(world: &World, kept: &BTreeMap<u64, Report>, first: u64) -> Result<(Application, Vec<Report>)> {
    let application = world.ctl().status().await?.application(APPLICATION)?.clone();
    let mut reports: Vec<Report> = kept.values().cloned().collect();
    for run in world.ctl().runs().await?.iter().filter(|run| !kept.contains_key(&run.id)) {
        reports.push(world.ctl().report(run.id).await?);
    }
    let decisions = reports.iter().filter_map(|report| report.run.as_ref()?.decision.as_ref());
    let last = decisions.map(|decision| decision.epoch).max().unwrap_or(first);
    ensure!(last == application.epoch, "the application is at epoch {}, and the runs at {last}", application.epoch);
    Ok((application, reports))
}

async fn keep_reports(world: &World, reports: &mut BTreeMap<u64, Report>) -> Result<()> {
    for run in world.ctl().runs().await? {
        if run.is_over() && !reports.contains_key(&run.id) {
            reports.insert(run.id, world.ctl().report(run.id).await?);
        }
    }
    Ok(())
}

async fn clear(world: Arc<World>, epochs: Epochs, folder: tempfile::TempDir) -> Result<()> {
    drop(epochs);
    wait::until("the last who looks at the world", Duration::from_secs(5), || async {
        ensure!(Arc::strong_count(&world) == 1, "somebody still looks at it");
        Ok(())
    })
    .await?;
    Arc::into_inner(world).context("somebody still looks at the world")?.down().await?;
    // Kept or removed with the world in it.
    if std::fs::read_dir(folder.path())?.next().is_none() {
        folder.close()?;
    }
    Ok(())
}
