//! What the databases, the service and the name have seen: counted where it happens.

use anyhow::{Context, Result, ensure};
use regent_deploy::config::ZONE;
use regent_deploy::demo::server::STARTED;
use regent_deploy::region::{Cluster, Region};
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
        }
    }
}
