//! Random faults for as long as you like, on real processes and databases, judged after every round.
//!
//! ```text
//! cargo build --workspace --bins && target/debug/soak --hours 8 --seed 1
//! target/debug/soak --rounds 1 --seed 4711        # a round again that broke something
//! ```

#![allow(clippy::print_stdout, reason = "it prints its result")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use regent_tests::soak::{Round, round};
use regent_tests::stage::play;

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
    acknowledged: usize,
    away: Duration,
    faults: BTreeMap<String, u64>,
    broken: Vec<(u64, String)>,
}

fn main() -> Result<ExitCode> {
    let soak = Soak::parse();
    let end = Instant::now() + Duration::try_from_secs_f64(soak.hours * 3600.0)?;
    let mut tally = Tally::default();
    while Instant::now() < end && soak.rounds.is_none_or(|most| tally.rounds < most) {
        let seed = soak.seed.wrapping_add(tally.rounds);
        // A thread for each: it enters a network of its own, and there is no way back.
        let played = std::thread::spawn(move || {
            let mut result = None;
            play(|net| async {
                result = Some(round(net, seed).await?);
                Ok(())
            })
            .map(|()| result)
        });
        tally.rounds += 1;
        match played.join() {
            Ok(Ok(Some(round))) => tally.add(seed, &round),
            Ok(Ok(None)) => tally.broke(seed, "it has no result".into()),
            Ok(Err(error)) => tally.broke(seed, format!("{error:#}")),
            Err(_) => tally.broke(seed, "it panicked".into()),
        }
    }
    tally.print();
    Ok(if tally.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Tally {
    fn add(&mut self, seed: u64, round: &Round) {
        println!(
            "seed {seed}: held; {} faults, primary changed {} times, {} rows acknowledged, away for {:.1} s at most",
            round.plan.acts.len(),
            round.changes,
            round.acknowledged,
            round.away.as_secs_f32()
        );
        self.changes += round.changes;
        self.acknowledged += round.acknowledged;
        self.away = self.away.max(round.away);
        for act in &round.plan.acts {
            for kind in act
                .process
                .map(|fault| fault.kind())
                .into_iter()
                .chain(act.network.map(|(_, link)| format!("{link:?}")))
            {
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
            "primary changed {} times, {} rows acknowledged, away for {:.1} s at most",
            self.changes,
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
