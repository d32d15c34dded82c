//! One file a command.

mod abort;
mod ack;
mod apply;
mod approve;
mod audit;
mod backup;
mod certs;
mod clear;
mod commit;
mod completion;
mod describe;
mod drill;
mod failback;
mod failover;
mod get;
mod hold;
mod limit;
mod member_change;
mod members;
mod pause;
mod plan;
mod readiness;
mod recover;
mod rejoin;
mod report;
mod restore;
mod resume;
mod rollback;
mod runs;
mod schema;
mod status;
mod switchover;
mod unhold;
mod validate;
mod why;

pub(crate) use abort::Abort;
pub(crate) use ack::Ack;
pub(crate) use apply::Apply;
pub(crate) use approve::Approve;
pub(crate) use audit::Audit;
pub(crate) use backup::Backup;
pub(crate) use certs::Certs;
pub(crate) use clear::Clear;
pub(crate) use commit::Commit;
pub(crate) use completion::Completion;
pub(crate) use describe::Describe;
pub(crate) use drill::Drill;
pub(crate) use failback::Failback;
pub(crate) use failover::Failover;
pub(crate) use get::Get;
pub(crate) use hold::Hold;
pub(crate) use limit::LimitCommand;
pub(crate) use members::Members;
pub(crate) use pause::Pause;
pub(crate) use plan::Plan;
pub(crate) use readiness::Readiness;
pub(crate) use recover::Recover;
pub(crate) use rejoin::Rejoin;
pub(crate) use report::ReportCommand;
pub(crate) use restore::Restore;
pub(crate) use resume::Resume;
pub(crate) use rollback::Rollback;
pub(crate) use runs::Runs;
pub(crate) use schema::Schema;
pub(crate) use status::Status;
pub(crate) use switchover::Switchover;
pub(crate) use unhold::Unhold;
pub(crate) use validate::Validate;
pub(crate) use why::Why;

/// Where things stand after a command, and what is next, as a line of its own. Nothing from a coordinator that does not say.
fn next(advice: Option<&regent_proto::operator::v1::Advice>) -> String {
    advice.map(|advice| format!("\nNext ({}): {}", advice.state, advice.next)).unwrap_or_default()
}

/// What an operator should know of an answer goes to stderr, so that stdout stays what was asked for.
fn notice(view: Option<&regent_proto::operator::v1::View>) {
    if let Some(view) = view.filter(|view| !view.notice.is_empty()) {
        eprintln!("note: {}", view.notice);
    }
}
