//! The fast form on the CPU: some rows at a time, in matrix products over blocks of keys.

use std::time::{Duration, Instant};

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::Blocks;
use crate::domain::Selection;
use crate::model::ops::gemm::{Mat, matmul};
use crate::model::ops::stop::Stop;
use crate::model::ops::storage::with_floats;
use crate::model::ops::topk::top_k_row;
use crate::model::ops::{Indices, simd};

/// Query rows per task.
const ROWS: usize = 64;
/// Dot products of the indexer that are held at once: half of a core's second-level cache.
const PRODUCTS: usize = 128 * 1024;
/// Rows, of some queries times the heads of a group, whose attention is computed together.
///
/// A block is read for all of them once one selected it: more rows fill the matrix products better, but neighbours select
/// more blocks between them than each of them does.
const TOGETHER: usize = 64;

/// Selects blocks; operands as in [`super::select_blocks`].
pub(super) fn select(q: &Tensor, k: &Tensor, blocks: Blocks, stop: Stop) -> Result<(Indices, Duration, Duration)> {
    let begin = Instant::now();
    let (b, t, width) = q.dims3()?;
    let (_, keys, dim) = k.dims3()?;
    let tasks: Vec<(usize, usize)> = (0..b).flat_map(|n| (0..t).step_by(ROWS).map(move |start| (n, start))).collect();
    let done: Vec<(usize, Selection, Duration, Duration)> = with_floats(q, |q| {
        with_floats(k, |k| {
            let task = |&(n, start): &(usize, usize)| {
                if stop.asked() {
                    return (n, Selection::default(), Duration::ZERO, Duration::ZERO);
                }
                let rows = ROWS.min(t - start);
                let begin = Instant::now();
                let q = &q[(n * t + start) * width..][..rows * width];
                let mut scores = pooled(q, &k[n * keys * dim..][..keys * dim], keys - t + start, rows, dim, blocks);
                let scored = begin.elapsed();
                let (mut selection, mut scratch) =
                    (Selection::with_capacity(rows * blocks.groups, blocks.topk), Vec::new());
                let all = scores.len() / (rows * blocks.groups);
                for (at, row) in scores.chunks_mut(all).enumerate() {
                    let position = keys - t + start + at / blocks.groups;
                    let row = &mut row[..blocks.visible(position)];
                    blocks.force(position, row);
                    top_k_row(row, blocks.topk, &mut scratch, &mut selection);
                }
                (n, selection, scored, begin.elapsed().saturating_sub(scored))
            };
            Ok(tasks.par_iter().map(task).collect())
        })
    })?;
    let mut selections = vec![Selection::with_capacity(t * blocks.groups, blocks.topk); b];
    let (mut scoring, mut selecting) = (Duration::ZERO, Duration::ZERO);
    for (n, part, scored, selected) in done {
        part.rows().for_each(|row| selections[n].push(row));
        scoring += scored;
        selecting += selected;
    }
    // Tasks ran beside each other: their work is scaled to the time that passed.
    let share = scoring.as_secs_f64() / (scoring + selecting).as_secs_f64().max(f64::MIN_POSITIVE);
    let wall = begin.elapsed();
    let scoring = wall.mul_f64(share.clamp(0.0, 1.0));
    Ok((Indices::grouped(selections, blocks.groups), scoring, wall.saturating_sub(scoring)))
}

/// Returns the scores of all blocks up to the last row's own, `[rows, groups, blocks]`; `position` is that of the first row.
fn pooled(q: &[f32], k: &[f32], position: usize, rows: usize, dim: usize, blocks: Blocks) -> Vec<f32> {
    let Blocks { groups, size, .. } = blocks;
    let (width, end) = (groups * dim, position + rows);
    let all = end.div_ceil(size);
    let mut scores = vec![f32::NEG_INFINITY; rows * groups * all];
    // Whole blocks at a time.
    let step = (PRODUCTS / (rows * size)).max(1) * size;
    let mut products = vec![0.0; rows * step.min(end)];
    simd::dispatch(
        #[inline(always)]
        || {
            for from in (0..end).step_by(step) {
                let n = step.min(end - from);
                let keys = Mat::new(&k[from * dim..], n, dim, dim);
                for g in 0..groups {
                    matmul(&mut products, n, Mat::new(&q[g * dim..], rows, dim, width), keys.t(), 1.0, false);
                    for (i, row) in products.chunks(n).take(rows).enumerate() {
                        let seen = (position + i + 1).saturating_sub(from).min(n);
                        let to = &mut scores[(i * groups + g) * all + from / size..];
                        for (to, block) in to.iter_mut().zip(row[..seen].chunks(size)) {
                            *to = simd::max(block);
                        }
                    }
                }
            }
        },
    );
    scores
}

/// Attends to the selected blocks; operands as in [`super::block_attention`].
pub(super) fn attend(
    q: &Tensor,
    kv: &Tensor,
    blocks: Blocks,
    scale: f32,
    sets: &[Selection],
    stop: Stop,
) -> Result<Tensor> {
    let (b, t, width) = q.dims3()?;
    let (_, keys, both) = kv.dims3()?;
    let mut out = vec![0.0; b * t * width];
    with_floats(q, |q| {
        with_floats(kv, |kv| {
            let tasks: Vec<(usize, usize, &mut [f32])> = out
                .chunks_mut(t * width)
                .enumerate()
                .flat_map(|(n, rows)| rows.chunks_mut(ROWS * width).enumerate().map(move |(i, out)| (n, i * ROWS, out)))
                .collect();
            tasks.into_par_iter().for_each(|(n, start, out)| {
                if stop.asked() {
                    return;
                }
                let operands = Sequence {
                    q: &q[n * t * width..][..t * width],
                    kv: &kv[n * keys * both..][..keys * both],
                    selection: &sets[n],
                    blocks,
                    scale,
                    before: keys - t,
                    width,
                    dim: both / (2 * blocks.groups),
                };
                simd::dispatch(
                    #[inline(always)]
                    || operands.rows(start, out),
                );
            });
            Ok(())
        })
    })?;
    Tensor::from_vec(out, (b, t, width), q.device())
}

/// The operands of one sequence.
struct Sequence<'a> {
    q: &'a [f32],
    kv: &'a [f32],
    selection: &'a Selection,
    blocks: Blocks,
    scale: f32,
    /// Keys before the first query.
    before: usize,
    /// Width of a row of queries.
    width: usize,
    /// Width of a head.
    dim: usize,
}

/// Working memory of one tile: [`TOGETHER`] rows or fewer.
#[derive(Default)]
struct Tile {
    q: Vec<f32>,
    scores: Vec<f32>,
    sums: Vec<f32>,
    /// The highest score of each row so far, and the sum of exponentials beneath it.
    tops: Vec<(f32, f32)>,
}

impl Sequence<'_> {
    /// Computes the output rows from query `start` on.
    #[inline(always)]
    fn rows(&self, start: usize, out: &mut [f32]) {
        let heads = self.width / (self.blocks.groups * self.dim);
        let queries = (TOGETHER / heads).max(1);
        let mut tile = Tile::default();
        for (part, out) in out.chunks_mut(queries * self.width).enumerate() {
            for g in 0..self.blocks.groups {
                self.tile(start + part * queries, g, heads, out, &mut tile);
            }
        }
    }

    /// Computes what the heads of group `g` give for a few queries, block by block, with a running softmax.
    #[inline(always)]
    fn tile(&self, start: usize, g: usize, heads: usize, out: &mut [f32], tile: &mut Tile) {
        let Self { blocks: Blocks { groups, size, .. }, width, dim, .. } = *self;
        let (queries, both, of_group) = (out.len() / width, 2 * groups * dim, heads * dim);
        let rows = queries * heads;
        tile.q.clear();
        for i in start..start + queries {
            tile.q.extend_from_slice(&self.q[i * width + g * of_group..][..of_group]);
        }
        tile.sums.clear();
        tile.sums.resize(rows * dim, 0.0);
        tile.tops.clear();
        tile.tops.resize(rows, (f32::NEG_INFINITY, 0.0));
        // The sets are ascending; `next` walks through each of them.
        let mut next = vec![0; queries];
        let set = |i: usize| self.selection.row((start + i) * groups + g);
        while let Some(block) = (0..queries).filter_map(|i| set(i).get(next[i]).copied()).min() {
            let from = block as usize * size;
            let n = size.min(self.before + start + queries - from);
            let keys = Mat::new(&self.kv[from * both + g * 2 * dim..], n, dim, both);
            let values = Mat::new(&self.kv[from * both + (g * 2 + 1) * dim..], n, dim, both);
            tile.scores.resize(rows * n, 0.0);
            matmul(&mut tile.scores, n, Mat::new(&tile.q, rows, dim, dim), keys.t(), self.scale, false);
            for (i, next) in next.iter_mut().enumerate() {
                let takes = set(i).get(*next) == Some(&block);
                *next += usize::from(takes);
                let seen = if takes { (self.before + start + i + 1 - from).min(n) } else { 0 };
                for row in i * heads..(i + 1) * heads {
                    let (scores, unseen) = tile.scores[row * n..][..n].split_at_mut(seen);
                    unseen.fill(0.0);
                    if takes {
                        add(scores, &mut tile.tops[row], &mut tile.sums[row * dim..][..dim]);
                    }
                }
            }
            matmul(&mut tile.sums, dim, Mat::new(&tile.scores, rows, n, n), values, 1.0, true);
        }
        for (row, sums) in tile.sums.chunks(dim).enumerate() {
            let scale = 1.0 / tile.tops[row].1;
            let to = &mut out[row / heads * width + g * of_group + row % heads * dim..][..dim];
            to.iter_mut().zip(sums).for_each(|(to, sum)| *to = sum * scale);
        }
    }
}

/// Turns a row of scores into exponentials beneath the highest score so far, to which it scales what was summed before.
#[inline(always)]
fn add(scores: &mut [f32], (top, total): &mut (f32, f32), sums: &mut [f32]) {
    let highest = simd::max(scores).max(*top);
    if highest > *top {
        let shrink = simd::exp(*top - highest);
        *total *= shrink;
        sums.iter_mut().for_each(|sum| *sum *= shrink);
        *top = highest;
    }
    for score in scores.iter_mut() {
        *score = simd::exp(*score - highest);
    }
    *total += simd::sum(scores);
}
