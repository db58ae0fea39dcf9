//! Trains a DSA model from a recipe: language model, then indexers, then both under top-k attention.
//!
//! Everything that decides the result stands in the recipe; a run that was killed goes on from its last saved state
//! and ends with the same bits, whatever the number of threads.

mod card;
mod data;
pub mod demo;
mod error;
mod export;
pub mod indexers;
mod loss;
mod optimizer;
mod params;
mod recipe;
mod state;
#[cfg(test)]
mod tests;
mod trainer;

pub use card::Card;
pub use data::read_text;
pub use error::TrainError;
pub use loss::Measured;
pub use recipe::{CorpusRecipe, DataRecipe, OptimizerRecipe, Recipe, Stage, StageRecipe};
pub use state::Position;
pub use trainer::{Event, StepReport, TOKENIZER_FILE, Trainer};
