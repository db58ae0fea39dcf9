//! The dashboard: a pure `update`, a pure `view`, and one loop around them.
//!
//! Nothing here knows the model or candle. The worker is reached through [`EngineHandle`], files through [`Files`];
//! time, results and answers come in as messages, and whatever touches the outside leaves as an effect.

mod setup;

pub use setup::{ColorChoice, EngineHandle, Files, Options, Problem, Setup, Step, ThemeChoice, Work};
