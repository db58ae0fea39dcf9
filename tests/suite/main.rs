//! Integration tests of the library and the program, in one binary: each further binary is one more to link after every
//! edit. `cargo test --test suite import` runs one file.
//!
//! Separate binaries are `memory` (it replaces the allocator), `hub` (needs the feature) and `architecture` (needs no library).

#![allow(clippy::unwrap_used)] // a helper that fails fails the test

mod bench;
mod chat;
mod checkpoint;
mod cli;
mod decode;
mod deepseek_v4;
mod demo;
mod engines;
mod errors;
mod export;
mod families;
mod faults;
mod figures;
mod flows;
mod formats;
mod fp8;
mod fuzz;
mod gguf;
mod goldens;
mod half_capable;
mod hardening;
mod import;
mod inputs;
mod minimax_m3;
mod readme;
mod reference;
mod resume;
mod search;
mod signals;
mod stream;
mod worker;
mod worth;
