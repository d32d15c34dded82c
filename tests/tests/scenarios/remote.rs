//! A PostgreSQL on another machine than its agent's (`fence: remote`): silence proves nothing about it, a confirmed fence
//! does, and so does the word of an operator.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use regent_deploy::config::{self, APPLICATION, DATABASE};
use regent_deploy::region::Cluster;
use regent_deploy::script;
use regent_deploy::wait;
use regent_deploy::world::{Options, World};
use serde_json::{Value, json};

use super::SMALLEST;
use super::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(60);
/// What holds a failover from it.
const RULE: &str = "remote-fence";

/// Where the hard fence of a cluster leaves a line whenever it is run.
fn ended(cluster: &Cluster) -> PathBuf {
    cluster.postgres.stop_script().with_file_name("hard-fence.log")
}

/// Every PostgreSQL is called one on another machine, and its hard fence is a command.
fn elsewhere(world: &World) -> Result<()> {
    for cluster in world.regions().iter().filter_map(|region| region.cluster().ok()) {
        let log = ended(cluster);
        let (note, stop) = (script::quote_path(&log), script::quote_path(&cluster.postgres.stop_script()));
        let command = script::write(&log.with_extension("sh"), &format!("echo ended >> {note}\nexec {stop}\n"))?;
        let text = std::fs::read_to_string(cluster.agent.config())?;
        let mut file: Value = serde_saphyr::from_str(&text)?;
        let database = &mut file["applications"][APPLICATION][DATABASE];
        database["fence"] = json!("remote");
        database["hardFence"] = json!([command]);
        config::write(cluster.agent.config(), &file)?;
    }
    Ok(())
}

async fn start(failover_after: Duration) -> Result<Scene> {
    let allows_more = |options: &mut Options| options.max_data_loss = PATIENCE;
    let probes = Duration::from_millis(500);
    let (scene, ()) =
        Scene::start_on(failover_after, probes, allows_more, async |world: &World| elsewhere(world)).await?;
    scene.lead_from("eu-central").await?;
    // It is said while all is well.
    let told = scene.world.ctl().run(&["why", APPLICATION]).await?;
    ensure!(told.contains(RULE) && told.contains(DATABASE), "why does not say {RULE}: {told}");
    Ok(scene)
}

/// Waits until everything speaks for a failover but this rule.
async fn held_by_nothing_else(scene: &Scene) -> Result<()> {
    wait::until("a failover that only its fence holds", PATIENCE, || async {
        let told = scene.world.ctl().run(&["why", APPLICATION]).await?;
        ensure!(told.contains(RULE), "{told}");
        let (_, rules) = told.split_once("HELD BY").context("nothing holds it")?;
        let others = rules.lines().skip(1).take_while(|line| !line.is_empty()).filter(|line| !line.starts_with(RULE));
        ensure!(others.count() == 0, "{told}");
        Ok(())
    })
    .await
}

/// Nothing moves for several times D.
async fn stays(scene: &Scene, failover_after: Duration, epoch: u64) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < failover_after * 4 {
        held_by_nothing_else(scene).await?;
        ensure!(scene.world.ctl().runs().await?.is_empty(), "silence began a run");
        let now = self::epoch(scene).await?;
        ensure!(now == epoch, "the epoch went from {epoch} to {now}");
    }
    ensure!(scene.other().cluster()?.postgres.is_in_recovery().await?, "its standby was promoted");
    Ok(())
}

async fn epoch(scene: &Scene) -> Result<u64> {
    Ok(scene.world.ctl().status().await?.application(APPLICATION)?.epoch)
}

async fn ground(scene: &Scene, run: u64) -> Result<String> {
    let report = scene.world.ctl().report(run).await?;
    let decision = report.run.and_then(|run| run.decision).context("it decided nothing")?;
    Ok(decision.ground)
}

fn has_a_line(log: &Path) -> bool {
    std::fs::read_to_string(log).is_ok_and(|text| !text.is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_about_a_database_elsewhere_moves_nobody_and_a_word_does() -> Result<()> {
    let scene = start(SMALLEST).await?;
    let writer = scene.writer().await?;
    let epoch = epoch(&scene).await?;
    scene.old().lose().await?;
    held_by_nothing_else(&scene).await?;
    stays(&scene, SMALLEST, epoch).await?;

    let (ctl, to) = (scene.world.ctl(), scene.other().cluster()?.name.clone());
    let order = ["failover", APPLICATION, "--to", &to];
    let refused = ctl.run(&order).await.expect_err("nobody says that it is off");
    let said = format!("{refused:#}");
    ensure!(said.contains("attestation-missing") && said.contains("acts on another machine"), "it said {said}");
    ensure!(ctl.runs().await?.is_empty(), "a refused order began a run");
    let attested = [&order[..], &["--attest-primary-off", "the power of eu-west is cut"]].concat();
    ctl.run(&attested).await?;
    scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    let run = scene.finished_run().await?;
    let ground = ground(&scene, run).await?;
    ensure!(ground == "forced", "it was decided on ground {ground}");
    scene.judge(writer.stop().await?, run).await?;
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_database_elsewhere_is_left_by_a_confirmed_fence() -> Result<()> {
    // So long that nothing but the fence can be what it went by.
    let scene = start(Duration::from_secs(20)).await?;
    let writer = scene.writer().await?;
    let death = Instant::now();
    scene.old().cluster()?.postgres.kill_and_switch_off().await?;
    let first = scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    let took = first.at - death;
    println!("first write {:.2} s after the death of a database elsewhere, D = 20 s", took.as_secs_f32());
    let run = scene.finished_run().await?;
    let ground = ground(&scene, run).await?;
    ensure!(ground == "fenced", "it was decided on ground {ground}");
    ensure!(took < Duration::from_secs(10), "the first write came {took:?} after the death: the bound was waited out");
    scene.judge(writer.stop().await?, run).await?;
    scene.end().await
}

/// The agent alone dies: its guard ends the database by the listed command when the lease does, and still nobody is
/// promoted.
#[tokio::test(flavor = "multi_thread")]
async fn the_guard_ends_a_database_elsewhere_by_its_command() -> Result<()> {
    let bound = Duration::from_secs(4);
    let scene = start(bound).await?;
    let writer = scene.writer().await?;
    let (epoch, old) = (epoch(&scene).await?, scene.old().cluster()?);
    ensure!(!has_a_line(&ended(old)), "the hard fence was run while all was well");
    let began = Instant::now();
    old.agent.kill().await?;
    wait::until("the end of the database", PATIENCE, || async {
        ensure!(old.postgres.pid().is_none(), "it runs");
        Ok(())
    })
    .await?;
    println!("ended {:.2} s after the death of its agent, D = 4 s", began.elapsed().as_secs_f32());
    ensure!(has_a_line(&ended(old)), "it was not ended by its command");
    stays(&scene, bound, epoch).await?;
    // Nobody has it now, and nobody acknowledged a row that it has not.
    let record = writer.stop().await?;
    ensure!(record.acknowledged.iter().all(|row| row.by == old.address), "somebody else took a row");
    scene.end().await
}
