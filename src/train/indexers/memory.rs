//! How much memory a step needs.

use super::recipe::IndexerRecipe;
use super::rest::ROWS;
use crate::checkpoint::{Checkpoint, IndexerShape};

/// Returns the bytes that a step needs, apart from those per sampled row, and those per row.
///
/// The first: weights in f32, four numbers per trained weight beside its value, the activations of one layer and the
/// working memory of each thread; much more where the rest of the model learns, too. The second: targets, their average, the indices of the support, queries and
/// gradients.
pub fn memory(checkpoint: &Checkpoint, recipe: &IndexerRecipe, shape: IndexerShape) -> (u64, u64) {
    let config = checkpoint.base().config();
    let (hidden, tokens, threads) = (config.hidden_size, recipe.seq_len, rayon::current_num_threads());
    let width = config.index_query_width();
    let indexer = shape.heads * shape.dim * width + (shape.dim + shape.heads) * hidden + 2 * shape.dim;
    let attention =
        config.num_attention_heads * (config.qk_head_dim().max(config.qk_rope_head_dim) + 2 * config.v_head_dim);
    let activations =
        tokens * (8 * hidden + 4 * attention + 4 * config.intermediate_size + 2 * shape.heads * shape.dim);
    // Attention works on blocks of 64 rows, an indexer's loss on 32 rows of every head.
    let blocks = threads * tokens * (2 * 64 + 32 * (shape.heads + 2));
    let floats = 5 * recipe.layers.len() * indexer + activations + blocks;
    let model = checkpoint.base().needed_bytes(4);
    let mut fixed = model + 4 * floats as u64;
    if recipe.lm_lr.is_some() {
        // Beside the model itself: value, two moments and gradient of each weight, and the next model while it is built;
        // the stream at every layer's entry, what the way back through a layer holds, and some rows of logits.
        let streams = (config.num_hidden_layers + 2) * tokens * hidden;
        let selected = config.num_hidden_layers * tokens * recipe.index_topk.min(tokens);
        fixed += 5 * model + 4 * (streams + selected + 2 * activations + 4 * ROWS * config.vocab_size) as u64;
    }
    // Each block of rows has its own part of the keys' gradient.
    let per_row = 12 * tokens + 4 * recipe.index_topk + 4 * (tokens.div_ceil(32) + 4 * shape.heads) * shape.dim;
    (fixed, per_row as u64)
}
