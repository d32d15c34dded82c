//! The write outage of a planned switchover, as clients see it: Regent's beside Patroni's, on the same PostgreSQL in the
//! same run, in turns. `tests/bench/switchover` installs what it needs and starts it.
//!
//! *The* outage is the column `Regent`: clients that go from host to host, as libpq does, so that both systems are measured
//! alike; the median of it is what README tells of, and what `--limit` holds it to. `Regent by name` adds what clients
//! need to ask the name again.

#![allow(clippy::print_stdout, reason = "it prints its result")]

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use regent_core::time::Span;
use regent_deploy::config::APPLICATION;
use regent_deploy::world::{Options, World};
use regent_deploy::writer::resolve::Resolver;
use regent_deploy::writer::{Target, WriterOptions};
use regent_deploy::{place, wait};
use regent_tests::rounds::client::{Clients, Finding, Place};
use regent_tests::rounds::{ledger, median, phases};

mod patroni;

use patroni::Patroni;

/// Where clients write; without any constraint.
const LEDGER: &str = "CREATE TABLE ledger (client bigint NOT NULL, n bigint NOT NULL, \
                      at timestamptz NOT NULL DEFAULT clock_timestamp())";

const PATIENCE: Duration = Duration::from_secs(90);
/// How long clients write before and after.
const WARM: Duration = Duration::from_millis(1500);

/// The write outage of a planned switchover, beside Patroni's.
#[derive(Parser)]
struct Bench {
    /// So many switchovers of each.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// So many clients at a time.
    #[arg(long, default_value_t = 4)]
    clients: u32,
    /// Milliseconds from one row of a client to its next, and from a failure to the next attempt.
    #[arg(long, default_value_t = 5)]
    pace: u64,
    /// Where Patroni is installed; without it Regent is measured alone.
    #[arg(long)]
    patroni: Option<PathBuf>,
    /// Fails if the median of the column `Regent`, which is the outage, exceeds this.
    #[arg(long, value_parser = Span::parse, default_value = "300ms")]
    limit: Span,
}

/// Outages of one kind, over all clients and of each client, in order.
#[derive(Default)]
struct Seen {
    all: Vec<Duration>,
    each: Vec<Duration>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let bench = Bench::parse();
    let folder = tempfile::Builder::new().prefix("regent-bench-").tempdir_in("/var/tmp")?;
    place::passable(folder.path())?;
    let world = regent(&folder.path().join("regent")).await?;
    let patroni = match &bench.patroni {
        Some(programs) => Some(Patroni::start(programs, &folder.path().join("patroni")).await?),
        None => None,
    };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{} build, load {}", if cfg!(debug_assertions) { "debug" } else { "release" }, load.trim());
    println!(
        "clients: {} at a time, a row each {} ms, the next attempt {} ms after a failure",
        bench.clients, bench.pace, bench.pace
    );
    println!("Regent: three coordinators, D = 10 s, PostgreSQL and Redis moved together, TTL of the name 1 s");
    println!("Patroni: {}", patroni.as_ref().map_or("not measured", |patroni| patroni.settings.as_str()));
    println!(
        "\nround   Regent   Patroni   Regent by name   (ms from the last row of the old side to the first of the new)"
    );
    let (mut ours, mut theirs, mut named) = (Seen::default(), Seen::default(), Seen::default());
    let mut steps = Vec::new();
    for round in 1..=bench.rounds {
        steps.extend(by_regent(&world, &bench, false, &mut ours).await?);
        if let Some(patroni) = &patroni {
            by_patroni(patroni, &bench, &mut theirs).await?;
        }
        by_regent(&world, &bench, true, &mut named).await?;
        let last = |seen: &Seen| seen.all.last().map_or_else(|| "-".to_owned(), |gap| millis(*gap));
        println!("{round:>5} {:>8} {:>9} {:>16}", last(&ours), last(&theirs), last(&named));
    }
    world.down().await?;
    if let Some(patroni) = patroni {
        patroni.end().await?;
    }
    println!();
    phases::table(&steps).iter().for_each(|line| println!("{line}"));
    println!("\n                   median   longest   median of each client");
    for (what, seen) in [("Regent", &ours), ("Patroni", &theirs), ("Regent by name", &named)] {
        let (all, each) = (sorted(&seen.all), sorted(&seen.each));
        let longest = all.last().copied().unwrap_or_default();
        println!("{what:<16} {:>8} {:>9} {:>16}", millis(median(&all)), millis(longest), millis(median(&each)));
    }
    if !theirs.all.is_empty() {
        let ratio = median(&sorted(&theirs.all)).as_secs_f64() / median(&sorted(&ours.all)).as_secs_f64();
        println!("\nPatroni / Regent, medians: {ratio:.1}");
    }
    judge(&ours, bench.limit)
}

/// Holds the outage to its limit.
fn judge(ours: &Seen, limit: Span) -> Result<ExitCode> {
    ensure!(!ours.all.is_empty(), "nothing was measured, so no limit was kept");
    let outage = median(&sorted(&ours.all));
    let kept = outage <= Duration::from_millis(limit.millis());
    let word = if kept { "within" } else { "BEYOND" };
    println!("\nthe outage, the median of the column Regent: {} ms, {word} the limit of {limit}", millis(outage));
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn millis(span: Duration) -> String {
    format!("{:.0}", span.as_secs_f64() * 1000.0)
}

fn sorted(spans: &[Duration]) -> Vec<Duration> {
    let mut sorted = spans.to_vec();
    sorted.sort();
    sorted
}

async fn regent(folder: &Path) -> Result<World> {
    let mut options = Options::new(folder);
    options.failover_after = Duration::from_secs(10);
    let world = World::start(options).await?;
    world.regions()[0].cluster()?.postgres.connect().await?.batch_execute(LEDGER).await?;
    Ok(world)
}

/// One switchover under clients that go from host to host, or by the name.
async fn by_regent(world: &World, bench: &Bench, named: bool, seen: &mut Seen) -> Result<Option<phases::Phases>> {
    let status = world.ctl().status().await?;
    let primary = &status.application(APPLICATION)?.primary;
    let (first, second) = (&world.regions()[0], &world.regions()[1]);
    let (from, to) = if first.cluster()?.name == *primary { (first, second) } else { (second, first) };
    world.protected(from, to).await?;
    let WriterOptions { target, .. } = world.writer();
    let Target::Service { name, servers, .. } = target else { anyhow::bail!("the service has no name") };
    let finding = |client: u32| {
        if named {
            Finding::Name(name.clone(), Resolver::new(servers.clone()))
        } else {
            Finding::Hosts(client as usize)
        }
    };
    let places = [Place::of(from)?, Place::of(to)?];
    let clients = start(bench, &places, (0..bench.clients).map(finding).collect()).await?;
    let begun = Instant::now();
    world.ctl().run(&["switchover", APPLICATION, "--to", &to.cluster()?.name, "--watch"]).await?;
    let run = wait::until("the end of the run", PATIENCE, || async {
        let runs = world.ctl().runs().await?;
        let run = runs.first().context("there is no run")?;
        ensure!(run.status() == "succeeded", "run {} is {}", run.id, run.status());
        Ok(run.id)
    })
    .await?;
    let gap = end(clients, begun, places[0].address, places[1].address, seen).await?;
    let text = world.ctl().run(&["runs", &run.to_string(), "-o", "json"]).await?;
    Ok(Some(phases::read(&text, gap.last.wall(), gap.first.wall())?))
}

async fn by_patroni(patroni: &Patroni, bench: &Bench, seen: &mut Seen) -> Result<()> {
    let (from, to) = patroni.ready().await?;
    let all = patroni.places();
    let places = [all[from].clone(), all[to].clone()];
    let findings = (0..bench.clients).map(|client| Finding::Hosts(client as usize)).collect();
    let clients = start(bench, &places, findings).await?;
    let begun = Instant::now();
    patroni.switch(from, to).await?;
    clients.all_write(PATIENCE).await?;
    end(clients, begun, places[0].address, places[1].address, seen).await?;
    patroni.ready().await.map(drop)
}

async fn start(bench: &Bench, places: &[Place], findings: Vec<Finding>) -> Result<Clients> {
    let pace = Duration::from_millis(bench.pace);
    let clients = Clients::of_postgres(findings, places, pace, pace);
    clients.all_write(PATIENCE).await?;
    tokio::time::sleep(WARM).await;
    Ok(clients)
}

async fn end(clients: Clients, begun: Instant, old: IpAddr, new: IpAddr, seen: &mut Seen) -> Result<ledger::Gap> {
    clients.all_write(PATIENCE).await?;
    let sheets = clients.stop().await?;
    let between = |sheets: &[_]| ledger::gap(sheets, begun, old, new).filter(|gap| gap.moved);
    for sheet in &sheets {
        let gap = between(std::slice::from_ref(sheet)).context("a client wrote to one side only")?;
        seen.each.push(gap.first.at.duration_since(gap.last.at));
    }
    let gap = between(&sheets).context("nobody wrote to the new side")?;
    seen.all.push(gap.first.at.duration_since(gap.last.at));
    Ok(gap)
}
