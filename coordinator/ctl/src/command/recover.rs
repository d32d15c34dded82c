//! `regentctl recover`.

use clap::{ArgGroup, Args};
use regent_proto::operator::v1 as wire;

use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::say;

/// After a restoration: says what the agents cannot say.
#[derive(Args)]
#[command(group(ArgGroup::new("word").required(true).args(["database_off", "primary"])))]
#[command(after_help = "\
A restored group waits for the agents of all clusters of an application; `regentctl why APP` names those that are missing.
If one is lost, its databases must be off, seen by a human: a database that still runs and is believed off is a second
writer. The word is audited under your name.

Which cluster goes on is asked only where the agents leave it open: two were stored as primaries of one epoch (look at
both databases), or the primary is attested to be off.

Examples:
  regentctl recover shop --database-off eu-west-1 --reason 'the region is dark, its volumes are detached'
  regentctl recover shop --primary eu-central-1 --reason 'it has the newer orders'")]
pub(crate) struct Recover {
    /// Which application.
    application: String,
    /// The databases of this cluster are off.
    #[arg(long, value_name = "CLUSTER")]
    database_off: Option<String>,
    /// This cluster goes on as primary.
    #[arg(long, value_name = "CLUSTER")]
    primary: Option<String>,
    /// How that is known; audited.
    #[arg(long)]
    reason: String,
}

impl Recover {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let request = wire::RecoverRequest {
            request_id: request_id(),
            application: self.application.clone(),
            database_off: self.database_off.unwrap_or_default(),
            primary: self.primary.unwrap_or_default(),
            reason: self.reason,
        };
        connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.cluster.recover(request).await }
            })
            .await?;
        say(&format!("noted; `regentctl why {}` says what is still missing", self.application));
        Ok(())
    }
}
