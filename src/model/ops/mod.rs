//! The model's own operations, each in two forms under one set of tests.
//!
//! *Plain*: candle's stock ops, on any device; the oracle. *CPU*: a fused loop over f32 with its own backward, which
//! never holds more than a block of rows of any `[T, T]` intermediate. A function picks the CPU form for f32 tensors
//! on the CPU and the plain form elsewhere; both are differentiable. *CUDA* (feature `cuda`): kernels of our own, without
//! gradient, for the indexer's selection and for attention over it, in bf16. Ties go to the lowest index everywhere.

mod allowed;
#[cfg(any(test, feature = "cuda"))]
mod arguments;
mod attention;
mod blocks;
mod chosen;
mod cross_entropy;
#[cfg(feature = "cuda")]
mod cuda;
mod form;
mod fp8;
mod gemm;
mod gpu;
mod gpu_check;
mod grouped;
mod indexer;
mod indexer_kl;
mod indices;
mod kl;
mod mean_attention;
#[cfg(any(test, feature = "cuda"))]
mod plan;
#[cfg(any(test, feature = "cuda"))]
mod product;
mod rms_norm;
mod rope;
#[cfg(any(test, feature = "cuda"))]
mod rows;
mod shared_rows;
#[cfg(any(test, feature = "cuda"))]
mod side_by_side;
mod simd;
mod softmax;
mod sparse;
mod stop;
mod storage;
mod streams;
mod swiglu;
#[cfg(test)]
pub(crate) mod testing;
mod topk;
mod windowed;

pub use allowed::Allowed;
use allowed::check;
pub use attention::{MlaShape, mla_attention};
pub use blocks::{BlockIndexer, Blocks, block_attention, select_blocks};
pub use chosen::{choose_experts, expert_table, few_experts};
pub use cross_entropy::cross_entropy;
pub use form::{FastParts, Kept, Sizes, fast_parts};
pub use fp8::Fp8Weight;
#[cfg(feature = "cuda")]
pub use gpu::spare_bytes;
pub use gpu::{give_back, open_cuda};
pub use gpu_check::{Ceiling, GpuCheck, KernelTime, gpu_check};
pub use grouped::{prefers_grouped, sparse_grouped};
pub use indexer::{Seen, indexer_scores, select, select_seen, selects_in_fp8};
pub use indexer_kl::{RowTargets, indexer_kl};
pub use indices::Indices;
pub use kl::kl;
pub use mean_attention::{mean_attention, mean_attention_within};
pub use rms_norm::{layer_norm, rms_norm};
pub use rope::{Pairing, Rotary, rope};
pub use softmax::{divergence, log_sum_exp};
pub use sparse::{Picked, prefers_latent, runs_sparse, sparse_expanded, sparse_latent};
pub use stop::Stop;
pub use storage::with_floats;
pub use streams::{StreamMix, spread, spread_plain, stream_weights, stream_weights_plain, weighted_streams};
pub use swiglu::{clamped_swiglu, swiglu};
pub use topk::{top_k_row, top_k_rows};
pub use windowed::{Entries, Windowed, windowed, windowed_plain};

/// Elements of a cheap loop that are worth another thread: below it, waking one costs more than it saves.
const PARALLEL: usize = 64 * 1024;

/// What stands for a key that a query may not see in a tensor of scores.
pub const MASKED: f32 = f32::MIN;
