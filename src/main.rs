//! The `indexscope` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    indexscope::cli::run()
}
