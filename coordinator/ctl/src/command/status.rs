//! `regentctl status`: the whole group at a glance, live if asked for. Needs no quorum.

use std::fmt::Write;
use std::io::IsTerminal;

use clap::Args;
use prost_types::Duration;
use regent_core::time::Span;
use regent_proto::operator::v1 as wire;

use super::{describe, get, members, runs};
use crate::connection::{Connection, breathe};
use crate::failure::Failure;
use crate::output::{OutputArg, say};
use crate::table::Table;
use crate::words;

/// Shows what every coordinator sees of every cluster, roles, leases, lag and runs.
#[derive(Args)]
#[command(after_help = "\
It answers while regions, or the quorum, are gone, and says how old its view is. With several endpoints it prefers a
coordinator that has a quorum.

Examples:
  regentctl status
  regentctl status --watch               live, until Ctrl-C
  regentctl status --watch -o json       one document a line, for programs")]
pub(crate) struct Status {
    /// Show it again whenever it changes.
    #[arg(short, long)]
    watch: bool,
    /// With --watch: show it at least so often.
    #[arg(long, default_value = "1s", value_parser = Span::parse, value_name = "TIME")]
    interval: Span,
    #[command(flatten)]
    output: OutputArg,
}

impl Status {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        if self.watch {
            return self.follow(connection).await;
        }
        let answer = connection
            .best(
                |mut services| async move { services.cluster.status(wire::StatusRequest {}).await },
                |answer: &wire::StatusResponse| {
                    answer.status.as_ref().and_then(|status| status.view.as_ref()).is_some_and(|view| view.quorum)
                },
            )
            .await?;
        self.output
            .output
            .print("StatusResponse", &answer, |answer| answer.status.as_ref().map(text).unwrap_or_default())
    }

    async fn follow(self, connection: &Connection) -> Result<(), Failure> {
        let millis = self.interval.millis();
        let interval = Duration {
            seconds: i64::try_from(millis / 1_000).unwrap_or(i64::MAX),
            nanos: i32::try_from(millis % 1_000 * 1_000_000).unwrap_or(0),
        };
        let request = wire::ClusterServiceWatchRequest { interval: Some(interval) };
        let terminal = std::io::stdout().is_terminal();
        let mut shown = String::new();
        // A coordinator that goes away is replaced by the next one; only when none answers it is a failure.
        loop {
            let mut stream =
                connection.call(|mut services| async move { services.cluster.watch(request).await }).await?;
            while let Ok(Some(answer)) = stream.message().await {
                let Some(status) = &answer.status else { continue };
                if let Some(document) = self.output.output.stream("ClusterServiceWatchResponse", &answer)? {
                    say(&document);
                    continue;
                }
                let text = text(status);
                if terminal {
                    // Home, then each line to its end, then everything below: no flicker.
                    let lines = text.trim_end().replace('\n', "\x1b[K\n");
                    print!("\x1b[H{lines}\x1b[K\x1b[J");
                    say("");
                } else if text != shown {
                    say(&text);
                    say("");
                }
                shown = text;
            }
            breathe().await;
        }
    }
}

/// Everything at a glance.
fn text(status: &wire::Status) -> String {
    let mut text = String::new();
    if let Some(view) = &status.view {
        let _ = writeln!(text, "{}", headline(view));
    }
    if let Some(paused) = &status.paused {
        let _ = writeln!(
            text,
            "PAUSED, everything: by {} at {}: {}",
            paused.by,
            words::time(paused.at.as_ref()),
            paused.reason
        );
    }
    if !status.frozen.is_empty() {
        let clusters = status.frozen.join(", ");
        let _ = writeln!(
            text,
            "FROZEN: {clusters} looked lost at once; nothing happens by itself until that is over or `regentctl ack --all`"
        );
    }
    let _ = write!(text, "\nCOORDINATORS\n{}", members::table(&status.coordinators));
    let _ = write!(text, "\nCLUSTERS, as each coordinator sees them\n{}", matrix(status));
    let _ = writeln!(text, "\nAPPLICATIONS\n{}", get::table(&status.applications).trim_end());
    for application in &status.applications {
        let _ = write!(text, "\n{}\n{}", application.name.to_uppercase(), describe::placements(application));
        if let Some(advice) = application.advice.as_ref().filter(|advice| advice.state != "steady") {
            let _ = writeln!(text, "Next ({}): {}", advice.state, advice.next);
        }
    }
    if !status.runs.is_empty() {
        let _ = write!(text, "\nRUNS\n{}", runs::table(&status.runs));
        for run in status.runs.iter().filter(|run| run.ended.is_none()) {
            let _ = write!(text, "\nRUN {}\n{}", run.id, runs::steps(run));
        }
    }
    text
}

fn headline(view: &wire::View) -> String {
    let group = if view.quorum {
        format!("The group has a quorum; coordinator {} leads (term {}).", view.leader, view.term)
    } else {
        "NO QUORUM: nothing is decided and nothing can be changed.".to_owned()
    };
    let notice = if view.notice.is_empty() { String::new() } else { format!("\n{}", view.notice) };
    format!("{group} Seen by coordinator {} at {}.{notice}", view.coordinator, words::time(view.at.as_ref()))
}

/// Clusters × observers.
fn matrix(status: &wire::Status) -> String {
    let observers: Vec<String> = status
        .clusters
        .first()
        .map(|cluster| {
            cluster
                .sights
                .iter()
                .map(|sight| {
                    let region = if sight.region.is_empty() { String::new() } else { format!(" ({})", sight.region) };
                    format!("COORDINATOR {}{region}", sight.observer)
                })
                .collect()
        })
        .unwrap_or_default();
    let mut headings = vec!["CLUSTER", "REGION", "AGENT"];
    headings.extend(observers.iter().map(String::as_str));
    let mut table = Table::new(&headings);
    for cluster in &status.clusters {
        let agent = if cluster.registered { "registered" } else { "never registered" };
        let mut cells = vec![cluster.name.clone(), cluster.region.clone(), agent.to_owned()];
        cells.extend(cluster.sights.iter().map(words::sight));
        table.row(cells);
    }
    if table.is_empty() {
        "No agent has registered, and no application names a cluster.\n".to_owned()
    } else {
        table.to_string()
    }
}
