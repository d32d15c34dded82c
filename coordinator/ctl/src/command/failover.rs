//! `regentctl failover`.

use clap::Args;
use regent_proto::operator::v1 as wire;

use super::{get, runs};
use crate::connection::{Connection, breathe, request_id};
use crate::failure::Failure;
use crate::output::{Output, say};

/// Orders a failover: away from a primary that is lost, or that is to be left without waiting for it.
#[derive(Args)]
#[command(after_help = "\
For a move without loss while both sides are well, use `regentctl switchover`. A failover goes the first way that is open:
  the primary's agent answers         it is told to fence, and the new side is promoted when it has
  it does not                         by the votes of the coordinators, when failoverAfter has passed
  neither is to be had                only with --attest-primary-off REASON: make sure first that it is off

Refused (exit code 3) if the cluster cannot take over. Beyond maxDataLoss only with --allow-data-loss REASON, which counts
for this one failover and stands in its report and in the audit. If the document says twoPerson: true, both options wait
for another operator (`regentctl approve NUMBER`), for 15 minutes. An order that cannot be carried out expires after as
long; `regentctl abort NUMBER` takes it back. It needs no cool-down to be over, and works in every mode.

Examples:
  regentctl plan shop --failover --to eu-central-1
  regentctl failover shop --to eu-central-1 --watch
  regentctl failover shop --to eu-central-1 --allow-data-loss 'the region burns, agreed with the CTO'
  regentctl failover shop --to eu-central-1 --attest-primary-off 'power cut at 14:03, seen by the site team'")]
pub(crate) struct Failover {
    /// Which application.
    application: String,
    /// To which cluster.
    #[arg(long, value_name = "CLUSTER")]
    to: String,
    /// Why; others will read it.
    #[arg(long)]
    reason: Option<String>,
    /// Allow a loss beyond maxDataLoss, this once, and why.
    #[arg(long, value_name = "REASON")]
    allow_data_loss: Option<String>,
    /// The primary is off for certain, and on what that rests.
    #[arg(long, value_name = "REASON")]
    attest_primary_off: Option<String>,
    /// Wait until it starts, and follow the run until it ends.
    #[arg(short, long)]
    watch: bool,
}

impl Failover {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let request = wire::FailoverRequest {
            request_id: request_id(),
            application: self.application.clone(),
            to: self.to.clone(),
            reason: self.reason.unwrap_or_default(),
            allow_data_loss: self.allow_data_loss.unwrap_or_default(),
            attest_primary_off: self.attest_primary_off.unwrap_or_default(),
        };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.runs.failover(request).await }
            })
            .await?;
        say(&format!(
            "the failover of {} to {} is ordered, order {}: {}",
            self.application, self.to, answer.order, answer.way
        ));
        if answer.asks_second_person {
            say(&format!("it waits for another operator: regentctl approve {} --reason WHY", answer.order));
        }
        if self.watch {
            return follow(connection, &self.application, answer.order).await;
        }
        say(&format!("See what it waits for: regentctl describe {}", self.application));
        Ok(())
    }
}

/// Until a run takes the order along, and then to the end of that.
pub(super) async fn follow(connection: &Connection, application: &str, order: u64) -> Result<(), Failure> {
    let mut told = String::new();
    loop {
        let request = wire::RunServiceListRequest { application: application.to_owned(), stale_ok: false };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.runs.list(request).await }
            })
            .await?;
        let carries = |run: &&wire::Run| run.order.as_ref().is_some_and(|known| known.id == order);
        // One that was undone before it touched anything is followed by another way.
        let stands = get::fetch(connection, application.to_owned(), false).await?.application.and_then(|one| one.order);
        let stands = stands.filter(|known| known.id == order);
        match (answer.runs.iter().find(carries), stands) {
            (Some(run), Some(known)) if known.run == run.id => {
                return runs::follow(connection, run.id, Output::Table).await;
            }
            (Some(run), None) => return runs::follow(connection, run.id, Output::Table).await,
            (None, None) => {
                return Err(Failure::failed(format!(
                    "order {order} ended without a run; `regentctl audit {application}` says why"
                )));
            }
            (Some(_) | None, Some(known)) => {
                if told != known.next {
                    say(&known.next);
                    told = known.next;
                }
            }
        }
        breathe().await;
    }
}
