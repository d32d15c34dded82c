//! `regent-agent`; see [`regent_agent::program`].

use std::process::ExitCode;

fn main() -> ExitCode {
    regent_agent::program::main(None)
}
