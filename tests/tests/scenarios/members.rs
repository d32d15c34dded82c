//! Coordinators are replaced while clients write: not one write fails, no epoch changes, and leases go on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use regent_deploy::config::APPLICATION;
use regent_deploy::wait;
use regent_deploy::world::Newcomer;
use regent_deploy::writer::{Target, Writer, WriterOptions};

use super::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(60);
const NORTH: usize = 2;

/// A client that gives each write so long that a busy machine is no failure, and knows the name servers of coordinators
/// to come.
async fn patient(scene: &Scene, newcomers: &[&Newcomer]) -> Result<Writer> {
    let mut options = WriterOptions { timeout: Duration::from_secs(2), ..scene.world.writer() };
    if let Target::Service { servers, .. } = &mut options.target {
        servers.extend(newcomers.iter().map(|newcomer| newcomer.place.dns));
    }
    let writer = Writer::start(options)?;
    writer.acknowledged_anew(PATIENCE).await?;
    Ok(writer)
}

/// Voters as they should be, confirmed by the primary's agent.
async fn voters(scene: &Scene, wanted: &[u64]) -> Result<()> {
    wait::until("the voters, confirmed", PATIENCE, || async {
        let members = scene.world.ctl().members().await?;
        ensure!(members.voters() == wanted, "coordinators {:?} vote", members.voters());
        ensure!(!members.is_changing() && members.unconfirmed.is_empty(), "not settled: {members:?}");
        Ok(())
    })
    .await
}

async fn epoch(scene: &Scene) -> Result<u64> {
    let status = scene.world.ctl().status().await?;
    let application = status.application(APPLICATION)?;
    ensure!(application.holds_lease(&scene.old().cluster()?.name), "the primary's agent holds no lease");
    Ok(application.epoch)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_is_replaced_while_clients_write() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(4), Duration::from_millis(500)).await?;
    let (newcomer, second) = (scene.world.newcomer(NORTH, 4).await?, scene.world.newcomer(1, 5).await?);
    let writer = patient(&scene, &[&newcomer, &second]).await?;
    let (ctl, north) = (scene.world.ctl(), &scene.world.regions()[NORTH]);
    let before = epoch(&scene).await?;

    // A living one goes, the leader itself: it hands over first.
    scene.lead_from("eu-north").await?;
    println!("{}", ctl.run(&["members", "remove", "3"]).await?);
    voters(&scene, &[1, 2]).await?;
    north.coordinator().stop().await?;
    let address = newcomer.place.listen.to_string();

    // It does not run yet: the change waits, is seen to wait, and is followed to its end.
    ctl.run(&["members", "add", "4", "--address", &address, "--detach"]).await?;
    let refused = ctl.run(&["members", "remove", "2"]).await.expect_err("one at a time");
    ensure!(format!("{refused:#}").contains("member-change-under-way"), "it said {refused:#}");
    wait::until("what it waits for", PATIENCE, || async {
        let shown = ctl.run(&["members"]).await?;
        ensure!(shown.contains("Coordinator 4 is being added"), "{shown}");
        Ok(())
    })
    .await?;
    scene.world.start_newcomer(NORTH, &newcomer).await?;
    voters(&scene, &[1, 2, 4]).await?;

    // A lost one: its region's coordinator dies, is removed, and another one takes its place.
    let east = &scene.world.regions()[1];
    east.coordinator().kill().await?;
    println!("{}", ctl.run(&["members", "remove", "2"]).await?);
    voters(&scene, &[1, 4]).await?;
    scene.world.start_newcomer(1, &second).await?;
    ctl.run(&["members", "add", "5", "--address", &second.place.listen.to_string(), "--detach"]).await?;
    voters(&scene, &[1, 4, 5]).await?;
    let used = ctl.run(&["members", "add", "3", "--address", &address]).await.expect_err("its id is used up");
    ensure!(format!("{used:#}").contains("id-used-up"), "it said {used:#}");

    // The two new ones alone carry the lease now: they are in no agent's agent.yaml.
    let death = Instant::now();
    scene.world.regions()[0].coordinator().kill().await?;
    let bound = Duration::from_secs(8);
    while death.elapsed() < bound {
        writer.acknowledged_anew(Duration::from_secs(2)).await?;
    }
    scene.world.regions()[0].start_coordinator().await?;
    voters(&scene, &[1, 4, 5]).await?;
    let after = epoch(&scene).await?;
    ensure!(after == before, "the epoch went from {before} to {after}");

    let record = writer.stop().await?;
    let gap = record.longest_gap().context("no rows")?.length();
    println!("{} rows, longest gap {:.0} ms", record.acknowledged.len(), gap.as_secs_f32() * 1000.0);
    ensure!(record.failed == 0, "{} writes failed, the last: {:?}", record.failed, record.last_error);
    ensure!(gap < Duration::from_secs(1), "writes stood still for {gap:?}");
    ensure!(record.missing(&scene.old().cluster()?.postgres.rows().await?).is_empty(), "rows are missing");
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_coordinator_under_its_old_id_is_refused_until_it_comes_as_a_new_one() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(4), Duration::from_millis(500)).await?;
    let writer = patient(&scene, &[]).await?;
    let (ctl, north) = (scene.world.ctl(), &scene.world.regions()[NORTH]);
    let before = epoch(&scene).await?;
    scene.lead_from("eu-west").await?;
    north.coordinator().kill().await?;
    std::fs::remove_dir_all(scene.world.folder().join("eu-north/coordinator"))?;
    north.start_coordinator().await?;
    let log = scene.world.folder().join("eu-north/regent-coordinator.log");
    wait::until("its refusal", PATIENCE, || async {
        let said = std::fs::read_to_string(&log)?;
        ensure!(said.contains("another identity"), "it was not told");
        Ok(())
    })
    .await?;
    let ready = north.readiness().await?;
    ensure!(!ready.0, "it calls itself ready: {}", ready.1);

    north.coordinator().stop().await?;
    ctl.run(&["members", "remove", "3"]).await?;
    voters(&scene, &[1, 2]).await?;
    let newcomer = scene.world.newcomer(NORTH, 4).await?;
    scene.world.start_newcomer(NORTH, &newcomer).await?;
    ctl.run(&["members", "add", "4", "--address", &newcomer.place.listen.to_string(), "--detach"]).await?;
    voters(&scene, &[1, 2, 4]).await?;
    ensure!(epoch(&scene).await? == before, "the epoch changed");
    let record = writer.stop().await?;
    ensure!(record.failed == 0, "{} writes failed, the last: {:?}", record.failed, record.last_error);
    scene.end().await
}
