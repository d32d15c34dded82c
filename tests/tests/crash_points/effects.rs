//! What the databases, the service and the name have seen: counted where it happens.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::ZONE;
use regent_deploy::demo::server::STARTED;
use regent_deploy::region::{Cluster, Region};
use regent_deploy::wait;
use regent_deploy::writer::resolve;
use regent_tests::stage::Stage;

/// Of a whole world, since its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Timeline of the primary's PostgreSQL: every promotion begins one.
    timeline: u64,
    /// How often a Redis became a primary.
    took_over: usize,
    /// How often the service was started.
    started: usize,
    /// Of the zone: every change of an answer raises it.
    serial: u32,
    /// Of the application.
    epoch: u64,
    /// How often the listed command of the service was run.
    commands: usize,
}

/// Where the listed command of a cluster's service leaves a line whenever it is run.
pub(crate) fn notes(cluster: &Cluster) -> PathBuf {
    cluster.service.with_file_name("notes")
}

impl Effects {
    pub(crate) async fn so_far(stage: &Stage, primary: &Region) -> Result<Self> {
        let clusters = || stage.world.regions().iter().filter_map(|region| region.cluster().ok());
        let lines = |text: Result<String, std::io::Error>, what: &str| {
            text.unwrap_or_default().lines().filter(|line| line.contains(what)).count()
        };
        let took_over = |cluster: &Cluster| lines(std::fs::read_to_string(cluster.redis.log()), "MASTER MODE enabled");
        let log = |cluster: &Cluster| std::fs::read_to_string(cluster.service.with_file_name("demo.log"));
        let admin = primary.cluster()?.postgres.connect_as_agent().await?;
        let file: String = admin.query_one("SELECT pg_walfile_name(pg_current_wal_lsn())", &[]).await?.get(0);
        let mut serials = Vec::new();
        for region in stage.world.regions() {
            if region.coordinator().process().is_some_and(|process| process.is_running()) {
                serials.push(resolve::serial(region.place().dns, ZONE).await?);
            }
        }
        serials.dedup();
        ensure!(serials.len() == 1, "the coordinators show the serial numbers {serials:?}");
        Ok(Self {
            timeline: u64::from_str_radix(file.get(..8).context("no timeline")?, 16)?,
            took_over: clusters().map(took_over).sum(),
            started: clusters().map(|cluster| lines(log(cluster), STARTED)).sum(),
            serial: serials[0],
            epoch: stage.application().await?.epoch,
            commands: clusters().map(|cluster| lines(std::fs::read_to_string(notes(cluster)), "done")).sum(),
        })
    }

    /// After a run that has moved the primary.
    pub(crate) const fn after_a_move(self) -> Self {
        Self {
            timeline: self.timeline + 1,
            took_over: self.took_over + 1,
            started: self.started + 1,
            serial: self.serial + 1,
            epoch: self.epoch + 1,
            commands: self.commands + 1,
        }
    }

    /// The same with one more run of the listed command.
    pub(crate) const fn with_one_more_command(self) -> Self {
        Self { commands: self.commands + 1, ..self }
    }
}

/// How often copies were taken of a standby's databases, by their own logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Copies {
    postgres: usize,
    redis: usize,
}

impl Copies {
    /// Has PostgreSQL write down who copies it, and counts what there was.
    pub(crate) async fn so_far(standby: &Region) -> Result<Self> {
        let cluster = standby.cluster()?;
        copies_are_logged(cluster).await?;
        Self::counted(cluster)
    }

    /// After a drill: one copy of each.
    pub(crate) const fn after_a_drill(self) -> Self {
        Self { postgres: self.postgres + 1, redis: self.redis + 1 }
    }

    /// What there is now.
    pub(crate) fn counted(cluster: &Cluster) -> Result<Self> {
        let lines = |text: String, what: &str| text.lines().filter(|line| line.contains(what)).count();
        let of_postgres = std::fs::read_to_string(cluster.postgres.log()).context("no log of PostgreSQL")?;
        let of_redis = std::fs::read_to_string(cluster.redis.log()).context("no log of Redis")?;
        Ok(Self {
            postgres: lines(of_postgres, "received replication command: BASE_BACKUP"),
            redis: lines(of_redis, "asks for synchronization"),
        })
    }
}

/// Has a PostgreSQL write down who copies it.
pub(crate) async fn copies_are_logged(cluster: &Cluster) -> Result<()> {
    wait::until("a log of what is copied", Duration::from_secs(20), || async {
        let session = cluster.postgres.connect_as_superuser().await?;
        let shown: String = session.query_one("SHOW log_replication_commands", &[]).await?.get(0);
        if shown != "on" {
            session.batch_execute("ALTER SYSTEM SET log_replication_commands = on").await?;
            session.batch_execute("SELECT pg_reload_conf()").await?;
        }
        ensure!(shown == "on", "it is {shown}");
        Ok(())
    })
    .await
}
