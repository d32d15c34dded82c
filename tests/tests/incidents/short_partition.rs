//! GitHub, October 2018: 43 seconds without a network between two coasts, and a promotion that took a day to mend.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use regent_deploy::net::Link;
use regent_tests::crew::Way;
use regent_tests::stage::{ALL, CENTRAL, NORTH, Stage, WEST, play};

/// As it was.
const PARTITION: Duration = Duration::from_secs(43);
/// The default.
const D: Duration = Duration::from_secs(60);
/// The default.
const PROBES: Duration = Duration::from_secs(1);

#[test]
fn short_partition() -> Result<()> {
    play(|net| async {
        // All else as a document and an agent have it that say nothing of it.
        let stage = Stage::start_with(net, D, |options| options.probe_interval = PROBES).await?;
        let cut = Instant::now();
        stage.weather(|weather| weather.around(WEST, &ALL, Link::Cut)).await?;
        stage.crew.keeps_writing(WEST, Way::Name, Duration::from_secs(2), PARTITION).await?;
        stage.weather(|weather| weather.clear()).await?;
        let healed = Instant::now();
        for region in [CENTRAL, NORTH] {
            stage.crew.writes(region, Way::Name, Duration::from_secs(5)).await?;
        }
        // The whole of what could still come of it: as long as the silence would have had to last, and then some.
        stage
            .crew
            .keeps_writing(WEST, Way::Name, Duration::from_secs(2), D - PARTITION + Duration::from_secs(3))
            .await?;
        stage.world.protected(stage.region(WEST), stage.region(CENTRAL)).await?;
        ensure!(stage.changes().await? == 0, "the epoch rose");
        ensure!(stage.world.ctl().runs().await?.is_empty(), "there was a run");

        for sheet in stage.judge().await? {
            let (region, failures) = (sheet.region, &sheet.record.failures);
            match (region, sheet.way) {
                (WEST, _) => {
                    ensure!(
                        failures.is_empty(),
                        "{} writes failed beside the primary: {:?}",
                        failures.len(),
                        sheet.record.last_error
                    );
                }
                (_, Way::Name) => {
                    let beyond = failures.iter().filter(|sent| **sent < cut || **sent > healed).count();
                    ensure!(beyond == 0, "{beyond} writes from region {region} failed without a partition");
                    ensure!(!failures.is_empty(), "region {region} was not cut off");
                }
                // The standby's database refuses whoever writes into it: that is no failure.
                (_, Way::Postgres | Way::Redis) => {
                    ensure!(sheet.record.acknowledged.is_empty(), "the standby took writes");
                }
            }
        }
        Ok(())
    })
}
