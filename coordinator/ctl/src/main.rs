//! See `regentctl --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    regentctl::main()
}
