//! `regentctl approve`.

use clap::Args;
use regent_proto::operator::v1 as wire;

use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::say;

/// Says yes: to the question of an `approve` step, to a failover that is due, or to one that another operator ordered.
#[derive(Args)]
#[command(after_help = "\
`regentctl runs RUN` shows which step asks, and what; `regentctl describe APP` shows a failover that asks. Silence is no yes:
at the time-out of a step its onFailure counts; a failover that is due (mode: approve) does not start after approveWithin,
unless the document says onSilence: proceed. A late yes still counts. An order that wants a second person (twoPerson: true)
expires, and whoever gave it cannot confirm it. The audit says who approved, and why.

Examples:
  regentctl approve 4711 3 --reason 'the bank has switched its allow list'     step 3 of run 4711
  regentctl approve shop --reason 'yes, eu-west-1 is down'                     the failover that shop asks for
  regentctl approve 4712 --reason 'agreed by phone with ann'                   order 4712 of another operator")]
pub(crate) struct Approve {
    /// A run with a step, an order by its number, or an application.
    what: String,
    /// Which step of the run, by its number.
    step: Option<u64>,
    /// Why it may go on; others will read it.
    #[arg(long)]
    reason: String,
}

impl Approve {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let number: Option<u64> = self.what.parse().ok();
        let mut request =
            wire::ApproveRequest { request_id: request_id(), reason: self.reason, ..wire::ApproveRequest::default() };
        let said = match (number, self.step) {
            (Some(run), Some(step)) => {
                (request.run, request.step) = (run, step);
                format!("step {step} of run {run} is approved")
            }
            (Some(order), None) => {
                request.order = order;
                format!("order {order} is approved")
            }
            (None, None) => {
                request.application.clone_from(&self.what);
                format!("the failover of {} is approved", self.what)
            }
            (None, Some(_)) => return Err(Failure::usage("a step belongs to a run: give the run by its number")),
        };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.runs.approve(request).await }
            })
            .await?;
        say(&format!("{said} (log index {})", answer.index));
        Ok(())
    }
}
