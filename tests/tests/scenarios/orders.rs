//! Failovers that wait for a human's word: one that would lose too much, and one that is never automatic.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_deploy::config::{APPLICATION, Credentials, DATABASE};
use regent_deploy::ctl::{self, Ctl};
use regent_deploy::wait;

use super::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(60);

/// A second operator, with a certificate of its own.
pub(crate) async fn colleague(scene: &Scene) -> Result<Ctl> {
    let certificates = scene.world.folder().join("certs");
    let dir = certificates.display().to_string();
    let words = ["certs", "operator", "bob", "--dir", &dir, "--file", "bob"];
    ctl::run(words.into_iter().map(String::from)).await?;
    let coordinators: Vec<_> = scene.world.regions().iter().map(|region| region.place().listen).collect();
    Ok(Ctl::new(&coordinators, &Credentials::of(&certificates, "bob")))
}

async fn why_says(scene: &Scene, word: &str) -> Result<()> {
    wait::until(&format!("{word:?} as a reason"), PATIENCE, || async {
        let why = scene.world.ctl().why(APPLICATION).await?;
        ensure!(why.reason().contains(word), "it says {:?}", why.reason());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_loses_too_much_needs_two_people_and_admits_what_it_loses() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(4), Duration::from_millis(500)).await?;
    scene.lead_from("eu-central").await?;
    let (bob, other) = (colleague(&scene).await?, scene.other().cluster()?);
    scene.change_document("mode: automatic", "mode: automatic\n    twoPerson: true").await?;
    let writer = scene.writer().await?;
    // The standby stays where it is, and the clients do not notice.
    let standby = other.postgres.connect_as_agent().await?;
    standby.execute("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'", &[]).await?;
    standby.execute("SELECT pg_reload_conf()", &[]).await?;
    wait::until("the end of replication", PATIENCE, || async {
        ensure!(scene.old().cluster()?.postgres.streaming().await? == 0, "it streams");
        Ok(())
    })
    .await?;
    let last = other.postgres.rows().await?.last().copied().unwrap_or_default();
    // Beyond what the document lets go by itself.
    writer.acknowledged_when("rows that only the primary has", PATIENCE, |row| row.n > last + 300).await?;
    scene.old().lose().await?;
    why_says(&scene, "the loss would be").await?;
    let before = scene.world.ctl().runs().await?.len();

    let beyond = ["failover", APPLICATION, "--to", &other.name, "--allow-data-loss", "the region burns"];
    let said = scene.world.ctl().run(&beyond).await?;
    let order = said.split("order ").nth(1).and_then(|rest| rest.split(':').next()).unwrap_or_default().to_owned();
    let again = scene.world.ctl().run(&["approve", &order, "--reason", "me again"]).await.expect_err("the same person");
    ensure!(format!("{again:#}").contains("same-person"), "it said {again:#}");
    ensure!(scene.world.ctl().runs().await?.len() == before, "it did not wait for the second person");

    bob.run(&["approve", &order, "--reason", "agreed by phone"]).await?;
    scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    let run = scene.finished_run().await?;
    writer.acknowledged_anew(PATIENCE).await?;
    let record = writer.stop().await?;
    let missing = record.missing(&other.postgres.rows().await?);
    println!("{} acknowledged rows are missing in {DATABASE}", missing.len());
    ensure!(missing.len() >= 300, "nothing was lost, so nothing was tried");
    let report = scene.world.ctl().report(run).await?;
    let loss = report.losses.iter().find(|loss| loss.resource == DATABASE);
    ensure!(loss.is_some_and(|loss| loss.bytes != Some(0)), "the report does not admit it: {report:?}");
    let told = scene.world.ctl().run(&["report", &run.to_string()]).await?;
    println!("{told}");
    for word in ["the region burns", "quickstart", "bob"] {
        let audit = scene.world.ctl().run(&["audit", APPLICATION]).await?;
        ensure!(audit.contains(word), "{word:?} is not in the audit:\n{audit}");
    }
    scene.judge(record, run).await?;
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_is_never_automatic_waits_for_its_word() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(4), Duration::from_millis(500)).await?;
    scene.lead_from("eu-central").await?;
    let bob = colleague(&scene).await?;
    scene.change_document("mode: automatic", "mode: approve").await?;
    let writer = scene.writer().await?;
    let too_early = bob.run(&["approve", APPLICATION, "--reason", "yes"]).await.expect_err("nothing asks");
    println!("with nothing to approve: {too_early:#}");
    scene.old().lose().await?;
    why_says(&scene, "regentctl approve").await?;
    ensure!(scene.world.ctl().runs().await?.is_empty(), "it did not wait");

    // A no is one: the leader, which goes on to see the reason, asks no second time.
    let told = scene.world.ctl().run(&["describe", APPLICATION]).await?;
    let question = told.split("regentctl abort ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    bob.run(&["abort", question, "--reason", "the site is being moved"]).await?;
    why_says(&scene, "bob declined it: the site is being moved").await?;
    let told = scene.world.ctl().run(&["describe", APPLICATION]).await?;
    ensure!(told.contains("was declined") && told.contains("regentctl failover"), "{told}");
    let audit = scene.world.ctl().run(&["audit", APPLICATION]).await?;
    ensure!(audit.matches("failover-asked").count() == 1 && audit.contains("failover-declined"), "{audit}");
    ensure!(scene.world.ctl().runs().await?.is_empty(), "a no began something");

    bob.run(&["approve", APPLICATION, "--reason", "yes, eu-west is gone"]).await?;
    scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    let run = scene.finished_run().await?;
    let audit = scene.world.ctl().run(&["audit", APPLICATION]).await?;
    ensure!(audit.contains("bob") && audit.contains("yes, eu-west is gone"), "{audit}");
    scene.judge(writer.stop().await?, run).await?;
    scene.end().await
}
