//! Which layers of a DSA model need their own indexer?
//!
//! `indexscope` runs a DeepSeek-Sparse-Attention checkpoint, records every layer's top-k index sets, and measures
//! what it costs in loss, and gains in speed, when layers reuse an earlier layer's indices (`IndexCache`,
//! arXiv 2603.12201).
//!
//! # Architecture
//!
//! One library, one binary. Each module may use only those to its right:
//!
//! ```text
//! main → cli → everything
//! tui → engine, analysis, session, interop, domain        (never model, never candle)
//! engine → model, search, analysis, checkpoint, domain
//! search → analysis, domain
//! train → model, checkpoint, domain
//! interop → checkpoint, domain
//! session → domain      model → checkpoint, domain, candle
//! analysis → domain     checkpoint → domain
//! ```
//!
//! One worker thread owns the model ([`engine`]); the dashboard ([`tui`]) is a pure `update` and a pure `view`
//! between an event loop and the worker's mailbox.

pub mod analysis;
pub mod checkpoint;
pub mod cli;
pub mod domain;
pub mod engine;
pub mod interop;
pub mod model;
pub mod search;
pub mod session;
pub mod train;
pub mod tui;
