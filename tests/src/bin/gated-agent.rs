//! The agent with a gate at its steps; see [`regent_tests::gate`].

use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    regent_agent::program::main(Some(Arc::new(regent_tests::gate::AtSteps)))
}
