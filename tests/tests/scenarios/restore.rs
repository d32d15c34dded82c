//! The quorum is lost for good, and a new group is made from a backup that is older than a failover: the side that the
//! agents have stored stays primary, nobody else opens, and nothing that was issued before is issued again.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::APPLICATION;
use regent_deploy::{place, wait};
use tokio::process::Command;

use super::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(90);

/// Makes the data directory of the first coordinator from a backup.
async fn restore(scene: &Scene, backup: &str) -> Result<String> {
    let config = scene.world.regions()[0].coordinator().config().display().to_string();
    let words = ["--config", &config, "--restore", backup];
    let output = Command::new(place::binary("regent-coordinator")?).args(words).output().await?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(said)
}

fn directory(scene: &Scene, region: &str) -> PathBuf {
    scene.world.folder().join(region).join("coordinator")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_from_before_a_failover_brings_no_old_primary_back() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(4), Duration::from_millis(500)).await?;
    let ctl = scene.world.ctl();
    let file = scene.world.folder().join("old.backup").display().to_string();
    println!("{}", ctl.run(&["backup", "-o", &file]).await?);
    let writer = scene.writer().await?;
    scene.lead_from("eu-central").await?;
    scene.old().lose().await?;
    scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    scene.finished_run().await?;
    let before = ctl.status().await?.application(APPLICATION)?.epoch;
    ensure!(before == 2, "a failover ends in epoch {before}");

    // All coordinators are lost with their directories; the databases and the agent that is left go on.
    for region in scene.world.regions().iter().skip(1) {
        region.coordinator().kill().await?;
    }
    for region in ["eu-west", "eu-central", "eu-north"] {
        std::fs::remove_dir_all(directory(&scene, region))?;
    }
    scene.old().give_back()?;
    println!("{}", restore(&scene, &file).await?);
    let again = restore(&scene, &file).await.expect_err("it is there already");
    ensure!(format!("{again:#}").contains("move the old one away"), "it said {again:#}");
    scene.world.start_coordinators().await?;

    // The agent of the lost region is missing: nothing is granted or decided, and that is said.
    let other = scene.other().cluster()?.name.clone();
    let lost = scene.old().cluster()?.name.clone();
    wait::until("what is missing", PATIENCE, || async {
        let why = ctl.why(APPLICATION).await?;
        ensure!(why.reason().contains(&lost) && why.reason().contains("restored"), "it says {}", why.reason());
        Ok(())
    })
    .await?;
    let shown = ctl.run(&["status"]).await?;
    ensure!(shown.contains("RECOVERING"), "{shown}");
    let page = scene.world.regions()[1].page(&format!("/applications/{APPLICATION}")).await?;
    ensure!(page.contains("Recovering."), "the dashboard does not say so");

    // It comes back as what it was before the failover, databases and all, and stays out.
    scene.old().cluster()?.postgres.start().await?;
    scene.old().cluster()?.redis.start().await?;
    scene.old().start_agent().await?;
    wait::until("the end of the recovery", PATIENCE, || async {
        let status = ctl.status().await?;
        let application = status.application(APPLICATION)?;
        ensure!(application.primary == other, "its primary is {:?}", application.primary);
        ensure!(application.epoch == before + 1, "its epoch is {}", application.epoch);
        ensure!(application.confirmed && application.holds_lease(&other), "it is not led yet");
        Ok(())
    })
    .await?;
    let run = scene.finished_run().await?;
    ensure!(run >= 1_000_000, "run {run} may have had its number before");
    println!("{}", ctl.run(&["runs", &run.to_string()]).await?);
    writer.acknowledged_anew(PATIENCE).await?;
    let refused = scene.old().cluster()?.postgres.insert(-1).await;
    ensure!(refused.is_err(), "the old side took a write");

    // Fencing tokens of before are below all of now, by the agent's own memory.
    let journal = std::fs::read_to_string(scene.world.folder().join("eu-central/agent/journal"))?;
    let restorations: Vec<u64> = journal
        .split("\"restoration\":")
        .skip(1)
        .filter_map(|rest| rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok())
        .collect();
    ensure!(restorations.last() == Some(&1), "the last number is of restoration {:?}", restorations.last());
    ensure!(restorations.is_sorted(), "a number of before the restoration came after it");

    // And it lives: a rejoin, and a switchover there.
    ctl.run(&["rejoin", APPLICATION, &lost, "--reclone"]).await?;
    scene.world.protected(scene.other(), scene.old()).await?;
    ctl.run(&["switchover", APPLICATION, "--to", &lost]).await?;
    scene.world.protected(scene.old(), scene.other()).await?;
    let record = writer.stop().await?;
    let rows = scene.old().cluster()?.postgres.rows().await?;
    let first = record.acknowledged.iter().find(|row| row.by == scene.other().cluster().unwrap().address);
    let first = first.context("no row of the other side")?.n;
    let missing: Vec<i64> = record.missing(&rows).into_iter().filter(|n| *n >= first).collect();
    ensure!(missing.is_empty(), "rows of after the failover are missing: {missing:?}");
    scene.end().await
}
