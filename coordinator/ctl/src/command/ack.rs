//! `regentctl ack`.

use clap::Args;
use regent_proto::operator::v1 as wire;

use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::say;

/// Says that a human has looked: ends a cool-down, or the freeze of everything.
#[derive(Args)]
#[command(after_help = "\
After an automatic failover the next one waits for the cool-down, or for this. When too many clusters looked lost at
once, automatic action is frozen; `--all` lifts that, and the automatic failovers of the last hour count no more
against the limit. The audit says who acknowledged.

Examples:
  regentctl ack shop
  regentctl ack --all")]
pub(crate) struct Ack {
    /// Whose cool-down ends.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    application: Option<String>,
    /// Ends the freeze of everything, and lets the limit of failovers begin anew.
    #[arg(long)]
    all: bool,
}

impl Ack {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let application = self.application.unwrap_or_default();
        let request = wire::AcknowledgeRequest { request_id: request_id(), application: application.clone() };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.cluster.acknowledge(request).await }
            })
            .await?;
        let what = if application.is_empty() {
            "the freeze is lifted".to_owned()
        } else {
            format!("{application} is acknowledged")
        };
        say(&format!("{what} (log index {})", answer.index));
        Ok(())
    }
}
