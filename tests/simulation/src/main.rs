//! `simulate --seeds A..B`: runs the simulation of these seeds and prints what was broken.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;

/// The real code of coordinators and agents in a simulated world.
#[derive(Parser)]
struct Arguments {
    /// From the first to before the last, e.g. 0..2000; from 1000000000 on with two applications, from 2000000000 on aimed
    /// at one rule each.
    #[arg(long, value_parser = seeds)]
    seeds: Range<u64>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Tells everything as it happens.
    #[arg(long)]
    aloud: bool,
    /// Shows the product's own log, at this level.
    #[arg(long)]
    log: Option<String>,
    /// Puts a known mistake back into the code, by its name.
    #[cfg(feature = "planted")]
    #[arg(long)]
    mutation: Option<String>,
    /// Puts each known mistake back in turn, and tells the first of the seeds that finds it, or of as many that are aimed at one
    /// rule each.
    #[cfg(feature = "planted")]
    #[arg(long)]
    mutations: bool,
    /// Runs every seed twice and compares.
    #[arg(long)]
    twice: bool,
    /// Ends at the first failure.
    #[arg(long)]
    first: bool,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("write FIRST..LAST")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    Ok(number(from)?..number(to)?)
}

#[derive(Default)]
struct Tally {
    failed: Vec<u64>,
    held: BTreeMap<String, u64>,
    epochs: BTreeMap<u64, u64>,
    millis: u64,
    events: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(level) = &arguments.log {
        tracing_subscriber::fmt().with_env_filter(level).without_time().with_writer(std::io::stderr).init();
    }
    #[cfg(feature = "planted")]
    if arguments.mutations {
        return tell_mutations(&arguments);
    }
    let (next, began, tally) = (AtomicU64::new(arguments.seeds.start), Instant::now(), Mutex::new(Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| work(&arguments, &next, &tally));
        }
    });
    let tally = tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let count = arguments.seeds.end - arguments.seeds.start;
    say(&format!(
        "{count} seeds, {} failed, {:.1} s, {:.3} s per seed and thread, {:.0} s of the world, {} events",
        tally.failed.len(),
        began.elapsed().as_secs_f64(),
        began.elapsed().as_secs_f64() * arguments.jobs as f64 / count.max(1) as f64,
        tally.millis as f64 / 1e3,
        tally.events
    ));
    say(&format!("epochs in the end: {:?}", tally.epochs));
    say(&format!("not served, by name: {:?}", tally.held));
    if tally.failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    say(&format!("failed: {:?}", tally.failed));
    ExitCode::FAILURE
}

#[cfg(feature = "planted")]
fn run(seed: u64, arguments: &Arguments) -> regent_simulation::Outcome {
    let Some(name) = &arguments.mutation else { return regent_simulation::run(seed, arguments.aloud) };
    let mistake = regent_core::planted::Mistake::ALL.into_iter().find(|one| format!("{one:?}") == *name);
    match mistake {
        Some(mistake) => regent_simulation::run_with(seed, mistake, arguments.aloud),
        None => {
            say(&format!("there is no {name}; there are {:?}", regent_core::planted::Mistake::ALL));
            std::process::exit(2)
        }
    }
}

#[cfg(feature = "planted")]
fn tell_mutations(arguments: &Arguments) -> ExitCode {
    let mut missed = 0;
    for mistake in regent_core::planted::Mistake::ALL {
        let began = Instant::now();
        let found = regent_simulation::search(mistake, arguments.seeds.clone(), arguments.jobs);
        let took = began.elapsed().as_secs();
        match found {
            Some(failure) => {
                say(&format!("{mistake:?}: seed {}, {took} s: {}: {}", failure.seed, failure.promise, failure.how));
            }
            None => {
                missed += 1;
                say(&format!("{mistake:?}: NOT FOUND, {took} s"));
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(feature = "planted")]
fn mutation(arguments: &Arguments) -> Option<&str> {
    arguments.mutation.as_deref()
}

#[cfg(not(feature = "planted"))]
const fn mutation(_: &Arguments) -> Option<&str> {
    None
}

#[cfg(not(feature = "planted"))]
fn run(seed: u64, arguments: &Arguments) -> regent_simulation::Outcome {
    regent_simulation::run(seed, arguments.aloud)
}

fn work(arguments: &Arguments, next: &AtomicU64, tally: &Mutex<Tally>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= arguments.seeds.end {
            return;
        }
        let outcome = run(seed, arguments);
        let again = arguments.twice.then(|| run(seed, arguments));
        let mut tally = tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tally.events += outcome.events;
        match &outcome.result {
            Ok(settled) => {
                *tally.epochs.entry(settled.epoch).or_default() += 1;
                tally.millis += settled.virtual_millis;
                if let Some(held) = &settled.held {
                    *tally.held.entry(held.split(':').next().unwrap_or_default().to_owned()).or_default() += 1;
                }
            }
            Err(failure) => {
                say(&failure.to_string());
                tally.failed.push(seed);
                if arguments.first {
                    next.store(arguments.seeds.end, Ordering::Relaxed);
                }
            }
        }
        if again.is_some_and(|again| (again.hash, again.events) != (outcome.hash, outcome.events)) {
            let command = regent_simulation::command(seed, mutation(arguments), true);
            say(&format!("seed {seed} is not the same the second time; repeat it: {command}"));
            tally.failed.push(seed);
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
