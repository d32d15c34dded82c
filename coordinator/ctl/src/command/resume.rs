//! `regentctl resume`.

use clap::Args;
use regent_proto::operator::v1 as wire;

use super::next;
use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::say;

/// Ends a pause.
#[derive(Args)]
#[command(after_help = "\
The pause of one application and the pause of everything are two; each is ended by itself.

Examples:
  regentctl resume shop
  regentctl resume --all")]
pub(crate) struct Resume {
    /// Which application.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    application: Option<String>,
    /// The pause of everything.
    #[arg(long)]
    all: bool,
}

impl Resume {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let application = self.application.unwrap_or_default();
        let request = wire::ResumeRequest { request_id: request_id(), application: application.clone() };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.cluster.resume(request).await }
            })
            .await?;
        let what = if application.is_empty() { "everything" } else { &application };
        say(&format!("{what} is resumed (log index {}){}", answer.index, next(answer.advice.as_ref())));
        Ok(())
    }
}
