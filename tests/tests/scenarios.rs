//! The main job on real parts. The oracle is what a client was told and what the databases and the name say then.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, reason = "tests")]

#[path = "scenarios/ahead.rs"]
mod ahead;
#[path = "scenarios/backup.rs"]
mod backup;
#[path = "scenarios/bad_input.rs"]
mod bad_input;
#[path = "scenarios/drill.rs"]
mod drill;
#[path = "scenarios/dumps.rs"]
mod dumps;
#[path = "scenarios/gitops.rs"]
mod gitops;
#[path = "scenarios/members.rs"]
mod members;
#[path = "scenarios/orders.rs"]
mod orders;
#[path = "scenarios/past_return.rs"]
mod past_return;
#[path = "scenarios/quiesce.rs"]
mod quiesce;
#[path = "scenarios/readiness.rs"]
mod readiness;
#[path = "scenarios/rejoin.rs"]
mod rejoin;
#[path = "scenarios/remote.rs"]
mod remote;
#[path = "scenarios/restore.rs"]
mod restore;
#[path = "scenarios/rogue.rs"]
mod rogue;
#[path = "scenarios/scene.rs"]
mod scene;
#[path = "scenarios/several.rs"]
mod several;
#[path = "scenarios/silence.rs"]
mod silence;
#[path = "scenarios/source.rs"]
mod source;
#[path = "scenarios/switchover.rs"]
mod switchover;
#[path = "scenarios/verbs.rs"]
mod verbs;
#[path = "scenarios/windows.rs"]
mod windows;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use regent_deploy::config::APPLICATION;
use regent_deploy::wait;

use scene::Scene;

/// D + 4 s for the smallest D, 2 s: the bound that is published for it.
const SMALLEST: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_region_is_taken_over_within_the_smallest_bound() -> Result<()> {
    let scene = Scene::start(SMALLEST, Duration::from_millis(500)).await?;
    scene.lead_from("eu-central").await?;
    let writer = scene.writer().await?;
    let death = Instant::now();
    scene.old().lose().await?;
    let first = scene.first_write_at_the_other_side(&writer, Duration::from_secs(60)).await?;
    let took = first.at - death;
    println!("first write {:.2} s after the death, D = {:.0} s", took.as_secs_f32(), SMALLEST.as_secs_f32());
    let run = scene.finished_run().await?;
    scene.judge(writer.stop().await?, run).await?;
    ensure!(took <= SMALLEST * 2, "the first write came {took:?} after the death");
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_may_die_with_the_region() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    scene.lead_from("eu-west").await?;
    let writer = scene.writer().await?;
    let death = Instant::now();
    scene.old().lose().await?;
    let first = scene.first_write_at_the_other_side(&writer, Duration::from_secs(60)).await?;
    let took = first.at - death;
    println!("first write {:.2} s after the death, D = 10 s, leader lost, too", took.as_secs_f32());
    let run = scene.finished_run().await?;
    scene.judge(writer.stop().await?, run).await?;
    ensure!(took >= Duration::from_secs(9), "promoted before the bound: {took:?}");
    ensure!(took <= Duration::from_secs(13), "the first write came {took:?} after the death");
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_database_in_a_living_region_is_replaced_without_waiting_out_the_bound() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(20), Duration::from_millis(500)).await?;
    let writer = scene.writer().await?;
    let death = Instant::now();
    scene.old().cluster()?.postgres.kill_and_switch_off().await?;
    let first = scene.first_write_at_the_other_side(&writer, Duration::from_secs(60)).await?;
    let took = first.at - death;
    println!("first write {:.2} s after the death of the database, D = 20 s", took.as_secs_f32());
    let run = scene.finished_run().await?;
    scene.judge(writer.stop().await?, run).await?;
    ensure!(took <= Duration::from_secs(3), "the first write came {took:?} after the death");
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_coordinators_the_primary_keeps_serving() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(3), Duration::from_millis(500)).await?;
    let writer = scene.writer().await?;
    let epoch = scene.world.ctl().status().await?.application(APPLICATION)?.epoch;
    for region in scene.world.regions().iter().skip(1) {
        region.coordinator().kill().await?;
    }
    wait::until("a status that admits it", Duration::from_secs(20), || async {
        let status = scene.world.ctl().status().await?;
        ensure!(!status.has_quorum(), "it still claims a quorum");
        Ok(())
    })
    .await?;
    // Many times D, in which nothing may change: the last coordinator still answers the name.
    let until = Instant::now() + Duration::from_secs(15);
    while Instant::now() < until {
        writer.acknowledged_anew(Duration::from_secs(2)).await?;
    }
    for region in scene.world.regions().iter().skip(1) {
        region.start_coordinator().await?;
    }
    scene.world.protected(scene.old(), scene.other()).await?;
    let after = scene.world.ctl().status().await?.application(APPLICATION)?.epoch;
    ensure!(after == epoch, "the epoch went from {epoch} to {after}");
    let record = writer.stop().await?;
    let gap = record.longest_gap().unwrap().length();
    println!("longest gap between writes {:.0} ms in 15 s without a majority", gap.as_secs_f32() * 1000.0);
    ensure!(gap < Duration::from_secs(1), "writes stood still for {gap:?}");
    ensure!(record.missing(&scene.old().cluster()?.postgres.rows().await?).is_empty(), "rows are missing");
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_crashes_and_is_restarted_is_opened_again() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(20), Duration::from_secs(1)).await?;
    let writer = scene.writer().await?;
    let epoch = scene.world.ctl().status().await?.application(APPLICATION)?.epoch;
    let postgres = &scene.old().cluster()?.postgres;
    let crash = Instant::now();
    postgres.kill().await?;
    // By hand, or by a supervisor: it comes up closed, and only the agent opens it.
    postgres.start().await?;
    let first =
        writer.acknowledged_when("a write after the restart", Duration::from_secs(30), |row| row.sent > crash).await?;
    println!("first write {:.2} s after the crash of a database that was restarted", (first.at - crash).as_secs_f32());
    ensure!(first.by == scene.old().cluster()?.address, "it was written at the other side");
    scene.world.protected(scene.old(), scene.other()).await?;
    let after = scene.world.ctl().status().await?.application(APPLICATION)?.epoch;
    ensure!(after == epoch, "the epoch went from {epoch} to {after}");
    let record = writer.stop().await?;
    ensure!(record.missing(&postgres.rows().await?).is_empty(), "rows are missing");
    scene.end().await
}
