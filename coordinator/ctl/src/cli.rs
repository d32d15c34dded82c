//! What can be typed.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use regent_core::time::Span;

use crate::command::{
    Abort, Ack, Apply, Approve, Audit, Backup, Certs, Clear, Commit, Completion, Describe, Drill, Failback, Failover,
    Get, Hold, LimitCommand, Members, Pause, Plan, Readiness, Recover, Rejoin, ReportCommand, Restore, Resume,
    Rollback, Runs, Schema, Status, Switchover, Unhold, Validate, Why,
};
use crate::connection::Connection;
use crate::failure::{Failure, USAGE};

const LONG_ABOUT: &str = "\
Talks to a group of Regent coordinators: what fails over, when, to where, and what happened.

Any coordinator answers; regentctl tries the given ones in turn. Changes carry a request id, so trying another
coordinator after a lost answer never does a thing twice.";

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  failed: nothing answered, something does not exist, a document has mistakes, a run ended without success
  2  usage: the arguments make no sense
  3  refused by a rule; the message names it
  4  no quorum: nothing can be changed, and nothing current be read (`status` still answers)
  5  stuck: the run that is watched needs a human (`regentctl clear`)

Environment:
  REGENT_ENDPOINTS  host:port of coordinators, separated by commas
  REGENT_CERTS      folder with ca.pem, operator.pem and operator-key.pem
  REGENT_CA, REGENT_CERT, REGENT_KEY   the three files one by one

Examples:
  export REGENT_ENDPOINTS=10.0.1.10:7101,10.0.2.10:7101,10.0.3.10:7101 REGENT_CERTS=~/.regent
  regentctl status --watch                   regions, roles, leases and runs, live
  regentctl why shop                         why a failover would, or would not, start now
  regentctl apply -f shop.yaml --dry-run     what a document would change
  regentctl pause shop --reason 'moving disks'
  regentctl report 4711 -o html > report.html";

/// Operates a group of Regent coordinators.
#[derive(Parser)]
#[command(name = "regentctl", version, about, long_about = LONG_ABOUT, after_help = AFTER_HELP, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Global {
    /// Coordinators, host:port separated by commas; each is tried until one answers.
    #[arg(long, global = true, env = "REGENT_ENDPOINTS", value_delimiter = ',', value_name = "HOST:PORT,…")]
    endpoints: Vec<String>,
    /// Folder with ca.pem, operator.pem and operator-key.pem.
    #[arg(long = "certs", id = "certs_dir", global = true, env = "REGENT_CERTS", value_name = "DIR")]
    certs: Option<PathBuf>,
    /// Certificate of the authority [default: ca.pem in --certs].
    #[arg(long, global = true, env = "REGENT_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Your certificate [default: operator.pem in --certs].
    #[arg(long, global = true, env = "REGENT_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The key to it [default: operator-key.pem in --certs].
    #[arg(long, global = true, env = "REGENT_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// For each coordinator's answer.
    #[arg(long, global = true, default_value = "5s", value_parser = timeout, value_name = "TIME")]
    timeout: Duration,
}

#[derive(Subcommand)]
enum Command {
    Apply(Apply),
    Get(Get),
    Describe(Describe),
    Validate(Validate),
    Schema(Schema),
    Status(Status),
    Why(Why),
    Readiness(Readiness),
    Runs(Runs),
    Report(ReportCommand),
    Approve(Approve),
    Clear(Clear),
    Abort(Abort),
    Plan(Plan),
    Switchover(Switchover),
    Drill(Drill),
    Failover(Failover),
    Rollback(Rollback),
    Commit(Commit),
    Failback(Failback),
    Hold(Hold),
    Unhold(Unhold),
    Rejoin(Rejoin),
    Pause(Pause),
    Resume(Resume),
    Ack(Ack),
    Audit(Audit),
    Members(Members),
    Limit(LimitCommand),
    Backup(Backup),
    Restore(Restore),
    Recover(Recover),
    Certs(Certs),
    Completion(Completion),
}

/// The arguments of this process; on `--help` and on mistakes it has said what there is to say.
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        let code = if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        let _ = error.print();
        code
    })
}

/// For completions.
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}

impl Cli {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let global = self.global;
        match self.command {
            Command::Validate(command) => command.run(),
            Command::Schema(command) => command.run(),
            Command::Certs(command) => command.run(),
            Command::Restore(command) => command.run(),
            Command::Completion(command) => command.run(),
            Command::Apply(command) => command.run(&global.connect()?).await,
            Command::Get(command) => command.run(&global.connect()?).await,
            Command::Describe(command) => command.run(&global.connect()?).await,
            Command::Status(command) => command.run(&global.connect()?).await,
            Command::Why(command) => command.run(&global.connect()?).await,
            Command::Readiness(command) => command.run(&global.connect()?).await,
            Command::Runs(command) => command.run(&global.connect()?).await,
            Command::Report(command) => command.run(&global.connect()?).await,
            Command::Clear(command) => command.run(&global.connect()?).await,
            Command::Abort(command) => command.run(&global.connect()?).await,
            Command::Approve(command) => command.run(&global.connect()?).await,
            Command::Switchover(command) => command.run(&global.connect()?).await,
            Command::Drill(command) => command.run(&global.connect()?).await,
            Command::Failover(command) => command.run(&global.connect()?).await,
            Command::Plan(command) => command.run(&global.connect()?).await,
            Command::Rollback(command) => command.run(&global.connect()?).await,
            Command::Commit(command) => command.run(&global.connect()?).await,
            Command::Failback(command) => command.run(&global.connect()?).await,
            Command::Hold(command) => command.run(&global.connect()?).await,
            Command::Unhold(command) => command.run(&global.connect()?).await,
            Command::Rejoin(command) => command.run(&global.connect()?).await,
            Command::Pause(command) => command.run(&global.connect()?).await,
            Command::Resume(command) => command.run(&global.connect()?).await,
            Command::Ack(command) => command.run(&global.connect()?).await,
            Command::Audit(command) => command.run(&global.connect()?).await,
            Command::Members(command) => command.run(&global.connect()?).await,
            Command::Limit(command) => command.run(&global.connect()?).await,
            Command::Backup(command) => command.run(&global.connect()?).await,
            Command::Recover(command) => command.run(&global.connect()?).await,
        }
    }
}

impl Global {
    fn connect(&self) -> Result<Connection, Failure> {
        if self.endpoints.is_empty() {
            return Err(Failure::usage("no coordinator is given: use --endpoints host:port,… or set REGENT_ENDPOINTS"));
        }
        let file = |given: &Option<PathBuf>, name: &str, option: &str| {
            given.clone().or_else(|| self.certs.as_ref().map(|dir| dir.join(name))).ok_or_else(|| {
                Failure::usage(format!(
                    "no certificates are given: use --certs DIR (or REGENT_CERTS), or {option} FILE"
                ))
            })
        };
        let files = regent_proto::tls::TlsFiles {
            ca: file(&self.ca, "ca.pem", "--ca")?,
            certificate: file(&self.cert, "operator.pem", "--cert")?,
            key: file(&self.key, "operator-key.pem", "--key")?,
        };
        Connection::new(self.endpoints.clone(), &files, self.timeout)
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match Span::parse(text) {
        Ok(Span::ZERO) => Err("give more than no time".to_owned()),
        Ok(span) => Ok(Duration::from_millis(span.millis())),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        definition().debug_assert();
    }

    #[test]
    fn every_command_teaches_by_examples() {
        for command in definition().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "`{}` has no examples", command.get_name());
        }
    }
}
