//! A region that was lost comes back and is taken back: by an operator, without a word lost that was acknowledged.

use std::time::Duration;

use anyhow::{Result, ensure};
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
