//! Launches of `kernels/*.cu` on candle's stream: the CUDA forms of ops.
//!
//! What no kernel takes (other dtypes than bf16, odd widths) runs in the plain form. No GPU has run them yet:
//! `indexscope bench --gpu-check` compares each with its CPU twin.

mod check;
mod device;
mod experts;
mod fp8;
mod indexer;
mod overlap;
mod product;
mod rows;
mod sparse;

pub(super) use check::gpu_check;
pub(super) use device::{give_back, kept, limits, open};
pub(super) use experts::{choose, few, table};
pub(super) use fp8::dequantise;
pub(super) use indexer::select;
pub(super) use rows::{norm, rotate, swiglu};
pub(super) use sparse::{sparse_grouped, sparse_latent, takes_grouped, takes_latent};
