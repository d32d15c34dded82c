//! `regentctl readiness`.

use clap::Args;
use regent_proto::operator::v1 as wire;

use super::notice;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::OutputArg;
use crate::table::Table;
use crate::words;

/// Says what speaks against moving an application, and what will hurt on the day it must be moved.
#[derive(Args)]
#[command(after_help = "\
It is looked at all the time, and changes nothing: lag, replication settings, slots, versions and settings that differ
between the sides, whether a rejoin would reach the other side, backups, certificates, clocks, services, names and checks, and
the age of the last drill. Lag and probes are of this moment; settings, slots and backups are looked at once a minute, so
what is said of them may be a minute old.

  blocker   a switchover is refused now; a failover, which nobody chooses, would go badly
  warning   it will hurt on the day it matters
  info      worth knowing

The exit code is 0 whatever the notes say; with --fail-on it is 3 if there is one as bad as that. Each code has a page in
deploy/runbooks.

Examples:
  regentctl readiness shop
  regentctl readiness shop --fail-on blocker
  regentctl readiness shop -o json")]
pub(crate) struct Readiness {
    /// Which application.
    application: String,
    /// Exit with 3 if there is a note of this severity or a worse one.
    #[arg(long, value_name = "SEVERITY", value_parser = ["blocker", "warning"])]
    fail_on: Option<String>,
    #[command(flatten)]
    output: OutputArg,
}

impl Readiness {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let request = wire::ReadinessRequest { application: self.application.clone() };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.applications.readiness(request).await }
            })
            .await?;
        notice(answer.view.as_ref());
        self.output.output.print("ReadinessResponse", &answer, |answer| text(&answer.notes))?;
        let bad = |severity: wire::Severity| match self.fail_on.as_deref() {
            Some("blocker") => severity == wire::Severity::Blocker,
            Some(_) => matches!(severity, wire::Severity::Blocker | wire::Severity::Warning),
            None => false,
        };
        let worst = answer.notes.iter().find(|note| bad(note.severity()));
        match worst {
            None => Ok(()),
            Some(note) => {
                Err(Failure::refused(format!("{} is not ready: {}: {}", self.application, note.code, note.detail)))
            }
        }
    }
}

/// The notes as a table.
pub(super) fn text(notes: &[wire::ReadinessNote]) -> String {
    if notes.is_empty() {
        return "Nothing speaks against a move.".to_owned();
    }
    let mut table = Table::new(&["SEVERITY", "CODE", "CLUSTER", "RESOURCE", "DETAIL"]);
    for note in notes {
        let (severity, code) = (words::severity(note.severity()), note.code.clone());
        table.row([severity.to_owned(), code, note.cluster.clone(), note.resource.clone(), note.detail.clone()]);
    }
    table.to_string()
}
