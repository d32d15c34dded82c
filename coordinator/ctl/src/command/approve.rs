//! `regentctl approve`.

use clap::Args;
use regent_proto::operator::v1 as wire;

use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::say;

/// Answers yes to the question of an `approve` step, so that its run goes on.
#[derive(Args)]
#[command(after_help = "\
`regentctl runs RUN` shows which step asks, and what. Silence is no yes: at the step's time-out its onFailure counts, by
default stuck, and it can still be approved then. The audit says who approved, and why.

Examples:
  regentctl approve 4711 3 --reason 'the bank has switched its allow list'")]
pub(crate) struct Approve {
    /// Which run.
    run: u64,
    /// Which step, by its number.
    step: u64,
    /// Why it may go on.
    #[arg(long)]
    reason: String,
}

impl Approve {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let request = wire::ApproveRequest {
            request_id: request_id(),
            run: self.run,
            step: self.step,
            reason: self.reason.clone(),
        };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.runs.approve(request).await }
            })
            .await?;
        say(&format!("step {} of run {} is approved (log index {})", self.step, self.run, answer.index));
        Ok(())
    }
}
