//! Selection of blocks of keys, and attention over them, with a set per group of heads (MiniMax-M3).
//!
//! Block b holds the keys b·size … b·size + size − 1, counted from the first of the sequence. The queries are the last of
//! the keys' positions. A row of a selection holds ascending block numbers; row i·groups + g is that of query i, group g.

mod cpu;
mod reference;

use std::time::{Duration, Instant};

use candle_core::{DType, Result, Tensor};

use super::Indices;
use super::allowed::check;
use super::stop::Stop;
use super::storage::on_cpu;

/// How blocks are selected and attended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Groups of query heads: heads of keys and values, and heads of the indexer.
    pub groups: usize,
    /// Keys per block.
    pub size: usize,
    /// Blocks per query.
    pub topk: usize,
    /// Blocks up to the query's own that are always selected; they count against `topk`.
    pub local: usize,
}

impl Blocks {
    /// Returns the number of blocks that the query at `position` sees, its own included.
    fn visible(self, position: usize) -> usize {
        position / self.size + 1
    }

    /// Gives the blocks that are always selected the highest score; `scores` are those that the query at `position` sees.
    fn force(self, position: usize, scores: &mut [f32]) {
        let own = position / self.size;
        scores[(own + 1).saturating_sub(self.local)..=own].fill(f32::INFINITY);
    }
}

/// Queries and keys of an indexer.
#[derive(Clone, Copy, Debug)]
pub struct BlockIndexer<'a> {
    /// `[B, queries, groups · dim]`.
    pub q: &'a Tensor,
    /// `[B, keys, dim]`.
    pub k: &'a Tensor,
}

/// Selects for every query and group the blocks with the highest scores: the largest dot product with a visible key.
///
/// Also returns the wall time split into scoring and selecting. The fast form holds some rows of scores at a time, and
/// runs for f32 on the CPU; elsewhere the reference form runs.
///
/// # Errors
/// Where shapes disagree.
pub fn select_blocks(
    on: BlockIndexer,
    blocks: Blocks,
    fast: bool,
    stop: Stop,
) -> Result<(Indices, Duration, Duration)> {
    let (q, k) = (on.q.to_dtype(DType::F32)?, on.k.to_dtype(DType::F32)?);
    let (b, t, width) = q.dims3()?;
    let (kb, keys, dim) = k.dims3()?;
    check(kb == b && width == blocks.groups * dim && t <= keys, "the indexer's q or k")?;
    if fast && on_cpu(&[&q, &k]) {
        return cpu::select(&q, &k, blocks, stop);
    }
    let begin = Instant::now();
    let scores = reference::scores(&q, &k, blocks)?;
    let scored = begin.elapsed();
    let indices = reference::select(&scores, blocks, keys - t)?;
    Ok((indices, scored, begin.elapsed().saturating_sub(scored)))
}

/// Attends from `q` `[B, queries, heads · dim]` to the selected blocks of `kv` `[B, keys, groups · 2 · dim]`, each group's
/// keys before its values; the result is `[B, queries, heads · dim]`.
///
/// Query i sees the keys up to its own position only. The fast form reads only blocks that a query of a few neighbouring
/// ones selected, and runs on the CPU; elsewhere the reference form runs.
///
/// # Errors
/// Where shapes disagree.
pub fn block_attention(
    q: &Tensor,
    kv: &Tensor,
    blocks: Blocks,
    scale: f64,
    indices: &Indices,
    fast: bool,
    stop: Stop,
) -> Result<Tensor> {
    let (b, t, width) = q.dims3()?;
    let (kb, keys, both) = kv.dims3()?;
    let dim = both / (2 * blocks.groups).max(1);
    let even = dim > 0 && both == 2 * blocks.groups * dim && width.is_multiple_of(blocks.groups * dim);
    check(kb == b && even && t <= keys, "q or kv")?;
    let sets = indices.sets()?;
    check(
        indices.groups() == blocks.groups && sets.len() == b && sets.iter().all(|s| s.len() == t * blocks.groups),
        "the selection",
    )?;
    if fast && q.device().is_cpu() {
        let out = cpu::attend(&q.to_dtype(DType::F32)?, &kv.to_dtype(DType::F32)?, blocks, scale as f32, sets, stop)?;
        return out.to_dtype(q.dtype());
    }
    reference::attend(q, kv, blocks, scale, sets)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::model::ops::testing::{assert_close, noise, random};

    /// Numbers on which every sum is exact, with many ties.
    fn small_integers(shape: &[usize], seed: u64) -> Tensor {
        let mut next = noise(seed);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| (next() * 3.0).round()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// (queries, keys, keys per block, blocks selected, local blocks)
    const SIZES: [(usize, usize, usize, usize, usize); 6] = [
        (1, 1, 8, 4, 1),
        (40, 40, 8, 2, 1),
        (100, 100, 8, 4, 2),
        (70, 131, 16, 3, 1),
        (1, 77, 4, 5, 0),
        (90, 90, 7, 40, 1),
    ];

    #[test]
    fn both_forms_select_the_same_blocks_ties_included() {
        for (t, keys, size, topk, local) in SIZES {
            let blocks = Blocks { groups: 3, size, topk, local };
            let (q, k) = (small_integers(&[2, t, 3 * 5], 1), small_integers(&[2, keys, 5], 2));
            let run = |fast| select_blocks(BlockIndexer { q: &q, k: &k }, blocks, fast, Stop::NEVER).unwrap().0;
            assert_eq!(run(true).sets().unwrap(), run(false).sets().unwrap(), "{blocks:?}");
        }
    }

    #[test]
    fn a_query_selects_its_own_block_and_no_more_than_there_are() {
        let blocks = Blocks { groups: 2, size: 4, topk: 3, local: 2 };
        let (q, k) = (small_integers(&[1, 30, 2 * 5], 1), small_integers(&[1, 30, 5], 2));
        let indices = select_blocks(BlockIndexer { q: &q, k: &k }, blocks, true, Stop::NEVER).unwrap().0;
        for (row, set) in indices.sets().unwrap()[0].rows().enumerate() {
            let own = (row / 2 / 4) as u32;
            assert_eq!(set.len(), 3.min(own as usize + 1), "row {row}");
            assert!(set.last() == Some(&own) && (own == 0 || set.contains(&(own - 1))), "row {row}: {set:?}");
        }
    }

    #[test]
    fn ties_go_to_the_lowest_block() {
        let blocks = Blocks { groups: 1, size: 2, topk: 2, local: 1 };
        let same = Tensor::ones((1, 10, 3), DType::F32, &Device::Cpu).unwrap();
        for fast in [false, true] {
            let on = BlockIndexer { q: &same, k: &same };
            let indices = select_blocks(on, blocks, fast, Stop::NEVER).unwrap().0;
            assert_eq!(indices.sets().unwrap()[0].row(9), [0, 4]);
        }
    }

    #[test]
    fn both_forms_attend_alike() {
        for (t, keys, size, topk, local) in SIZES {
            let blocks = Blocks { groups: 2, size, topk, local };
            let (q, k) = (random(&[2, t, 2 * 5], 1), random(&[2, keys, 5], 2));
            let indices = select_blocks(BlockIndexer { q: &q, k: &k }, blocks, true, Stop::NEVER).unwrap().0;
            for heads in [2, 6, 40] {
                let (q, kv) = (random(&[2, t, heads * 6], 3), random(&[2, keys, 2 * 2 * 6], 4));
                let run = |fast| block_attention(&q, &kv, blocks, 0.4, &indices, fast, Stop::NEVER).unwrap();
                assert_close(&run(true), &run(false), 2e-6);
            }
        }
    }

    #[test]
    fn a_key_that_is_no_number_does_not_vanish() {
        let blocks = Blocks { groups: 1, size: 4, topk: 2, local: 1 };
        let all = Tensor::ones((1, 9, 2), DType::F32, &Device::Cpu).unwrap();
        let mut kv = vec![1.0f32; 9 * 4];
        kv[0] = f32::NAN;
        let kv = Tensor::from_vec(kv, (1, 9, 4), &Device::Cpu).unwrap();
        let indices = select_blocks(BlockIndexer { q: &all, k: &all }, blocks, true, Stop::NEVER).unwrap().0;
        for fast in [false, true] {
            let out = block_attention(&all, &kv, blocks, 1.0, &indices, fast, Stop::NEVER).unwrap();
            let sum: f32 = out.sum_all().unwrap().to_scalar().unwrap();
            assert!(sum.is_nan(), "fast: {fast}");
        }
    }

    #[test]
    fn a_selection_of_other_sizes_is_refused() {
        let blocks = Blocks { groups: 2, size: 4, topk: 2, local: 1 };
        let (q, kv) = (random(&[1, 5, 4], 1), random(&[1, 5, 8], 2));
        let other = crate::model::ops::testing::random_indices(1, 5, 5, 1, 1);
        assert!(block_attention(&q, &kv, blocks, 1.0, &other, true, Stop::NEVER).is_err());
    }
}
