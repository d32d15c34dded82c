//! Readiness names what speaks against a move before anybody moves, and what it calls a blocker does refuse a switchover.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_deploy::config::APPLICATION;
use regent_deploy::wait;

use super::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_blocker_of_readiness_refuses_a_switchover_until_it_is_gone() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    let writer = scene.writer().await?;
    let (ctl, other) = (scene.world.ctl(), scene.other().cluster()?);
    let epoch = ctl.status().await?.application(APPLICATION)?.epoch;
    // The agents look by themselves, about once a minute.
    let clean = wait::until("what is worth knowing", PATIENCE, || async {
        let clean = ctl.run(&["readiness", APPLICATION, "--fail-on", "blocker"]).await?;
        let told = clean.contains("asynchronous") && clean.contains("drill-old") && !clean.contains("facts-missing");
        ensure!(told, "{clean}");
        Ok(clean)
    })
    .await?;
    println!("{clean}");

    other.postgres.kill_and_switch_off().await?;
    let said = wait::until("a blocker", PATIENCE, || async {
        let blocked = ctl.run(&["readiness", APPLICATION, "--fail-on", "blocker"]).await;
        let Err(blocked) = blocked else { anyhow::bail!("nothing speaks against a move") };
        let said = format!("{blocked:#}");
        ensure!(said.contains("exit status: 3") && said.contains("unhealthy"), "it said {said}");
        Ok(said)
    })
    .await?;
    println!("{said}");
    let refused = ctl.run(&["switchover", APPLICATION, "--to", &other.name]).await.expect_err("readiness blocks");
    let refused = format!("{refused:#}");
    ensure!(refused.contains("exit status: 3") && refused.contains("unhealthy"), "it said {refused}");
    ensure!(ctl.runs().await?.is_empty(), "a refused switchover began a run");
    let described = ctl.run(&["describe", APPLICATION]).await?;
    ensure!(described.contains("unhealthy"), "describe does not show it: {described}");

    other.postgres.switch_on()?;
    other.postgres.start().await?;
    wait::until("the end of the blocker", PATIENCE, || async {
        ctl.run(&["readiness", APPLICATION, "--fail-on", "blocker"]).await.map(drop)
    })
    .await?;
    scene.world.protected(scene.old(), scene.other()).await?;
    let after = ctl.status().await?.application(APPLICATION)?.epoch;
    ensure!(after == epoch, "the epoch went from {epoch} to {after}");
    let record = writer.stop().await?;
    let primary = scene.old().cluster()?;
    ensure!(record.acknowledged.iter().all(|row| row.by == primary.address), "another side acknowledged");
    scene.end().await
}
