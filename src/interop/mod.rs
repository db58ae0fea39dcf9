//! Serving and training engines: how each reads index sharing, and what to paste so that it runs a pattern.
//!
//! Every engine reads index sharing in its own way and most are silent about what they ignore. [`simulate`] says what each
//! would make of a config; [`export`] writes the explicit full-length pattern in the form that one engine reads, and hands
//! nothing out that its own simulation does not read back as the same pattern. A frequency alone is never exported:
//! engines disagree about its formula.

mod config;
mod engines;
mod error;
mod export;
pub mod import;
mod index_keys;
#[cfg(test)]
mod law_tests;
mod prune;
mod python;
mod recipe;
mod retrained;
mod rules;
mod served;
mod shard;
mod simulate;
#[cfg(test)]
mod simulate_tests;
mod sites;
mod strip;
mod target;

pub use config::write_config;
pub use error::ExportError;
pub use export::{Engine, Export, FilePatch, export};
pub use index_keys::{IndexKeys, index_keys};
pub use prune::{Pruned, prune, prune_retrained, prune_with};
pub use retrained::{Retrained, can_retrain};
pub use served::{Family, Served};
pub use simulate::{SimulateError, Simulation, indexer_rope_warning, simulate, simulate_pattern};
pub use sites::Budget;
pub use strip::{Failure, Mark, Strip, Warning};
pub use target::Target;

/// Returns layer numbers as a sentence holds them.
fn list(layers: &[usize]) -> String {
    let numbers: Vec<String> = layers.iter().map(ToString::to_string).collect();
    format!("{} {}", if layers.len() == 1 { "layer" } else { "layers" }, numbers.join(", "))
}
