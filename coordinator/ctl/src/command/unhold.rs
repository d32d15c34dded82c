//! `regentctl unhold`.

use clap::Args;
use regent_proto::operator::v1 as wire;

use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::say;

/// Lets planned moves of an application start again.
#[derive(Args)]
#[command(after_help = "\
Examples:
  regentctl unhold shop")]
pub(crate) struct Unhold {
    /// Which application.
    application: String,
}

impl Unhold {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let request = wire::UnholdRequest { request_id: request_id(), application: self.application.clone() };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.runs.unhold(request).await }
            })
            .await?;
        say(&format!("{} is not held any more (log index {})", self.application, answer.index));
        Ok(())
    }
}
