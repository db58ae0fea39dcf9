//! Scores of the lightning indexer.
//!
//! I[i,j] = Σ_h w[i,h] · relu(scale · q[i,h]·k[j]) for every key j that query i may see. The queries are the last of the
//! keys' positions: all of them in a prefill, one in a decode step.

use std::time::{Duration, Instant};

use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::allowed::{Allowed, check};
use super::gemm::{Mat, matmul};
use super::stop::Stop;
use super::storage::{floats, on_cpu, with_floats};
use super::topk::{top_k_row, top_k_rows, top_k_seen};
use super::{Indices, MASKED, simd};
use crate::domain::Selection;

/// Query rows per task.
const ROWS: usize = 64;
/// Dot products that are held at once: half of a core's second-level cache.
const PRODUCTS: usize = 128 * 1024;
/// Below this many keys a product spends more on its set-up than on arithmetic.
const FEWEST_KEYS: usize = 64;

/// Computes the scores `[B, queries, keys]` in f32; keys after the query are [`MASKED`].
///
/// `q` is `[B, queries, heads · dim]`, `k` is `[B, keys, dim]`, `w` is `[B, queries, heads]`.
///
/// # Errors
/// Where shapes disagree.
pub fn indexer_scores(q: &Tensor, k: &Tensor, w: &Tensor, scale: f64) -> Result<Tensor> {
    let (q, k, w) = (q.to_dtype(DType::F32)?, k.to_dtype(DType::F32)?, w.to_dtype(DType::F32)?);
    if !on_cpu(&[&q, &k, &w]) {
        return plain(&q, &k, &w, scale);
    }
    let op = Scores { scale: scale as f32 };
    q.contiguous()?.apply_op3(&k.contiguous()?, &w.contiguous()?, op)
}

/// Returns whether [`select`] multiplies in FP8, as serving engines do: with bf16 on a CUDA device, where the environment
/// asks for it (`INDEXSCOPE_INDEXER=fp8`).
pub fn selects_in_fp8(device: &Device, dtype: DType) -> bool {
    device.is_cuda()
        && dtype == DType::BF16
        && std::env::var_os("INDEXSCOPE_INDEXER").is_some_and(|format| format == "fp8")
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Tokens before the first query.
    pub before: usize,
    /// Tokens of a key; it is seen from its last one on.
    pub unit: usize,
}

impl Seen {
    /// Returns what the last `queries` of as many tokens as keys see.
    fn tokens(queries: usize, keys: usize) -> Self {
        Self { before: keys - queries, unit: 1 }
    }

    /// Returns how many keys query `i` sees.
    #[inline(always)]
    fn count(self, i: usize) -> usize {
        (self.before + i + 1) / self.unit
    }

    /// Returns the selection of queries that see nothing.
    pub fn none(sequences: usize, queries: usize) -> Indices {
        let mut set = Selection::with_capacity(queries, 0);
        (0..queries).for_each(|_| set.push(&[]));
        vec![set; sequences].into()
    }
}

/// Selects as [`select`] does, of keys that stand for several tokens each; on the CPU without a `[queries, keys]` tensor.
///
/// # Errors
/// Where shapes disagree, or a query sees more keys than there are.
pub fn select_seen(
    q: &Tensor,
    k: &Tensor,
    w: &Tensor,
    scale: f64,
    topk: usize,
    seen: Seen,
    stop: Stop,
) -> Result<(Indices, Duration, Duration)> {
    let begin = Instant::now();
    let (q, k, w) = (q.to_dtype(DType::F32)?, k.to_dtype(DType::F32)?, w.to_dtype(DType::F32)?);
    let (queries, keys) = (w.dim(1)?, k.dim(1)?);
    check(queries > 0 && q.dim(1)? == queries && seen.count(queries - 1) <= keys, "the indexer's q or k")?;
    if on_cpu(&[&q, &k, &w]) {
        return select_on_cpu(&q, &k, &w, scale as f32, topk, seen, stop);
    }
    let scores = unmasked(&q, &k, &w, scale)?.to_device(&Device::Cpu)?;
    let scored = begin.elapsed();
    let indices = top_k_seen(&scores, topk, |i| seen.count(i))?;
    Ok((indices, scored, begin.elapsed().saturating_sub(scored)))
}

/// Selects the `topk` best keys of every query without ever holding a `[queries, keys]` tensor on the CPU.
///
/// Operands as in [`indexer_scores`]; those in bf16 on a CUDA device go to a kernel of our own, and what it selects stays
/// there. Also returns the wall time split into scoring and selecting; there only if `timed`, which waits for the device.
///
/// # Errors
/// Where shapes disagree.
pub fn select(
    q: &Tensor,
    k: &Tensor,
    w: &Tensor,
    scale: f64,
    topk: usize,
    stop: Stop,
    timed: bool,
) -> Result<(Indices, Duration, Duration)> {
    #[cfg(feature = "cuda")]
    if let Some(selected) = super::cuda::select(q, k, w, scale, topk, stop, timed)? {
        return Ok(selected);
    }
    let _ = timed;
    let begin = Instant::now();
    let (q, k, w) = (q.to_dtype(DType::F32)?, k.to_dtype(DType::F32)?, w.to_dtype(DType::F32)?);
    if !on_cpu(&[&q, &k, &w]) {
        let scores = plain(&q, &k, &w, scale)?;
        scores.device().synchronize()?;
        let scored = begin.elapsed();
        let indices = top_k_rows(&scores, topk)?;
        return Ok((indices, scored, begin.elapsed().saturating_sub(scored)));
    }
    let (t, keys) = (w.dim(1)?, k.dim(1)?);
    check(q.dim(1)? == t && t <= keys, "the indexer's q or k")?;
    select_on_cpu(&q, &k, &w, scale as f32, topk, Seen::tokens(t, keys), stop)
}

fn select_on_cpu(
    q: &Tensor,
    k: &Tensor,
    w: &Tensor,
    scale: f32,
    topk: usize,
    seen: Seen,
    stop: Stop,
) -> Result<(Indices, Duration, Duration)> {
    let begin = Instant::now();
    let (b, t, heads) = w.dims3()?;
    let keys = k.dim(1)?;
    let op = Scores { scale };
    let mut work = (Duration::ZERO, Duration::ZERO);
    let selections = with_floats(q, |q| {
        with_floats(k, |k| {
            with_floats(w, |w| {
                let blocks: Vec<(usize, usize)> =
                    (0..b).flat_map(|n| (0..t).step_by(ROWS).map(move |s| (n, s))).collect();
                let done: Vec<(usize, Selection, Duration, Duration)> = blocks
                    .into_par_iter()
                    .map(|(n, start)| {
                        if stop.asked() {
                            return (n, Selection::default(), Duration::ZERO, Duration::ZERO);
                        }
                        let s = Sequence { seen, ..Sequence::of(n, b, (t, keys, heads), q, k, w) };
                        let rows = ROWS.min(t - start);
                        let end = s.visible(start + rows - 1);
                        let begin = Instant::now();
                        let mut scores = vec![0.0; rows * end];
                        if end > 0 {
                            op.block(s, start, &mut scores, end);
                        }
                        let scored = begin.elapsed();
                        let mut selection = Selection::with_capacity(rows, topk.min(end));
                        let mut scratch = Vec::with_capacity(end);
                        for i in start..start + rows {
                            let row = &scores[(i - start) * end..][..s.visible(i)];
                            top_k_row(row, topk, &mut scratch, &mut selection);
                        }
                        (n, selection, scored, begin.elapsed().saturating_sub(scored))
                    })
                    .collect();
                let mut selections = vec![Selection::with_capacity(t, topk.min(keys)); b];
                for (n, part, scored, selected) in &done {
                    part.rows().for_each(|row| selections[*n].push(row));
                    work = (work.0 + *scored, work.1 + *selected);
                }
                Ok(selections)
            })
        })
    })?;
    let wall = begin.elapsed();
    let total = (work.0 + work.1).as_secs_f64();
    let scored = if total > 0.0 { wall.mul_f64(work.0.as_secs_f64() / total) } else { wall };
    Ok((selections.into(), scored, wall.saturating_sub(scored)))
}

/// The same in candle's stock ops: the oracle, and the form for other devices.
fn plain(q: &Tensor, k: &Tensor, w: &Tensor, scale: f64) -> Result<Tensor> {
    let scores = unmasked(q, k, w, scale)?;
    let mask = Allowed::Causal.mask(scores.dims3()?, q.device())?;
    mask.where_cond(&scores, &Tensor::full(MASKED, scores.shape(), q.device())?)
}

/// Returns the scores of all keys, seen or not.
fn unmasked(q: &Tensor, k: &Tensor, w: &Tensor, scale: f64) -> Result<Tensor> {
    let (b, t, heads) = w.dims3()?;
    let (_, keys, dim) = k.dims3()?;
    let q = q.reshape((b, t * heads, dim))?; // B (T·h) D
    let a = (q.matmul(&k.transpose(1, 2)?.contiguous()?)?.relu()? * scale)?.reshape((b, t, heads, keys))?;
    a.broadcast_mul(&w.unsqueeze(3)?)?.sum(2) // B T keys
}

struct Scores {
    scale: f32,
}

/// The operands of one sequence.
#[derive(Clone, Copy)]
struct Sequence<'a> {
    queries: usize,
    keys: usize,
    heads: usize,
    dim: usize,
    seen: Seen,
    q: &'a [f32],
    k: &'a [f32],
    w: &'a [f32],
}

impl<'a> Sequence<'a> {
    /// Cuts sequence `n` of `batch` out of the operands.
    fn of(
        n: usize,
        batch: usize,
        (queries, keys, heads): (usize, usize, usize),
        q: &'a [f32],
        k: &'a [f32],
        w: &'a [f32],
    ) -> Self {
        let dim = k.len() / (batch * keys).max(1);
        let width = queries * heads;
        Self {
            queries,
            keys,
            heads,
            dim,
            seen: Seen::tokens(queries.min(keys), keys),
            q: &q[n * width * dim..][..width * dim],
            k: &k[n * keys * dim..][..keys * dim],
            w: &w[n * width..][..width],
        }
    }

    /// Returns how many keys query `i` sees.
    #[inline(always)]
    fn visible(&self, i: usize) -> usize {
        self.seen.count(i)
    }
}

impl Scores {
    /// Writes the scores of query rows from `start` into `out`, whose rows are `width` apart and hold the keys up to
    /// the last one that the block sees; keys after the query are [`MASKED`].
    fn block(&self, s: Sequence, start: usize, out: &mut [f32], width: usize) {
        simd::dispatch(
            #[inline(always)]
            || {
                let rows = out.len() / width;
                let end = s.visible(start + rows - 1);
                // All heads of all rows in one product per block of keys, [rows · heads, block].
                let q = Mat::new(&s.q[start * s.heads * s.dim..], rows * s.heads, s.dim, s.dim);
                let block = (PRODUCTS / (rows * s.heads)).max(FEWEST_KEYS).min(end);
                let mut products = vec![0.0; rows * s.heads * block];
                for from in (0..end).step_by(block) {
                    let n = block.min(end - from);
                    let keys = Mat::new(&s.k[from * s.dim..], n, s.dim, s.dim);
                    matmul(&mut products, n, q, keys.t(), self.scale, false);
                    for (r, products) in products[..rows * s.heads * n].chunks(s.heads * n).enumerate() {
                        let to = &mut out[r * width + from..][..n];
                        let weights = &s.w[(start + r) * s.heads..][..s.heads];
                        for (h, (row, &w)) in products.chunks(n).zip(weights).enumerate() {
                            for (to, &p) in to.iter_mut().zip(row) {
                                let kept = if p > 0.0 { w * p } else { 0.0 };
                                *to = if h == 0 { kept } else { *to + kept };
                            }
                        }
                    }
                }
                for (row, i) in out.chunks_mut(width).zip(start..) {
                    row[s.visible(i)..].fill(MASKED);
                }
            },
        );
    }

    fn backward_sequence(&self, s: Sequence, grad: &[f32], dq: &mut [f32], dk: &mut [f32], dw: &mut [f32]) {
        simd::dispatch(
            #[inline(always)]
            || {
                let mut a = Vec::new();
                for start in (0..s.queries).step_by(ROWS) {
                    let rows = ROWS.min(s.queries - start);
                    let end = s.visible(start + rows - 1);
                    a.resize(rows * end, 0.0);
                    for h in 0..s.heads {
                        let at = (start * s.heads + h) * s.dim;
                        let (stride, keys) = (s.heads * s.dim, Mat::new(s.k, end, s.dim, s.dim));
                        let q = Mat::new(&s.q[at..], rows, s.dim, stride);
                        matmul(&mut a, end, q, keys.t(), self.scale, false);
                        for (row, i) in a.chunks_mut(end).zip(start..) {
                            let (w, grad) = (s.w[i * s.heads + h], &grad[i * s.keys..][..s.visible(i)]);
                            let (seen, unseen) = row.split_at_mut(s.visible(i));
                            seen.iter_mut().for_each(|v| *v = if *v > 0.0 { *v } else { 0.0 });
                            dw[i * s.heads + h] = simd::dot(seen, grad);
                            let slope = w * self.scale;
                            for (v, g) in seen.iter_mut().zip(grad) {
                                *v = if *v > 0.0 { g * slope } else { 0.0 };
                            }
                            unseen.fill(0.0);
                        }
                        let ds = Mat::new(&a, rows, end, end);
                        matmul(&mut dq[at..], stride, ds, keys, 1.0, false);
                        matmul(dk, s.dim, ds.t(), q, 1.0, true);
                    }
                }
            },
        );
    }
}

impl CustomOp3 for Scores {
    fn name(&self) -> &'static str {
        "indexer-scores"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (b, t, heads) = l3.shape().dims3()?;
        let keys = l2.shape().dims3()?.1;
        check(l1.shape().dims3()?.1 == t && t <= keys, "the indexer's q or k")?;
        let (q, k, w) = (floats(s1, l1)?, floats(s2, l2)?, floats(s3, l3)?);
        let mut out = vec![0.0; b * t * keys];
        let blocks: Vec<(usize, usize, &mut [f32])> = out
            .chunks_mut((t * keys).max(1))
            .enumerate()
            .flat_map(|(n, rows)| rows.chunks_mut(ROWS * keys).enumerate().map(move |(i, chunk)| (n, i * ROWS, chunk)))
            .collect();
        blocks.into_par_iter().for_each(|(n, start, out)| {
            self.block(Sequence::of(n, b, (t, keys, heads), q, k, w), start, out, keys);
        });
        Ok((CpuStorage::F32(out), (b, t, keys).into()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        w: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (b, t, heads) = w.dims3()?;
        let (_, keys, dim) = k.dims3()?;
        let (mut dq, mut dk, mut dw) =
            (vec![0.0; b * t * heads * dim], vec![0.0; b * keys * dim], vec![0.0; b * t * heads]);
        with_floats(q, |q| {
            with_floats(k, |k| {
                with_floats(w, |w| {
                    with_floats(grad, |grad| {
                        let outs = dq
                            .par_chunks_mut(t * heads * dim)
                            .zip(dk.par_chunks_mut(keys * dim))
                            .zip(dw.par_chunks_mut(t * heads));
                        outs.enumerate().for_each(|(n, ((dq, dk), dw))| {
                            let s = Sequence::of(n, b, (t, keys, heads), q, k, w);
                            self.backward_sequence(s, &grad[n * t * keys..][..t * keys], dq, dk, dw);
                        });
                        Ok(())
                    })
                })
            })
        })?;
        Ok((
            Some(Tensor::from_vec(dq, q.shape(), q.device())?),
            Some(Tensor::from_vec(dk, k.shape(), q.device())?),
            Some(Tensor::from_vec(dw, w.shape(), q.device())?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::{assert_close, assert_gradients, random, values};

    fn operands(b: usize, t: usize, keys: usize) -> [Tensor; 3] {
        [random(&[b, t, 3 * 5], 1), random(&[b, keys, 5], 2), random(&[b, t, 3], 3)]
    }

    #[test]
    fn fused_and_plain_agree() {
        for (b, t, keys) in [(1, 1, 1), (2, 7, 7), (1, 64, 64), (2, 131, 131), (1, 1, 90), (2, 66, 100)] {
            let [q, k, w] = operands(b, t, keys);
            assert_close(&indexer_scores(&q, &k, &w, 0.4).unwrap(), &plain(&q, &k, &w, 0.4).unwrap(), 2e-6);
        }
    }

    #[test]
    fn gradients_agree_with_the_plain_form() {
        let form = |f: fn(&Tensor, &Tensor, &Tensor, f64) -> Result<Tensor>| {
            move |x: &[Tensor]| {
                let scores = f(&x[0], &x[1], &x[2], 0.4).unwrap();
                // The masked part has no gradient and would drown the rest.
                let visible = Allowed::Causal.mask((2, 70, 75), x[0].device()).unwrap();
                visible.where_cond(&scores, &scores.zeros_like().unwrap()).unwrap()
            }
        };
        assert_gradients(&operands(2, 70, 75), form(indexer_scores), form(plain), 1e-5);
    }

    #[test]
    fn keys_of_several_tokens_are_seen_from_their_last_token_on() {
        for (tokens, unit, topk) in [(3, 4, 2), (70, 4, 3), (130, 3, 100), (65, 64, 1)] {
            let keys = tokens / unit;
            let [q, _, w] = operands(2, tokens, tokens);
            if keys == 0 {
                assert!(Seen::none(2, tokens).sets().unwrap()[1].rows().all(<[u32]>::is_empty));
                continue;
            }
            let k = random(&[2, keys, 5], 7);
            let seen = Seen { before: 0, unit };
            let (got, ..) = select_seen(&q, &k, &w, 0.5, topk, seen, Stop::NEVER).unwrap();
            let scores = unmasked(&q, &k, &w, 0.5).unwrap();
            let want = top_k_seen(&scores, topk, |i| (i + 1) / unit).unwrap();
            assert_eq!(got.sets().unwrap(), want.sets().unwrap());
            assert!(want.sets().unwrap()[0].row(unit - 2).is_empty() && want.sets().unwrap()[0].row(unit - 1) == [0]);
            let late = Seen { before: unit, unit };
            assert!(select_seen(&q, &k, &w, 0.5, topk, late, Stop::NEVER).is_err());
        }
    }

    #[test]
    fn selecting_in_blocks_equals_selecting_from_the_whole() {
        // Dyadic operands: every partial sum is exact, so that sets must be identical, ties included.
        let dyadic = |x: &Tensor| {
            let v: Vec<f32> = values(x).iter().map(|v| (v * 2.0).round() / 2.0).collect();
            Tensor::from_vec(v, x.shape(), x.device()).unwrap()
        };
        for (t, keys, topk) in
            [(1, 1, 1), (63, 63, 4), (64, 64, 64), (65, 65, 1), (150, 150, 20), (20, 20, 100), (3, 80, 9)]
        {
            let [q, k, w] = operands(2, t, keys).map(|x| dyadic(&x));
            let whole = top_k_rows(&plain(&q, &k, &w, 0.5).unwrap(), topk).unwrap();
            let (blocks, ..) = select(&q, &k, &w, 0.5, topk, Stop::NEVER, false).unwrap();
            assert_eq!(blocks.sets().unwrap(), whole.sets().unwrap(), "T = {t}, k = {topk}");
        }
    }
}
