//! A region that was lost comes back and is taken back: by an operator, without a word lost that was acknowledged.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::{APPLICATION, DATABASE};
use regent_deploy::postgres::Postgres;
use regent_deploy::wait;
use regent_deploy::world::Options;

use super::SMALLEST;
use super::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(60);
/// Rows that only the side that is lost has.
const ALONE: std::ops::Range<i64> = 9_000_000..9_000_020;

/// What was saved beside PGDATA before it was rewound.
fn saved(postgres: &Postgres) -> Result<Vec<PathBuf>> {
    let data = postgres.data();
    let beside = data.parent().context("PGDATA lies nowhere")?;
    let name = format!("{}.regent-diverged-", data.file_name().context("PGDATA has no name")?.to_string_lossy());
    let entries = std::fs::read_dir(beside)?.collect::<Result<Vec<_>, _>>()?;
    let ours = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&name);
    Ok(entries.iter().filter(|entry| ours(entry)).map(std::fs::DirEntry::path).collect())
}

/// Whether a segment of what was saved has this many commits behind the fork, by PostgreSQL's own program.
async fn has_commits(postgres: &Postgres, folder: &std::path::Path, told: &str) -> Result<bool> {
    let words: Vec<&str> = told.split_ascii_whitespace().filter(|word| word.starts_with("--")).collect();
    ensure!(words.len() == 3, "the README does not say how it is read: {told}");
    let dump = tokio::process::Command::new(postgres.programs().join("pg_waldump"))
        .args(&words)
        .current_dir(folder)
        .output()
        .await?;
    // It ends with an error where the WAL ends.
    let commits = String::from_utf8_lossy(&dump.stdout).matches("COMMIT").count();
    println!("{commits} commits in {}", folder.display());
    Ok(commits >= usize::try_from(ALONE.end - ALONE.start)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_region_is_taken_back_as_a_standby() -> Result<()> {
    // What is lost is wanted here, whatever it looks like in time.
    let allow = |options: &mut Options| options.max_data_loss = Duration::from_secs(60);
    let scene = Scene::start_with(SMALLEST, Duration::from_millis(500), allow).await?;
    scene.lead_from("eu-central").await?;
    let writer = scene.writer().await?;
    // Rows that the other side never gets: it is cut off from what it follows, and the old side is lost at once.
    let standby = scene.other().cluster()?.postgres.connect_as_agent().await?;
    standby.execute("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'", &[]).await?;
    standby.execute("SELECT pg_reload_conf()", &[]).await?;
    let primary = &scene.old().cluster()?.postgres;
    wait::until("the end of replication", PATIENCE, || async {
        ensure!(primary.streaming().await? == 0, "it streams");
        Ok(())
    })
    .await?;
    for n in ALONE {
        primary.insert(n).await?;
    }
    scene.old().lose().await?;
    scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    let failover = scene.finished_run().await?;

    let (old, new) = (scene.old().cluster()?, scene.other().cluster()?);
    ensure!(new.postgres.rows().await?.range(ALONE).next().is_none(), "the other side has what it never got");
    scene.old().give_back()?;
    old.postgres.start().await?;
    old.redis.start().await?;
    scene.old().start_coordinator().await?;
    scene.old().start_agent().await?;
    let ctl = scene.world.ctl();
    let why = ctl.why(APPLICATION).await?;
    ensure!(why.target.is_empty(), "{} would take over without having rejoined", why.target);

    // Redis was killed: its history is gone, and a full copy is a matter for an operator to allow.
    let refused = ctl.run(&["rejoin", APPLICATION, &old.name]).await.expect_err("it needs a fresh copy");
    ensure!(format!("{refused:#}").contains("rejoin-needs-reclone"), "it said {refused:#}");
    ensure!(ctl.why(APPLICATION).await?.target.is_empty(), "half of it has rejoined, and it is a candidate");
    // PostgreSQL did not wait for it: what it alone had was saved, and it was rewound.
    let done = wait::until("the rejoin of PostgreSQL", PATIENCE, || async {
        let runs = ctl.runs().await?;
        let run = runs.first().context("there is no run")?;
        let mut steps = run.steps.iter().filter(|step| step.kind == "rejoin" && step.resource == DATABASE);
        let step = steps.find(|step| step.cluster == old.name).context("no step of the run has it rejoin")?;
        ensure!(step.state() == "succeeded", "it is {}: {}", step.state(), step.message());
        Ok(step.message().to_owned())
    })
    .await?;
    println!("{done}");
    let kept = saved(&old.postgres)?;
    let [folder] = kept.as_slice() else { anyhow::bail!("saved beside PGDATA is {kept:?}") };
    ensure!(done.contains("rewound") && done.contains(&format!("saved in {}", folder.display())), "it said {done}");
    let told = std::fs::read_to_string(folder.join("README"))?;
    ensure!(
        has_commits(&old.postgres, folder, &told).await?,
        "the rows that only it had are not in {folder:?}: {told}"
    );
    let primary = ctl.run(&["rejoin", APPLICATION, &new.name]).await.expect_err("it is the primary");
    ensure!(format!("{primary:#}").contains("rejoin-primary"), "it said {primary:#}");

    let said = ctl.run(&["rejoin", APPLICATION, &old.name, "--reclone"]).await?;
    println!("{said}");
    wait::until("the next target", PATIENCE, || async {
        let why = ctl.why(APPLICATION).await?;
        ensure!(why.target == old.name, "the target is {:?}", why.target);
        Ok(())
    })
    .await?;
    ensure!(old.postgres.is_in_recovery().await?, "its PostgreSQL is no standby");
    ensure!(new.postgres.streaming().await? == 1, "its PostgreSQL does not stream");
    ensure!(old.postgres.insert(-1).await.is_err(), "a standby took a row");
    let row = writer.acknowledged_anew(PATIENCE).await?.n;
    wait::until("a new row at the standby", PATIENCE, || async {
        ensure!(old.postgres.rows().await?.contains(&row) && old.redis.rows().await?.contains(&row), "not there yet");
        Ok(())
    })
    .await?;
    ensure!(saved(&old.postgres)? == kept, "what was saved is not where it was");
    // What the old side alone had is gone from it: both sides tell the same story.
    let record = writer.stop().await?;
    wait::until("the same rows on both sides", PATIENCE, || async {
        ensure!(old.postgres.rows().await? == new.postgres.rows().await?, "their PostgreSQL differ");
        ensure!(old.redis.rows().await? == new.redis.rows().await?, "their Redis differ");
        Ok(())
    })
    .await?;
    scene.judge(record, failover).await?;
    scene.end().await
}

/// The disk of a standby's agent is lost, with all that it had stored. What comes up with an empty one is nobody until an
/// operator has taken it in place of the old one, by the id that its log names; then it is a standby like any other.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_disk_was_lost_is_admitted_again() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    scene.lead_from("eu-central").await?;
    let writer = scene.writer().await?;
    let (ctl, standby) = (scene.world.ctl(), scene.other().cluster()?);
    standby.agent.kill().await?;
    let data = scene.world.folder().join("eu-central/agent");
    std::fs::remove_dir_all(&data)?;
    std::fs::create_dir(&data)?;
    scene.other().start_agent().await?;
    let id = wait::until("the id of the new installation", PATIENCE, || async {
        let log = std::fs::read_to_string(standby.agent.process().context("it does not run")?.log())?;
        let named = log.rsplit_once("--installation ").context("it was not refused")?.1;
        let id: String = named.chars().take_while(|letter| letter.is_ascii_hexdigit() || *letter == '-').collect();
        ensure!(!id.is_empty(), "no id is named");
        Ok(id)
    })
    .await?;

    // The old one was heard a moment ago: what it promised may still count.
    let words = ["rejoin", APPLICATION, &standby.name, "--installation", &id, "--detach"];
    let refused = ctl.run(&words).await.expect_err("the old one may still count");
    ensure!(format!("{refused:#}").contains("installation-heard"), "it said {refused:#}");
    wait::until("its admission", PATIENCE, || ctl.run(&words)).await?;
    scene.finished_run().await?;
    scene.world.protected(scene.old(), scene.other()).await?;
    wait::until("the next target", PATIENCE, || async {
        let why = ctl.why(APPLICATION).await?;
        ensure!(why.target == standby.name, "the target is {:?}: {}", why.target, why.reason());
        Ok(())
    })
    .await?;
    let record = writer.record();
    ensure!(record.failed == 0, "{} writes failed meanwhile: {:?}", record.failed, record.last_error);

    // And it can do what a standby is for.
    scene.old().lose().await?;
    scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    let failover = scene.finished_run().await?;
    scene.judge(writer.stop().await?, failover).await?;
    scene.end().await
}
