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
it. What cannot be rewound (another history, as that of a Redis that was killed or has more than the primary) is refused
with rejoin-needs-reclone, rejoin-diverged or rewind-failed; with --reclone it is replaced by a fresh copy, and the old
data is set aside beside it.

With --installation the agent's data directory is gone for good: the new installation that the agent's log names takes the
place of the registered one. The cluster must be primary nowhere, its old agent voted lost, and failoverAfter have passed
since it was last heard (installation-primary, installation-heard). Where several applications list the cluster, it is
quarantined in all of them: rejoin it in the others as usual.

The command follows the run: exit code 0 when the cluster is a standby again, 5 as soon as a step is stuck.

Examples:
  regentctl rejoin shop eu-west-1
  regentctl rejoin shop eu-west-1 --reclone
  regentctl rejoin shop eu-west-1 --installation 4f1c0c9e   after the agent's disk was lost
  regentctl rejoin shop eu-west-1 --detach     begin it, and follow it later: regentctl runs RUN --watch")]
pub(crate) struct Rejoin {
    /// Which application.
    application: String,
    /// Which cluster.
    cluster: String,
    /// A fresh copy may replace what cannot follow as it is.
    #[arg(long)]
    reclone: bool,
    /// The new installation of its agent takes the place of the registered one, which is gone for good.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    installation: String,
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
            installation: self.installation.clone(),
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
