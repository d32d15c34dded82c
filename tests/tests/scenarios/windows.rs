//! What follows a switchover, with clients that write through the name all the time: it stands by an operator's word, by a
//! window that has passed, or by the next move; and a failback goes home.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use regent_deploy::config::APPLICATION;
use regent_deploy::ctl::Ctl;
use regent_deploy::region::Region;
use regent_deploy::wait;
use serde_json::Value;

use super::scene::Scene;
use super::switchover::{Clients, PATIENCE, changes, newest_run, nothing_missing};
use super::verbs::{json, refused};

/// What the audit says of something that happened.
pub(crate) struct Event {
    pub(crate) at: Timestamp,
    pub(crate) actor: String,
    pub(crate) detail: String,
}

/// The newest record of an event; of this run, if one is named.
pub(crate) async fn event(ctl: &Ctl, name: &str, run: Option<u64>) -> Result<Event> {
    let audit = json(ctl, &["audit", APPLICATION, "--limit", "1000"]).await?;
    let text = |record: &Value, key: &str| record[key].as_str().unwrap_or_default().to_owned();
    let is_it = |record: &&Value| {
        record["event"].as_str() == Some(name) && run.is_none_or(|run| record["run"].as_u64() == Some(run))
    };
    let records = audit["records"].as_array().context("an audit has records")?;
    let newest = records.iter().filter(is_it).max_by_key(|record| record["index"].as_u64());
    let found = newest.with_context(|| format!("{name:?} of run {run:?} is not in the audit:\n{audit:#}"))?;
    Ok(Event { at: text(found, "at").parse()?, actor: text(found, "actor"), detail: text(found, "detail") })
}

/// A planned move that succeeds, with everybody writing there and nothing lost.
async fn moved(scene: &Scene, clients: &Clients, verb: &str, from: &Region, to: &Region) -> Result<u64> {
    scene.world.ctl().run(&[verb, APPLICATION]).await?;
    let run = newest_run(scene, "succeeded").await?;
    clients.all_write(Some(to)).await?;
    nothing_missing(&clients.record(), to).await?;
    scene.world.protected(to, from).await?;
    Ok(run)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_stands_by_word_or_by_time_and_a_failback_goes_home() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    scene.change_document("    mode: automatic\n", "    mode: automatic\n    commitWithin: 1h\n").await?;
    let clients = Clients::start(&scene).await?;
    let (old, other, ctl) = (scene.old(), scene.other(), scene.world.ctl());

    // By word.
    let there = moved(&scene, &clients, "switchover", old, other).await?;
    let said = ctl.run(&["commit", APPLICATION]).await?;
    ensure!(said.contains(&format!("run {there} of {APPLICATION} is committed")), "{said}");
    let committed = event(ctl, "committed", Some(there)).await?;
    ensure!(committed.actor != "leader" && committed.detail.contains("cannot be rolled back"), "{}", committed.detail);
    refused(ctl, &["rollback", APPLICATION], "no-commit-window").await?;
    refused(ctl, &["commit", APPLICATION], "no-commit-window").await?;

    // Home, and no further; what is next closes the window of that.
    let home = moved(&scene, &clients, "failback", other, old).await?;
    refused(ctl, &["failback", APPLICATION], "at-preferred").await?;
    event(ctl, "commit-window", Some(home)).await?;
    scene.change_document("commitWithin: 1h", "commitWithin: 3s").await?;
    let again = moved(&scene, &clients, "switchover", old, other).await?;
    let committed = event(ctl, "committed", Some(home)).await?;
    ensure!(committed.detail.contains(&format!("by run {again}")), "{}", committed.detail);

    // By time, and not before it.
    let committed = wait::until("the end of the window", PATIENCE, || event(ctl, "committed", Some(again))).await?;
    let opened = event(ctl, "commit-window", Some(again)).await?;
    let stood = committed.at.duration_since(opened.at);
    println!("a window of 3 s stood open for {:.1} s", stood.as_secs_f64());
    ensure!(committed.actor == "leader" && committed.detail.contains("3s have passed"), "{}", committed.detail);
    ensure!(stood >= SignedDuration::from_secs(3), "it closed after {stood:?}");
    refused(ctl, &["rollback", APPLICATION], "no-commit-window").await?;

    let record = clients.stop().await?;
    nothing_missing(&record, other).await?;
    ensure!(changes(&record).len() == 3, "the sides acknowledged in overlapping time: {:?}", changes(&record));
    scene.end().await
}
