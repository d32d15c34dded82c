//! A failover whose runbook brings the database back from a backup: into a place that was emptied, and never into that of
//! a database that serves.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::{APPLICATION, CACHE, DATABASE};
use regent_deploy::ctl::Run;
use regent_deploy::place;
use regent_deploy::wait;

use super::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(60);

/// Tells the agent at the other side where base backups are, and starts it anew.
async fn knows_backups(scene: &Scene, from: &std::path::Path) -> Result<()> {
    let agent = &scene.other().cluster()?.agent;
    let text = std::fs::read_to_string(agent.config())?;
    let kind = text.lines().find(|line| line.trim() == "kind: postgres").context("it names no PostgreSQL")?;
    let indent = kind.len() - kind.trim_start().len();
    let named = format!("{kind}\n{:indent$}backups: {{ kind: base, from: \"{}\" }}", "", from.display());
    std::fs::write(agent.config(), text.replacen(kind, &named, 1))?;
    agent.stop().await?;
    scene.other().start_agent().await
}

/// The failover asks first, restores, promotes, and restores once more what then serves.
async fn restores_in_a_failover(scene: &Scene) -> Result<()> {
    let promote = format!("    failover:\n      - promote: [{DATABASE}, {CACHE}]\n");
    let lines = format!(
        "    failover:
      - approve: may it be restored?
      - restore: [{DATABASE}]
      - promote: [{DATABASE}, {CACHE}]
      - {{ restore: [{DATABASE}], retries: 0, onFailure: continue }}
"
    );
    // Until the new document is confirmed, nothing fails over.
    scene.change_document(&promote, &lines).await
}

async fn newest_run(scene: &Scene) -> Result<Run> {
    scene.world.ctl().runs().await?.into_iter().next().context("there is no run")
}

fn set_aside(data: &std::path::Path) -> Result<Vec<String>> {
    let folder = data.parent().context("it lies at the root")?;
    let names = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Vec<String> = names.collect::<Result<_>>()?;
    Ok(names.into_iter().filter(|name| name.starts_with("data.regent")).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_restores_into_an_emptied_place_and_never_over_what_serves() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(6), Duration::from_millis(500)).await?;
    scene.lead_from("eu-central").await?;
    let (ctl, other) = (scene.world.ctl(), scene.other().cluster()?);
    let writer = scene.writer().await?;
    let backups = scene.world.folder().join("backups");
    place::passable(&backups)?;
    place::give_to_postgres(&backups)?;
    scene.old().cluster()?.postgres.base_backup(&backups.join("one")).await?;
    let saved = writer.record().acknowledged.first().context("no rows")?.n;
    knows_backups(&scene, &backups.join("*")).await?;
    restores_in_a_failover(&scene).await?;

    scene.old().lose().await?;
    let (run, question) = wait::until("the question", PATIENCE, || async {
        let run = newest_run(&scene).await?;
        let step = run.steps.iter().position(|step| step.kind == "approve" && step.state() == "running");
        let step = step.with_context(|| format!("run {} asks nothing", run.id))?;
        Ok((run.id, step))
    })
    .await?;
    other.postgres.kill_and_switch_off().await?;
    std::fs::remove_dir_all(other.postgres.data())?;
    other.postgres.switch_on()?;
    ctl.run(&["approve", &run.to_string(), &question.to_string(), "--reason", "its disk is new"]).await?;

    let ended = scene.finished_run().await;
    let shown = ctl.run(&["runs", &run.to_string()]).await?;
    println!("{shown}");
    ensure!(ended.with_context(|| shown.clone())? == run, "another run began");
    scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    ensure!(shown.contains("was restored"), "it does not say what was restored: {shown}");
    ensure!(shown.contains("restore-primary"), "what serves was not refused to be restored: {shown}");
    ensure!(other.postgres.rows().await?.contains(&saved), "a row of before the backup is missing");
    scene.judge(writer.stop().await?, run).await?;
    let aside = set_aside(&other.postgres.data())?;
    ensure!(aside.is_empty(), "there was nothing to set aside, and there is {aside:?}");
    // Whoever starts it again finds that it is this cluster's.
    let marker = other.postgres.data().join("regent.marker");
    ensure!(std::fs::read_to_string(&marker)?.contains(&other.name), "{} names another", marker.display());
    let epoch = ctl.status().await?.application(APPLICATION)?.epoch;
    ensure!(epoch == 2, "it is epoch {epoch}");
    scene.end().await
}
