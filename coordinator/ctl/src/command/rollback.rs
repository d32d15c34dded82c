//! `regentctl rollback`.

use clap::Args;
use regent_proto::operator::v1 as wire;

use super::runs;
use super::switchover::{Outage, begun};
use crate::connection::{Connection, request_id};
use crate::failure::Failure;

/// Rolls the last switchover back, while its commit window is open.
#[derive(Args)]
#[command(after_help = "\
The document opens the window with automation.commitWithin. A rollback is a switchover back, with the same guarantees: no
write is lost, and up to the point of no return it is undone if it cannot be done in time. `describe` shows how long the
window is still open; `regentctl commit`, the next move or a failover close it.

Examples:
  regentctl plan shop --rollback
  regentctl rollback shop --watch")]
pub(crate) struct Rollback {
    /// Which application.
    application: String,
    #[command(flatten)]
    outage: Outage,
    /// Begin exactly the plan that `regentctl plan --rollback` showed under this digest, or nothing.
    #[arg(long, value_name = "DIGEST")]
    plan: Option<String>,
    /// Follow the run until it ends.
    #[arg(short, long)]
    watch: bool,
}

impl Rollback {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let max_write_outage = self.outage.on_the_wire()?;
        let application = self.application.clone();
        let plan = self.plan.clone().unwrap_or_default();
        let request = wire::RollbackRequest { request_id: request_id(), application, max_write_outage, plan };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.runs.rollback(request).await }
            })
            .await?;
        begun(
            &format!("{} is rolled back to {} by run {}", self.application, answer.to, answer.run),
            answer.run,
            self.watch,
        );
        if self.watch { runs::follow(connection, answer.run, crate::output::Output::Table).await } else { Ok(()) }
    }
}
