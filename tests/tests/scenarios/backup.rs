//! A failover whose runbook brings the database back from a backup: where nothing but that is, and never in the place of a
//! standby or of a database that serves.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::{APPLICATION, CACHE, DATABASE};
use regent_deploy::ctl::Run;
use regent_deploy::place;
use regent_deploy::wait;

use super::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(60);

/// Tells the agent at the other side where base backups are, and starts it anew. What is there would make room for one.
async fn knows_backups(scene: &Scene, from: &std::path::Path) -> Result<()> {
    let agent = &scene.other().cluster()?.agent;
    let text = std::fs::read_to_string(agent.config())?;
    let kind = text.lines().find(|line| line.trim() == "kind: postgres").context("it names no PostgreSQL")?;
    let indent = kind.len() - kind.trim_start().len();
    let named =
        format!("{kind}\n{:indent$}backups: {{ kind: base, from: \"{}\", over: setAside }}", "", from.display());
    std::fs::write(agent.config(), text.replacen(kind, &named, 1))?;
    agent.stop().await?;
    scene.other().start_agent().await
}

/// The failover restores, promotes, and restores once more what then serves.
async fn restores_in_a_failover(scene: &Scene) -> Result<()> {
    let promote = format!("    failover:\n      - promote: [{DATABASE}, {CACHE}]\n");
    let lines = format!(
        "    failover:
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
async fn a_failover_promotes_a_standby_as_it_is_though_its_runbook_restores() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(6), Duration::from_millis(500)).await?;
    scene.lead_from("eu-central").await?;
    let (ctl, other) = (scene.world.ctl(), scene.other().cluster()?);
    let writer = scene.writer().await?;
    let backups = scene.world.folder().join("backups");
    place::passable(&backups)?;
    place::give_to_postgres(&backups)?;
    scene.old().cluster()?.postgres.base_backup(&backups.join("one")).await?;
    knows_backups(&scene, &backups.join("*")).await?;
    restores_in_a_failover(&scene).await?;
    // What no backup has, and the standby has.
    let last = writer.record().acknowledged.last().context("no rows")?.n;
    writer.acknowledged_when("rows that are in no backup", PATIENCE, |row| row.n > last + 100).await?;
    wait::until("a standby with them", PATIENCE, || async {
        let rows = other.postgres.rows().await?;
        ensure!(rows.contains(&(last + 50)), "it has not come so far");
        Ok(())
    })
    .await?;
    wait::until("the word that the restore is left out", PATIENCE, || async {
        let plan = ctl.run(&["plan", APPLICATION, "--failover"]).await?;
        ensure!(plan.contains("restore-left-out"), "it says {plan}");
        Ok(())
    })
    .await?;

    scene.old().lose().await?;
    scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    let ended = scene.finished_run().await;
    let run = newest_run(&scene).await?.id;
    let shown = ctl.run(&["runs", &run.to_string()]).await?;
    println!("{shown}");
    ensure!(ended.with_context(|| shown.clone())? == run, "another run began");
    ensure!(!shown.contains("restore"), "something was to be restored: {shown}");
    let rows = other.postgres.rows().await?;
    ensure!(rows.contains(&(last + 50)), "a row that the standby had is gone");
    let aside = set_aside(&other.postgres.data())?;
    ensure!(aside.is_empty(), "the standby made room for a backup: {aside:?}");
    scene.judge(writer.stop().await?, run).await?;
    let epoch = ctl.status().await?.application(APPLICATION)?.epoch;
    ensure!(epoch == 2, "it is epoch {epoch}");
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_but_a_backup_is_an_operator_has_it_restored() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(6), Duration::from_millis(500)).await?;
    scene.lead_from("eu-central").await?;
    let (ctl, other) = (scene.world.ctl(), scene.other().cluster()?);
    let writer = scene.writer().await?;
    let backups = scene.world.folder().join("backups");
    place::passable(&backups)?;
    place::give_to_postgres(&backups)?;
    let saved = writer.record().highest().context("no rows")?;
    scene.old().cluster()?.postgres.base_backup(&backups.join("one")).await?;
    knows_backups(&scene, &backups.join("*")).await?;
    restores_in_a_failover(&scene).await?;

    // Its disk is new before anything is decided: no standby, no database, an agent that says so.
    other.postgres.kill_and_switch_off().await?;
    std::fs::remove_dir_all(other.postgres.data())?;
    other.postgres.switch_on()?;
    let last = writer.record().acknowledged.last().context("no rows")?.n;
    writer.acknowledged_when("rows that are in no backup", PATIENCE, |row| row.n > last + 100).await?;
    scene.old().lose().await?;
    // It says what would help, and nothing goes there by itself.
    wait::until("the word of what is left", PATIENCE, || async {
        let why = ctl.why(APPLICATION).await?;
        ensure!(why.reason().contains("--allow-data-loss"), "it says {:?}", why.reason());
        Ok(())
    })
    .await?;
    ensure!(ctl.runs().await?.is_empty(), "something began by itself");
    let plain = ctl.run(&["failover", APPLICATION, "--to", &other.name]).await.expect_err("nothing was allowed");
    ensure!(format!("{plain:#}").contains("unhealthy"), "it said {plain:#}");

    let allowed = ["failover", APPLICATION, "--to", &other.name, "--allow-data-loss", "nothing else is left"];
    println!("{}", ctl.run(&allowed).await?);
    scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    let ended = scene.finished_run().await;
    let run = newest_run(&scene).await?.id;
    let shown = ctl.run(&["runs", &run.to_string()]).await?;
    println!("{shown}");
    ensure!(ended.with_context(|| shown.clone())? == run, "another run began");
    ensure!(shown.contains("was restored"), "it does not say what was restored: {shown}");
    ensure!(shown.contains("restore-primary"), "what serves was not refused to be restored: {shown}");
    let rows = other.postgres.rows().await?;
    let gone: Vec<i64> = writer.record().missing(&rows).into_iter().filter(|n| *n <= saved).collect();
    ensure!(gone.is_empty(), "of the rows of before the backup, up to {saved}, are missing: {gone:?}");
    let aside = set_aside(&other.postgres.data())?;
    ensure!(aside.is_empty(), "there was nothing to set aside, and there is {aside:?}");
    writer.acknowledged_anew(PATIENCE).await?;
    let record = writer.stop().await?;
    let missing = record.missing(&other.postgres.rows().await?);
    ensure!(missing.len() >= 100, "nothing was lost, so nothing was tried");
    let report = ctl.report(run).await?;
    let loss = report.losses.iter().find(|loss| loss.resource == DATABASE).context("it reports no loss")?;
    ensure!(loss.bytes.is_none(), "it claims to know how much: {loss:?}");
    let told = ctl.run(&["report", &run.to_string()]).await?;
    println!("{told}");
    ensure!(told.contains("after its backup was made is not there"), "the report does not state the loss: {told}");
    ensure!(told.contains("nothing else is left"), "the report does not say who allowed it: {told}");
    scene.judge(record, run).await?;
    let marker = other.postgres.data().join("regent.marker");
    ensure!(std::fs::read_to_string(&marker)?.contains(&other.name), "{} names another", marker.display());
    let epoch = ctl.status().await?.application(APPLICATION)?.epoch;
    ensure!(epoch == 2, "it is epoch {epoch}");
    scene.end().await
}
