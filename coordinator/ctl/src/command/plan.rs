//! `regentctl plan`.

use std::fmt::Write;

use clap::Args;
use regent_proto::operator::v1 as wire;

use super::notice;
use super::switchover::Outage;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::OutputArg;
use crate::table::Table;
use crate::words;

/// Shows what a switchover or a failover would do, step by step; changes nothing.
#[derive(Args)]
#[command(after_help = "\
Steps with the same number under STAGE go side by side. EXPECTED is the median of the same step in earlier runs. Notes
come worst first: with a blocker it would not start. What is shown is what is carried out: begun now, the run has these
very steps. `--plan DIGEST` of `switchover`, `failback` and `rollback` begins this plan or none; the digest names the time
of --max-write-outage, too, so give both the same.

Examples:
  regentctl plan shop                        a switchover to the first fit cluster
  regentctl plan shop --to eu-central-1
  regentctl plan shop --max-write-outage 5s  as `regentctl switchover` with the same option would see it
  regentctl plan shop --failback             back to the preferred cluster
  regentctl plan shop --rollback             back to where it was, while that is open
  regentctl plan shop --failover             the failover that would start by itself now
  regentctl plan shop --failover --to eu-central-1    the one that `regentctl failover` would order
  regentctl plan shop -o json | jq .plan.notes")]
pub(crate) struct Plan {
    /// Which application.
    application: String,
    /// To which cluster. Default: the first fit one in order of preference.
    #[arg(long, value_name = "CLUSTER", conflicts_with_all = ["failback", "rollback"])]
    to: Option<String>,
    /// The way back to the preferred cluster.
    #[arg(long, conflicts_with_all = ["rollback", "failover"])]
    failback: bool,
    /// The way back to where it was before the last switchover.
    #[arg(long, conflicts_with = "failover")]
    rollback: bool,
    /// The failover that would start by itself now; with --to, the one that an operator would order.
    #[arg(long, conflicts_with = "max_write_outage")]
    failover: bool,
    /// Of an ordered failover: as if the loss were allowed.
    #[arg(long, requires_all = ["failover", "to"])]
    allow_data_loss: bool,
    /// Of an ordered failover: as if it were attested that the primary is off.
    #[arg(long, requires_all = ["failover", "to"])]
    attest_primary_off: bool,
    #[command(flatten)]
    outage: Outage,
    #[command(flatten)]
    output: OutputArg,
}

impl Plan {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let kind = match (self.failback, self.rollback, self.failover) {
            (true, _, _) => wire::PlanKind::Failback,
            (_, true, _) => wire::PlanKind::Rollback,
            (_, _, true) if self.to.is_some() => wire::PlanKind::OrderedFailover,
            (_, _, true) => wire::PlanKind::Failover,
            (false, false, false) => wire::PlanKind::Switchover,
        };
        let max_write_outage = self.outage.on_the_wire()?;
        let request = wire::PlanRequest {
            application: self.application,
            to: self.to.unwrap_or_default(),
            kind: kind.into(),
            max_write_outage,
            allow_data_loss: self.allow_data_loss,
            attest_primary_off: self.attest_primary_off,
        };
        let answer = connection
            .call(|mut services| {
                let request = request.clone();
                async move { services.runs.plan(request).await }
            })
            .await?;
        notice(answer.view.as_ref());
        self.output.output.print("PlanResponse", &answer, |answer| answer.plan.as_ref().map(text).unwrap_or_default())
    }
}

fn text(plan: &wire::Plan) -> String {
    let to = if plan.to.is_empty() { "nowhere" } else { &plan.to };
    let mut text =
        format!("{} of {} from {} to {to}, from epoch {}\n", plan.kind, plan.application, plan.from, plan.epoch);
    if !plan.digest.is_empty() {
        let _ = writeln!(text, "Digest:   {}", plan.digest);
    }
    let _ = writeln!(text, "Starts:   {}", starts(plan));
    let _ = writeln!(text, "Outage:   {}", outage(plan));
    let _ = writeln!(text, "In all:   {}", words::expected(plan.total.as_ref()));
    for sentence in &plan.expected_loss {
        let _ = writeln!(text, "Loss:     {sentence}");
    }
    if !plan.notes.is_empty() {
        let mut table = Table::new(&["NOTE", "CODE", "BECAUSE"]);
        for note in &plan.notes {
            table.row([words::severity(note.severity()).to_owned(), note.code.clone(), note.detail.clone()]);
        }
        let _ = write!(text, "\n{table}");
    }
    let done: Vec<&wire::PlannedStep> = plan.steps.iter().filter(|step| !step.undo).collect();
    if !done.is_empty() {
        let _ = write!(text, "\n{}", steps(&done));
    }
    let undone: Vec<&wire::PlannedStep> = plan.steps.iter().filter(|step| step.undo).collect();
    if !undone.is_empty() {
        let _ = write!(text, "\nOnly if it is given up before the point of no return:\n{}", steps(&undone));
    }
    text
}

/// A lost side is silent for long before anything is done about it, and the report of the run counts that.
fn outage(plan: &wire::Plan) -> String {
    let by_run = words::expected(plan.outage.as_ref());
    match &plan.detection {
        None => by_run,
        Some(detection) => format!(
            "since the last contact {}; of that {} until it is decided (failoverAfter), then {by_run}",
            words::expected(plan.since_contact.as_ref()),
            words::maybe(Some(detection))
        ),
    }
}

fn starts(plan: &wire::Plan) -> &'static str {
    let blocked = plan.notes.iter().any(|note| note.severity() == wire::Severity::Blocker);
    if blocked { "no: see the blockers" } else { "yes, now" }
}

fn steps(steps: &[&wire::PlannedStep]) -> String {
    let mut table = Table::new(&["STEP", "STAGE", "WHAT", "CLUSTER", "EXPECTED", "TIMEOUT", "RETRIES", "IF IT FAILS"]);
    for step in steps {
        let what = match (step.resource.as_str(), step.command.as_str()) {
            ("", _) if step.kind == "decide" => "decide: the point of no return".to_owned(),
            ("", _) if !step.question.is_empty() => format!("{} {:?}", step.kind, step.question),
            ("", _) => step.kind.clone(),
            (resource, "") => format!("{} {resource}", step.kind),
            (resource, command) => format!("{} {command} of {resource}", step.kind),
        };
        let after: Vec<String> = step.after.iter().map(ToString::to_string).collect();
        let after = if after.is_empty() { String::new() } else { format!(", after {}", after.join(", ")) };
        table.row([
            step.id.to_string(),
            if step.undo { "undo".to_owned() } else { step.stage.to_string() },
            format!("{what}{after}"),
            step.cluster.clone(),
            words::maybe(step.expected.as_ref()),
            words::maybe(step.timeout.as_ref()),
            step.retries.to_string(),
            if step.detached { "nothing waits for it".to_owned() } else { step.on_failure.clone() },
        ]);
    }
    table.to_string()
}
