//! Which layers of a DSA model need their own indexer?
//!
//! `indexscope` runs a DeepSeek-Sparse-Attention checkpoint, records every layer's top-k index sets, and measures
//! what it costs in loss, and gains in speed, when layers reuse an earlier layer's indices (`IndexCache`,
//! arXiv 2603.12201).
//!
//! # Architecture
//!
//! One library, one binary, in floors: a module may use those of its row, and nothing else of this crate. The crates of the
//! last column may be used where they are listed only. `tests/architecture.rs` holds the sources to this table, and the
//! table to naming only what is below a row.
//!
//! | module | may use | crates |
//! |---|---|---|
//! | `main` | `cli` | |
//! | `fuzzing` | `engine`, `train`, `model`, `interop`, `session`, `search`, `checkpoint`, `domain` | |
//! | `cli` | `tui`, `engine`, `train`, `model`, `report`, `interop`, `session`, `search`, `analysis`, `checkpoint`, `domain` | `candle_core` |
//! | `tui` | `engine`, `report`, `interop`, `session`, `analysis`, `domain` | `ratatui`, `crossterm` |
//! | `engine` | `train`, `model`, `search`, `analysis`, `checkpoint`, `domain` | `candle_core` |
//! | `train` | `model`, `checkpoint`, `domain` | `candle_core`, `candle_nn` |
//! | `model` | `checkpoint`, `domain` | `candle_core`, `candle_nn` |
//! | `report` | `session`, `analysis`, `domain` | |
//! | `interop` | `checkpoint`, `domain` | |
//! | `session` | `domain` | |
//! | `search` | `analysis`, `domain` | |
//! | `analysis` | `domain` | |
//! | `checkpoint` | `domain` | `ureq` |
//! | `domain` | | |
//! | any | `atomic`, `budget`, `input`, `mapped`, `seal`, `shown`, `terminal` | |
//!
//! The last row is what every module may use, and what these use of each other: `atomic` (files written whole), `budget`
//! (memory and panics of other crates), `input` (files that others wrote), `mapped` (files in memory), `seal` (checksums),
//! `shown` (foreign strings), `terminal` (restored when a signal ends the program).
//!
//! One worker thread owns the model ([`engine`]); the dashboard ([`tui`]) is a pure `update` and a pure `view`
//! between an event loop and the worker's mailbox.
//!
//! # Files
//!
//! **Traces** as safetensors (any name but `*.trace`), for any tool to read and write:
//!
//! | tensor | type, shape | what |
//! |---|---|---|
//! | `tokens` | i32 `[N, T]` | token ids of every sequence, padded at the end with −1 |
//! | `queries` | i32 `[Q, 2]` | sequence and position of every recorded query, in this order, none twice |
//! | `layer.<l>.topk` | i32 `[Q, k]` | the keys that layer l used: positions in the sequence, at most the query's own, ascending, padded with −1; a Shared layer has the set that it borrowed |
//!
//! The string metadata `indexscope` is JSON: `schema` 1; `model`, `fingerprint` (`v2:` and hex; hex alone from versions before 0.2; or empty); `pattern` of the
//! recording; `index_topk` = k; `layers`; `unit` `"token"`; `heads`; `queries` `"all"` or `{"sampled": {"per_sequence": n,
//! "seed": s}}`; `tokens_hash`, which is checked where it begins with `fnv1a:` ([`domain::hash_ids`]). Further fields, such
//! as `mass_recall`, may be missing. Only queries that see more than k keys enter an overlap. `*.trace` is the same,
//! packed; its bytes are described where they are written, in `session::packed`.
//!
//! **Sessions** are TOML: `schema` 1, the current `pattern`, `calibration` (hash of the token ids), `current` (entry of the
//! history), `[model]` with `name`, `fingerprint` and `former` (fingerprints of earlier versions), `[overlap]` ([`domain::OverlapMatrix`]: its upper triangle, row by
//! row), `[[searches]]` ([`domain::SearchRecord`]), `[[named]]` with `name` and `pattern`, and `[[history]]`, parents
//! before children: `pattern`, `parent`, `change`, `evaluation` ([`domain::Evaluation`]) and `speed` (a list of
//! [`domain::Speed`]). Keys of other versions are kept when a file is rewritten. Files of older schemas stay readable:
//! `tests/suite/formats.rs` reads some that were written then.

pub mod analysis;
mod atomic;
mod budget;
pub mod checkpoint;
pub mod cli;
pub mod domain;
pub mod engine;
#[doc(hidden)]
pub mod fuzzing;
mod input;
pub mod interop;
mod mapped;
pub mod model;
pub mod report;
mod seal;
pub mod search;
pub mod session;
mod shown;
mod terminal;
pub mod train;
pub mod tui;

pub use budget::Allocator;
