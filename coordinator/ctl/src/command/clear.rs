//! `regentctl clear`.

use clap::{ArgGroup, Args};
use regent_proto::operator::v1 as wire;

use super::next;
use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::say;

/// Says what to do with a stuck step: try it again, or take it as done by hand.
#[derive(Args)]
#[command(group(ArgGroup::new("how").required(true).args(["retry", "done"])))]
#[command(after_help = "\
`regentctl runs RUN` shows which step is stuck, why, and what can be said of it. A fence, the opening of a database, a rejoin, a
redirect that the coordinators have not begun and a question are never taken as done by word. Of any other step your word
alone counts: the audit keeps it, with what you say of it.

Examples:
  regentctl clear 4711 --step 3 --retry      try again with a fresh budget of attempts
  regentctl clear 4711 --step 3 --done --reason 'the record was changed at the registrar, and dig shows it'")]
pub(crate) struct Clear {
    /// Which run.
    run: u64,
    /// Which step, by its number.
    #[arg(long)]
    step: u64,
    /// Try again.
    #[arg(long)]
    retry: bool,
    /// It has been done by hand.
    #[arg(long, requires = "reason")]
    done: bool,
    /// What was done, or why it is tried again; others will read it.
    #[arg(long)]
    reason: Option<String>,
}

impl Clear {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let how = if self.done { wire::Clearing::Done } else { wire::Clearing::Retry };
        let request = wire::ClearRequest {
            request_id: request_id(),
            run: self.run,
            step: self.step,
            how: how.into(),
            reason: self.reason.unwrap_or_default(),
        };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.runs.clear(request).await }
            })
            .await?;
        let word = if self.done { "taken as done" } else { "tried again" };
        let next = next(answer.advice.as_ref());
        say(&format!("step {} of run {} is {word} (log index {}){next}", self.step, self.run, answer.index));
        Ok(())
    }
}
