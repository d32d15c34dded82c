//! A switchover whose source dies under way: before the fence, between fence and decision, after the decision. It goes on,
//! or turns into a failover by the failover's own rules, or asks; it never hangs silently.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::APPLICATION;
use regent_deploy::ctl::Run;
use regent_deploy::region::Region;
use regent_deploy::wait;

use super::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(60);

async fn run(scene: &Scene, id: u64) -> Result<Run> {
    let runs = scene.world.ctl().runs().await?;
    runs.into_iter().find(|run| run.id == id).with_context(|| format!("there is no run {id}"))
}

/// Begins a switchover and gives its run.
async fn begun(scene: &Scene, words: &[&str]) -> Result<u64> {
    scene.world.ctl().run(&[&["switchover", APPLICATION][..], words].concat()).await?;
    scene.world.ctl().runs().await?.first().map(|run| run.id).context("there is no run")
}

/// The same up to where it waits for old answers to expire, and then freezes an agent: early enough that it does not hear of
/// the first step, and late enough that the leader, which looks again before that, still takes it for well.
async fn begun_with_frozen(scene: &Scene, side: &Region, words: &[&str]) -> Result<u64> {
    let id = begun(scene, words).await?;
    steps_are(scene, id, "wait", "running").await?;
    side.cluster()?.agent.process().context("it does not run")?.freeze();
    Ok(id)
}

/// Once every step of this kind stands so.
async fn steps_are(scene: &Scene, id: u64, kind: &str, state: &str) -> Result<()> {
    wait::until(&format!("{kind} to be {state}"), PATIENCE, || async {
        let run = run(scene, id).await?;
        let mut steps = run.steps.iter().filter(|step| step.kind == kind);
        let other = steps.find(|step| step.state() != state);
        ensure!(other.is_none(), "{kind} is {}: {}", other.map(|step| step.state()).unwrap_or_default(), run.status());
        Ok(())
    })
    .await
}

async fn ends_as(scene: &Scene, id: u64, wanted: &str) -> Result<()> {
    wait::until(&format!("run {id} to be {wanted}"), PATIENCE, || async {
        let status = run(scene, id).await?.status();
        ensure!(status == wanted, "it is {status}");
        Ok(())
    })
    .await
}

/// The steps of an undo that are stuck: their numbers, and what is said of them.
async fn stuck_undo(scene: &Scene, id: u64) -> Result<Vec<(u64, String)>> {
    let run = run(scene, id).await?;
    let stuck = run.steps.iter().filter(|step| step.kind == "unfence" && step.state() == "stuck");
    Ok(stuck.map(|step| (step.id, step.message().to_owned())).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_dies_before_its_fence_is_failed_over() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_secs(2)).await?;
    scene.lead_from("eu-central").await?;
    let writer = scene.writer().await?;
    // It hears of its fence and does nothing any more.
    let switchover = begun_with_frozen(&scene, scene.old(), &[]).await?;
    steps_are(&scene, switchover, "fence", "running").await?;
    scene.old().lose().await?;
    let first = scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    ends_as(&scene, switchover, "superseded").await?;
    let failover = scene.finished_run().await?;
    ensure!(failover > switchover, "no failover began");
    writer.acknowledged_when("a row after it", PATIENCE, |row| row.sent > first.at).await?;
    scene.judge(writer.stop().await?, failover).await?;
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_dies_before_its_fence_asks_where_nothing_is_automatic() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_secs(2)).await?;
    scene.lead_from("eu-central").await?;
    scene.change_document("mode: automatic", "mode: approve").await?;
    let switchover = begun_with_frozen(&scene, scene.old(), &["--max-write-outage", "2s"]).await?;
    steps_are(&scene, switchover, "fence", "running").await?;
    scene.old().lose().await?;
    ends_as(&scene, switchover, "undoing").await?;
    wait::until("a question", PATIENCE, || async {
        let why = scene.world.ctl().why(APPLICATION).await?;
        ensure!(why.reason().contains("regentctl approve"), "it says {:?}", why.reason());
        Ok(())
    })
    .await?;
    // The undo cannot be done either, and says so instead of trying for ever.
    wait::until("a stuck undo", PATIENCE * 2, || async {
        let stuck = stuck_undo(&scene, switchover).await?;
        let (_, message) = stuck.into_iter().next().context("no step is stuck")?;
        ensure!(message.contains("has not reported"), "it says {message:?}");
        Ok(())
    })
    .await?;
    ends_as(&scene, switchover, "stuck").await?;
    // Who follows it is told as well, and goes home.
    let watch = scene.world.ctl().run(&["runs", &switchover.to_string(), "--watch"]).await;
    let told = watch.err().context("a watch of what is stuck ends well")?.to_string();
    ensure!(told.contains("needs a human") && told.contains("--retry") && !told.contains("--done"), "it says {told}");

    // The source comes back, closed, and nothing is tried by itself: a human says that it is to be tried again.
    let source = scene.old().cluster()?;
    scene.old().give_back()?;
    source.postgres.start().await?;
    source.redis.start().await?;
    scene.old().start_coordinator().await?;
    scene.old().start_agent().await?;
    wait::until("the end of the undo", PATIENCE * 2, || async {
        // By its number, as `regentctl runs` shows it; another one may get stuck while the agent is not heard yet.
        for (step, _) in stuck_undo(&scene, switchover).await? {
            let words = ["clear", &switchover.to_string(), "--step", &step.to_string(), "--retry"];
            scene.world.ctl().run(&words).await?;
        }
        let run = run(&scene, switchover).await?;
        ensure!(run.status() == "undone", "it is {}: {:?}", run.status(), run.steps);
        Ok(())
    })
    .await?;
    scene.world.start_service(scene.old()).await?;
    scene.world.protected(scene.old(), scene.other()).await?;
    let writer = scene.writer().await?;
    let row = writer.acknowledged_anew(PATIENCE).await?;
    ensure!(row.by == source.address, "it was written at {}", row.by);
    writer.stop().await?;
    let epoch = scene.world.ctl().status().await?.application(APPLICATION)?.epoch;
    ensure!(epoch == 1, "the epoch is {epoch}: the primary was never to change");
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_dies_after_its_fence_is_taken_over_if_nothing_is_missing() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(20), Duration::from_secs(2)).await?;
    scene.lead_from("eu-central").await?;
    let writer = scene.writer().await?;
    // Its catch-up is not told before it is thawed.
    let switchover = begun_with_frozen(&scene, scene.other(), &[]).await?;
    let target = scene.other().cluster()?.agent.process().context("it does not run")?;
    steps_are(&scene, switchover, "fence", "succeeded").await?;
    scene.old().lose().await?;
    target.thaw();
    // Long before D: the decision rests on what the two sides have reported.
    scene.first_write_at_the_other_side(&writer, Duration::from_secs(10)).await?;
    writer.acknowledged_anew(PATIENCE).await?;
    let record = writer.stop().await?;
    let rows = scene.other().cluster()?.postgres.rows().await?;
    ensure!(record.missing(&rows).is_empty(), "rows are missing: {:?}", record.missing(&rows));
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_dies_after_the_decision_is_not_waited_for_and_follows_when_it_comes_back() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    scene.lead_from("eu-central").await?;
    let writer = scene.writer().await?;
    let switchover = begun(&scene, &[]).await?;
    steps_are(&scene, switchover, "decide", "succeeded").await?;
    scene.old().lose().await?;
    scene.first_write_at_the_other_side(&writer, Duration::from_secs(10)).await?;
    steps_are(&scene, switchover, "verify", "succeeded").await?;
    ensure!(run(&scene, switchover).await?.status() == "running", "it waits for nothing any more");
    scene.old().give_back()?;
    scene.old().start_coordinator().await?;
    scene.old().start_agent().await?;
    ends_as(&scene, switchover, "succeeded").await?;
    scene.world.protected(scene.other(), scene.old()).await?;
    let record = writer.stop().await?;
    for side in [scene.old(), scene.other()] {
        let rows = side.cluster()?.postgres.rows().await?;
        ensure!(record.missing(&rows).is_empty(), "{} lacks rows: {:?}", side.name(), record.missing(&rows));
    }
    scene.end().await
}
