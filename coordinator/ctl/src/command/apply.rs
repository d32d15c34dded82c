//! `regentctl apply`.

use std::fmt::Write;

use clap::Args;
use regent_proto::operator::v1 as wire;

use super::validate::{check, read};
use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::OutputArg;
use crate::table::Table;

/// Gives a new or changed Application document to the group.
#[derive(Args)]
#[command(after_help = "\
A new application adopts the roles that are found in its databases; nothing is promoted or stopped. A document that is
applied again changes only what it says. One that would move a primary is refused (exit code 3).

Examples:
  regentctl apply -f shop.yaml --dry-run     show what it would change
  regentctl apply -f shop.yaml
  cat shop.yaml | regentctl apply -f -")]
pub(crate) struct Apply {
    /// The document; - is the standard input.
    #[arg(short, long, value_name = "FILE")]
    file: String,
    /// Show what it would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArg,
}

impl Apply {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let document = read(&self.file)?;
        check(&self.file, &document)?;
        let request = wire::ApplyRequest { request_id: request_id(), document, dry_run: self.dry_run };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.applications.apply(request).await }
            })
            .await?;
        self.output.output.print("ApplyResponse", &answer, |answer| summary(answer, self.dry_run))
    }
}

fn summary(answer: &wire::ApplyResponse, dry_run: bool) -> String {
    let name = &answer.application;
    let mut text = match (answer.created, answer.changes.is_empty(), dry_run) {
        (true, _, true) => format!("{name} would be created. Its roles would be adopted from its databases."),
        (true, _, false) => format!("{name} is created. Its roles are adopted as soon as all its agents report."),
        (false, true, false) if answer.index != 0 => format!("{name} is applied (revision {}).", answer.revision),
        (false, true, _) => format!("{name} is unchanged (revision {}).", answer.revision),
        (false, false, true) => format!("{name} would change (revision {}):", answer.revision),
        (false, false, false) => format!("{name} is changed (revision {}):", answer.revision),
    };
    if !answer.changes.is_empty() {
        let mut table = Table::new(&["PATH", "BEFORE", "AFTER"]);
        for change in &answer.changes {
            table.row([change.path.clone(), change.before.clone(), change.after.clone()]);
        }
        let _ = write!(text, "\n\n{table}");
    }
    text
}
