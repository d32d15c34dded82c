//! A region that was lost comes back, with everything that it had.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
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
        // Before anybody decides what becomes of it, it is told what it has that the primary lacks.
        let told = divergence(&stage).await?;
        println!("the side that came back: {told}");
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

/// GitHub, September 2012, the other half: the second failover in a row, before anybody had understood the first.
#[test]
fn second_failover_waits() -> Result<()> {
    play(|net| async {
        let mut stage = lost_and_returned(net).await?;
        let west = &stage.region(WEST).cluster()?.name;
        stage.world.ctl().run(&["rejoin", APPLICATION, west, "--reclone"]).await?;
        stage.world.protected(stage.region(CENTRAL), stage.region(WEST)).await?;

        stage.cut_off_from_now();
        stage.region(CENTRAL).lose().await?;
        stage.crew.is_refused(NORTH, Way::Name, PATIENCE).await?;
        // Everything else speaks for a failover: only the cool-down holds it.
        wait::until("the cool-down alone", PATIENCE, || async {
            let why = stage.world.ctl().run(&["why", APPLICATION]).await?;
            ensure!(why.contains("cool-down") && !why.contains("primary-not-lost"), "{why}");
            ensure!(!why.contains("time-bound") && !why.contains("no-target"), "{why}");
            Ok(())
        })
        .await?;
        stage.crew.takes_nothing(NORTH, Way::Name, D * 4).await?;
        ensure!(stage.changes().await? == 1, "the epoch rose again");

        stage.world.ctl().run(&["ack", APPLICATION]).await?;
        stage.failed_over_to(WEST, PATIENCE).await?;
        ensure!(stage.changes().await? == 2, "the epoch did not rise once more");
        stage.judge().await?;
        Ok(())
    })
}

/// What operators are told of the database that came back.
async fn divergence(stage: &Stage) -> Result<String> {
    let primary = &stage.region(CENTRAL).cluster()?.name;
    let nothing = format!("nothing that was committed lies beyond the history of {primary}");
    let (parted, measured) = (format!("diverged from {primary} at "), "bytes of WAL");
    wait::until("word of what diverged", PATIENCE * 2, || async {
        let told = stage.world.ctl().run(&["describe", APPLICATION]).await?;
        let mut lines = told.lines();
        let line = lines.find(|line| line.contains(&nothing) || line.contains(&parted) && line.contains(measured));
        line.map(|line| line.trim().to_owned()).with_context(|| format!("it says neither:\n{told}"))
    })
    .await
}

/// The first region dies, the other takes over, and the first is switched on again with everything in it.
async fn lost_and_returned(net: Net) -> Result<Stage> {
    let mut stage = Stage::start(net, D).await?;
    stage.cut_off_from_now();
    stage.region(WEST).lose().await?;
    stage.failed_over_to(CENTRAL, PATIENCE).await?;
    stage.bring_back(WEST).await?;
    Ok(stage)
}
