//! A failover is rehearsed beside a primary that serves: with copies, and so that nothing real notices; and a real one
//! does not wait for it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::{APPLICATION, CACHE, DATABASE};
use regent_deploy::wait;
use regent_tests::scratch;

use super::SMALLEST;
use super::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(60);

async fn run_is(scene: &Scene, run: u64, wanted: &str) -> Result<()> {
    let ctl = scene.world.ctl();
    let stands = wait::until("the run", PATIENCE, || async {
        let runs = ctl.runs().await?;
        let run = runs.iter().find(|one| one.id == run).context("there is no such run")?;
        ensure!(run.status() == wanted, "run {} is {}", run.id, run.status());
        Ok(())
    })
    .await;
    match stands {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(ctl.run(&["runs", &run.to_string()]).await?)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_promotes_copies_and_nothing_real_notices() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    let writer = scene.writer().await?;
    let ctl = scene.world.ctl();
    let before = ctl.status().await?.application(APPLICATION)?.epoch;
    let primary = scene.old().cluster()?.name.clone();
    let refused = ctl.run(&["drill", APPLICATION, "--in", &primary]).await.expect_err("it is the primary");
    ensure!(format!("{refused:#}").contains("drill-primary"), "it said {refused:#}");

    let said = ctl.run(&["drill", APPLICATION]).await?;
    println!("{}", said.trim());
    let run = ctl.runs().await?.first().context("there is no run")?.id;
    // An agent that dies in the middle is no end of it.
    wait::until("the copy to be begun", PATIENCE, || async {
        ensure!(scene.other().cluster()?.postgres.scratch().join("copy").exists(), "not yet");
        Ok(())
    })
    .await?;
    scene.other().cluster()?.agent.kill().await?;
    scene.other().start_agent().await?;
    run_is(&scene, run, "succeeded").await?;
    println!("{}", ctl.run(&["runs", &run.to_string()]).await?);
    let report = ctl.run(&["report", &run.to_string()]).await?;
    println!("{report}");
    let said = report.contains("Regent rehearsed a failover") && report.contains("A drill loses nothing");
    ensure!(said, "the report does not say that it was a drill: {report}");
    let audit = ctl.run(&["audit", APPLICATION]).await?;
    let told = |code: &str| audit.lines().any(|line| line.contains(code) && line.contains(&run.to_string()));
    ensure!(told("drill") && told("run-ended"), "the audit does not tell of it: {audit}");
    scratch::is_empty(scene.other())?;

    scene.world.protected(scene.old(), scene.other()).await?;
    let (old, other) = (scene.old().cluster()?, scene.other().cluster()?);
    ensure!(ctl.status().await?.application(APPLICATION)?.epoch == before, "the epoch has changed");
    ensure!(other.postgres.is_in_recovery().await? && old.postgres.streaming().await? == 1, "the standby is none");
    let agent = old.postgres.connect_as_agent().await?;
    let slots = agent.query_one("SELECT count(*) FROM pg_replication_slots", &[]).await?;
    ensure!(slots.get::<_, i64>(0) == 0, "a slot was left");
    let row = writer.acknowledged_anew(PATIENCE).await?.n;
    wait::until("a new row at the standby", PATIENCE, || async {
        ensure!(other.postgres.rows().await?.contains(&row) && other.redis.rows().await?.contains(&row), "not there");
        Ok(())
    })
    .await?;
    let gap = writer.stop().await?.longest_gap().context("no rows")?.length();
    println!("longest gap between writes during the drill: {:.0} ms", gap.as_secs_f32() * 1000.0);
    ensure!(gap < Duration::from_secs(2), "writes stood still for {gap:?}");
    let shown = ctl.run(&["describe", APPLICATION]).await?;
    ensure!(shown.contains("was last drilled at"), "{shown}");
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_does_not_wait_for_a_drill_which_is_cleaned_up_beside_it() -> Result<()> {
    let scene = Scene::start(SMALLEST, Duration::from_millis(500)).await?;
    scene.lead_from("eu-central").await?;
    let document = std::fs::read_to_string(scene.world.document())?;
    let verify = format!("      - verify: [{DATABASE}, {CACHE}]\n");
    ensure!(document.ends_with(&verify), "the runbook of the drill ends otherwise");
    std::fs::write(scene.world.document(), document.replace(&verify, "      - wait: 10m\n"))?;
    scene.world.apply().await?;
    // Until the new document is confirmed, nothing fails over.
    scene.world.protected(scene.old(), scene.other()).await?;
    let ctl = scene.world.ctl();
    let writer = scene.writer().await?;
    ctl.run(&["drill", APPLICATION]).await?;
    let drill = ctl.runs().await?.first().context("there is no run")?.id;
    wait::until("the copies", PATIENCE, || async {
        let shown = ctl.run(&["runs", &drill.to_string()]).await?;
        ensure!(shown.lines().any(|line| line.contains("wait") && line.contains("running")), "{shown}");
        Ok(())
    })
    .await?;
    scene.old().lose().await?;
    let first = scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    let failover = scene.finished_run().await?;
    ensure!(failover != drill, "the drill is taken for the failover");
    run_is(&scene, drill, "superseded").await?;
    scratch::is_empty(scene.other())?;
    println!("first write at the other side: row {}", first.n);
    scene.judge(writer.stop().await?, failover).await?;
    scene.end().await
}
