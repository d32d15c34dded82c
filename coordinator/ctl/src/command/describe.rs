//! `regentctl describe`.

use std::fmt::Write;

use clap::Args;
use regent_proto::operator::v1 as wire;

use super::{get, notice, readiness};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::OutputArg;
use crate::table::Table;
use crate::words;

/// Shows everything about one application: where it is, how it is, what stands in the way.
#[derive(Args)]
#[command(after_help = "\
Examples:
  regentctl describe shop
  regentctl describe shop -o yaml")]
pub(crate) struct Describe {
    /// Which application.
    application: String,
    /// Take what this coordinator has, without asking for a quorum.
    #[arg(long)]
    stale_ok: bool,
    #[command(flatten)]
    output: OutputArg,
}

impl Describe {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let answer = get::fetch(connection, self.application, self.stale_ok).await?;
        notice(answer.view.as_ref());
        self.output.output.print("ApplicationServiceGetResponse", &answer, |answer| {
            answer.application.as_ref().map(|application| text(application, &answer.document)).unwrap_or_default()
        })
    }
}

fn text(application: &wire::Application, document: &str) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{key:<16}{value}");
        }
    };
    line("Name:", &application.name);
    line("State:", &get::state(application));
    if let Some(advice) = &application.advice {
        line("Next:", &format!("{}: {}", advice.state, advice.next));
    }
    line("Primary:", if application.primary.is_empty() { "not adopted yet" } else { &application.primary });
    line("Epoch:", &application.epoch.to_string());
    line("Revision:", &application.revision.to_string());
    line("Mode:", &application.mode);
    line("Failover after:", &words::maybe(application.failover_after.as_ref()));
    if let Some(objectives) = &application.objectives {
        let (rto, rpo) = (words::maybe(objectives.rto.as_ref()), words::maybe(objectives.rpo.as_ref()));
        line("Objectives:", &format!("RTO {rto}, RPO {rpo}"));
    }
    if let Some(missing) = &application.recovering {
        line("Recovering:", &missing.detail);
    }
    if let Some(paused) = &application.paused {
        line("Paused:", &format!("by {} at {}: {}", paused.by, words::time(paused.at.as_ref()), paused.reason));
    }
    if let Some(protection) = &application.protection {
        let word = if protection.protected { "yes" } else { "NO" };
        line("Protected:", &format!("{word}: {}", protection.sentence));
    }
    if let Some(order) = &application.order {
        let left = order.left.as_ref().map(|left| format!(", {} left", words::maybe(Some(left)))).unwrap_or_default();
        let whose = if order.by.is_empty() { "Regent asks".to_owned() } else { format!("ordered by {}", order.by) };
        line("Failover:", &format!("{}, {whose}{left}: {}", words::order(order), order.next));
    }
    if let Some(window) = &application.commit_window {
        line(
            "Commit window:",
            &format!(
                "run {} can be rolled back to {} for another {}, until {}",
                window.run,
                window.back_to,
                words::maybe(window.left.as_ref()),
                words::time(window.until.as_ref())
            ),
        );
    }
    if let Some(held) = &application.held {
        line("Held:", &format!("by {} at {}: {}", held.by, words::time(held.at.as_ref()), held.reason));
    }
    if application.cooling_until.is_some() {
        let until = words::time(application.cooling_until.as_ref());
        line("Cooling down:", &format!("until {until}, or `regentctl ack {}`", application.name));
    }
    if let Some(refusal) = &application.refusal {
        line("Last refusal:", &format!("{}: {}", refusal.code, refusal.detail));
    }
    for stuck in &application.stuck {
        line("Stuck:", &format!("{} by run {}; see `regentctl runs {}`", stuck.resource, stuck.run, stuck.run));
    }
    for answer in &application.answers {
        let to = if answer.cluster.is_empty() {
            "nothing yet".to_owned()
        } else {
            format!("{} ({})", answer.cluster, answer.addresses.join(", "))
        };
        line("DNS:", &format!("{} → {to}", answer.name));
    }
    let _ = write!(text, "\nREADINESS\n{}\n", readiness::text(&application.readiness).trim_end());
    let _ = write!(text, "\n{}\n{}\nDOCUMENT\n{document}", placements(application), resources(application));
    text
}

/// The application in each of its clusters.
pub(super) fn placements(application: &wire::Application) -> String {
    let mut table = Table::new(&["CLUSTER", "ROLE", "LEASE", "FENCE", "GUARD", "HEARD", "DATABASES", "LAG"]);
    for placement in &application.placements {
        let databases: Vec<&wire::ResourceState> = placement
            .resources
            .iter()
            .filter(|resource| matches!(resource.kind.as_str(), "postgres" | "redis"))
            .collect();
        let health = databases.iter().map(|one| {
            let role = words::database_role(one);
            let writable = if one.writable { ", writable" } else { "" };
            format!("{} {} ({role}{writable})", one.name, words::health(one))
        });
        let lags = databases
            .iter()
            .filter(|one| !words::lag(one).is_empty())
            .map(|one| format!("{} {}", one.name, words::lag(one)));
        let guard = match (placement.guarded, placement.guard_alive) {
            _ if placement.lease() == wire::LeaseState::Unknown => "unknown",
            (false, _) => "not guarded yet",
            (true, true) => "armed",
            (true, false) => "does not answer",
        };
        let heard =
            placement.heard.as_ref().map_or_else(|| "unknown".to_owned(), |age| format!("{} ago", words::span(age)));
        table.row([
            placement.cluster.clone(),
            words::role(placement).to_owned(),
            words::lease(placement),
            words::fence(placement).to_owned(),
            guard.to_owned(),
            heard,
            health.collect::<Vec<_>>().join(", "),
            lags.collect::<Vec<_>>().join(", "),
        ]);
    }
    let mut text = table.to_string();
    for placement in application.placements.iter().filter(|placement| !placement.rogues.is_empty()) {
        let _ = writeln!(
            text,
            "ROGUE WRITER in {}: {} accepted writes where the terms say standby; its agent fences it (in a pause it only \
             tells); take it back with `regentctl rejoin`",
            placement.cluster,
            placement.rogues.join(", ")
        );
    }
    for placement in application.placements.iter().filter(|placement| !placement.excluded.is_empty()) {
        let _ = writeln!(text, "{} is no candidate: {}", placement.cluster, placement.excluded);
    }
    for drilled in &application.drills {
        let _ = writeln!(
            text,
            "{} was last drilled at {} by run {}: a failover would have taken {}",
            drilled.cluster,
            words::time(drilled.at.as_ref()),
            drilled.run,
            words::maybe(drilled.rto.as_ref())
        );
    }
    text
}

fn resources(application: &wire::Application) -> String {
    let mut table = Table::new(&[
        "CLUSTER", "RESOURCE", "KIND", "HEALTH", "ROLE", "WRITABLE", "POSITION", "LAG", "PROBED", "DETAIL",
    ]);
    for placement in &application.placements {
        for one in &placement.resources {
            let probed = one.age.as_ref().map_or_else(|| "never".to_owned(), |age| format!("{} ago", words::span(age)));
            let database = matches!(one.kind.as_str(), "postgres" | "redis");
            table.row([
                placement.cluster.clone(),
                one.name.clone(),
                one.kind.clone(),
                words::health(one).to_owned(),
                if database { words::database_role(one).to_owned() } else { String::new() },
                if database { words::yes(one.writable).to_owned() } else { String::new() },
                one.position_text.clone(),
                words::lag(one),
                probed,
                one.detail.clone(),
            ]);
        }
    }
    table.to_string()
}
