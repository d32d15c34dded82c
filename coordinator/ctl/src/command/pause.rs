//! `regentctl pause`.

use clap::Args;
use regent_proto::operator::v1 as wire;

use super::next;
use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::say;

/// Switches automatic action off: no failover, and no primary fences itself.
#[derive(Args)]
#[command(after_help = "\
Use it before work that Regent would mistake for a disaster. `status` shows who paused what, when and why.

Examples:
  regentctl pause shop --reason 'moving the disks of eu-west-1'
  regentctl pause --all --reason 'network maintenance until 14:00'")]
pub(crate) struct Pause {
    /// Which application.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    application: Option<String>,
    /// Every application.
    #[arg(long)]
    all: bool,
    /// Why; others will read it.
    #[arg(long)]
    reason: String,
}

impl Pause {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let application = self.application.unwrap_or_default();
        let request =
            wire::PauseRequest { request_id: request_id(), application: application.clone(), reason: self.reason };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.cluster.pause(request).await }
            })
            .await?;
        let (what, ends) =
            if application.is_empty() { ("everything", "--all") } else { (application.as_str(), application.as_str()) };
        let next = next(answer.advice.as_ref());
        say(&format!("{what} is paused (log index {}); `regentctl resume {ends}` ends it{next}", answer.index));
        Ok(())
    }
}
