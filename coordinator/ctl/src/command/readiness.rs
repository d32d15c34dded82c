//! `regentctl readiness`.

use std::time::Duration;

use clap::Args;
use regent_proto::operator::v1 as wire;
use regent_proto::operator::v1::look_anew_response::Body;

use super::notice;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::OutputArg;
use crate::table::Table;
use crate::words;

/// Between two words of a coordinator there is at most the wait for the slowest agent.
const WITHIN: Duration = Duration::from_secs(40);

/// Says what speaks against moving an application, and what will hurt on the day it must be moved.
#[derive(Args)]
#[command(after_help = "\
It is looked at all the time, and changes nothing: lag, replication settings, slots, versions and settings that differ
between the sides, whether a rejoin would reach the other side, backups, certificates, clocks, services, names and checks, and
the age of the last drill. Lag and probes are of this moment; settings, rights, slots and backups are looked at once a
minute. AGE says how old the word of an agent is that a note rests on; where it is a dash, the note rests on the document or
on what the group has agreed on.

With --now the agents of all clusters look at everything anew first, which is what to do after something was mended. It is
as harmless: they look, and change nothing. What each has answered is told on stderr as it comes; one that has not answered
within 30 s is named, and what is said of its cluster is as old as AGE says. One look at a time is under way at an agent:
who asks meanwhile waits for it, and for the next, so nobody is answered by what was seen before he asked. Probes are not
hastened, since how many fail in a row decides something: they come by themselves, every second or so.

  blocker   a switchover is refused now; a failover, which nobody chooses, would go badly
  warning   it will hurt on the day it matters
  info      worth knowing

The exit code is 0 whatever the notes say; with --fail-on it is 3 if there is one as bad as that. Each code has a page in
deploy/runbooks.

Examples:
  regentctl readiness shop
  regentctl readiness shop --now         after a right was granted: is the note gone?
  regentctl readiness shop --fail-on blocker
  regentctl readiness shop -o json")]
pub(crate) struct Readiness {
    /// Which application.
    application: String,
    /// Exit with 3 if there is a note of this severity or a worse one.
    #[arg(long, value_name = "SEVERITY", value_parser = ["blocker", "warning"])]
    fail_on: Option<String>,
    /// Have every agent look anew first, and wait for it up to 30 s.
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    output: OutputArg,
}

impl Readiness {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let answer = if self.now {
            anew(connection, &self.application).await?
        } else {
            let request = wire::ReadinessRequest { application: self.application.clone() };
            connection
                .call(|mut services| {
                    let request = request.clone();
                    async move { services.applications.readiness(request).await }
                })
                .await?
        };
        notice(answer.view.as_ref());
        self.output.output.print("ReadinessResponse", &answer, |answer| text(&answer.notes))?;
        let bad = |severity: wire::Severity| match self.fail_on.as_deref() {
            Some("blocker") => severity == wire::Severity::Blocker,
            Some(_) => matches!(severity, wire::Severity::Blocker | wire::Severity::Warning),
            None => false,
        };
        let worst = answer.notes.iter().find(|note| bad(note.severity()));
        match worst {
            None => Ok(()),
            Some(note) => {
                Err(Failure::refused(format!("{} is not ready: {}: {}", self.application, note.code, note.detail)))
            }
        }
    }
}

/// After every agent has looked anew, or has not answered; each is told of as it becomes known.
async fn anew(connection: &Connection, application: &str) -> Result<wire::ReadinessResponse, Failure> {
    let request = wire::LookAnewRequest { application: application.to_owned() };
    let mut answers = connection
        .call(|mut services| {
            let request = request.clone();
            async move { services.applications.look_anew(request).await }
        })
        .await?;
    loop {
        let next = tokio::time::timeout(WITHIN, answers.message()).await;
        let next = next.map_err(|_| Failure::failed(format!("the coordinator says nothing more for {WITHIN:?}")))??;
        match next.and_then(|answer| answer.body) {
            Some(Body::Look(look)) => eprintln!("{}", told(&look)),
            Some(Body::Readiness(readiness)) => return Ok(readiness),
            None => return Err(Failure::failed("the coordinator ended its answer early; try again")),
        }
    }
}

fn told(look: &wire::AgentLook) -> String {
    let took = words::maybe(look.took.as_ref());
    let oldest = look.age.as_ref().map(|age| format!("; the oldest look there is of {} ago", words::span(age)));
    let oldest = oldest.unwrap_or_default();
    if look.problem.is_empty() {
        format!("{}: looked anew, answered after {took}{oldest}", look.cluster)
    } else {
        format!("{}: NOT looked anew: {}{oldest}", look.cluster, look.problem)
    }
}

/// The notes as a table.
pub(super) fn text(notes: &[wire::ReadinessNote]) -> String {
    if notes.is_empty() {
        return "Nothing speaks against a move.".to_owned();
    }
    let mut table = Table::new(&["SEVERITY", "CODE", "CLUSTER", "RESOURCE", "AGE", "DETAIL"]);
    for note in notes {
        let (severity, code) = (words::severity(note.severity()), note.code.clone());
        let (cluster, resource, age) = (note.cluster.clone(), note.resource.clone(), words::maybe(note.age.as_ref()));
        table.row([severity.to_owned(), code, cluster, resource, age, note.detail.clone()]);
    }
    table.to_string()
}
