//! The model in candle, with the checkpoint's own names.
//!
//! It knows "run the indexer", "use this selection" and "attend to everything", and nothing of search or screens. The
//! specification is the reference implementation in transformers 5.23 (`deepseek_v32`, `glm_moe_dsa`, `llama`, `qwen2`, `qwen3`).

mod attention;
mod cache;
pub mod chat;
mod clock;
mod decoder;
mod dispatch;
mod ends;
mod error;
mod experts;
mod families;
mod feed;
mod gqa;
mod heads;
mod indexer;
mod inputs;
mod layer;
mod mla;
mod mlp;
mod moe;
mod norm;
pub mod ops;
mod pass;
mod rope;
mod stream;
pub mod tokenizer;
mod walk;
#[cfg(test)]
mod walk_tests;
mod weights;

pub use cache::{Cache, LayerCache};
pub use clock::PhaseTimes;
pub use decoder::Model;
pub use ends::{Embedding, Head};
pub use error::{ModelError, Result};
pub use indexer::{Indexer, IndexerInput};
pub use inputs::Inputs;
pub use layer::Layer;
pub use ops::{Indices, Rotary, Stop};
pub use pass::{Attend, LayerOutput, Ops, Pass};
pub use stream::Stream;
pub use walk::{At, Entry, Forward, Group, Order, Ran, Route, Unseen, Visitor, Walk, Weights};
pub use weights::{CheckpointSource, TensorSource};
