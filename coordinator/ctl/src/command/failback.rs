//! `regentctl failback`.

use clap::Args;
use regent_proto::operator::v1 as wire;

use super::runs;
use super::switchover::{Outage, begun};
use crate::connection::{Connection, request_id};
use crate::failure::Failure;

/// Moves an application back to its preferred cluster: the first listed one that is fit.
#[derive(Args)]
#[command(after_help = "\
It is a switchover, with all that `regentctl switchover --help` says of it. `regentctl hold APP` keeps it from starting.

Examples:
  regentctl plan shop --failback
  regentctl failback shop --watch")]
pub(crate) struct Failback {
    /// Which application.
    application: String,
    #[command(flatten)]
    outage: Outage,
    /// Begin exactly the plan that `regentctl plan --failback` showed under this digest, or nothing.
    #[arg(long, value_name = "DIGEST")]
    plan: Option<String>,
    /// Follow the run until it ends.
    #[arg(short, long)]
    watch: bool,
}

impl Failback {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let max_write_outage = self.outage.on_the_wire()?;
        let application = self.application.clone();
        let plan = self.plan.clone().unwrap_or_default();
        let request = wire::FailbackRequest { request_id: request_id(), application, max_write_outage, plan };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.runs.failback(request).await }
            })
            .await?;
        begun(
            &format!("{} goes back to {} by run {}", self.application, answer.to, answer.run),
            answer.run,
            self.watch,
        );
        if self.watch { runs::follow(connection, answer.run, crate::output::Output::Table).await } else { Ok(()) }
    }
}
