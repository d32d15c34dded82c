//! The command line for operators: one file a command, each a few calls to any coordinator of the group.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what a command line says goes to the terminal")]

use std::process::ExitCode;

pub mod certs;

mod cli;
mod command;
mod connection;
mod failure;
mod output;
mod report;
mod table;
mod words;

/// Parses the arguments, does what they say and tells how it ended.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("regentctl: no runtime: {error}");
            return ExitCode::from(failure::FAILED);
        }
    };
    match runtime.block_on(Box::pin(cli.run())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("regentctl: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
