//! Switchovers there and back under many clients, with faults in every fifth; what was acknowledged is counted.
//!
//! ```text
//! cargo run -p regent-tests --bin switchovers -- --rounds 50 --clients 64 --seed 1
//! ```

#![allow(clippy::print_stdout, reason = "it prints its result")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use regent_deploy::place;
use regent_deploy::world::{Options, World};
use regent_tests::rounds::trial::Trial;
use regent_tests::rounds::{Move, Plan, Played, median, phases, play};

/// Switchovers there and back on real processes and databases, judged by rows and not by words.
#[derive(Parser)]
struct Switchovers {
    /// So many there and back.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// So many clients; every fourth writes to Redis, the others to PostgreSQL.
    #[arg(long, default_value_t = 64)]
    clients: u32,
    /// Of the faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A fault in every so many rounds; 0: none.
    #[arg(long, default_value_t = 5)]
    fault_every: u32,
    /// Milliseconds from one row of a client to its next.
    #[arg(long, default_value_t = 50)]
    pace: u64,
    /// Milliseconds from a failure of a client to its next attempt.
    #[arg(long, default_value_t = 20)]
    retry: u64,
    /// Leave the logs and databases where they are, as is done if something breaks.
    #[arg(long)]
    keep: bool,
    /// Tracing filter of coordinators and agents.
    #[arg(long, default_value = "info")]
    log: String,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let words = Switchovers::parse();
    let mut folder = tempfile::Builder::new().prefix("regent-switchovers-").tempdir_in("/var/tmp")?;
    place::passable(folder.path())?;
    let mut options = Options::new(&folder.path().join("world"));
    options.failover_after = Duration::from_secs(10);
    options.probe_interval = Duration::from_millis(500);
    options.log.clone_from(&words.log);
    let world = World::start(options).await?;
    let plan = Plan {
        rounds: words.rounds,
        clients: words.clients,
        seed: words.seed,
        fault_every: words.fault_every,
        pace: Duration::from_millis(words.pace),
        retry: Duration::from_millis(words.retry),
    };
    let played = play(&world, plan, tell).await;
    folder.disable_cleanup(words.keep || played.is_err());
    if words.keep || played.is_err() {
        println!("logs and databases are in {}", folder.path().display());
        world.down_to_its_folder().await?;
    } else {
        world.down().await?;
    }
    match played {
        Ok(played) => {
            print(&played);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            println!("BROKEN: {error:#}\n  again: switchovers --seed {} --rounds {}", plan.seed, plan.rounds);
            Ok(ExitCode::FAILURE)
        }
    }
}

fn tell(made: &Move) {
    let fault = made.fault.map_or_else(|| "-".to_owned(), |fault| fault.to_string());
    let fault = made.met.as_ref().map_or(fault.clone(), |met| format!("{fault} at {}", met.step));
    println!(
        "round {:>3}  run {:>4}  {:<11} {:>6.0} ms  {fault:<38} {}",
        made.round,
        made.run,
        made.status,
        made.outage.as_secs_f64() * 1000.0,
        made.rejoined
    );
}

fn print(played: &Played) {
    let outages = played.outages();
    let millis = |span: Duration| span.as_secs_f64() * 1000.0;
    let calm: Vec<_> = played.moves.iter().filter(|one| one.fault.is_none()).collect();
    let phases: Vec<_> = calm.iter().filter_map(|one| one.phases.clone()).collect();
    println!();
    phases::table(&phases).iter().for_each(|line| println!("{line}"));
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    played.moves.iter().for_each(|one| *ends.entry(one.status.as_str()).or_default() += 1);
    let rewound = played.moves.iter().filter(|one| one.rejoined.contains("rewound")).count();
    println!("\n{} switchovers: {ends:?}; {rewound} ended with a rewind of PostgreSQL", played.moves.len());
    println!(
        "write outage without faults: median {:.0} ms, longest {:.0} ms, of {}",
        millis(median(&outages)),
        millis(outages.last().copied().unwrap_or_default()),
        outages.len()
    );
    let (struck, met) = played.struck();
    println!("{struck} faults, of which {met} struck an open run that kept writes out");
    if let Some(longest) = played.moves.iter().filter_map(|one| one.served_again).max() {
        println!(
            "the old primary served its last client again {:.0} ms after an undo began, at the latest",
            millis(longest)
        );
    }
    for trial in Trial::ALL {
        let without = played.tried.iter().filter(|one| one.trial == trial);
        if let Some(longest) = without.clone().max_by_key(|one| one.without) {
            println!(
                "{trial}: {} times; the client that waited longest was without an acknowledgement for {:.0} ms of {:.0}",
                without.count(),
                millis(longest.without),
                millis(longest.bound)
            );
        }
    }
    println!(
        "{} rows acknowledged: none lost, none doubled; {} more are there that no client was told of",
        played.acknowledged, played.unknown
    );
}
