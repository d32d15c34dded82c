//! `regent-coordinator`; see [`regent_coordinator::program`].

use std::process::ExitCode;

fn main() -> ExitCode {
    regent_coordinator::program::main(None)
}
