//! Partitions that last, or cut one direction only, or come and go.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
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
        stage.crew.keeps_writing(WEST, Way::Name, D, D * 4).await?;
        stage.weather(|weather| weather.clear()).await?;
        stage.world.protected(stage.region(WEST), stage.region(CENTRAL)).await?;
        ensure!(stage.changes().await? == 0, "the epoch rose");
        stage.judge().await?;
        Ok(())
    })
}

/// Two minutes of a link that comes and goes. No cut is nearly as long as D, and yet what was sent in one may only arrive in
/// the next: nothing moves, or one failover is made of it and the cool-down holds every other. Never are there two writers.
#[test]
fn a_flapping_link_moves_nothing_twice() -> Result<()> {
    play(|net| async {
        let mut stage = Stage::start(net, Duration::from_secs(10)).await?;
        stage.cut_off_from_now();
        let (mut flaps, end) = (0_u64, tokio::time::Instant::now() + Duration::from_secs(120));
        while tokio::time::Instant::now() < end {
            // Weather has its own time: nobody waits for what is seen of it.
            stage.weather(|weather| weather.around(WEST, &ALL, Link::Cut)).await?;
            tokio::time::sleep(Duration::from_millis(500 + 170 * (flaps % 10))).await;
            stage.weather(|weather| weather.clear()).await?;
            tokio::time::sleep(Duration::from_millis(600 + 270 * (flaps % 7))).await;
            flaps += 1;
        }
        stage.serves(NORTH, PATIENCE).await?;
        let changes = stage.changes().await?;
        println!("{flaps} times cut in two minutes, D = 10 s; the primary changed {changes} times");
        match changes {
            0 => stage.world.protected(stage.region(WEST), stage.region(CENTRAL)).await?,
            1 => {
                stage.failed_over_to(CENTRAL, PATIENCE).await?;
                stage.crew.takes_nothing(WEST, Way::Postgres, D).await?;
            }
            _ => bail!("the epoch rose {changes} times"),
        }
        stage.judge().await?;
        Ok(())
    })
}

/// Five packets of a hundred lost between all regions: slower, and nothing else.
#[test]
fn a_lossy_network_moves_nothing() -> Result<()> {
    play(|net| async {
        let mut stage = Stage::start(net, Duration::from_secs(10)).await?;
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
        stage.cut_off_from_now();
        stage.region(WEST).lose().await?;
        stage.failed_over_to(CENTRAL, Duration::from_secs(60)).await?;
        stage.judge().await?;
        Ok(())
    })
}

/// 200 ms each way and five packets of a hundred lost between all regions: raft, the agents' streams, replication and DNS
/// are as slow as that, and slower is all they are.
#[test]
fn a_far_and_lossy_network_moves_nothing() -> Result<()> {
    play(|net| async {
        // As `regentctl status` advises where the regions are so far apart.
        let raft = serde_json::json!({
            "heartbeat": "600ms", "electionMin": "2s", "electionMax": "4s", "connectTimeout": "4s", "rpcTimeout": "4s",
            "proposeTimeout": "15s"
        });
        let mut stage = Stage::start_with(net, Duration::from_secs(20), |options| options.raft = raft).await?;
        stage
            .weather(|weather| {
                for region in ALL {
                    weather.around(region, &ALL, Link::Slow { millis: 200, percent: 5 });
                }
            })
            .await?;
        let asked = std::time::Instant::now();
        stage.world.net()?.inside(NORTH, tokio::net::TcpStream::connect(stage.far_address(WEST)?))?.await??;
        ensure!(asked.elapsed() >= Duration::from_millis(400), "it is not far: {:?}", asked.elapsed());
        stage.crew.keeps_writing(WEST, Way::Name, Duration::from_secs(3), Duration::from_secs(60)).await?;
        ensure!(stage.changes().await? == 0, "the epoch rose");
        ensure!(stage.world.ctl().runs().await?.is_empty(), "there was a run");
        // And what must happen still does.
        stage.cut_off_from_now();
        stage.region(WEST).lose().await?;
        stage.failed_over_to(CENTRAL, Duration::from_secs(90)).await?;
        ensure!(stage.changes().await? == 1, "the epoch rose more than once");
        stage.judge().await?;
        Ok(())
    })
}
