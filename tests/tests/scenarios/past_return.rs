//! An operator's word between the decision of a switchover and the end of its promotion. A pause holds up what is to be
//! decided, and this is decided: the run goes forward, also in the pause. An abort is refused. Both are told, with what to do
//! next, and no acknowledged row is lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::{APPLICATION, DATABASE};
use regent_deploy::ctl::Ctl;
use regent_deploy::world::{Options, Programs};
use regent_tests::gate::{Gate, Mark, Place};

use super::scene::Scene;
use super::switchover::{Clients, PATIENCE, changes, newest_run, nothing_missing};
use super::verbs::{json, refused};

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_or_an_abort_behind_the_decision_leaves_a_switchover_that_goes_forward() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("regent-gate-").tempdir_in("/var/tmp")?;
    let gate = Gate::new(folder.path())?;
    let gated = |options: &mut Options| {
        options.programs = Programs { agent: "gated-agent", coordinator: "gated-coordinator" };
        options.environment = gate.environment();
    };
    let scene = Scene::start_with(Duration::from_secs(10), Duration::from_millis(500), gated).await?;
    let clients = Clients::start(&scene).await?;
    let (ctl, sides) = (scene.world.ctl(), [scene.old(), scene.other()]);
    let mut newest = 0;
    // Decided and nothing is open; and open at the database, and nobody has been told.
    for (turn, place) in [Place::Before, Place::After].into_iter().enumerate() {
        let (from, to) = (sides[turn % 2], sides[(turn + 1) % 2]);
        let name = to.cluster()?.name.clone();
        let epoch = ctl.status().await?.application(APPLICATION)?.epoch;
        let step = promotion(ctl, &name).await?;
        gate.close(&Mark { after_run: newest, step, place })?;
        ctl.run(&["switchover", APPLICATION, "--to", &name]).await?;
        gate.holds(PATIENCE).await?;
        newest = ctl.runs().await?.first().context("there is no run")?.id;
        let number = newest.to_string();
        println!("run {number} stands {place:?} its promotion");

        goes_forward(ctl, newest, step, epoch + 1).await?;
        refused(ctl, &["abort", &number, "--reason", "too late"], "point-of-no-return").await?;
        ctl.run(&["pause", APPLICATION, "--reason", "the network is being moved"]).await?;
        goes_forward(ctl, newest, step, epoch + 1).await?;
        refused(ctl, &["abort", &number, "--reason", "in the pause"], "point-of-no-return").await?;

        // It is not resumed before it has ended.
        gate.open()?;
        let ended = newest_run(&scene, "succeeded").await?;
        ensure!(ended == newest, "run {ended} began in a pause");
        clients.all_write(Some(to)).await?;
        nothing_missing(&clients.record(), to).await?;
        let told = ctl.run(&["describe", APPLICATION]).await?;
        let next = format!("paused: nothing happens by itself; `regentctl resume {APPLICATION}` ends it");
        ensure!(told.contains(&next), "{told}");
        ctl.run(&["resume", APPLICATION]).await?;
        scene.world.protected(to, from).await?;
        let after = ctl.status().await?.application(APPLICATION)?.epoch;
        ensure!(after == epoch + 1, "the epoch went from {epoch} to {after}");
    }
    let record = clients.stop().await?;
    nothing_missing(&record, scene.old()).await?;
    ensure!(changes(&record).len() == 2, "the sides acknowledged in overlapping time: {:?}", changes(&record));
    scene.end().await
}

/// The number of the database's promotion in the plan.
async fn promotion(ctl: &Ctl, to: &str) -> Result<u64> {
    let shown = json(ctl, &["plan", APPLICATION, "--to", to]).await?;
    let steps = shown["plan"]["steps"].as_array().context("a plan has steps")?;
    let promotes = steps.iter().find(|step| step["kind"] == "promote" && step["resource"] == DATABASE);
    promotes.and_then(|step| step["id"].as_u64()).with_context(|| format!("it promotes no {DATABASE}: {shown}"))
}

/// It is decided, its promotion is under way, and whoever asks is told that nothing but forward is left.
async fn goes_forward(ctl: &Ctl, id: u64, step: u64, epoch: u64) -> Result<()> {
    let runs = ctl.runs().await?;
    let run = runs.iter().find(|run| run.id == id).context("the run is gone")?;
    let decided = run.decision.as_ref().map(|decision| decision.epoch);
    ensure!(run.status() == "running" && decided == Some(epoch), "it is {}, decided {decided:?}", run.status());
    let promotion = run.steps.iter().find(|one| one.id == step).context("it has no promotion")?;
    ensure!(promotion.state() == "running", "its promotion is {}", promotion.state());
    let next = format!("it only goes forward: follow it with `regentctl runs {id} --watch`");
    let told = ctl.run(&["runs", &id.to_string()]).await?;
    ensure!(told.contains(&format!("Next:     {next}")), "{told}");
    let told = ctl.run(&["describe", APPLICATION]).await?;
    ensure!(told.contains(&format!("past-return: {next}")), "{told}");
    Ok(())
}
