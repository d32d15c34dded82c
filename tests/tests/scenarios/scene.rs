//! A protected world with a client at work, and the oracle that judges what became of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::{CACHE, DATABASE};
use regent_deploy::place;
use regent_deploy::region::Region;
use regent_deploy::wait;
use regent_deploy::world::{Options, World};
use regent_deploy::writer::{Acknowledged, Record, Writer};

pub(crate) struct Scene {
    pub(crate) world: Arc<World>,
    _folder: tempfile::TempDir,
}

impl Scene {
    /// A world with this D, protected, its first region primary.
    pub(crate) async fn start(failover_after: Duration, probe_interval: Duration) -> Result<Self> {
        Self::start_with(failover_after, probe_interval, |_| {}).await
    }

    /// The same with other options.
    pub(crate) async fn start_with(
        failover_after: Duration,
        probe_interval: Duration,
        change: impl FnOnce(&mut Options),
    ) -> Result<Self> {
        let (scene, ()) = Self::start_on(failover_after, probe_interval, change, async |_: &World| Ok(())).await?;
        Ok(scene)
    }

    /// The same, with something to do when its files are written and nothing of it runs yet; gives what came of that.
    pub(crate) async fn start_on<T>(
        failover_after: Duration,
        probe_interval: Duration,
        change: impl FnOnce(&mut Options),
        prepare: impl AsyncFnOnce(&World) -> Result<T>,
    ) -> Result<(Self, T)> {
        let mut folder = tempfile::Builder::new().prefix("regent-").tempdir_in("/var/tmp")?;
        folder.disable_cleanup(std::env::var_os("REGENT_KEEP_WORLD").is_some());
        place::passable(folder.path())?;
        let mut options = Options::new(&folder.path().join("world"));
        options.failover_after = failover_after;
        options.probe_interval = probe_interval;
        change(&mut options);
        let world = World::prepare(options).await?;
        let prepared = prepare(&world).await?;
        world.begin().await?;
        Ok((Self { world: Arc::new(world), _folder: folder }, prepared))
    }

    pub(crate) fn old(&self) -> &Region {
        &self.world.regions()[0]
    }

    pub(crate) fn other(&self) -> &Region {
        &self.world.regions()[1]
    }

    /// Every TCP port of Regent's own processes.
    pub(crate) fn tcp_ports(&self) -> Result<Vec<SocketAddr>> {
        let mut ports = Vec::new();
        for region in self.world.regions() {
            let place = region.place();
            ports.extend([place.listen, place.dashboard, place.dns]);
            if region.has_cluster() {
                let cluster = region.cluster()?;
                ports.extend([cluster.place.listen, cluster.place.admin]);
            }
        }
        Ok(ports)
    }

    /// Another document, in force and confirmed: a refusal says what is still to be confirmed.
    pub(crate) async fn change_document(&self, from: &str, to: &str) -> Result<()> {
        let document = self.world.document();
        let text = std::fs::read_to_string(&document)?;
        ensure!(text.contains(from), "the document does not say {from:?}");
        std::fs::write(&document, text.replace(from, to))?;
        self.world.apply().await?;
        self.world.protected(self.old(), self.other()).await
    }

    /// Has the coordinator of a region lead.
    pub(crate) async fn lead_from(&self, region: &str) -> Result<()> {
        self.world.lead_from(self.world.region(region)?).await
    }

    /// A client that has written some rows.
    pub(crate) async fn writer(&self) -> Result<Writer> {
        let writer = Writer::start(self.world.writer())?;
        wait::until("the first rows", Duration::from_secs(20), || async {
            let record = writer.record();
            ensure!(record.acknowledged.len() >= 50, "{:?}", record.last_error);
            Ok(())
        })
        .await?;
        Ok(writer)
    }

    pub(crate) async fn first_write_at_the_other_side(
        &self,
        writer: &Writer,
        within: Duration,
    ) -> Result<Acknowledged> {
        let address = self.other().cluster()?.address;
        writer.acknowledged_when("a write at the other side", within, |row| row.by == address).await?;
        let record = writer.record();
        let first = record.acknowledged.into_iter().find(|row| row.by == address);
        first.context("no write at the other side")
    }

    /// The newest run, once it has succeeded.
    pub(crate) async fn finished_run(&self) -> Result<u64> {
        wait::until("the end of the run", Duration::from_secs(60), || async {
            let runs = self.world.ctl().runs().await?;
            let run = runs.first().context("there is no run")?;
            ensure!(run.status() == "succeeded", "run {} is {}", run.id, run.status());
            Ok(run.id)
        })
        .await
    }

    /// No acknowledged row is missing beyond what the report admits, none that was acknowledged after the failover,
    /// and the two sides did not acknowledge in overlapping time.
    pub(crate) async fn judge(&self, record: Record, run: u64) -> Result<()> {
        let target = self.other().cluster()?;
        let old = self.old().cluster()?.address;
        let report = self.world.ctl().report(run).await?;
        let first =
            record.acknowledged.iter().find(|row| row.by == target.address).context("no write at the target")?;
        let late = record.acknowledged.iter().filter(|row| row.by == old && row.at > first.at).count();
        ensure!(late == 0, "the old side acknowledged {late} rows after the first of the new one");
        for (resource, rows) in [(DATABASE, target.postgres.rows().await?), (CACHE, target.redis.rows().await?)] {
            let missing = record.missing(&rows);
            let admitted = record.missing_rows(&rows).all(|row| report.admits(resource, row));
            ensure!(
                missing.is_empty() || admitted,
                "{missing:?} are missing in {resource}, and the report does not say so"
            );
            // Who has a row has everything before it: one writer's rows are missing from some point on.
            let kept = |row: &&Acknowledged| row.by == old && rows.contains(&row.n);
            let hole =
                missing.first().and_then(|first| record.acknowledged.iter().filter(kept).find(|row| row.n > *first));
            ensure!(hole.is_none(), "{missing:?} are missing in {resource}, and {hole:?} is there");
            ensure!(
                missing.iter().all(|n| *n < first.n),
                "rows of the new side are missing in {resource}: {missing:?}"
            );
        }
        Ok(())
    }

    pub(crate) async fn end(self) -> Result<()> {
        Arc::into_inner(self.world).context("somebody still holds the world")?.down().await
    }
}
