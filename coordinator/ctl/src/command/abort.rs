//! `regentctl abort`.

use clap::Args;
use regent_proto::operator::v1 as wire;

use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::say;

/// Ends a run that is under way, takes back a failover that was ordered, or says no to one that is asked for.
#[derive(Args)]
#[command(after_help = "\
The number of an order, as `regentctl failover` and `describe` show it, takes that order back; of a question of
`mode: approve` it is a no, and the same is not asked again while it is due. Of a run: before the point of no return, what
was done is undone and the old primary serves again. After it the command is refused (exit code 3): the new side may have
acknowledged writes. A run in which only a side still has to follow ends where it is, and that side stays quarantined until
it rejoins: its agent finishes the step that it has begun, and the next `regentctl rejoin` waits for that. After the abort
of an automatic failover the next one waits for the cool-down, or for `regentctl ack`.

Examples:
  regentctl abort 4711 --reason 'the release has to go out first'
  regentctl runs 4711 --watch                where it stands; it ends as undone")]
pub(crate) struct Abort {
    /// Which run, order or question.
    run: u64,
    /// Why; others will read it.
    #[arg(long)]
    reason: String,
}

impl Abort {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let request = wire::AbortRequest { request_id: request_id(), run: self.run, reason: self.reason };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.runs.abort(request).await }
            })
            .await?;
        let advice = answer.advice.unwrap_or_default();
        say(&format!("{}: {} (log index {}): {}", self.run, advice.state, answer.index, advice.next));
        Ok(())
    }
}
