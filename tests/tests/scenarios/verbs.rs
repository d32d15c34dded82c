//! An operator's day on real parts, with clients that write through the name all the time: a plan that is read and begun, its
//! rollback, a switchover aborted or paused in its middle, and a failover that is ordered while the primary's agent answers. And
//! a switchover that quiesces the service first, aborted and not.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use regent_deploy::config::APPLICATION;
use regent_deploy::ctl::Ctl;
use regent_deploy::wait;
use serde_json::Value;

use super::scene::Scene;
use super::switchover::{Clients, PATIENCE, changes, newest_run, nothing_missing};

/// What a plan says of a step, and a run of the same: all but what it may take, and what became of it.
const PLANNED: [&str; 12] = [
    "id",
    "stage",
    "after",
    "kind",
    "resource",
    "cluster",
    "timeout",
    "retries",
    "onFailure",
    "detached",
    "command",
    "question",
];

fn planned(step: &Value) -> Vec<Value> {
    PLANNED.iter().map(|key| step[key].clone()).collect()
}

pub(crate) async fn json(ctl: &Ctl, words: &[&str]) -> Result<Value> {
    let text = ctl.run(&[words, &["-o", "json"]].concat()).await?;
    serde_json::from_str(&text).with_context(|| format!("{words:?} said {text}"))
}

fn steps(of: &Value) -> Vec<Vec<Value>> {
    of["steps"].as_array().into_iter().flatten().map(planned).collect()
}

/// The rule that refuses a command, as it is told.
pub(crate) async fn refused(ctl: &Ctl, words: &[&str], rule: &str) -> Result<()> {
    let Err(error) = ctl.run(words).await else { anyhow::bail!("{words:?} was not refused") };
    let said = format!("{error:#}");
    ensure!(said.contains("exit status: 3") && said.contains(rule), "{words:?} said {said}");
    Ok(())
}

/// The settings that this day needs.
async fn settle(scene: &Scene) -> Result<()> {
    let settings = "    mode: automatic\n    maxWriteOutage: 20s\n    commitWithin: 1h\n    twoPerson: true\n";
    scene.change_document("    mode: automatic\n", settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_plans_rolls_back_aborts_and_orders() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    settle(&scene).await?;
    let clients = Clients::start(&scene).await?;
    let (old, other, ctl) = (scene.old(), scene.other(), scene.world.ctl());

    // What was shown is what is carried out.
    let shown = json(ctl, &["plan", APPLICATION]).await?["plan"].clone();
    let digest = shown["digest"].as_str().context("a plan has a digest")?.to_owned();
    let began = Instant::now();
    ctl.run(&["switchover", APPLICATION, "--plan", &digest]).await?;
    let run = newest_run(&scene, "succeeded").await?;
    let carried_out = json(ctl, &["runs", &run.to_string()]).await?["run"].clone();
    ensure!(steps(&carried_out) == steps(&shown), "shown: {shown}\ncarried out: {carried_out}");
    let said = |key: &str| shown["steps"].as_array().is_some_and(|steps| steps.iter().any(|step| !step[key].is_null()));
    let mute: Vec<&str> = ["timeout", "onFailure", "kind", "cluster"].into_iter().filter(|key| !said(key)).collect();
    ensure!(mute.is_empty(), "it says nothing of {mute:?}, so nothing was compared: {shown}");
    clients.all_write(Some(other)).await?;
    println!("a switchover by its plan: {:.1} s", began.elapsed().as_secs_f32());

    // And now something is known of how long it takes.
    scene.world.protected(other, old).await?;
    let back = json(ctl, &["plan", APPLICATION, "--rollback"]).await?["plan"].clone();
    // What found everything as asked took no time, and counts as never done.
    ensure!(back["outage"]["span"].as_str().is_some_and(|span| span != "0s"), "the same steps were done once: {back}");
    println!("expected outage of the rollback: {}", back["outage"]["span"]);
    let text = ctl.run(&["describe", APPLICATION]).await?;
    ensure!(text.contains("Commit window:") && text.contains("commit-window: "), "{text}");
    ctl.run(&["hold", APPLICATION, "--reason", "end of the quarter"]).await?;
    refused(ctl, &["rollback", APPLICATION], "held").await?;
    refused(ctl, &["failback", APPLICATION], "held").await?;
    ctl.run(&["unhold", APPLICATION]).await?;
    ctl.run(&["rollback", APPLICATION]).await?;
    newest_run(&scene, "succeeded").await?;
    clients.all_write(Some(old)).await?;
    scene.world.protected(old, other).await?;
    nothing_missing(&clients.record(), old).await?;
    refused(ctl, &["commit", APPLICATION], "no-commit-window").await?;
    refused(ctl, &["failback", APPLICATION], "at-preferred").await?;

    // Aborted while nobody can write: the old primary serves again, at once.
    let standby = other.cluster()?.postgres.connect_as_agent().await?;
    standby.execute("SELECT pg_wal_replay_pause()", &[]).await?;
    ctl.run(&["switchover", APPLICATION]).await?;
    let run = catching_up(ctl).await?;
    let word = Instant::now();
    let said = ctl.run(&["abort", &run, "--reason", "the release goes first"]).await?;
    ensure!(said.contains("undoing") || said.contains("undone"), "{said}");
    clients.all_write(Some(old)).await?;
    served_at_once(&clients, "abort", word)?;
    newest_run(&scene, "undone").await?;
    standby.execute("SELECT pg_wal_replay_resume()", &[]).await?;
    refused(ctl, &["abort", &run, "--reason", "again"], "run-ended").await?;
    scene.world.protected(old, other).await?;

    // Two people are needed for what goes beyond the rules; not for what is within them.
    let to = other.cluster()?.name.clone();
    let beyond = ["failover", APPLICATION, "--to", &to, "--allow-data-loss", "a drill"];
    let number = ordered(&ctl.run(&beyond).await?)?;
    refused(ctl, &["approve", &number, "--reason", "me again"], "same-person").await?;
    ctl.run(&["abort", &number, "--reason", "a drill"]).await?;
    let word = Instant::now();
    ctl.run(&["failover", APPLICATION, "--to", &to, "--reason", "a drill"]).await?;
    let run = newest_run(&scene, "succeeded").await?;
    clients.all_write(Some(other)).await?;
    let first =
        clients.record().acknowledged.iter().find(|row| row.at > word && row.by == address(&scene)).map(|row| row.at);
    println!("an ordered failover: first row after {:.2} s", (first.context("no row")? - word).as_secs_f32());
    let report = ctl.run(&["report", &run.to_string()]).await?;
    ensure!(report.contains("a drill"), "{report}");
    let audit = ctl.run(&["audit", APPLICATION]).await?;
    for event in ["commit-window", "held", "rolled-back", "aborted", "failover-ordered", "order-closed"] {
        ensure!(audit.contains(event), "{event} is not in the audit:\n{audit}");
    }
    let record = clients.stop().await?;
    ensure!(changes(&record).len() == 3, "the sides acknowledged in overlapping time: {:?}", changes(&record));
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_in_the_middle_of_the_catch_up_undoes_it_and_the_old_primary_serves_at_once() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    let clients = Clients::start(&scene).await?;
    let (old, other, ctl) = (scene.old(), scene.other(), scene.world.ctl());
    let epoch = ctl.status().await?.application(APPLICATION)?.epoch;
    let standby = other.cluster()?.postgres.connect_as_agent().await?;
    standby.execute("SELECT pg_wal_replay_pause()", &[]).await?;
    ctl.run(&["switchover", APPLICATION]).await?;
    catching_up(ctl).await?;
    let word = Instant::now();
    ctl.run(&["pause", APPLICATION, "--reason", "the network is being moved"]).await?;
    clients.all_write(Some(old)).await?;
    served_at_once(&clients, "pause", word)?;
    newest_run(&scene, "undone").await?;
    standby.execute("SELECT pg_wal_replay_resume()", &[]).await?;
    refused(ctl, &["switchover", APPLICATION], "paused").await?;
    let after = ctl.status().await?.application(APPLICATION)?.epoch;
    ensure!(after == epoch, "the epoch went from {epoch} to {after}");

    // Nothing of it is left behind.
    ctl.run(&["resume", APPLICATION]).await?;
    scene.world.protected(old, other).await?;
    ctl.run(&["switchover", APPLICATION]).await?;
    newest_run(&scene, "succeeded").await?;
    clients.all_write(Some(other)).await?;
    let record = clients.stop().await?;
    nothing_missing(&record, other).await?;
    ensure!(changes(&record).len() == 1, "the sides acknowledged in overlapping time: {:?}", changes(&record));
    scene.end().await
}

/// The newest run, once it waits for the standby: the old side is fenced, and nobody can write.
async fn catching_up(ctl: &Ctl) -> Result<String> {
    wait::until("the catch-up", PATIENCE, || async {
        let runs = ctl.runs().await?;
        let run = runs.first().context("there is no run")?;
        let waits = run.steps.iter().any(|step| step.kind == "catchUp" && step.state() == "running");
        ensure!(waits, "run {} does not catch up", run.id);
        Ok(run.id.to_string())
    })
    .await
}

/// Where the service runs, by its own word: at the old side, at the other.
fn serving(scene: &Scene) -> Result<(bool, bool)> {
    Ok((scene.old().cluster()?.service()?.is_some(), scene.other().cluster()?.service()?.is_some()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiesced_service_serves_again_after_an_abort_and_moves_when_nobody_aborts() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    scene.change_document("    mode: automatic\n", "    mode: automatic\n    maxWriteOutage: 20s\n").await?;
    scene.change_document("    switchover:\n", "    switchover:\n      - quiesce: [service]\n").await?;
    let clients = Clients::start(&scene).await?;
    let (old, other, ctl) = (scene.old(), scene.other(), scene.world.ctl());
    ensure!(serving(&scene)? == (true, false), "at the start: {:?}", serving(&scene)?);

    // Aborted with the service stopped and the databases fenced: both are undone, the databases first.
    let standby = other.cluster()?.postgres.connect_as_agent().await?;
    standby.execute("SELECT pg_wal_replay_pause()", &[]).await?;
    ctl.run(&["switchover", APPLICATION]).await?;
    let run = catching_up(ctl).await?;
    ensure!(serving(&scene)? == (false, false), "it was to be quiet: {:?}", serving(&scene)?);
    let word = Instant::now();
    ctl.run(&["abort", &run, "--reason", "not today"]).await?;
    clients.all_write(Some(old)).await?;
    served_at_once(&clients, "abort", word)?;
    newest_run(&scene, "undone").await?;
    ensure!(serving(&scene)? == (true, false), "after the undo: {:?}", serving(&scene)?);
    standby.execute("SELECT pg_wal_replay_resume()", &[]).await?;
    scene.world.protected(old, other).await?;

    // And carried out: it is quiet before the fence, and runs on the new side alone.
    ctl.run(&["switchover", APPLICATION]).await?;
    let run = newest_run(&scene, "succeeded").await?;
    clients.all_write(Some(other)).await?;
    ensure!(serving(&scene)? == (false, true), "after the switchover: {:?}", serving(&scene)?);
    let runs = ctl.runs().await?;
    let done = runs.iter().find(|one| one.id == run).context("no run")?;
    let kinds: Vec<&str> = done.steps.iter().map(|step| step.kind.as_str()).collect();
    ensure!(kinds.starts_with(&["wait", "quiesce", "fence", "fence"]), "its steps: {kinds:?}");
    scene.world.protected(other, old).await?;
    let record = clients.stop().await?;
    nothing_missing(&record, other).await?;
    ensure!(changes(&record).len() == 1, "the sides acknowledged in overlapping time: {:?}", changes(&record));
    scene.end().await
}

/// From an operator's word that has it undone until every client has a row acknowledged again.
fn served_at_once(clients: &Clients, verb: &str, word: Instant) -> Result<()> {
    let served = clients.served_after(word)?;
    println!("after the word of {verb} the old primary served each within {:.0} ms", served.as_secs_f32() * 1000.0);
    ensure!(served < Duration::from_secs(1) + clients.pause(), "it served one only after {served:?}");
    Ok(())
}

fn address(scene: &Scene) -> std::net::IpAddr {
    scene.other().cluster().unwrap().address
}

/// The number of the order that was given.
fn ordered(said: &str) -> Result<String> {
    let number = said.split("order ").nth(1).and_then(|rest| rest.split(':').next());
    Ok(number.context("no order")?.to_owned())
}
