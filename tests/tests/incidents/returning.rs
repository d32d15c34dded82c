//! A region that was lost comes back, with everything that it had.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_deploy::config::APPLICATION;
use regent_deploy::net::Net;
use regent_deploy::wait;
use regent_tests::crew::Way;
use regent_tests::stage::{CENTRAL, NORTH, Stage, WEST, play};

const D: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);

/// Karmada: what comes back is deleted or served from, before anybody has looked at it.
#[test]
fn returning_region_is_quarantined() -> Result<()> {
    play(|net| async {
        let stage = lost_and_returned(net).await?;
        for way in [Way::Postgres, Way::Redis] {
            stage.crew.takes_nothing(WEST, way, D * 2).await?;
        }
        let why = stage.world.ctl().run(&["why", APPLICATION]).await?;
        ensure!(why.contains("quarantined"), "{why}");
        // Nothing is deleted: whatever it had acknowledged by itself is still there.
        // (Its agent may have ended what it could not see closed: started again, it is closed again.)
        let west = stage.region(WEST).cluster()?;
        west.postgres.start().await?;
        stage.crew.takes_nothing(WEST, Way::Postgres, Duration::from_secs(1)).await?;
        let (address, postgres) = (west.address, west.postgres.rows().await?);
        // (Not Redis: it writes to its disk once a second, and the crash took what was not there yet.)
        for sheet in stage.judge().await?.iter().filter(|sheet| sheet.way != Way::Redis) {
            let mut own = sheet.record.acknowledged.iter().filter(|row| row.by == address);
            let gone = own.find(|row| !postgres.contains(&row.n));
            ensure!(gone.is_none(), "{gone:?} is gone from PostgreSQL");
        }
        Ok(())
    })
}

/// Patroni's users: a region comes back and takes the leadership from the one that works.
#[test]
fn rejoin_demotes_nobody() -> Result<()> {
    play(|net| async {
        let stage = lost_and_returned(net).await?;
        let began = std::time::Instant::now();
        stage.crew.keeps_writing(NORTH, Way::Name, Duration::from_secs(2), D * 4).await?;
        ensure!(stage.changes().await? == 1, "the epoch rose again");
        let central = stage.region(CENTRAL).cluster()?;
        ensure!(stage.application().await?.primary == central.name, "the primary changed");
        let (address, record) = (central.address, stage.crew.record(NORTH, Way::Name)?);
        let away = record.acknowledged.iter().filter(|row| row.sent > began && row.by != address).count();
        ensure!(away == 0, "{away} rows went elsewhere");
        stage.judge().await?;
        Ok(())
    })
}

/// The first region dies, the other takes over, and the first is switched on again with everything in it: its databases by
/// hand and before its agent.
async fn lost_and_returned(net: Net) -> Result<Stage> {
    let mut stage = Stage::start(net, D).await?;
    stage.unreported_from_now();
    let west = stage.region(WEST);
    west.lose().await?;
    stage.failed_over_to(CENTRAL, PATIENCE).await?;
    west.give_back()?;
    let cluster = west.cluster()?;
    cluster.postgres.start().await?;
    cluster.redis.start().await?;
    for way in [Way::Postgres, Way::Redis] {
        stage.crew.takes_nothing(WEST, way, Duration::from_millis(500)).await?;
    }
    west.start_coordinator().await?;
    west.start_agent().await?;
    wait::until("word of the region that came back", PATIENCE, || async {
        let application = stage.application().await?;
        let known = application.stored_epoch(&cluster.name);
        ensure!(known == application.epoch, "its agent knows epoch {known}");
        Ok(())
    })
    .await?;
    Ok(stage)
}
