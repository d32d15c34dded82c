//! Loses a region before your eyes; see `regent_deploy::quickstart`. Started by `deploy/quickstart`, which builds it first.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use regent_core::lease::SMALLEST_FAIL_OVER_AFTER;
use regent_deploy::quickstart::{self, Request};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Longer than anybody looks on.
const LONGEST: Duration = Duration::from_secs(600);

const EXAMPLES: &str = "\
Examples:
  deploy/quickstart                                     the whole story, then everything is removed
  deploy/quickstart --failover-after 2s                 the same with the shortest wait that is allowed
  deploy/quickstart --keep --dir /var/tmp/regent-show   leaves it running there
  deploy/quickstart --down --dir /var/tmp/regent-show   ends and removes that one
  deploy/quickstart --down                              ends and removes all that were left in the cache folder";

/// Starts three regions on this machine, loses one, and shows how the other takes over.
///
/// It needs about twenty seconds once it is built. Exits with 0 if everything held that is promised, with 1 if not, with
/// 2 if the arguments make no sense, with 130 when interrupted; in each case nothing stays behind without --keep, but
/// for an empty database in the cache folder that makes the next start faster.
#[derive(Parser)]
#[command(name = "deploy/quickstart", max_term_width = 120, after_help = EXAMPLES)]
struct Arguments {
    /// Leave everything running at the end, to look at it with a browser and with regentctl.
    #[arg(long)]
    keep: bool,
    /// End and remove what earlier quickstarts left; with --dir, only that one.
    #[arg(long, conflicts_with_all = ["keep", "failover_after"])]
    down: bool,
    /// A folder to be made for it [default: quickstart-PID in the cache folder].
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// From the last contact with the primary's agent to the earliest promotion, 2s or more.
    #[arg(long, alias = "fail-over-after", default_value = "10s", value_parser = duration, value_name = "TIME")]
    failover_after: Duration,
}

#[tokio::main]
async fn main() -> ExitCode {
    run(Arguments::parse()).await.unwrap_or_else(|error| {
        // In one line: a backtrace would bury what is wrong and where.
        let _closed = writeln!(std::io::stderr(), "deploy/quickstart: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run(Arguments { keep, down, dir, failover_after }: Arguments) -> Result<ExitCode> {
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
    let span: jiff::SignedDuration = text.parse().map_err(|_| anyhow!("write it like 10s or 2500ms"))?;
    let smallest = SMALLEST_FAIL_OVER_AFTER.millis();
    let span = Duration::try_from(span).ok().filter(|span| span.as_millis() >= smallest.into());
    let span = span.with_context(|| format!("below {smallest} ms the old primary has no time to fence itself"))?;
    ensure!(span <= LONGEST, "it is waited out before your eyes: take {} s or less", LONGEST.as_secs());
    Ok(span)
}
