//! A region that was lost comes back, with everything that it had.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::APPLICATION;
use regent_deploy::net::Net;
use regent_deploy::wait;
use regent_deploy::world::Options;
use regent_tests::alone;
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
        // Before anybody decides what becomes of it, it is told what it has that the primary lacks, in numbers.
        let told = divergence(&stage).await?;
        println!("the side that came back: {told}");
        let least = u64::try_from(alone::ROWS.end - alone::ROWS.start)?;
        for what in [" bytes of WAL", " commits", " changed rows"] {
            let before = told.split_once(what).and_then(|(before, _)| before.rsplit(' ').next());
            let number: u64 = before.with_context(|| format!("no number of{what}: {told}"))?.parse()?;
            ensure!(number >= least, "{least} rows are its alone, and it has {number}{what}: {told}");
        }
        // (Its agent may have ended what it could not see closed: started again, it is closed again, and can be asked.)
        let west = stage.region(WEST).cluster()?;
        west.redis.start().await?;
        // A killed Redis names no history: what it was seen to have is told, and the rest is unknown, which is not nothing.
        let told = described(&stage, &format!("parted from {}", stage.region(CENTRAL).cluster()?.name)).await?;
        println!("its Redis: {told}");
        ensure!(told.contains("an unknown number of"), "it claims to know all of what its Redis has: {told}");
        // Nothing is deleted: whatever it had acknowledged by itself is still there.
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
        let (west, central) = (stage.region(WEST).cluster()?, stage.region(CENTRAL).cluster()?);
        let ctl = stage.world.ctl();
        let refused =
            ctl.run(&["rejoin", APPLICATION, &central.name, "--reclone"]).await.expect_err("it is the primary");
        ensure!(format!("{refused:#}").contains("rejoin-primary"), "it said {refused:#}");
        // Whoever writes notices nothing, while the side that came back is made what it may be: a standby.
        let words = ["rejoin", APPLICATION, &west.name, "--reclone"];
        let (told, kept) = tokio::join!(ctl.run(&words), stage.crew.keeps_writing(NORTH, Way::Name, D, D * 4));
        println!("{}", told?);
        kept?;
        stage.world.protected(stage.region(CENTRAL), stage.region(WEST)).await?;
        ensure!(west.postgres.is_in_recovery().await?, "its PostgreSQL is no standby");
        for way in [Way::Postgres, Way::Redis] {
            stage.crew.takes_nothing(WEST, way, Duration::from_secs(1)).await?;
        }
        ensure!(west.postgres.rows().await?.range(alone::ROWS).next().is_none(), "what it alone had is still in it");
        ensure!(stage.changes().await? == 1, "the epoch rose again");
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
    let parted = format!("diverged from {} at ", stage.region(CENTRAL).cluster()?.name);
    let line = described(stage, &parted).await?;
    Ok(line.split_once(&parted).context("it says so")?.1.to_owned())
}

/// The line of the description that has these words, once there is one.
async fn described(stage: &Stage, words: &str) -> Result<String> {
    wait::until("word of what diverged", PATIENCE * 2, || async {
        let told = stage.world.ctl().run(&["describe", APPLICATION]).await?;
        let line = told.lines().find(|line| line.contains(words)).map(|line| line.trim().to_owned());
        line.with_context(|| format!("it does not say {words:?}:\n{told}"))
    })
    .await
}

/// The first region dies with rows that it alone has, the other takes over, and the first is switched on again with
/// everything in it.
async fn lost_and_returned(net: Net) -> Result<Stage> {
    // What is lost is wanted here, whatever it looks like in time.
    let allows_more = |options: &mut Options| options.max_data_loss = Duration::from_secs(60);
    let mut stage = Stage::start_with(net, D, allows_more).await?;
    stage.cut_off_from_now();
    alone::has(&stage, WEST, CENTRAL).await?;
    stage.cut_off_from_now();
    stage.region(WEST).lose().await?;
    stage.failed_over_to(CENTRAL, PATIENCE).await?;
    stage.bring_back(WEST).await?;
    Ok(stage)
}
