//! What is told of a drill.

use regent_proto::operator::v1 as wire;

use crate::words;

/// In a sentence or two: where, and how it went.
pub(super) fn summary(report: &wire::Report, run: &wire::Run) -> String {
    let what = format!("a failover of the application {} in {}", run.application, run.to);
    match run.status() {
        wire::RunStatus::Succeeded => {
            let rto = report.rto.as_ref().and_then(|rto| rto.achieved.as_ref()).map(words::span);
            let rto = rto.map(|rto| format!(" Service would have been back within {rto}.")).unwrap_or_default();
            format!("Regent rehearsed {what}, and all of it went well.{rto}")
        }
        wire::RunStatus::Running => format!("Regent rehearses {what}."),
        wire::RunStatus::Undoing => format!("Regent has ended the rehearsal of {what} and cleans up."),
        wire::RunStatus::Stuck => {
            format!("Regent rehearsed {what}. What it made cannot be taken away; a human is needed.")
        }
        wire::RunStatus::Undone | wire::RunStatus::Aborted => {
            format!("The rehearsal of {what} was given up, and has been cleaned up.")
        }
        wire::RunStatus::Superseded => {
            format!("The rehearsal of {what} gave way to another run, and has been cleaned up.")
        }
        wire::RunStatus::Failed | wire::RunStatus::Unspecified => {
            let failed = run.steps.iter().find(|step| step.failure.is_some() && step.ended.is_some());
            let failed = failed.map(|step| format!(" The step {} failed.", words::step(step))).unwrap_or_default();
            format!("Regent rehearsed {what}, and it failed.{failed} What it made has been taken away.")
        }
    }
}
