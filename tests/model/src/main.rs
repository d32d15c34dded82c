//! Searches the model of the safety protocol, world by world, or for one mistake.
//!
//! ```text
//! cargo run --release -p regent-model -- [--world WORLD] [--mistake MISTAKE] [--deeper]
//! ```

#![allow(clippy::print_stdout, reason = "it prints its result")]

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use regent_model::{Mistake, Report, World, search};

/// Searches every state of small worlds for two writers, falling epochs and silent stalls.
#[derive(Debug, Parser)]
#[command(name = "model", after_help = after_help())]
struct Arguments {
    /// Only this world.
    #[arg(long)]
    world: Option<String>,
    /// With this mistake: what it breaks is told step by step. Without --world: in the world it belongs to.
    #[arg(long)]
    mistake: Option<String>,
    /// Wider bounds: minutes to hours, and many gigabytes.
    #[arg(long)]
    deeper: bool,
    /// Give up after so many steps in all.
    #[arg(long, default_value_t = 1_000_000_000)]
    most: usize,
    /// Threads; with a mistake one, so that the trace is a shortest one.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn after_help() -> String {
    let mut text = "Worlds:\n".to_owned();
    for world in World::all() {
        text.push_str(&format!("  {:<14} {}\n", world.name, world.about));
    }
    text.push_str("\nMistakes:\n");
    for mistake in Mistake::ALL {
        text.push_str(&format!("  {:<42} found in {}\n", mistake.name(), mistake.world()));
    }
    text
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mistake = arguments.mistake.as_deref().map(mistake).transpose()?;
    let named = arguments.world.as_deref().or(mistake.map(Mistake::world));
    let worlds = match named {
        Some(name) => vec![World::named(name).with_context(|| format!("there is no world {name}; see --help"))?],
        None => World::all(),
    };
    let threads = if mistake.is_some() { 1 } else { arguments.threads };
    let mut states = 0;
    let mut broken = false;
    let mut given_up = false;
    for world in worlds {
        let world = if arguments.deeper { world.deeper() } else { world };
        let name = world.name;
        let report = search(world, mistake, threads, arguments.most);
        print(name, &report);
        states += report.states;
        broken |= !report.broken.is_empty();
        given_up |= !report.complete || !report.taken_over;
    }
    println!("{states} states in all");
    // A mistake that breaks nothing is the failure then.
    let shown = if mistake.is_some() { broken } else { !broken && !given_up };
    Ok(if shown { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn mistake(name: &str) -> Result<Mistake> {
    match Mistake::ALL.into_iter().find(|mistake| mistake.name() == name) {
        Some(mistake) => Ok(mistake),
        None => bail!("there is no mistake {name}; see --help"),
    }
}

fn mistake_free_and_blind(report: &Report) -> bool {
    report.broken.is_empty() && !report.taken_over
}

fn print(name: &str, report: &Report) {
    let seconds = report.took.as_secs_f32();
    if mistake_free_and_blind(report) {
        println!("{name}: no state was seen in which another cluster takes over");
    }
    let end = if report.complete || !report.broken.is_empty() { "" } else { ", given up before the end" };
    println!("{name:<14} {:>9} states, {:>3} steps deep, {seconds:.1} s{end}", report.states, report.depth);
    for broken in &report.broken {
        println!("  broken: {}", broken.promise);
        for (number, line) in (1..).zip(&broken.trace) {
            println!("  {number:>3}. {line}");
        }
    }
}
