//! The `indexscope` program.

use std::process::ExitCode;

/// The system allocator gives large tensors back to the kernel after every op and pays for fresh pages at the next.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    indexscope::cli::run()
}
