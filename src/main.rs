//! The `indexscope` program.

use std::process::ExitCode;

/// The system allocator gives large tensors back to the kernel after every op and pays for fresh pages at the next.
/// Around it, memory that is refused is an error like any other.
#[global_allocator]
static ALLOCATOR: indexscope::Allocator<mimalloc::MiMalloc> = indexscope::Allocator(mimalloc::MiMalloc);

fn main() -> ExitCode {
    indexscope::cli::run()
}
