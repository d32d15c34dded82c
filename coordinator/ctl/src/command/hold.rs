//! `regentctl hold`.

use clap::Args;
use regent_proto::operator::v1 as wire;

use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::say;

/// Keeps planned moves of an application from starting; a failover starts all the same.
#[derive(Args)]
#[command(after_help = "\
Switchover, failback and rollback are refused (exit code 3, rule held) until `regentctl unhold`. A move that is under way
goes on: `regentctl abort` ends that. To keep failovers from starting, too: `regentctl pause`.

Examples:
  regentctl hold shop --reason 'end of the quarter, until the 3rd'")]
pub(crate) struct Hold {
    /// Which application.
    application: String,
    /// Why; others will read it.
    #[arg(long)]
    reason: String,
}

impl Hold {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let application = self.application.clone();
        let request = wire::HoldRequest { request_id: request_id(), application, reason: self.reason };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.runs.hold(request).await }
            })
            .await?;
        let name = &self.application;
        say(&format!("{name} is held (log index {}); `regentctl unhold {name}` ends it", answer.index));
        Ok(())
    }
}
