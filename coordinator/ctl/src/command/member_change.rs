//! `regentctl members add` and `regentctl members remove`.

use std::fmt::Write;
use std::time::{Duration, Instant};

use clap::Args;
use regent_core::time::Span;
use regent_proto::operator::v1 as wire;

use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::say;

/// Between two looks at a change that is followed.
const AGAIN: Duration = Duration::from_millis(300);

/// Takes a coordinator in: it catches up, is heard by the agents, and then votes.
#[derive(Args)]
#[command(after_help = "\
The new coordinator runs already, with an empty data directory, `join: true` in its coordinator.yaml and an id that was
never used in this group. The others need not know it beforehand; agents are told where it is.

Members change one at a time: until every primary's agent has confirmed terms with the present coordinators the next
change is refused (voters-unconfirmed), because an agent that is cut off counts by those it last heard of. --override
begins it all the same; the reason is audited. A failover by votes then needs a majority of the older ones, too.

To replace a coordinator: remove the lost one first, then add the new one.

Examples:
  regentctl members add 4 --address 10.0.3.10:7101
  regentctl members add 4 --address 10.0.3.10:7101 --detach     begin it; `regentctl members` says how far it is")]
pub(crate) struct Add {
    /// Its id, never used before.
    id: u64,
    /// host:port by which the other coordinators and the agents reach its gRPC server.
    #[arg(long, value_name = "HOST:PORT")]
    address: String,
    #[command(flatten)]
    how: How,
}

/// Takes a coordinator out for good: its id is used up.
#[derive(Args)]
#[command(after_help = "\
End the coordinator's process when this is done: it is told nothing any more, and what it still answers grows old. Its
data directory is of no more use; who comes back comes as a new member, with an empty one and another id.

The rules are those of `regentctl members add --help`. An addition that is under way is taken back by removing its id.

Examples:
  regentctl members remove 3
  regentctl members remove 3 --override 'the primary cannot be reached, and coordinator 3 is gone'")]
pub(crate) struct Remove {
    /// Its id.
    id: u64,
    #[command(flatten)]
    how: How,
}

#[derive(Args)]
struct How {
    /// Begin it though an agent has not confirmed the present coordinators; the reason is audited.
    #[arg(long = "override", value_name = "REASON")]
    override_reason: Option<String>,
    /// Do not wait for the end.
    #[arg(long)]
    detach: bool,
    /// How long the end is waited for; the change goes on after that.
    #[arg(long, default_value = "2m", value_parser = span, value_name = "TIME")]
    wait: Span,
}

fn span(text: &str) -> Result<Span, String> {
    Span::parse(text).map_err(|error| error.to_string())
}

impl Add {
    pub(super) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let request = wire::AddMemberRequest {
            request_id: request_id(),
            id: self.id,
            address: self.address,
            override_reason: self.how.override_reason.clone().unwrap_or_default(),
        };
        connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.cluster.add_member(request).await }
            })
            .await?;
        say(&format!("coordinator {} is being added", self.id));
        self.how.follow(connection, self.id, true).await
    }
}

impl Remove {
    pub(super) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let request = wire::RemoveMemberRequest {
            request_id: request_id(),
            id: self.id,
            override_reason: self.how.override_reason.clone().unwrap_or_default(),
        };
        connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.cluster.remove_member(request).await }
            })
            .await?;
        say(&format!("coordinator {} is being removed", self.id));
        self.how.follow(connection, self.id, false).await
    }
}

impl How {
    async fn follow(&self, connection: &Connection, id: u64, added: bool) -> Result<(), Failure> {
        if self.detach {
            return Ok(());
        }
        let begun = Instant::now();
        let patience = Duration::from_millis(self.wait.millis());
        let mut said = String::new();
        loop {
            let request = wire::MembersRequest { stale_ok: false };
            // Leadership may change hands in between: then nothing is known for a moment.
            let answer = connection.call(|mut services| async move { services.cluster.members(request).await }).await;
            let mut last = None;
            match answer {
                Ok(answer) if answer.changing.is_none() => return ended(&answer, id, added),
                Ok(answer) => {
                    let waits = answer.changing.and_then(|change| change.awaits).map(|rule| rule.detail);
                    let waits = waits.unwrap_or_default();
                    if !waits.is_empty() && waits != said {
                        say(&format!("waits: {waits}"));
                        said = waits;
                    }
                }
                Err(failure) => last = Some(failure),
            }
            if begun.elapsed() >= patience {
                return Err(last.unwrap_or_else(|| {
                    Failure::failed(format!(
                        "it has not ended within {}, and goes on; `regentctl members` says what it waits for, and \
                         `regentctl members remove {id}` takes an addition back",
                        self.wait
                    ))
                }));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

fn ended(answer: &wire::MembersResponse, id: u64, added: bool) -> Result<(), Failure> {
    let votes = answer.coordinators.iter().any(|one| one.id == id && one.voter);
    if votes != added {
        return Err(Failure::failed(format!("the change was taken back: coordinator {id} is as it was")));
    }
    say(&if added {
        format!("coordinator {id} votes")
    } else {
        format!("coordinator {id} belongs to the group no more; end its process")
    });
    Ok(())
}

/// What people read of a change that is under way, and of what the next one waits for.
pub(super) fn changes(answer: &wire::MembersResponse) -> String {
    let mut text = String::new();
    if let Some(change) = &answer.changing {
        let what = if change.address.is_empty() { "removed" } else { "added" };
        let _ = write!(text, "\nCoordinator {} is being {what}", change.id);
        let _ = match &change.awaits {
            Some(rule) => writeln!(text, "; waits: {}", rule.detail),
            None => writeln!(text, "."),
        };
    }
    if !answer.unconfirmed.is_empty() {
        let names = answer.unconfirmed.join(", ");
        let _ = writeln!(text, "\nThe present coordinators are not confirmed by the primary's agent of: {names}.");
    }
    text
}
