//! The `indexscope` program.

fn main() {}
