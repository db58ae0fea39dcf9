//! Trains lightning indexers on a frozen model: DeepSeek's warm-up and sparse stage, for the attention of an indexer's
//! own layer or of all the layers that it serves (IndexCache, arXiv 2603.12201).
//!
//! The model runs forward layer by layer and needs no gradient. Each trained indexer is compared with the head-averaged
//! attention of some query rows, `[R, T]` at a time; no `[heads, T, T]` is ever held. L_multi = mean_j KL(p_j ‖ q) is
//! computed as KL(p̄ ‖ q) to the layers' average, whose gradient it shares, plus the floor mean_j KL(p_j ‖ p̄) that no
//! indexer can go below. Where asked for, the rest of the model learns from its own loss in the sparse stage.

mod event;
mod history;
mod memory;
mod recipe;
mod rest;
#[cfg(test)]
mod rest_tests;
mod run;
mod saved;
mod start;
mod step;
#[cfg(test)]
mod tests;

pub use event::{IndexerEvent, IndexerStep};
pub use memory::memory;
pub use recipe::{IndexerRecipe, SparseTarget};
pub use run::{IndexerRun, Setup};
pub use saved::{saved, state_path};
pub use step::Divergence;
