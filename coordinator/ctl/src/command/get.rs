//! `regentctl get`.

use clap::Args;
use regent_proto::operator::v1 as wire;

use super::notice;
use crate::connection::Connection;
use crate::failure::{Failure, chain};
use crate::output::{Output, OutputArg, say};
use crate::table::Table;
use crate::words;

/// Lists the applications, or prints the document of one.
#[derive(Args)]
#[command(after_help = "\
Examples:
  regentctl get                          all applications
  regentctl get shop -o yaml             its document as it was accepted, with every default written out
  regentctl get -o json                  for programs")]
pub(crate) struct Get {
    /// Which one.
    application: Option<String>,
    /// Take what this coordinator has, without asking for a quorum.
    #[arg(long)]
    stale_ok: bool,
    #[command(flatten)]
    output: OutputArg,
}

impl Get {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let output = self.output.output;
        if let Some(application) = self.application {
            return one(connection, application, self.stale_ok, output).await;
        }
        let request = wire::ApplicationServiceListRequest { stale_ok: self.stale_ok };
        let answer = connection.call(|mut services| async move { services.applications.list(request).await }).await?;
        notice(answer.view.as_ref());
        output.print("ApplicationServiceListResponse", &answer, |answer| table(&answer.applications))
    }
}

async fn one(connection: &Connection, application: String, stale_ok: bool, output: Output) -> Result<(), Failure> {
    let answer = fetch(connection, application, stale_ok).await?;
    notice(answer.view.as_ref());
    match output {
        Output::Table => say(&table(answer.application.as_slice())),
        Output::Yaml => say(&answer.document),
        Output::Json => {
            let unreadable = |error: &dyn std::error::Error| {
                Failure::failed(format!("the document that came back is no YAML: {}", chain(error)))
            };
            let document: serde_json::Value =
                serde_saphyr::from_str(&answer.document).map_err(|error| unreadable(&error))?;
            say(&serde_json::to_string_pretty(&document).map_err(|error| unreadable(&error))?);
        }
    }
    Ok(())
}

/// One application with its document.
pub(super) async fn fetch(
    connection: &Connection,
    application: String,
    stale_ok: bool,
) -> Result<wire::ApplicationServiceGetResponse, Failure> {
    let request = wire::ApplicationServiceGetRequest { application, stale_ok };
    connection
        .call(|mut services| {
            let request = request.clone();
            async move { services.applications.get(request).await }
        })
        .await
}

/// The applications at a glance.
pub(super) fn table(applications: &[wire::Application]) -> String {
    let headings = ["NAME", "PRIMARY", "EPOCH", "MODE", "FAILOVER AFTER", "PROTECTED", "STATE", "REVISION"];
    let mut table = Table::new(&headings);
    for one in applications {
        table.row([
            one.name.clone(),
            one.primary.clone(),
            one.epoch.to_string(),
            one.mode.clone(),
            words::maybe(one.failover_after.as_ref()),
            one.protection.as_ref().map_or("", |found| words::yes(found.protected)).to_owned(),
            state(one),
            one.revision.to_string(),
        ]);
    }
    if table.is_empty() {
        "There are no applications. `regentctl apply -f FILE` makes one.".to_owned()
    } else {
        table.to_string()
    }
}

/// What stands out of one application, most important first.
pub(super) fn state(application: &wire::Application) -> String {
    let mut states = Vec::new();
    if !application.stuck.is_empty() {
        let names: Vec<&str> = application.stuck.iter().map(|stuck| stuck.resource.as_str()).collect();
        states.push(format!("stuck: {}", names.join(", ")));
    }
    if application.run != 0 {
        states.push(format!("run {} under way", application.run));
    }
    if let Some(paused) = &application.paused {
        states.push(format!("paused by {}", paused.by));
    }
    if application.recovering.is_some() {
        states.push("recovering".to_owned());
    } else if application.primary.is_empty() {
        states.push("not adopted yet".to_owned());
    } else if !application.confirmed {
        states.push("newest terms not confirmed".to_owned());
    }
    if let Some(order) = &application.order {
        states.push(format!("failover {}: order {}", words::order(order), order.id));
    }
    if let Some(held) = &application.held {
        states.push(format!("held by {}", held.by));
    }
    if let Some(window) = &application.commit_window {
        states.push(format!("run {} can be rolled back for {}", window.run, words::maybe(window.left.as_ref())));
    }
    if application.cooling_until.is_some() {
        states.push("cooling down".to_owned());
    }
    let count = |severity| application.readiness.iter().filter(|note| note.severity() == severity).count();
    let (blockers, warnings) = (count(wire::Severity::Blocker), count(wire::Severity::Warning));
    if blockers + warnings > 0 {
        states.push(format!("{blockers} blockers, {warnings} warnings"));
    }
    if states.is_empty() { "ready".to_owned() } else { states.join("; ") }
}
