//! Random faults for as long as you like, on real processes and databases, judged after every round.
//!
//! ```text
//! cargo build --workspace --bins && target/debug/soak --hours 8 --seed 1
//! target/debug/soak --rounds 1 --seed 4711        # a round again that broke something
//! ```
//!
//! Ctrl-C breaks off the round that is played, which counts for nothing, and prints the tally of those before it.

#![allow(clippy::print_stdout, reason = "it prints its result")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use regent_tests::soak::{Round, round};
use regent_tests::stage::play;
use tokio::sync::watch;

/// Random faults from a seed, in namespaces of networks; needs root.
#[derive(Parser)]
struct Soak {
    /// How long to begin new rounds.
    #[arg(long, default_value_t = 1.0)]
    hours: f64,
    /// The seed of the first round; the next round has the next one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// No more rounds than this.
    #[arg(long)]
    rounds: Option<u64>,
}

#[derive(Default)]
struct Tally {
    rounds: u64,
    changes: u64,
    switchovers: u64,
    acknowledged: usize,
    away: Duration,
    faults: BTreeMap<String, u64>,
    broken: Vec<(u64, String)>,
}

fn main() -> Result<ExitCode> {
    let soak = Soak::parse();
    let end = Instant::now() + Duration::try_from_secs_f64(soak.hours * 3600.0)?;
    let mut tally = Tally::default();
    let interrupted = interruption()?;
    while Instant::now() < end && soak.rounds.is_none_or(|most| tally.rounds < most) && !*interrupted.borrow() {
        let seed = soak.seed.wrapping_add(tally.rounds);
        let mut breaks_off = interrupted.clone();
        // A thread for each: it enters a network of its own, and there is no way back.
        let played = std::thread::spawn(move || {
            let mut result = None;
            play(|net| async {
                result = tokio::select! {
                    ended = round(net, seed) => Some(ended?),
                    // Whoever would say it is there until the end.
                    _ = breaks_off.wait_for(|interrupted| *interrupted) => bail!("it was broken off"),
                };
                Ok(())
            })
            .map(|()| result)
        });
        let ended = played.join();
        if *interrupted.borrow() {
            println!("seed {seed}: broken off, and not counted");
            break;
        }
        tally.rounds += 1;
        match ended {
            Ok(Ok(Some(round))) => tally.add(seed, &round),
            Ok(Ok(None)) => tally.broke(seed, "it has no result".into()),
            Ok(Err(error)) => tally.broke(seed, format!("{error:#}")),
            Err(_) => tally.broke(seed, "it panicked".into()),
        }
    }
    tally.print();
    Ok(if tally.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// True from the first Ctrl-C on.
fn interruption() -> Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signal = {
        let _inside = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).context("cannot listen to Ctrl-C")?
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            while signal.recv().await.is_some() {
                sender.send_replace(true);
            }
        });
    });
    Ok(receiver)
}

impl Tally {
    fn add(&mut self, seed: u64, round: &Round) {
        println!(
            "seed {seed}: held; {} faults, primary changed {} times ({} by plan), {} rows acknowledged, away for {:.1} s at most",
            round.plan.acts.len(),
            round.changes,
            round.switchovers,
            round.acknowledged,
            round.away.as_secs_f32()
        );
        self.changes += round.changes;
        self.switchovers += round.switchovers;
        self.acknowledged += round.acknowledged;
        self.away = self.away.max(round.away);
        for act in &round.plan.acts {
            let fault = act.fault.map(|fault| fault.kind());
            for kind in fault.into_iter().chain(act.network.map(|network| network.kind())) {
                *self.faults.entry(kind).or_default() += 1;
            }
        }
    }

    fn broke(&mut self, seed: u64, why: String) {
        println!("seed {seed}: BROKEN: {why}\n  again: soak --rounds 1 --seed {seed}");
        self.broken.push((seed, why));
    }

    fn print(&self) {
        println!("\n{} rounds, {} broken", self.rounds, self.broken.len());
        println!(
            "primary changed {} times ({} by plan), {} rows acknowledged, away for {:.1} s at most",
            self.changes,
            self.switchovers,
            self.acknowledged,
            self.away.as_secs_f32()
        );
        for (kind, count) in &self.faults {
            println!("{count:>6}  {kind}");
        }
        for (seed, _) in &self.broken {
            println!("broken: soak --rounds 1 --seed {seed}");
        }
    }
}
