//! `regentctl runs`: what is under way and what was, one run step by step, live if asked for.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::Args;
use regent_proto::operator::v1 as wire;

use super::notice;
use crate::connection::{Connection, breathe};
use crate::failure::Failure;
use crate::output::{Output, OutputArg, say};
use crate::table::Table;
use crate::words;

/// Lists runs, or shows one step by step.
#[derive(Args)]
#[command(after_help = "\
With --watch the command ends when the run ends: exit code 0 if it succeeded, 1 if it did not, 5 as soon as it is stuck,
or its undo is, and needs a human.

Examples:
  regentctl runs                         all that are remembered, newest first
  regentctl runs --application shop
  regentctl runs 4711                    its steps, their times, and what is awaited
  regentctl runs 4711 --watch")]
pub(crate) struct Runs {
    /// One run.
    #[arg(conflicts_with = "application")]
    run: Option<u64>,
    /// Only those of this application.
    #[arg(long)]
    application: Option<String>,
    /// Follow the run until it ends.
    #[arg(short, long, requires = "run", conflicts_with = "stale_ok")]
    watch: bool,
    /// Take what this coordinator has, without asking for a quorum.
    #[arg(long)]
    stale_ok: bool,
    #[command(flatten)]
    output: OutputArg,
}

impl Runs {
    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let output = self.output.output;
        match self.run {
            Some(run) if self.watch => follow(connection, run, output).await,
            Some(run) => one(connection, run, self.stale_ok, output).await,
            None => {
                let application = self.application.unwrap_or_default();
                let request = wire::RunServiceListRequest { application, stale_ok: self.stale_ok };
                let answer = connection
                    .call(|mut services| {
                        let request = request.clone();
                        async move { services.runs.list(request).await }
                    })
                    .await?;
                notice(answer.view.as_ref());
                output.print("RunServiceListResponse", &answer, |answer| table(&answer.runs))
            }
        }
    }
}

async fn one(connection: &Connection, run: u64, stale_ok: bool, output: Output) -> Result<(), Failure> {
    let request = wire::RunServiceGetRequest { run, stale_ok };
    let answer = connection.call(|mut services| async move { services.runs.get(request).await }).await?;
    notice(answer.view.as_ref());
    output.print("RunServiceGetResponse", &answer, |answer| answer.run.as_ref().map(text).unwrap_or_default())
}

pub(super) async fn follow(connection: &Connection, run: u64, output: Output) -> Result<(), Failure> {
    let mut told = Told::default();
    let mut newest: Option<wire::Run> = None;
    // A coordinator that goes away in the middle is replaced by the next one.
    loop {
        let request = wire::RunServiceWatchRequest { run };
        let mut stream = connection.call(|mut services| async move { services.runs.watch(request).await }).await?;
        while let Ok(Some(answer)) = stream.message().await {
            let Some(seen) = &answer.run else { continue };
            match output.stream("RunServiceWatchResponse", &answer)? {
                Some(document) => say(&document),
                None => {
                    for line in told.news(seen) {
                        say(&line);
                    }
                }
            }
            newest.clone_from(&answer.run);
            match seen.status() {
                wire::RunStatus::Stuck => {
                    return Err(Failure::Stuck(format!("{}{}", stuck(seen), super::next(seen.advice.as_ref()))));
                }
                wire::RunStatus::Running | wire::RunStatus::Undoing | wire::RunStatus::Unspecified => {}
                wire::RunStatus::Succeeded => return Ok(()),
                wire::RunStatus::Undone
                | wire::RunStatus::Superseded
                | wire::RunStatus::Aborted
                | wire::RunStatus::Failed => {
                    return Err(Failure::failed(format!("run {run} ended: {}", words::status(seen))));
                }
            }
        }
        breathe().await;
    }
}

/// What has been said of a run, so that each line comes once.
#[derive(Default)]
struct Told {
    headline: bool,
    steps: BTreeMap<u64, (i32, u64)>,
    status: Option<i32>,
}

impl Told {
    fn news(&mut self, run: &wire::Run) -> Vec<String> {
        let mut lines = Vec::new();
        if !std::mem::replace(&mut self.headline, true) {
            lines.push(format!(
                "Run {}: {} from {} to {}, because {}",
                run.id,
                run.application,
                run.from,
                run.to,
                words::cause(run.cause.as_ref())
            ));
        }
        for step in &run.steps {
            let now = (step.state, step.attempts);
            let before = self.steps.insert(step.id, now);
            if before == Some(now) || (before.is_none() && step.state() == wire::StepState::Pending) {
                continue;
            }
            let at = if step.ended.is_some() { step.ended.as_ref() } else { step.started.as_ref() };
            let since = words::between(run.started.as_ref(), at).map(|since| format!("+{}", words::span(&since)));
            lines.push(format!(
                "{:>8}  step {:<3} {:<28} in {:<16} {}{}",
                since.unwrap_or_default(),
                step.id,
                words::step(step),
                step.cluster,
                words::step_state(step),
                remark(step)
            ));
            for remedy in asked_of(step) {
                lines.push(format!("{:>8}  it asks a human; {}: {}", "", remedy.what, remedy.command));
            }
        }
        if self.status.replace(run.status) != Some(run.status) && run.ended.is_some() {
            let took = words::between(run.started.as_ref(), run.ended.as_ref());
            lines.push(format!("Run {} {} after {}", run.id, words::status(run), words::maybe(took.as_ref())));
        }
        lines
    }
}

/// How long, what was said, why not.
fn remark(step: &wire::Step) -> String {
    let took =
        words::between(step.started.as_ref(), step.ended.as_ref()).map(|took| format!(" after {}", words::span(&took)));
    let detail = match (&step.failure, &step.report) {
        (Some(failure), _) => format!(" ({}: {})", failure.code, failure.message),
        (None, Some(report)) if !report.message.is_empty() => format!(" ({})", report.message),
        (None, _) => String::new(),
    };
    format!("{}{detail}", took.unwrap_or_default())
}

/// Every step that waits, and what can be done with it: the coordinator says which word counts for which.
fn stuck(run: &wire::Run) -> String {
    let mut text = format!("run {} is stuck and needs a human:", run.id);
    for step in run.steps.iter().filter(|step| step.state() == wire::StepState::Stuck) {
        let place = if step.question.is_empty() { format!(" in {}", step.cluster) } else { String::new() };
        let _ = write!(text, "\n  step {}, {}{place}", step.id, words::step(step));
        if let Some(failure) = &step.failure {
            let _ = write!(text, ": {}: {}", failure.code, failure.message);
            let _ = write!(text, "\n    its page:      deploy/runbooks/{}.md", failure.code);
        }
        for remedy in &step.remedies {
            let what = format!("{}:", remedy.what);
            let _ = write!(text, "\n    {what:<15}{}", remedy.command);
        }
    }
    text
}

/// Runs at a glance.
pub(super) fn table(runs: &[wire::Run]) -> String {
    let mut table = Table::new(&["RUN", "APPLICATION", "FROM", "TO", "STATUS", "STARTED", "TOOK", "WHY"]);
    for run in runs {
        table.row([
            run.id.to_string(),
            run.application.clone(),
            run.from.clone(),
            run.to.clone(),
            words::status(run).to_owned(),
            words::time(run.started.as_ref()),
            words::maybe(words::between(run.started.as_ref(), run.ended.as_ref()).as_ref()),
            words::cause(run.cause.as_ref()),
        ]);
    }
    if table.is_empty() { "There are no runs.".to_owned() } else { table.to_string() }
}

/// The steps of a run, in order.
pub(crate) fn steps(run: &wire::Run) -> String {
    let mut table = Table::new(&["STEP", "WHAT", "CLUSTER", "STATE", "STARTED", "TOOK", "TRIES", "DETAIL"]);
    for step in &run.steps {
        let detail = match (&step.failure, &step.report) {
            (Some(failure), _) => format!("{}: {}", failure.code, failure.message),
            (None, Some(report)) => report.message.clone(),
            (None, None) => String::new(),
        };
        table.row([
            step.id.to_string(),
            words::step(step),
            step.cluster.clone(),
            words::step_state(step).to_owned(),
            words::clock(step.started.as_ref()),
            words::maybe(words::between(step.started.as_ref(), step.ended.as_ref()).as_ref()),
            if step.attempts == 0 { String::new() } else { step.attempts.to_string() },
            detail,
        ]);
    }
    table.to_string()
}

fn text(run: &wire::Run) -> String {
    let mut text = format!("Run {}: {} from {} to {}\n", run.id, run.application, run.from, run.to);
    let _ = writeln!(text, "Because:  {}", words::cause(run.cause.as_ref()));
    let _ = writeln!(text, "Status:   {}", words::status(run));
    let _ = writeln!(text, "Started:  {}", words::time(run.started.as_ref()));
    if let Some(decision) = &run.decision {
        let at = words::time(decision.at.as_ref());
        let _ = writeln!(
            text,
            "Decided:  {at}, epoch {}, on ground {} ({})",
            decision.epoch, decision.ground, decision.detail
        );
    }
    if run.ended.is_some() {
        let _ = writeln!(text, "Ended:    {}", words::time(run.ended.as_ref()));
    }
    if let Some(advice) = &run.advice {
        let _ = writeln!(text, "Next:     {}", advice.next);
    }
    let _ = write!(text, "\n{}", steps(run));
    if run.status() == wire::RunStatus::Stuck {
        let _ = write!(text, "\n{}", stuck(run));
    }
    if let Some(order) = &run.order {
        let _ = write!(text, "\n{}", ordered(order));
    }
    if let Some(abort) = &run.abort {
        let _ = writeln!(text, "\nAborted by {} at {}: {}", abort.by, words::time(abort.at.as_ref()), abort.reason);
    }
    for step in &run.steps {
        for remedy in asked_of(step) {
            let _ = write!(text, "\nA human is asked: {}\n  {}:  {}", step.question, remedy.what, remedy.command);
        }
    }
    text
}

/// Who wanted it, what was allowed, and who confirmed it.
pub(crate) fn ordered(order: &wire::Order) -> String {
    let mut text = if order.by.is_empty() {
        format!("Asked:    {}\n", order.reason)
    } else {
        format!("Ordered:  by {}, order {}: {}\n", order.by, order.id, order.reason)
    };
    if !order.allow_data_loss.is_empty() {
        let _ = writeln!(text, "Allowed:  data loss beyond maxDataLoss, for this run: {}", order.allow_data_loss);
    }
    if !order.attest_primary_off.is_empty() {
        let _ = writeln!(text, "Attested: the primary is off: {}", order.attest_primary_off);
    }
    if !order.approval.is_empty() {
        let by = if order.approved_by.is_empty() { "nobody" } else { &order.approved_by };
        let _ = writeln!(text, "Approved: by {by}: {}", order.approval);
    }
    text
}

/// How a step that waits for a human's answer just now is answered; nothing of any other.
fn asked_of(step: &wire::Step) -> &[wire::Remedy] {
    if step.state() == wire::StepState::Running { &step.remedies } else { &[] }
}
