//! `regentctl audit`.

use clap::Args;
use regent_proto::operator::v1 as wire;

use super::notice;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::OutputArg;
use crate::table::Table;
use crate::words;

/// Shows what was decided, voted, refused and commanded, and by whom.
#[derive(Args)]
#[command(after_help = "\
Examples:
  regentctl audit                        the newest 100 records
  regentctl audit shop --limit 1000 -o json
  regentctl audit --after 4711           only what came later than that log index")]
pub(crate) struct Audit {
    /// Only of this application.
    application: Option<String>,
    /// At most so many, the newest.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Only above this log index.
    #[arg(long, default_value_t = 0)]
    after: u64,
    /// Take what this coordinator has, without asking for a quorum.
    #[arg(long)]
    stale_ok: bool,
    #[command(flatten)]
    output: OutputArg,
}

impl Audit {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let request = wire::AuditServiceListRequest {
            application: self.application.unwrap_or_default(),
            after: self.after,
            limit: self.limit,
            stale_ok: self.stale_ok,
        };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.audit.list(request).await }
            })
            .await?;
        notice(answer.view.as_ref());
        self.output.output.print("AuditServiceListResponse", &answer, |answer| table(&answer.records))
    }
}

pub(crate) fn table(records: &[wire::AuditRecord]) -> String {
    let mut table = Table::new(&["INDEX", "TIME", "EVENT", "APPLICATION", "RUN", "ACTOR", "DETAIL"]);
    for record in records {
        table.row([
            record.index.to_string(),
            words::time(record.at.as_ref()),
            record.event.clone(),
            record.application.clone(),
            if record.run == 0 { String::new() } else { record.run.to_string() },
            record.actor.clone(),
            record.detail.clone(),
        ]);
    }
    if table.is_empty() { "Nothing is recorded.".to_owned() } else { table.to_string() }
}
