//! What MLA and GQA do differently.

use std::fmt::Debug;

use candle_core::Tensor;

use super::Result;
use super::ops::Rotary;

/// Queries, keys and values of one layer.
pub(super) trait Heads: Debug + Send + Sync {
    /// Makes queries of the normed input `x` `[B, T, hidden]`: what the indexer's queries are made from, and attention's
    /// own `[B, T, heads · d]`.
    fn queries(&self, x: &Tensor, rotary: &Rotary) -> Result<(Tensor, Tensor)>;

    /// Makes what the indexer's queries are made from, alone.
    fn source(&self, x: &Tensor) -> Result<Tensor>;

    /// Makes what is kept of each token: its part per head or its latent `[B, T, kept]`, and the part of its key that
    /// all heads have in common `[B, T, rope]`, of width 0 where there is none.
    fn keys(&self, x: &Tensor, rotary: &Rotary) -> Result<(Tensor, Tensor)>;

    /// Expands what is kept to keys and values `[B, T, kv_heads · (nope + value)]`.
    fn expand(&self, kept: &Tensor) -> Result<Tensor>;

    /// Returns queries `[R, heads · d]` and what is kept of all tokens as [`mean_attention`](super::ops::mean_attention) takes them.
    fn scored(&self, q: &Tensor, kept: &Tensor, shared: &Tensor) -> Result<(Tensor, Tensor)>;

    /// Returns the weight that expands a latent; `None` where keys and values are kept as they are.
    fn latent(&self) -> Option<&Tensor> {
        None
    }
}
