//! `regentctl why`.

use std::fmt::Write;

use clap::Args;
use regent_proto::operator::v1 as wire;

use super::notice;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::OutputArg;
use crate::table::Table;
use crate::words;

/// Says why a failover would, or would not, start now; to where; with what loss.
#[derive(Args)]
#[command(after_help = "\
It changes nothing, and is best answered by the leader, which has what all coordinators see; the asked coordinator
passes the question on.

Examples:
  regentctl why shop
  regentctl why shop -o json")]
pub(crate) struct Why {
    /// Which application.
    application: String,
    #[command(flatten)]
    output: OutputArg,
}

impl Why {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let request = wire::ExplainRequest { application: self.application };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.applications.explain(request).await }
            })
            .await?;
        notice(answer.view.as_ref());
        self.output
            .output
            .print("ExplainResponse", &answer, |answer| answer.explanation.as_ref().map(text).unwrap_or_default())
    }
}

fn text(explained: &wire::Explanation) -> String {
    let name = &explained.application;
    let mut text = if explained.would_start {
        format!("A failover of {name} would start now, to {}.\n", explained.target)
    } else {
        format!("A failover of {name} would not start now.\n")
    };
    let primary = if explained.primary.is_empty() { "not adopted yet" } else { &explained.primary };
    let _ = writeln!(text, "\nPrimary:  {primary} (epoch {})", explained.epoch);
    let _ = writeln!(text, "Verdict:  {}", words::verdict(explained.verdict()));
    if let Some(earliest) = &explained.earliest {
        let _ = writeln!(text, "Earliest: in {}, if nothing changes", words::span(earliest));
    }
    if let (None, Some(bound)) = (&explained.earliest, &explained.if_lost_now) {
        let _ = writeln!(text, "Earliest: {} after the primary is last heard", words::span(bound));
    }
    if !explained.target.is_empty() {
        let _ = writeln!(text, "Target:   {}", explained.target);
        let _ = writeln!(text, "Outage:   {} from then on", words::expected(explained.expected.as_ref()));
    }
    for note in &explained.notes {
        let _ =
            writeln!(text, "{:<10}{}: {}", format!("{}:", words::severity(note.severity())), note.code, note.detail);
    }
    if !explained.held_by.is_empty() {
        let mut table = Table::new(&["HELD BY", "BECAUSE"]);
        for rule in &explained.held_by {
            table.row([rule.code.clone(), rule.detail.clone()]);
        }
        let _ = write!(text, "\n{table}");
    }
    if !explained.expected_loss.is_empty() {
        let _ = writeln!(text, "\nExpected loss, by database:");
        for sentence in &explained.expected_loss {
            let _ = writeln!(text, "  {sentence}");
        }
    }
    if !explained.others.is_empty() {
        let mut table = Table::new(&["NO TARGET", "BECAUSE"]);
        for other in &explained.others {
            table.row([other.cluster.clone(), other.reason.clone()]);
        }
        let _ = write!(text, "\n{table}");
    }
    text
}
