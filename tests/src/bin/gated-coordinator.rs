//! The coordinator with a gate in its engine; see [`regent_tests::gate`].

use std::process::ExitCode;

fn main() -> ExitCode {
    regent_coordinator::program::main(Some(regent_tests::gate::watch))
}
