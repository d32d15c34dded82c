//! Readiness names what speaks against a move before anybody moves, and what it calls a blocker does refuse a switchover.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use regent_deploy::config::{APPLICATION, CACHE, DATABASE};
use regent_deploy::ctl::Ctl;
use regent_deploy::{postgres, redis, wait};

use super::scene::Scene;
use super::verbs::json;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_blocker_of_readiness_refuses_a_switchover_until_it_is_gone() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    let writer = scene.writer().await?;
    let (ctl, other) = (scene.world.ctl(), scene.other().cluster()?);
    let epoch = ctl.status().await?.application(APPLICATION)?.epoch;
    // The agents look by themselves, about once a minute.
    let clean = wait::until("what is worth knowing", PATIENCE, || async {
        let clean = ctl.run(&["readiness", APPLICATION, "--fail-on", "blocker"]).await?;
        let told = clean.contains("asynchronous") && clean.contains("drill-old") && !clean.contains("facts-missing");
        ensure!(told, "{clean}");
        Ok(clean)
    })
    .await?;
    println!("{clean}");

    other.postgres.kill_and_switch_off().await?;
    let said = wait::until("a blocker", PATIENCE, || async {
        let blocked = ctl.run(&["readiness", APPLICATION, "--fail-on", "blocker"]).await;
        let Err(blocked) = blocked else { anyhow::bail!("nothing speaks against a move") };
        let said = format!("{blocked:#}");
        ensure!(said.contains("exit status: 3") && said.contains("unhealthy"), "it said {said}");
        Ok(said)
    })
    .await?;
    println!("{said}");
    let refused = ctl.run(&["switchover", APPLICATION, "--to", &other.name]).await.expect_err("readiness blocks");
    let refused = format!("{refused:#}");
    ensure!(refused.contains("exit status: 3") && refused.contains("unhealthy"), "it said {refused}");
    ensure!(ctl.runs().await?.is_empty(), "a refused switchover began a run");
    let described = ctl.run(&["describe", APPLICATION]).await?;
    ensure!(described.contains("unhealthy"), "describe does not show it: {described}");

    other.postgres.switch_on()?;
    other.postgres.start().await?;
    wait::until("the end of the blocker", PATIENCE, || async {
        ctl.run(&["readiness", APPLICATION, "--fail-on", "blocker"]).await.map(drop)
    })
    .await?;
    scene.world.protected(scene.old(), scene.other()).await?;
    let after = ctl.status().await?.application(APPLICATION)?.epoch;
    ensure!(after == epoch, "the epoch went from {epoch} to {after}");
    let record = writer.stop().await?;
    let primary = scene.old().cluster()?;
    ensure!(record.acknowledged.iter().all(|row| row.by == primary.address), "another side acknowledged");
    scene.end().await
}

/// What the agent of a cluster lacks by its own look of just now: codes, with the resource.
async fn lacks_now(ctl: &Ctl, cluster: &str) -> Result<Vec<(String, String)>> {
    let asked = Instant::now();
    let said = json(ctl, &["readiness", APPLICATION, "--now"]).await?;
    let looks = said["looks"].as_array().context("it says nothing of the agents")?;
    ensure!(looks.len() == 2 && looks.iter().all(|look| look["problem"] == ""), "an agent did not look: {said}");
    let mut lacks = Vec::new();
    for note in said["notes"].as_array().into_iter().flatten() {
        let text = |key: &str| note[key].as_str().unwrap_or_default().to_owned();
        let code = text("code");
        if text("cluster") == cluster && ["permission-missing", "rejoin-unreachable"].contains(&code.as_str()) {
            let age: f32 = text("age").trim_end_matches('s').parse().with_context(|| format!("no age: {note}"))?;
            ensure!(age <= asked.elapsed().as_secs_f32() + 0.1, "it rests on a look of before the question: {note}");
            lacks.push((code, text("resource")));
        }
    }
    lacks.sort();
    println!("looked anew within {:.1} s: {lacks:?}", asked.elapsed().as_secs_f32());
    Ok(lacks)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_is_seen_at_once_by_a_look_on_demand_and_so_is_its_return() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    let (ctl, old, standby) = (scene.world.ctl(), scene.old().cluster()?, &scene.other().cluster()?.name);
    let epoch = ctl.status().await?.application(APPLICATION)?.epoch;
    let lacks = lacks_now(ctl, standby).await?;
    ensure!(lacks.is_empty(), "{lacks:?}");

    // What the standby would need of the primary to come back to it. Its running link needs neither.
    let superuser = old.postgres.connect_as_agent().await?;
    let mut cache = old.redis.connect_as_agent().await?;
    superuser.batch_execute(&format!("ALTER ROLE {} NOREPLICATION", postgres::REPLICATOR)).await?;
    ::redis::cmd("ACL").arg("SETUSER").arg(redis::REPLICATOR).arg("-info").query_async::<()>(&mut cache).await?;
    let lacks = lacks_now(ctl, standby).await?;
    let named = |code: &str, resource: &str| (code.to_owned(), resource.to_owned());
    let wanted = [named("permission-missing", CACHE), named("rejoin-unreachable", DATABASE)];
    ensure!(lacks == wanted, "{lacks:?}");

    superuser.batch_execute(&format!("ALTER ROLE {} REPLICATION", postgres::REPLICATOR)).await?;
    ::redis::cmd("ACL").arg("SETUSER").arg(redis::REPLICATOR).arg("+info").query_async::<()>(&mut cache).await?;
    let lacks = lacks_now(ctl, standby).await?;
    ensure!(lacks.is_empty(), "{lacks:?}");

    scene.world.protected(scene.old(), scene.other()).await?;
    let after = ctl.status().await?.application(APPLICATION)?.epoch;
    ensure!(after == epoch, "the epoch went from {epoch} to {after}");
    drop((superuser, cache));
    scene.end().await
}
