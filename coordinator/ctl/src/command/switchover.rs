//! `regentctl switchover`.

use std::time::Duration;

use clap::Args;
use regent_core::time::Span;
use regent_proto::operator::v1 as wire;

use super::{notice, runs};
use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::{Output, say};

/// Moves an application to another cluster, both sides being well, without losing a write.
#[derive(Args)]
#[command(after_help = "\
The steps are those of the runbook `switchover` of the document. Before anything is touched both sides are looked at; if
one is not ready the command is refused (exit code 3) and names the rule. Then the old side takes no more writes, the new
one catches up to its last position, and only then the primary is changed. If that cannot be done within
--max-write-outage, everything is undone and the old primary serves again.

With --watch the command follows the run: exit code 0 when the old side follows the new one, 1 if it was undone, 5 as
soon as a step is stuck.

Examples:
  regentctl plan shop                            the steps, what is expected of them, and every note
  regentctl switchover shop --dry-run            whether it could start now, and to where
  regentctl switchover shop --watch
  regentctl switchover shop --to eu-central-1 --max-write-outage 10s --watch")]
pub(crate) struct Switchover {
    /// Which application.
    application: String,
    /// To which cluster. Default: the first fit one in order of preference.
    #[arg(long, value_name = "CLUSTER")]
    to: Option<String>,
    #[command(flatten)]
    outage: Outage,
    /// Begin exactly the plan that `regentctl plan` showed under this digest, or nothing.
    #[arg(long, value_name = "DIGEST", conflicts_with = "dry_run")]
    plan: Option<String>,
    /// Say whether it could start now; change nothing.
    #[arg(long, conflicts_with_all = ["watch", "max_write_outage"])]
    dry_run: bool,
    /// Follow the run until it ends.
    #[arg(short, long)]
    watch: bool,
}

/// How long writes may be kept out.
#[derive(Args)]
pub(super) struct Outage {
    /// Undone if it is not decided so long after writes were first kept out. Default: maxWriteOutage of the document.
    #[arg(long, value_name = "TIME", value_parser = span)]
    max_write_outage: Option<Duration>,
}

impl Outage {
    pub(super) fn on_the_wire(&self) -> Result<Option<prost_types::Duration>, Failure> {
        match self.max_write_outage.map(prost_types::Duration::try_from) {
            None => Ok(None),
            Some(Ok(span)) => Ok(Some(span)),
            Some(Err(_)) => Err(Failure::usage("--max-write-outage is too long")),
        }
    }
}

/// Says that a run has begun, and how it is followed.
pub(super) fn begun(what: &str, run: u64, watched: bool) {
    say(what);
    if !watched {
        say(&format!("Follow it: regentctl runs {run} --watch"));
    }
}

impl Switchover {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let to = self.to.clone().unwrap_or_default();
        if self.dry_run {
            return preflight(connection, self.application, to).await;
        }
        let max_write_outage = self.outage.on_the_wire()?;
        let request = wire::SwitchoverRequest {
            request_id: request_id(),
            application: self.application.clone(),
            to,
            max_write_outage,
            plan: self.plan.clone().unwrap_or_default(),
        };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.runs.switchover(request).await }
            })
            .await?;
        begun(
            &format!("{} is switched over to {} by run {}", self.application, answer.to, answer.run),
            answer.run,
            self.watch,
        );
        if self.watch { runs::follow(connection, answer.run, Output::Table).await } else { Ok(()) }
    }
}

async fn preflight(connection: &Connection, application: String, to: String) -> Result<(), Failure> {
    let request = wire::PreflightRequest { application, to };
    let answer = connection
        .call(|mut services| {
            let request = request.clone();
            async move { services.runs.preflight(request).await }
        })
        .await?;
    notice(answer.view.as_ref());
    if let Some(refusal) = answer.refusal {
        return Err(Failure::refused(format!(
            "refused by the rule {}: {}\nSee deploy/runbooks/{}.md.",
            refusal.code, refusal.detail, refusal.code
        )));
    }
    say(&format!("{} could be switched over to {} now", request.application, answer.to));
    for line in answer.lag {
        say(&format!("  {line} behind"));
    }
    Ok(())
}

fn span(text: &str) -> Result<Duration, String> {
    let span = Span::parse(text).map_err(|error| error.to_string())?;
    Ok(Duration::from_millis(span.millis()))
}
