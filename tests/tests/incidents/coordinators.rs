//! Trouble of coordinators alone changes nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_deploy::net::Link;
use regent_deploy::wait;
use regent_tests::crew::Way;
use regent_tests::stage::{ALL, CENTRAL, NORTH, Stage, WEST, play};

const D: Duration = Duration::from_secs(3);

/// Patroni's users: the store of the configuration is gone, and a healthy primary demotes itself.
#[test]
fn coordinator_outage() -> Result<()> {
    play(|net| async {
        let stage = Stage::start(net, D).await?;
        for region in ALL {
            stage.region(region).coordinator().kill().await?;
        }
        // With the coordinators the name is gone; whoever knows the database goes on, twenty times as long as a lease.
        let (postgres, redis) = tokio::join!(
            stage.crew.keeps_writing(WEST, Way::Postgres, Duration::from_secs(1), D * 20),
            stage.crew.keeps_writing(WEST, Way::Redis, Duration::from_secs(1), D * 20)
        );
        postgres.and(redis)?;
        for region in ALL {
            stage.region(region).start_coordinator().await?;
        }
        stage.world.protected(stage.region(WEST), stage.region(CENTRAL)).await?;
        stage.crew.writes(NORTH, Way::Name, Duration::from_secs(10)).await?;
        ensure!(stage.changes().await? == 0, "the epoch rose");
        for way in [Way::Postgres, Way::Redis] {
            let failed = stage.crew.record(WEST, way)?;
            ensure!(failed.failed == 0, "{} writes into {way:?} failed: {:?}", failed.failed, failed.last_error);
        }
        stage.judge().await?;
        Ok(())
    })
}

/// orchestrator: a leader on the wrong side of a partition acts on what it alone does not see.
#[test]
fn isolated_leader() -> Result<()> {
    play(|net| async {
        let stage = Stage::start(net, D).await?;
        stage.lead_from(NORTH).await?;
        stage.weather(|weather| weather.around(NORTH, &ALL, Link::Cut)).await?;
        // It hears neither agent, and both others hear everything.
        stage.crew.keeps_writing(WEST, Way::Name, Duration::from_secs(2), D * 4).await?;
        ensure!(metric(&stage, NORTH, "regent_quorum").await? == 0.0, "it claims a quorum");
        ensure!(metric(&stage, NORTH, "regent_raft_is_leader").await? == 0.0, "it claims to lead");
        stage.weather(|weather| weather.clear()).await?;
        wait::until("a group of three", Duration::from_secs(20), || async {
            ensure!(metric(&stage, NORTH, "regent_quorum").await? == 1.0, "it is still alone");
            Ok(())
        })
        .await?;
        ensure!(stage.changes().await? == 0, "the epoch rose");
        ensure!(stage.world.ctl().runs().await?.is_empty(), "there was a run");
        for region in ALL {
            let left = metric(&stage, region, "regent_application_cool_down_seconds").await?;
            ensure!(left == 0.0, "a cool-down of {left} s began");
        }
        stage.judge().await?;
        Ok(())
    })
}

/// The leader stands still and wakes when another leads: it has missed its time, and knows.
#[test]
fn a_frozen_leader_wakes_as_a_follower() -> Result<()> {
    play(|net| async {
        let stage = Stage::start(net, D).await?;
        stage.lead_from(NORTH).await?;
        let leader = stage.region(NORTH).coordinator().process().expect("it runs");
        leader.freeze();
        stage.region(WEST).cluster()?.postgres.kill_and_switch_off().await?;
        stage.failed_over_to(CENTRAL, Duration::from_secs(30)).await?;
        leader.thaw();
        wait::until("the new epoch at the old leader", Duration::from_secs(20), || async {
            let epoch = metric(&stage, NORTH, "regent_application_epoch").await?;
            ensure!(epoch == 2.0, "it shows epoch {epoch}");
            Ok(())
        })
        .await?;
        ensure!(metric(&stage, NORTH, "regent_raft_is_leader").await? == 0.0, "it claims to lead");
        stage.crew.keeps_writing(NORTH, Way::Name, Duration::from_secs(2), D).await?;
        ensure!(stage.changes().await? == 1, "the epoch rose more than once");
        stage.judge().await?;
        Ok(())
    })
}

/// The first value of a metric, as a region's coordinator shows it.
pub(super) async fn metric(stage: &Stage, region: usize, name: &str) -> Result<f64> {
    let text = stage.region(region).metrics().await?;
    let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name));
    let value = line.and_then(|line| line.rsplit(' ').next());
    Ok(value.ok_or_else(|| anyhow::anyhow!("{name} is not shown"))?.parse()?)
}
