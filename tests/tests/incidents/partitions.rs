//! Partitions that last, or cut one direction only, or come and go.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_deploy::net::{Link, Net};
use regent_tests::crew::Way;
use regent_tests::stage::{ALL, CENTRAL, NORTH, Stage, WEST, play};

const D: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(30);

/// GitHub, October 2018, the other half: what was written on the wrong side, later than the first write on the right one.
#[test]
fn long_partition() -> Result<()> {
    play(|net| async {
        let mut stage = Stage::start(net, D).await?;
        stage.cut_off_from_now();
        stage.weather(|weather| weather.around(WEST, &ALL, Link::Cut)).await?;
        stage.failed_over_to(CENTRAL, PATIENCE).await?;
        for way in [Way::Name, Way::Postgres, Way::Redis] {
            stage.crew.takes_nothing(WEST, way, Duration::from_secs(1)).await?;
        }
        stage.weather(|weather| weather.clear()).await?;
        // The old side hears of the new epoch; clients there are led to the new side.
        stage.crew.writes_to(WEST, &stage.world, CENTRAL, PATIENCE).await?;
        for way in [Way::Postgres, Way::Redis] {
            stage.crew.takes_nothing(WEST, way, D).await?;
        }
        ensure!(stage.changes().await? == 1, "the epoch rose more than once");
        stage.judge().await?;
        Ok(())
    })
}

/// The primary hears everybody, and nobody hears it.
#[test]
fn a_primary_that_nobody_hears_is_left() -> Result<()> {
    play(|net| one_way(net, [(WEST, CENTRAL), (WEST, NORTH)]))
}

/// Everybody hears the primary, and it hears nobody.
#[test]
fn a_primary_that_hears_nobody_is_left() -> Result<()> {
    play(|net| one_way(net, [(CENTRAL, WEST), (NORTH, WEST)]))
}

async fn one_way(net: Net, cut: [(usize, usize); 2]) -> Result<()> {
    let mut stage = Stage::start(net, D).await?;
    stage.cut_off_from_now();
    stage
        .weather(|weather| {
            for (from, to) in cut {
                weather.one_way(from, to, Link::Cut);
            }
        })
        .await?;
    stage.failed_over_to(CENTRAL, PATIENCE).await?;
    stage.crew.takes_nothing(WEST, Way::Postgres, Duration::from_secs(1)).await?;
    stage.weather(|weather| weather.clear()).await?;
    stage.crew.writes_to(WEST, &stage.world, CENTRAL, PATIENCE).await?;
    stage.crew.takes_nothing(WEST, Way::Postgres, D).await?;
    stage.judge().await?;
    Ok(())
}

/// The primary reaches the witness and not the other side: a majority still hears it, and nothing may change.
#[test]
fn a_cut_between_the_two_sides_alone_changes_nothing() -> Result<()> {
    play(|net| async {
        let stage = Stage::start(net, D).await?;
        stage.weather(|weather| weather.between(WEST, CENTRAL, Link::Cut)).await?;
        stage.crew.keeps_writing(WEST, Way::Name, Duration::from_secs(2), D * 4).await?;
        stage.weather(|weather| weather.clear()).await?;
        stage.world.protected(stage.region(WEST), stage.region(CENTRAL)).await?;
        ensure!(stage.changes().await? == 0, "the epoch rose");
        stage.judge().await?;
        Ok(())
    })
}

/// Two minutes of a link that comes and goes, shorter than D each time.
#[test]
fn a_flapping_link_moves_nothing_twice() -> Result<()> {
    play(|net| async {
        let mut stage = Stage::start(net, Duration::from_secs(10)).await?;
        stage.cut_off_from_now();
        for round in 0..30_u64 {
            stage.weather(|weather| weather.around(WEST, &ALL, Link::Cut)).await?;
            stage.crew.is_refused(NORTH, Way::Name, PATIENCE).await?;
            stage
                .crew
                .keeps_writing(WEST, Way::Name, Duration::from_secs(3), Duration::from_millis(500 + 170 * (round % 10)))
                .await?;
            stage.weather(|weather| weather.clear()).await?;
            stage.crew.writes(NORTH, Way::Name, Duration::from_secs(5)).await?;
            stage
                .crew
                .keeps_writing(WEST, Way::Name, Duration::from_secs(3), Duration::from_millis(600 + 270 * (round % 7)))
                .await?;
        }
        stage.world.protected(stage.region(WEST), stage.region(CENTRAL)).await?;
        ensure!(stage.changes().await? == 0, "the epoch rose");
        stage.judge().await?;
        Ok(())
    })
}

/// Five packets of a hundred lost between all regions: slower, and nothing else.
#[test]
fn a_lossy_network_moves_nothing() -> Result<()> {
    play(|net| async {
        let stage = Stage::start(net, Duration::from_secs(10)).await?;
        stage
            .weather(|weather| {
                for region in ALL {
                    weather.around(region, &ALL, Link::Lossy { percent: 5 });
                }
            })
            .await?;
        stage.crew.keeps_writing(WEST, Way::Name, Duration::from_secs(3), Duration::from_secs(30)).await?;
        ensure!(stage.changes().await? == 0, "the epoch rose");
        // And what must happen still does.
        stage.region(WEST).lose().await?;
        stage.failed_over_to(CENTRAL, Duration::from_secs(60)).await?;
        stage.judge().await?;
        Ok(())
    })
}
