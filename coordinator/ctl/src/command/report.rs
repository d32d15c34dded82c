//! `regentctl report`.

use clap::{Args, ValueEnum};
use regent_proto::operator::v1 as wire;

use super::notice;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::{json, say};
use crate::report::{html, markdown};

/// Reports on a run: what happened, why, how long it took, what was lost, who did what.
#[derive(Args)]
#[command(after_help = "\
The report can be handed on as it is. It tells what is known, and says where something is not.

Examples:
  regentctl report 4711                      Markdown, on the terminal
  regentctl report 4711 -o html > 4711.html  one file, without outside assets
  regentctl report 4711 -o json | jq .report.rto")]
pub(crate) struct ReportCommand {
    /// Which run; `regentctl runs` lists them.
    run: u64,
    /// In which form.
    #[arg(short, long, value_enum, default_value_t = Form::Md)]
    output: Form,
    /// Take what this coordinator has, without asking for a quorum.
    #[arg(long)]
    stale_ok: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    /// Markdown.
    Md,
    /// For programs.
    Json,
    /// For a browser.
    Html,
}

impl ReportCommand {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let request = wire::ReportRequest { run: self.run, stale_ok: self.stale_ok };
        let answer = connection.call(|mut services| async move { services.runs.report(request).await }).await?;
        notice(answer.view.as_ref());
        let report = answer.report.clone().unwrap_or_default();
        let text = match self.output {
            Form::Md => markdown::render(&report),
            Form::Html => html::render(&report),
            Form::Json => json("ReportResponse", &answer)?,
        };
        say(&text);
        Ok(())
    }
}
