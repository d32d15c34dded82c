//! One disk is full: of a coordinator, of an agent, of a database.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use regent_deploy::config::{APPLICATION, CACHE, DATABASE};
use regent_deploy::net::{Link, Net};
use regent_deploy::postgres::Postgres;
use regent_deploy::wait;
use regent_tests::ballast::Ballast;
use regent_tests::crew::Way;
use regent_tests::stage::{ALL, CENTRAL, NORTH, Stage, WEST, play};

const D: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(40);
/// Megabytes; room for a server and its log of a minute.
const DATABASE_DISK: u32 = 320;
/// Megabytes; Redis has its log and a snapshot there.
const REDIS_DISK: u32 = 64;

/// Each node's in turn: nothing moves, nobody who writes notices, and when there is space again everything is as it was.
#[test]
fn a_full_disk_on_each_node_in_turn_moves_nothing() -> Result<()> {
    let nodes = [
        (WEST, "eu-west/coordinator", 48),
        (CENTRAL, "eu-central/coordinator", 48),
        (NORTH, "eu-north/coordinator", 48),
        (WEST, "eu-west/agent", 16),
        (CENTRAL, "eu-central/agent", 16),
    ];
    play(|net| async move {
        let stage = Stage::start_with(net, Duration::from_secs(6), |options| {
            options.disks.extend(nodes.map(|(_, folder, size)| (PathBuf::from(folder), size)));
        })
        .await?;
        for (region, folder, _) in nodes {
            let region = stage.region(region);
            let ballast = Ballast::fill(&stage.world.folder().join(folder))?;
            for _ in 0..4 {
                something_to_write_down(&stage).await?;
            }
            stage.crew.keeps_writing(WEST, Way::Name, Duration::from_secs(2), Duration::from_secs(8)).await?;
            drop(ballast);
            // A supervisor starts again what gave up.
            if !region.coordinator().process().is_some_and(|process| process.is_running()) {
                region.start_coordinator().await?;
            }
            stage.world.protected(stage.region(WEST), stage.region(CENTRAL)).await?;
            ensure!(stage.changes().await? == 0, "{folder}: the epoch rose");
            println!("{folder}: nothing moved");
        }
        ensure!(stage.world.ctl().runs().await?.is_empty(), "there was a run");
        stage.judge().await?;
        Ok(())
    })
}

/// New terms, which every coordinator and every agent stores.
async fn something_to_write_down(stage: &Stage) -> Result<()> {
    wait::until("a pause and its end", PATIENCE, || async {
        stage.world.ctl().run(&["pause", APPLICATION, "--reason", "to write something down"]).await?;
        stage.world.ctl().run(&["resume", APPLICATION]).await
    })
    .await?;
    Ok(())
}

/// A stage on which this resource of a cluster has a disk of its own of so many megabytes; and its folder.
async fn on_small_disk(net: Net, cluster: &str, resource: &str, size: u32) -> Result<(Stage, PathBuf)> {
    let data = PathBuf::from(cluster).join(resource).join("data");
    let stage = Stage::start_with(net, D, |options| options.disks.push((data.clone(), size))).await?;
    let folder = stage.world.folder().join(data);
    Ok((stage, folder))
}

/// The primary's database cannot write: it dies of it, and its fence needs no disk.
#[test]
fn a_full_disk_of_the_primarys_database_is_left_behind() -> Result<()> {
    play(|net| async {
        let (mut stage, data) = on_small_disk(net, "eu-west", DATABASE, DATABASE_DISK).await?;
        stage.cut_off_from_now();
        let ballast = Ballast::fill(&data)?;
        use_up_its_log(&stage.region(WEST).cluster()?.postgres).await?;
        stage.failed_over_to(CENTRAL, PATIENCE).await?;
        stage.crew.takes_nothing(WEST, Way::Postgres, D).await?;
        drop(ballast);
        // With space again, and started by a careless person, it is closed.
        stage.region(WEST).cluster()?.postgres.start().await?;
        stage.crew.takes_nothing(WEST, Way::Postgres, D).await?;
        stage.crew.keeps_writing(NORTH, Way::Name, Duration::from_secs(2), D).await?;
        ensure!(stage.changes().await? == 1, "the epoch rose more than once");
        stage.judge().await?;
        Ok(())
    })
}

/// The segments that it has already would last for minutes.
async fn use_up_its_log(server: &Postgres) -> Result<()> {
    let session = server.connect_as_superuser().await?;
    wait::until("the server to need a new segment of its log", PATIENCE, || async {
        let switched = session.simple_query("SELECT txid_current(), pg_switch_wal()").await;
        ensure!(switched.is_err(), "it still has segments");
        Ok(())
    })
    .await
}

/// The primary's Redis cannot write its log, and refuses rows. It is left, or waited for until there is space again;
/// whichever it is, nothing that it acknowledged is lost, and all is served again.
#[test]
fn a_full_disk_of_the_primarys_redis_loses_nothing() -> Result<()> {
    play(|net| async {
        let (mut stage, data) = on_small_disk(net, "eu-west", CACHE, REDIS_DISK).await?;
        stage.cut_off_from_now();
        let ballast = Ballast::fill(&data)?;
        wait::until("a refusal for want of space", PATIENCE, || async {
            let said = stage.crew.record(WEST, Way::Redis)?.last_error.unwrap_or_default();
            ensure!(said.contains("MISCONF"), "the last refusal is {said:?}");
            Ok(())
        })
        .await?;
        stage.crew.takes_nothing(WEST, Way::Redis, D * 3).await?;
        drop(ballast);
        stage.serves(NORTH, PATIENCE).await?;
        match stage.changes().await? {
            0 => stage.world.protected(stage.region(WEST), stage.region(CENTRAL)).await?,
            1 => stage.failed_over_to(CENTRAL, PATIENCE).await?,
            changes => bail!("the epoch rose {changes} times"),
        }
        stage.crew.keeps_writing(NORTH, Way::Name, Duration::from_secs(2), D).await?;
        stage.judge().await?;
        Ok(())
    })
}

/// The standby's database cannot write: nothing moves.
#[test]
fn a_full_disk_of_the_standbys_database_moves_nothing() -> Result<()> {
    play(|net| async {
        let (stage, data) = on_small_disk(net, "eu-central", DATABASE, DATABASE_DISK).await?;
        let ballast = Ballast::fill(&data)?;
        let standby = &stage.region(CENTRAL).cluster()?.postgres;
        wait::until("the end of the standby", PATIENCE * 2, || async {
            ensure!(standby.streaming().await.is_err(), "it still answers");
            Ok(())
        })
        .await?;
        stage.crew.keeps_writing(WEST, Way::Name, Duration::from_secs(2), D * 2).await?;
        drop(ballast);
        standby.start().await?;
        stage.world.protected(stage.region(WEST), stage.region(CENTRAL)).await?;
        ensure!(stage.changes().await? == 0, "the epoch rose");
        stage.judge().await?;
        Ok(())
    })
}

/// The standby's Redis cannot write what it is sent, and ends itself rather than go on without: nothing moves.
#[test]
fn a_full_disk_of_the_standbys_redis_moves_nothing() -> Result<()> {
    play(|net| async {
        let (stage, data) = on_small_disk(net, "eu-central", CACHE, REDIS_DISK).await?;
        let ballast = Ballast::fill(&data)?;
        let standby = &stage.region(CENTRAL).cluster()?.redis;
        wait::until("the end of the standby's Redis", PATIENCE * 2, || async {
            ensure!(standby.pid().is_none(), "it still runs");
            Ok(())
        })
        .await?;
        stage.crew.keeps_writing(WEST, Way::Name, Duration::from_secs(2), D * 2).await?;
        drop(ballast);
        standby.start().await?;
        stage.world.protected(stage.region(WEST), stage.region(CENTRAL)).await?;
        let row = stage.crew.writes(WEST, Way::Name, PATIENCE).await?.n;
        wait::until("a new row at the standby's Redis", PATIENCE, || async {
            ensure!(standby.rows().await?.contains(&row), "row {row} is not there");
            Ok(())
        })
        .await?;
        ensure!(stage.changes().await? == 0, "the epoch rose");
        ensure!(stage.world.ctl().runs().await?.is_empty(), "there was a run");
        stage.judge().await?;
        Ok(())
    })
}

/// The leader's disk is full: another one leads, and a failover does not wait for it.
#[test]
fn a_full_disk_of_the_leader_stops_nothing() -> Result<()> {
    play(|net| async {
        let data = PathBuf::from("eu-north/coordinator");
        let stage = Stage::start_with(net, D, |options| options.disks.push((data.clone(), 48))).await?;
        let north = stage.region(NORTH);
        stage.lead_from(NORTH).await?;
        let ballast = Ballast::fill(&stage.world.folder().join(&data))?;
        wait::until("another leader", PATIENCE, || async {
            // Something to write down.
            stage.world.ctl().run(&["pause", APPLICATION, "--reason", "to write something down"]).await?;
            stage.world.ctl().run(&["resume", APPLICATION]).await?;
            let leader = stage.world.ctl().status().await?.leader();
            ensure!(leader != 0 && leader != north.place().id, "coordinator {leader} leads");
            Ok(())
        })
        .await?;
        stage.serves(NORTH, PATIENCE).await?;
        stage.region(WEST).cluster()?.postgres.kill_and_switch_off().await?;
        stage.failed_over_to(CENTRAL, PATIENCE).await?;

        drop(ballast);
        if !north.coordinator().process().is_some_and(|process| process.is_running()) {
            north.start_coordinator().await?;
        }
        wait::until("the coordinator with space again", PATIENCE, || async {
            let text = north.metrics().await?;
            let shown =
                text.lines().any(|line| line.starts_with("regent_application_epoch{") && line.ends_with(" 2.0"));
            ensure!(shown, "it does not show the new epoch");
            Ok(())
        })
        .await?;
        stage.judge().await?;
        Ok(())
    })
}

/// The target's agent cannot write down what it is told: it promotes nothing, says so, and goes on when there is space.
#[test]
fn a_full_disk_of_the_target_refuses_steps_by_name() -> Result<()> {
    play(|net| async {
        let data = PathBuf::from("eu-central/agent");
        let mut stage = Stage::start_with(net, D, |options| options.disks.push((data.clone(), 16))).await?;
        let ballast = Ballast::fill(&stage.world.folder().join(&data))?;
        // What is left of the journal's last page: new terms are stored by every agent.
        for _ in 0..12 {
            stage.world.ctl().run(&["pause", APPLICATION, "--reason", "to write something down"]).await?;
            stage.world.ctl().run(&["resume", APPLICATION]).await?;
        }
        stage.serves(NORTH, PATIENCE).await?;
        stage.cut_off_from_now();
        stage.region(WEST).lose().await?;
        wait::until("the refusal", PATIENCE, || async {
            let runs = stage.world.ctl().run(&["runs", "-o", "json"]).await?;
            let why = stage.world.ctl().run(&["why", APPLICATION]).await?;
            // Refused when it is told, or no candidate any more, since it could not store the newest terms.
            ensure!(runs.contains("journal-full") || why.contains("no-target"), "{runs}\n{why}");
            Ok(())
        })
        .await?;
        stage.crew.takes_nothing(NORTH, Way::Name, D).await?;
        drop(ballast);
        stage.failed_over_to(CENTRAL, PATIENCE).await?;
        stage.judge().await?;
        Ok(())
    })
}

/// The primary's agent cannot write: it goes on serving, and fences all the same.
#[test]
fn a_full_disk_of_the_primary_does_not_stop_its_fence() -> Result<()> {
    play(|net| async {
        let data = PathBuf::from("eu-west/agent");
        let mut stage = Stage::start_with(net, D, |options| options.disks.push((data.clone(), 16))).await?;
        let _ballast = Ballast::fill(&stage.world.folder().join(&data))?;
        stage.crew.keeps_writing(WEST, Way::Name, Duration::from_secs(2), D * 2).await?;
        stage.cut_off_from_now();
        let began = Instant::now();
        stage.weather(|weather| weather.around(WEST, &ALL, Link::Cut)).await?;
        let fenced = stage.fenced(WEST, began, PATIENCE).await?;
        ensure!(fenced < D, "the fence took {fenced:?}");
        stage.failed_over_to(CENTRAL, PATIENCE).await?;
        stage.weather(|weather| weather.clear()).await?;
        stage.crew.takes_nothing(WEST, Way::Postgres, D).await?;
        stage.judge().await?;
        Ok(())
    })
}
