//! `regentctl rejoin`.

use clap::Args;
use regent_proto::operator::v1 as wire;

use super::runs;
use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::{Output, say};

/// Takes a cluster back: its databases follow the primary, and it is a candidate again.
#[derive(Args)]
#[command(after_help = "\
Each database is rewound to where its history parts from the primary's: writes that the primary never got are gone from
it. What cannot be rewound (another history, as that of a Redis that was killed) is refused with rejoin-needs-reclone or
rewind-failed; with --reclone it is replaced by a fresh copy, and the old data is set aside beside it.

The command follows the run: exit code 0 when the cluster is a standby again, 5 as soon as a step is stuck.

Examples:
  regentctl rejoin shop eu-west-1
  regentctl rejoin shop eu-west-1 --reclone
  regentctl rejoin shop eu-west-1 --detach     begin it, and follow it later: regentctl runs RUN --watch")]
pub(crate) struct Rejoin {
    /// Which application.
    application: String,
    /// Which cluster.
    cluster: String,
    /// A fresh copy may replace what cannot follow as it is.
    #[arg(long)]
    reclone: bool,
    /// Do not wait for the end.
    #[arg(long)]
    detach: bool,
}

impl Rejoin {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let request = wire::RejoinRequest {
            request_id: request_id(),
            application: self.application.clone(),
            cluster: self.cluster.clone(),
            reclone: self.reclone,
        };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.cluster.rejoin(request).await }
            })
            .await?;
        say(&format!("{} is taken back by run {} of {}", self.cluster, answer.run, self.application));
        if self.detach {
            return Ok(());
        }
        runs::follow(connection, answer.run, Output::Table).await
    }
}
