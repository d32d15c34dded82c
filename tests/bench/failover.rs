//! What a failover costs beside waiting out D: the run of a lost region against the bare operations, called directly on
//! the same kind of databases in the same minute. Prints times to orient and ratios to compare.
//!
//! ```text
//! cargo run -p regent-tests --bin bench-failover -- [ROUNDS]
//! ```

#![allow(clippy::print_stdout, reason = "it prints its result")]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use regent_deploy::world::{Options, World};
use regent_deploy::writer::Writer;
use regent_deploy::{place, wait};
use serde_json::Value;

/// One run of a lost region, in milliseconds.
struct Measured {
    /// From the decision to the end of the last step.
    run: f64,
    /// Of it the drivers' own work, the longest of each stage.
    drivers: f64,
    /// From the death to the first write at the other side.
    outage: f64,
}

/// The same two databases promoted without Regent, in milliseconds.
struct Bare {
    postgres: f64,
    redis: f64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(3), |text| text.parse()).context("ROUNDS is a number")?;
    let folder = tempfile::Builder::new().prefix("regent-bench-").tempdir_in("/var/tmp")?;
    place::passable(folder.path())?;
    println!("round   run   drivers   rest   pg_promote + REPLICAOF   run/bare   rest/bare   outage, D = 2000");
    let mut rest = Vec::new();
    for round in 1..=rounds {
        let bare = bare(&folder.path().join(format!("bare-{round}"))).await?;
        let measured = failover(&folder.path().join(format!("world-{round}"))).await?;
        let (sum, own) = (bare.postgres + bare.redis, measured.run - measured.drivers);
        println!(
            "{round:>5} {:>5.0} {:>9.0} {own:>6.0} {:>12.0} + {:<9.0} {:>9.2} {:>11.2} {:>18.0}",
            measured.run,
            measured.drivers,
            bare.postgres,
            bare.redis,
            measured.run / sum,
            own / sum,
            measured.outage
        );
        rest.push(own);
    }
    rest.sort_by(f64::total_cmp);
    if let Some(median) = rest.get(rest.len() / 2) {
        println!("neither D nor a driver's work, median: {median:.0} ms (all times in ms)");
    }
    Ok(())
}

async fn failover(folder: &Path) -> Result<Measured> {
    let mut options = Options::new(folder);
    options.failover_after = Duration::from_secs(2);
    options.probe_interval = Duration::from_millis(500);
    let world = World::start(options).await?;
    let writer = Writer::start(world.writer())?;
    wait::until("the first rows", Duration::from_secs(20), || async {
        ensure!(writer.record().acknowledged.len() >= 50, "too few");
        Ok(())
    })
    .await?;
    let death = Instant::now();
    world.regions()[0].lose().await?;
    let address = world.regions()[1].cluster()?.address;
    writer.acknowledged_when("a write at the other side", Duration::from_secs(60), |row| row.by == address).await?;
    let record = writer.stop().await?;
    let first = record.acknowledged.iter().find(|row| row.by == address).context("no write at the other side")?;
    let outage = first.at.saturating_duration_since(death).as_secs_f64() * 1000.0;
    let run = wait::until("the end of the run", Duration::from_secs(60), || async {
        let runs = world.ctl().runs().await?;
        let run = runs.first().context("no run")?;
        ensure!(run.status() == "succeeded", "it is {}", run.status());
        Ok(run.id)
    })
    .await?;
    let text = world.ctl().run(&["runs", &run.to_string(), "-o", "json"]).await?;
    world.down().await?;
    let answer: Value = serde_json::from_str(&text)?;
    read(answer.get("run").context("the answer has no run")?, outage)
}

/// Reads the times out of a run as the command line prints it.
fn read(run: &Value, outage: f64) -> Result<Measured> {
    let decided = millis(&run["decision"]["at"])?;
    let mut ended = decided;
    let mut stages: std::collections::BTreeMap<u64, f64> = std::collections::BTreeMap::new();
    for step in run["steps"].as_array().context("the run has no steps")? {
        if step["detached"].as_bool() == Some(true) {
            continue;
        }
        ended = ended.max(millis(&step["ended"])?);
        let driver = step["report"]["driver"].as_str().unwrap_or("0s").trim_end_matches('s').parse::<f64>()? * 1000.0;
        let longest = stages.entry(step["stage"].as_u64().unwrap_or(0)).or_default();
        *longest = longest.max(driver);
    }
    Ok(Measured { run: ended - decided, drivers: stages.values().sum(), outage })
}

fn millis(time: &Value) -> Result<f64> {
    let text = time.as_str().context("a time is missing")?;
    let stamp: jiff::Timestamp = text.parse().with_context(|| format!("{text:?} is no time"))?;
    Ok(stamp.as_millisecond() as f64)
}

/// The standbys of a killed primary, promoted as a careful human would by hand.
async fn bare(folder: &Path) -> Result<Bare> {
    let world = World::prepare(Options::new(folder)).await?;
    world.start_databases().await?;
    let (old, new) = (&world.regions()[0], world.regions()[1].cluster()?);
    wait::until("streaming standbys", Duration::from_secs(20), || async {
        ensure!(old.cluster()?.postgres.streaming().await? > 0, "none streams");
        Ok(())
    })
    .await?;
    let session = new.postgres.connect_as_agent().await?;
    old.lose().await?;
    let begun = Instant::now();
    loop {
        session.execute("SELECT pg_promote(false)", &[]).await.ok();
        if !session.query_one("SELECT pg_is_in_recovery()", &[]).await?.get::<_, bool>(0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    session.query_one("SELECT txid_current()", &[]).await?;
    let postgres = begun.elapsed().as_secs_f64() * 1000.0;
    let mut connection = new.redis.connect_as_agent().await?;
    let begun = Instant::now();
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").query_async::<()>(&mut connection).await?;
    redis::cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(0).query_async::<()>(&mut connection).await?;
    redis::cmd("SET").arg("bench").arg(1).query_async::<()>(&mut connection).await?;
    let redis = begun.elapsed().as_secs_f64() * 1000.0;
    world.down().await?;
    Ok(Bare { postgres, redis })
}
