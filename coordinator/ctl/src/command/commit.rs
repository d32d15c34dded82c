//! `regentctl commit`.

use clap::Args;
use regent_proto::operator::v1 as wire;

use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::say;

/// Makes the last switchover stand: it cannot be rolled back any more.
#[derive(Args)]
#[command(after_help = "\
When the time that automation.commitWithin gives has passed, it is committed by itself. To move the application back
after that: `regentctl switchover` or `regentctl failback`.

Examples:
  regentctl commit shop")]
pub(crate) struct Commit {
    /// Which application.
    application: String,
}

impl Commit {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let request = wire::CommitRequest { request_id: request_id(), application: self.application.clone() };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.runs.commit(request).await }
            })
            .await?;
        say(&format!("run {} of {} is committed (log index {})", answer.run, self.application, answer.index));
        Ok(())
    }
}
