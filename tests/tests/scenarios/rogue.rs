//! Somebody promotes the standby by hand: while its agent runs, and while it does not. It is fenced and told; the primary
//! and its clients notice nothing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::APPLICATION;
use regent_deploy::region::Cluster;
use regent_deploy::wait;

use super::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(60);

/// As a human with a superuser's login would.
async fn promote_by_hand(cluster: &Cluster) -> Result<()> {
    let admin = cluster.postgres.connect_as_agent().await?;
    admin.execute("SELECT pg_promote(false)", &[]).await?;
    wait::until("the end of recovery", PATIENCE, || async {
        ensure!(!cluster.postgres.is_in_recovery().await?, "it is a standby");
        Ok(())
    })
    .await
}

/// Clients are refused, on a connection of their own; and the group knows why. Gives the rows that it took until then.
async fn is_fenced_and_told(scene: &Scene, below: i64) -> Result<BTreeSet<i64>> {
    let cluster = scene.other().cluster()?;
    // Each try brings a row of its own: one that is there already would be refused by any primary.
    let tries = AtomicI64::new(below);
    wait::until("its fence", PATIENCE, || async {
        let written = cluster.postgres.insert(tries.fetch_sub(1, Ordering::Relaxed)).await;
        ensure!(written.is_err(), "it took a write");
        let shown = scene.world.ctl().run(&["describe", APPLICATION]).await?;
        ensure!(shown.contains("ROGUE WRITER"), "{shown}");
        Ok(())
    })
    .await?;
    let audit = scene.world.ctl().run(&["audit", APPLICATION]).await?;
    ensure!(audit.contains("rogue-writer"), "{audit}");
    let rows = cluster.postgres.rows().await?;
    let late = cluster.postgres.insert(tries.load(Ordering::Relaxed)).await;
    ensure!(late.is_err(), "it took a write after its fence");
    ensure!(cluster.postgres.rows().await? == rows, "rows came after its fence");
    Ok(rows)
}

async fn take_back(scene: &Scene) -> Result<()> {
    let ctl = scene.world.ctl();
    println!("{}", ctl.run(&["rejoin", APPLICATION, &scene.other().cluster()?.name, "--reclone"]).await?);
    scene.world.protected(scene.old(), scene.other()).await?;
    wait::until("the end of what was told", PATIENCE, || async {
        let shown = ctl.run(&["describe", APPLICATION]).await?;
        ensure!(!shown.contains("ROGUE WRITER"), "{shown}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_promoted_by_hand_is_fenced_whether_its_agent_runs_or_not() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    let writer = scene.writer().await?;
    let (ctl, other) = (scene.world.ctl(), scene.other().cluster()?);
    let epoch = ctl.status().await?.application(APPLICATION)?.epoch;

    promote_by_hand(other).await?;
    is_fenced_and_told(&scene, -100_000).await?;
    take_back(&scene).await?;

    // While the agent is down it takes writes, and nobody can help that; from its start on it does not.
    other.agent.stop().await?;
    promote_by_hand(other).await?;
    other.postgres.insert(-2).await.context("nobody keeps it from that")?;
    scene.other().start_agent().await?;
    let rows = is_fenced_and_told(&scene, -1_000).await?;
    ensure!(rows.contains(&-2), "what it took before its agent came is gone");
    take_back(&scene).await?;
    ensure!(!other.postgres.rows().await?.contains(&-2), "it follows the primary");

    // In a pause it is told and left alone: a human is at work.
    ctl.run(&["pause", APPLICATION, "--reason", "a human is at work"]).await?;
    wait::until("the pause at the standby's agent", PATIENCE, || async {
        let status = ctl.status().await?;
        ensure!(status.application(APPLICATION)?.confirmed, "the pause is not confirmed");
        Ok(())
    })
    .await?;
    promote_by_hand(other).await?;
    wait::until("word of it", PATIENCE, || async {
        let shown = ctl.run(&["describe", APPLICATION]).await?;
        ensure!(shown.contains("ROGUE WRITER"), "{shown}");
        Ok(())
    })
    .await?;
    other.postgres.insert(-4).await.context("it was fenced in a pause")?;
    ctl.run(&["resume", APPLICATION]).await?;
    is_fenced_and_told(&scene, -200_000).await?;

    let after = ctl.status().await?.application(APPLICATION)?.epoch;
    ensure!(after == epoch, "the epoch went from {epoch} to {after}");
    let record = writer.stop().await?;
    let primary = scene.old().cluster()?;
    ensure!(record.acknowledged.iter().all(|row| row.by == primary.address), "another side acknowledged");
    ensure!(record.missing(&primary.postgres.rows().await?).is_empty(), "rows are missing");
    scene.end().await
}
