//! Questions that nobody answers: what the document says of silence is what happens, and no sooner.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use regent_deploy::config::{APPLICATION, CACHE, DATABASE};
use regent_deploy::ctl::Ctl;
use serde_json::Value;

use super::orders::colleague;
use super::scene::Scene;
use super::switchover::{Clients, changes, newest_run, nothing_missing};
use super::verbs::json;
use super::windows::event;

const PATIENCE: Duration = Duration::from_secs(60);

fn stamp(value: &Value) -> Result<Timestamp> {
    Ok(value.as_str().with_context(|| format!("{value} is no time"))?.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_nobody_answers_for_starts_where_silence_is_a_yes() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(4), Duration::from_millis(500)).await?;
    scene.lead_from("eu-central").await?;
    let asks = "mode: approve\n    approveWithin: 5s\n    onSilence: proceed";
    scene.change_document("mode: automatic", asks).await?;
    let writer = scene.writer().await?;
    scene.old().lose().await?;
    scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    let run = scene.finished_run().await?;

    let ctl = scene.world.ctl();
    let (asked, proceeds) = (event(ctl, "failover-asked", None).await?, event(ctl, "silence-proceeds", None).await?);
    ensure!(asked.detail.contains("5s for an answer, then it starts"), "{}", asked.detail);
    let waited = proceeds.at.duration_since(asked.at);
    println!("a question of 5 s stood for {:.1} s", waited.as_secs_f64());
    ensure!(waited >= SignedDuration::from_secs(5), "silence was a yes after {waited:?}");
    let whole = json(ctl, &["runs", &run.to_string()]).await?["run"].clone();
    ensure!(stamp(&whole["decision"]["at"])? >= proceeds.at, "it was decided before silence was a yes: {whole}");
    let report = ctl.run(&["report", &run.to_string()]).await?;
    ensure!(report.contains("nobody has answered within 5s"), "{report}");
    scene.judge(writer.stop().await?, run).await?;
    scene.end().await
}

/// The step that asks.
async fn question(ctl: &Ctl, run: u64) -> Result<Value> {
    let whole = json(ctl, &["runs", &run.to_string()]).await?;
    let steps = whole["run"]["steps"].as_array().context("a run has steps")?;
    steps.iter().find(|step| step["kind"] == "approve").cloned().context("no step asks")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_nobody_answers_is_undone_before_the_decision_and_stuck_behind_it() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    let (bob, ctl) = (colleague(&scene).await?, scene.world.ctl());
    let question_step = |text: &str| format!("      - {{ approve: \"{text}\", timeout: 3s, retries: 0 }}\n");
    let first = format!("    switchover:\n      - catchUp: [{DATABASE}, {CACHE}]\n");
    let asks_first = first.replacen('\n', &format!("\n{}", question_step("May writes be kept out?")), 1);
    scene.change_document(&first, &asks_first).await?;
    let clients = Clients::start(&scene).await?;

    // Nothing was touched, and nobody noticed.
    ctl.run(&["switchover", APPLICATION]).await?;
    let run = newest_run(&scene, "undone").await?;
    clients.all_write(Some(scene.old())).await?;
    let gap = clients.longest_gap()?;
    ensure!(gap < Duration::from_secs(1), "writes stood still for {gap:?} while a human was asked");
    let told = ctl.run(&["runs", &run.to_string()]).await?;
    ensure!(told.contains("not-approved"), "{told}");

    // Behind the decision service is back, and the run waits for a late yes.
    let checked = "      - verify: [checks]\n      - rejoin:";
    scene.change_document(&asks_first, &first).await?;
    let asks_late = checked.replacen('\n', &format!("\n{}", question_step("Does the bank see the new side?")), 1);
    scene.change_document(checked, &asks_late).await?;
    ctl.run(&["switchover", APPLICATION]).await?;
    let run = newest_run(&scene, "stuck").await?;
    clients.all_write(Some(scene.other())).await?;
    let step = question(ctl, run).await?;
    let waited = stamp(&step["ended"])?.duration_since(stamp(&step["started"])?);
    ensure!(waited >= SignedDuration::from_secs(3), "it was stuck after {waited:?}");
    let told = ctl.run(&["runs", &run.to_string()]).await?;
    ensure!(told.contains("not-approved"), "{told}");
    let number = step["id"].as_u64().unwrap_or_default().to_string();
    bob.run(&["approve", &run.to_string(), &number, "--reason", "it does now"]).await?;
    ensure!(newest_run(&scene, "succeeded").await? == run, "another run took its place");
    let approved = event(ctl, "approved", Some(run)).await?;
    ensure!(
        approved.actor == "bob" && approved.detail.contains("Does the bank see the new side?"),
        "{}",
        approved.detail
    );
    scene.world.protected(scene.other(), scene.old()).await?;

    let record = clients.stop().await?;
    nothing_missing(&record, scene.other()).await?;
    ensure!(changes(&record).len() == 1, "the sides acknowledged in overlapping time");
    scene.end().await
}
