//! A region that was lost comes back and is taken back: by an operator, without a word lost that was acknowledged.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::APPLICATION;
use regent_deploy::wait;

use super::SMALLEST;
use super::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_region_is_taken_back_as_a_standby() -> Result<()> {
    let scene = Scene::start(SMALLEST, Duration::from_millis(500)).await?;
    scene.lead_from("eu-central").await?;
    let writer = scene.writer().await?;
    scene.old().lose().await?;
    scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    let failover = scene.finished_run().await?;

    let (old, new) = (scene.old().cluster()?, scene.other().cluster()?);
    scene.old().give_back()?;
    old.postgres.start().await?;
    old.redis.start().await?;
    scene.old().start_coordinator().await?;
    scene.old().start_agent().await?;
    let ctl = scene.world.ctl();
    let why = ctl.why(APPLICATION).await?;
    ensure!(why.target.is_empty(), "{} would take over without having rejoined", why.target);

    // Redis was killed: its history is gone, and a full copy is a matter for an operator to allow.
    let refused = ctl.run(&["rejoin", APPLICATION, &old.name]).await.expect_err("it needs a fresh copy");
    ensure!(format!("{refused:#}").contains("rejoin-needs-reclone"), "it said {refused:#}");
    ensure!(ctl.why(APPLICATION).await?.target.is_empty(), "half of it has rejoined, and it is a candidate");
    let primary = ctl.run(&["rejoin", APPLICATION, &new.name]).await.expect_err("it is the primary");
    ensure!(format!("{primary:#}").contains("rejoin-primary"), "it said {primary:#}");

    let said = ctl.run(&["rejoin", APPLICATION, &old.name, "--reclone"]).await?;
    println!("{said}");
    wait::until("the next target", PATIENCE, || async {
        let why = ctl.why(APPLICATION).await?;
        ensure!(why.target == old.name, "the target is {:?}", why.target);
        Ok(())
    })
    .await?;
    ensure!(old.postgres.is_in_recovery().await?, "its PostgreSQL is no standby");
    ensure!(new.postgres.streaming().await? == 1, "its PostgreSQL does not stream");
    ensure!(old.postgres.insert(-1).await.is_err(), "a standby took a row");
    let row = writer.acknowledged_anew(PATIENCE).await?.n;
    wait::until("a new row at the standby", PATIENCE, || async {
        ensure!(old.postgres.rows().await?.contains(&row) && old.redis.rows().await?.contains(&row), "not there yet");
        Ok(())
    })
    .await?;
    // What the old side alone had is gone from it: both sides tell the same story.
    let record = writer.stop().await?;
    wait::until("the same rows on both sides", PATIENCE, || async {
        ensure!(old.postgres.rows().await? == new.postgres.rows().await?, "their PostgreSQL differ");
        ensure!(old.redis.rows().await? == new.redis.rows().await?, "their Redis differ");
        Ok(())
    })
    .await?;
    scene.judge(record, failover).await?;
    scene.end().await
}

/// The disk of a standby's agent is lost, with all that it had stored. What comes up with an empty one is nobody until an
/// operator has taken it in place of the old one, by the id that its log names; then it is a standby like any other.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_disk_was_lost_is_admitted_again() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    scene.lead_from("eu-central").await?;
    let writer = scene.writer().await?;
    let (ctl, standby) = (scene.world.ctl(), scene.other().cluster()?);
    standby.agent.kill().await?;
    let data = scene.world.folder().join("eu-central/agent");
    std::fs::remove_dir_all(&data)?;
    std::fs::create_dir(&data)?;
    scene.other().start_agent().await?;
    let id = wait::until("the id of the new installation", PATIENCE, || async {
        let log = std::fs::read_to_string(standby.agent.process().context("it does not run")?.log())?;
        let named = log.rsplit_once("--installation ").context("it was not refused")?.1;
        let id: String = named.chars().take_while(|letter| letter.is_ascii_hexdigit() || *letter == '-').collect();
        ensure!(!id.is_empty(), "no id is named");
        Ok(id)
    })
    .await?;

    // The old one was heard a moment ago: what it promised may still count.
    let words = ["rejoin", APPLICATION, &standby.name, "--installation", &id, "--detach"];
    let refused = ctl.run(&words).await.expect_err("the old one may still count");
    ensure!(format!("{refused:#}").contains("installation-heard"), "it said {refused:#}");
    wait::until("its admission", PATIENCE, || ctl.run(&words)).await?;
    scene.finished_run().await?;
    scene.world.protected(scene.old(), scene.other()).await?;
    wait::until("the next target", PATIENCE, || async {
        let why = ctl.why(APPLICATION).await?;
        ensure!(why.target == standby.name, "the target is {:?}: {}", why.target, why.reason());
        Ok(())
    })
    .await?;
    let record = writer.record();
    ensure!(record.failed == 0, "{} writes failed meanwhile: {:?}", record.failed, record.last_error);

    // And it can do what a standby is for.
    scene.old().lose().await?;
    scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    let failover = scene.finished_run().await?;
    scene.judge(writer.stop().await?, failover).await?;
    scene.end().await
}
