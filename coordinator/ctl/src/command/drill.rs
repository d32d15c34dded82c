//! `regentctl drill`.

use clap::Args;
use regent_proto::operator::v1 as wire;

use super::runs;
use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::{Output, say};

/// Rehearses a failover in a standby's cluster, with copies, and cleans up.
#[derive(Args)]
#[command(after_help = "\
The steps are those of the runbook `drill` of the document. `promote` copies the standby's database into a scratch folder of
its own, promotes the copy there and writes to it; `restore` restores the newest backup beside it; `verify` looks at what
was copied. Nothing of the real databases changes: neither roles, epoch, DNS nor slots. A failover does not wait for a
drill; and what a drill has made is taken away at its end in any case, also after a failure or `regentctl abort RUN`.

The report (`regentctl report RUN`) says what each step took, and how long a failover would have taken by that.

With --watch the command follows the run: exit code 0 if all of it went well, 1 if not, 5 as soon as the clean-up is stuck.

Examples:
  regentctl drill shop --watch
  regentctl drill shop --in eu-central-1
  regentctl status                           when which cluster was last drilled")]
pub(crate) struct Drill {
    /// Which application.
    application: String,
    /// In which cluster. Default: the first fit standby in order of preference.
    #[arg(long = "in", value_name = "CLUSTER")]
    cluster: Option<String>,
    /// Follow the run until it ends.
    #[arg(short, long)]
    watch: bool,
}

impl Drill {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let request = wire::DrillRequest {
            request_id: request_id(),
            application: self.application.clone(),
            cluster: self.cluster.clone().unwrap_or_default(),
        };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.runs.drill(request).await }
            })
            .await?;
        say(&format!("A failover of {} is rehearsed in {} by run {}", self.application, answer.cluster, answer.run));
        if self.watch {
            return runs::follow(connection, answer.run, Output::Table).await;
        }
        say(&format!("Follow it: regentctl runs {} --watch", answer.run));
        Ok(())
    }
}
