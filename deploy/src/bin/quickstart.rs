//! Loses a region before your eyes; see `regent_deploy::quickstart`. Started by `deploy/quickstart`, which builds it first.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use regent_deploy::quickstart::{self, Request};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Starts three regions on this machine, loses one, and shows how the other takes over.
///
/// Exits with 0 if everything held that is promised, with 1 if not, with 130 when interrupted.
#[derive(Parser)]
#[command(name = "deploy/quickstart")]
struct Arguments {
    /// Leave everything running at the end.
    #[arg(long)]
    keep: bool,
    /// End and remove what earlier quickstarts left; with --dir, only that one.
    #[arg(long, conflicts_with_all = ["keep", "failover_after"])]
    down: bool,
    /// A folder to be made for it [default: quickstart-PID in the cache folder].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// From the last contact with the primary's agent to the earliest promotion.
    #[arg(long, alias = "fail-over-after", default_value = "10s", value_parser = duration)]
    failover_after: Duration,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Arguments { keep, down, dir, failover_after } = Arguments::parse();
    if down {
        for folder in quickstart::down(dir.as_deref()).await? {
            writeln!(std::io::stdout(), "removed {}", folder.display())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut interrupts = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .into_iter()
        .map(signal)
        .collect::<std::io::Result<Vec<Signal>>>()?;
    let interrupted = futures::future::select_all(interrupts.iter_mut().map(|signal| Box::pin(signal.recv())));
    // What is dropped half-way ends its processes and removes its folder.
    let story = Box::pin(quickstart::run(Request { folder: dir, failover_after, keep }));
    tokio::select! {
        told = story => Ok(if told? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        _ = interrupted => {
            writeln!(std::io::stderr(), "interrupted; everything is removed")?;
            Ok(ExitCode::from(130))
        }
    }
}

fn duration(text: &str) -> Result<Duration> {
    let span: jiff::SignedDuration = text.parse().context("write it like 10s or 1500ms")?;
    Duration::try_from(span).context("it cannot be negative")
}
