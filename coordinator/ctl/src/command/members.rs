//! `regentctl members`.

use clap::{Args, Subcommand};
use regent_proto::operator::v1 as wire;

use super::member_change::{Add, Remove, changes};
use super::notice;
use crate::connection::{Connection, request_id};
use crate::failure::Failure;
use crate::output::{OutputArg, say};
use crate::table::Table;
use crate::words;

/// Shows the coordinators of the group, changes who belongs to it, or hands leadership to another one.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  regentctl members
  regentctl members transfer-leader 2        before the region of the present leader is taken down
  regentctl members remove 3                 one that is lost for good, or that is to be replaced
  regentctl members add 4 --address 10.0.3.10:7101")]
pub(crate) struct Members {
    #[command(subcommand)]
    action: Option<Action>,
    /// Take what this coordinator has, without asking for a quorum.
    #[arg(long)]
    stale_ok: bool,
    #[command(flatten)]
    output: OutputArg,
}

#[derive(Subcommand)]
enum Action {
    /// Hands leadership to a coordinator.
    TransferLeader {
        /// Its id.
        to: u64,
    },
    Add(Add),
    Remove(Remove),
}

impl Members {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        match self.action {
            Some(Action::TransferLeader { to }) => return transfer(connection, to).await,
            Some(Action::Add(add)) => return add.run(connection).await,
            Some(Action::Remove(remove)) => return remove.run(connection).await,
            None => {}
        }
        let request = wire::MembersRequest { stale_ok: self.stale_ok };
        let answer = connection.call(|mut services| async move { services.cluster.members(request).await }).await?;
        notice(answer.view.as_ref());
        self.output.output.print("MembersResponse", &answer, |answer| table(&answer.coordinators) + &changes(answer))
    }
}

async fn transfer(connection: &Connection, to: u64) -> Result<(), Failure> {
    let request = wire::TransferLeaderRequest { request_id: request_id(), to };
    let answer = connection
        .call(|mut services| {
            let request = request.clone();
            async move { services.cluster.transfer_leader(request).await }
        })
        .await?;
    say(&format!("coordinator {} leads", answer.leader));
    Ok(())
}

pub(crate) fn table(coordinators: &[wire::Coordinator]) -> String {
    let mut table = Table::new(&["ID", "REGION", "ROLE", "HEARD BY LEADER", "GRPC", "DASHBOARD", "DNS"]);
    for one in coordinators {
        let role = match (one.leader, one.voter) {
            (true, _) => "leader",
            (false, true) => "follower",
            (false, false) => "no voter",
        };
        let heard = one.heard.as_ref().map_or_else(|| "unknown".to_owned(), |age| format!("{} ago", words::span(age)));
        table.row([
            one.id.to_string(),
            one.region.clone(),
            role.to_owned(),
            heard,
            one.grpc.clone(),
            one.dashboard.clone(),
            one.dns.clone(),
        ]);
    }
    if table.is_empty() { "No coordinator has joined yet.".to_owned() } else { table.to_string() }
}
