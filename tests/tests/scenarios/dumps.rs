//! A failover to where nothing is, with nothing but a dump of PostgreSQL and a snapshot of Redis: the whole run, until the
//! service answers by its name, and what it says of what is not there.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::{APPLICATION, CACHE, DATABASE};
use regent_deploy::postgres::{AGENT, OWNER};
use regent_deploy::region::Cluster;
use regent_deploy::{place, wait};
use tokio::process::Command;

use super::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the databases had before they were dumped: whatever was written since, this much is in every dump.
struct Saved {
    rows: usize,
    highest: i64,
    key: i64,
}

impl Saved {
    async fn of(cluster: &Cluster) -> Result<Self> {
        let (rows, keys) = (cluster.postgres.rows().await?, cluster.redis.rows().await?);
        let highest = *rows.last().context("no rows")?;
        Ok(Self { rows: rows.len(), highest, key: *keys.last().context("no keys")? })
    }
}

/// A dump in custom format, the roles beside it, and a snapshot, as a nightly job would make them.
async fn dump(cluster: &Cluster, folder: &Path) -> Result<()> {
    let (address, port) = cluster.postgres.address();
    let (address, port) = (address.to_string(), port.to_string());
    let whole = folder.join("app.dump").display().to_string();
    let globals = folder.join("globals.sql").display().to_string();
    let programs = [
        ("pg_dump", ["--format=custom", "--file", whole.as_str(), OWNER]),
        ("pg_dumpall", ["--globals-only", "--file", globals.as_str(), "--database=postgres"]),
    ];
    for (program, words) in programs {
        let output = Command::new(cluster.postgres.programs().join(program))
            .args(["-h", address.as_str(), "-p", port.as_str(), "-U", AGENT])
            .args(words)
            .env("PGPASSWORD", &cluster.postgres.passwords().agent)
            .output()
            .await?;
        ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut connection = cluster.redis.connect_as_agent().await?;
    redis::cmd("SAVE").query_async::<()>(&mut connection).await?;
    let snapshot = cluster.redis.config_file().with_file_name("data").join("dump.rdb");
    std::fs::copy(&snapshot, folder.join("cache.rdb")).with_context(|| format!("no {}", snapshot.display()))?;
    Ok(())
}

/// Tells the agent at the other side where the backups are and what must be in them, and starts it anew.
async fn knows_backups(scene: &Scene, folder: &Path, saved: &Saved) -> Result<()> {
    let agent = &scene.other().cluster()?.agent;
    let folder = folder.display();
    let (Saved { rows, highest, key }, usual) = (saved, "SELECT count(*) > 0 FROM rows");
    let mut text = std::fs::read_to_string(agent.config())?;
    ensure!(text.contains(usual), "it does not ask {usual:?}: {text}");
    text = text.replace(usual, &format!("SELECT count(*) = {rows} FROM rows WHERE n <= {highest}"));
    let of_postgres =
        vec![format!("backups: {{ kind: pg_dump, from: \"{folder}/*.dump\", globals: \"{folder}/globals.sql\" }}")];
    let of_redis = vec![
        format!("backups: {{ kind: rdb, from: \"{folder}/*.rdb\" }}"),
        format!("checks: [{{ command: [EXISTS, \"row:{key}\"], expect: \"1\" }}]"),
    ];
    for (kind, more) in [("kind: postgres", of_postgres), ("kind: redis", of_redis)] {
        let line = text.lines().find(|line| line.trim() == kind).with_context(|| format!("no {kind}"))?.to_owned();
        let indent = line.len() - line.trim_start().len();
        let named: String = more.iter().map(|one| format!("\n{:indent$}{one}", "")).collect();
        text = text.replacen(&line, &format!("{line}{named}"), 1);
    }
    std::fs::write(agent.config(), text)?;
    agent.stop().await?;
    scene.other().start_agent().await
}

/// The disks of the other side's databases are new. Its Redis stays switched off: it would copy the old side.
async fn is_emptied(cluster: &Cluster) -> Result<()> {
    cluster.postgres.kill_and_switch_off().await?;
    let data = cluster.postgres.data();
    // A dump brings no configuration: the operator puts it beside PGDATA.
    let shelf = data.with_file_name("data.regent-config");
    std::fs::create_dir(&shelf)?;
    place::give_to_postgres(&shelf)?;
    for name in ["postgresql.conf", "pg_hba.conf"] {
        std::fs::copy(data.join(name), shelf.join(name))?;
        place::give_to_postgres(&shelf.join(name))?;
    }
    std::fs::remove_dir_all(&data)?;
    cluster.postgres.switch_on()?;
    cluster.redis.kill_and_switch_off().await?;
    let config = cluster.redis.config_file();
    let data = config.with_file_name("data");
    std::fs::remove_dir_all(&data)?;
    std::fs::create_dir(&data)?;
    // With an append-only file it would load no snapshot.
    let text = std::fs::read_to_string(&config)?;
    ensure!(text.contains("appendonly yes\n"), "it keeps no append-only file: {text}");
    std::fs::write(&config, text.replace("appendonly yes\n", "appendonly no\n"))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_and_a_snapshot_are_carried_through_a_whole_failover() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(6), Duration::from_millis(500)).await?;
    scene.lead_from("eu-central").await?;
    let (ctl, other) = (scene.world.ctl(), scene.other().cluster()?);
    let writer = scene.writer().await?;
    let backups = scene.world.folder().join("backups");
    place::passable(&backups)?;
    place::give_to_postgres(&backups)?;
    let saved = Saved::of(scene.old().cluster()?).await?;
    dump(scene.old().cluster()?, &backups).await?;
    knows_backups(&scene, &backups, &saved).await?;
    // What it has restored it promotes; what it has promoted it is asked to restore once more, and refuses.
    let promote = format!("    failover:\n      - promote: [{DATABASE}, {CACHE}]\n");
    let lines = format!(
        "    failover:
      - restore: [{DATABASE}, {CACHE}]
      - promote: [{DATABASE}, {CACHE}]
      - {{ restore: [{DATABASE}, {CACHE}], retries: 0, onFailure: continue }}
"
    );
    scene.change_document(&promote, &lines).await?;

    is_emptied(other).await?;
    let last = writer.record().highest().context("no rows")?;
    writer.acknowledged_when("rows that are in no backup", PATIENCE, |row| row.n > last + 100).await?;
    scene.old().lose().await?;
    other.redis.switch_on()?;
    wait::until("the word of what is left", PATIENCE, || async {
        let why = ctl.why(APPLICATION).await?;
        ensure!(why.reason().contains("--allow-data-loss"), "it says {:?}", why.reason());
        Ok(())
    })
    .await?;
    ensure!(ctl.runs().await?.is_empty(), "something began by itself");

    let words = ["failover", APPLICATION, "--to", &other.name, "--allow-data-loss", "only dumps are left"];
    println!("{}", ctl.run(&words).await?);
    // By the name, whatever answers it now.
    scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    let ended = scene.finished_run().await;
    let run = ctl.runs().await?.first().context("there is no run")?.id;
    let shown = ctl.run(&["runs", &run.to_string()]).await?;
    println!("{shown}");
    ensure!(ended.with_context(|| shown.clone())? == run, "another run began");
    ensure!(shown.matches("restore-primary").count() >= 2, "what serves was not refused to be restored: {shown}");

    // Of each it says from which backup, how old that was, what was counted and asked, and that the rest is unknown.
    let report = ctl.report(run).await?;
    for (resource, words) in [
        (DATABASE, ["app.dump (", " min old", "as in the dump)", ", 1 checks"]),
        (CACHE, ["cache.rdb (", " min old", " keys", ", 1 checks"]),
    ] {
        let loss = report.losses.iter().find(|loss| loss.resource == resource).context("it reports no loss")?;
        println!("{}", loss.sentence);
        ensure!(loss.bytes.is_none() && loss.complete_until.is_none(), "it claims to know how much: {loss:?}");
        let unknown = "after its backup was made is not there, and how much that is, is not known";
        for word in words.iter().chain([&unknown]) {
            ensure!(loss.sentence.contains(word), "{resource}: no {word:?} in {:?}", loss.sentence);
        }
    }
    let told = ctl.run(&["report", &run.to_string()]).await?;
    ensure!(told.contains("only dumps are left"), "the report does not say who allowed it: {told}");

    // And it is so: all of the dumps is there, something that came after is not, and new rows come.
    writer.acknowledged_anew(PATIENCE).await?;
    let record = writer.stop().await?;
    for (resource, rows, until) in
        [(DATABASE, other.postgres.rows().await?, saved.highest), (CACHE, other.redis.rows().await?, saved.key)]
    {
        let missing = record.missing(&rows);
        let gone = missing.iter().filter(|n| **n <= until).count();
        ensure!(gone == 0, "{resource}: {gone} rows of before the backup, up to {until}, are missing");
        ensure!(missing.len() >= 100, "{resource}: nothing was lost, so nothing was tried");
    }
    scene.judge(record, run).await?;
    let epoch = ctl.status().await?.application(APPLICATION)?.epoch;
    ensure!(epoch == 2, "it is epoch {epoch}");
    scene.end().await
}
