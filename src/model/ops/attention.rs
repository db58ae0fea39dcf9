//! Attention over the keys that each query may see, of MLA and GQA alike.
//!
//! p[n,i,j] = softmax_j(scale · (q_nope[i,n]·k_nope[j,g] + q_rope[i,n]·k_rope[j])) over j ≤ i, j ∈ selection(i);
//! out[i,n] = Σ_j p[n,i,j] · v[j,g], where g is the head of keys and values that serves query head n: n itself under
//! MLA. Under GQA all of a key is "nope" (it comes rotated) and nothing is shared by all heads. The queries are the last of the keys' positions: all of them in a prefill, one in a
//! decode step; "j ≤ i" compares positions.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::allowed::keep;
use super::gemm::{Mat, matmul};
use super::storage::{floats, on_cpu, with_floats};
use super::{Allowed, MASKED, check, simd};
use crate::checkpoint::{self, Config, MiniMaxM3};
use crate::domain::Selection;

/// Query rows handled at once: the scores of a block fit into the second-level cache up to a few thousand keys.
const ROWS: usize = 64;

/// Sizes of one attention head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MlaShape {
    /// Query heads.
    pub heads: usize,
    /// Width of the part that each head of keys has for itself.
    pub nope: usize,
    /// Width of the part that all heads of keys have in common; 0 under GQA.
    pub rope: usize,
    /// Width of a value.
    pub value: usize,
}

impl MlaShape {
    /// Returns the sizes that a config gives.
    pub fn of(config: &Config) -> Self {
        let (nope, rope) = match config.attention {
            checkpoint::Attention::Mla => (config.qk_nope_head_dim, config.qk_rope_head_dim),
            checkpoint::Attention::SharedRows => (config.v_head_dim, 0),
            checkpoint::Attention::Gqa { head_dim, .. }
            | checkpoint::Attention::MiniMaxM3(MiniMaxM3 { head_dim, .. }) => (head_dim, 0),
        };
        Self { heads: config.num_attention_heads, nope, rope, value: config.v_head_dim }
    }

    /// Returns how many query heads each head of `kv` `[B, keys, kv_heads · (nope + value)]` serves.
    ///
    /// # Errors
    /// Where the heads cannot be divided so.
    pub(super) fn group(&self, kv: &Tensor) -> Result<usize> {
        let (width, one) = (kv.dim(D::Minus1)?, self.nope + self.value);
        let kv_heads = width / one.max(1);
        let even = kv_heads > 0 && width == kv_heads * one && self.heads.is_multiple_of(kv_heads);
        check(even, "kv").map(|()| self.heads / kv_heads)
    }
}

/// Computes attention; also returns the head-averaged probabilities `[B, queries, keys]` (detached) if `want_probs`.
///
/// `q` is `[B, queries, heads · (nope + rope)]`, each head nope first; `kv` is `[B, keys, kv_heads · (nope + value)]`,
/// each head k_nope first; `k_rope` is `[B, keys, rope]`, one head for all. The result is `[B, queries, heads · value]`.
///
/// # Errors
/// Where shapes disagree.
pub fn mla_attention(
    q: &Tensor,
    kv: &Tensor,
    k_rope: &Tensor,
    shape: MlaShape,
    scale: f64,
    allowed: &Allowed,
    want_probs: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    if !on_cpu(&[q, kv, k_rope]) {
        return plain(q, kv, k_rope, shape, scale, allowed, want_probs);
    }
    let (b, t, _) = q.dims3()?;
    let probs = want_probs.then(|| Arc::new(Mutex::new(Vec::new())));
    let op =
        Mla { shape, group: shape.group(kv)?, scale: scale as f32, allowed: allowed.clone(), probs: probs.clone() };
    let out = q.contiguous()?.apply_op3(&kv.contiguous()?, &k_rope.contiguous()?, op)?;
    let probs = match probs {
        Some(cell) => {
            let values = std::mem::take(&mut *cell.lock().unwrap_or_else(PoisonError::into_inner));
            Some(Tensor::from_vec(values, (b, t, kv.dim(1)?), q.device())?)
        }
        None => None,
    };
    Ok((out, probs))
}

/// The same in candle's stock ops: the oracle, and the form for other devices.
fn plain(
    q: &Tensor,
    kv: &Tensor,
    k_rope: &Tensor,
    shape: MlaShape,
    scale: f64,
    allowed: &Allowed,
    want_probs: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let (b, t, _) = q.dims3()?;
    let keys = kv.dim(1)?;
    let MlaShape { heads, nope, rope, value } = shape;
    let group = shape.group(kv)?;
    let kv_heads = heads / group;
    let dtype = q.dtype();
    let q = q.reshape((b, t, heads, nope + rope))?.transpose(1, 2)?.contiguous()?; // B N T d
    let kv = kv.reshape((b, keys, kv_heads, nope + value))?.transpose(1, 2)?; // B G T (dn + dv)
    let kv = if group > 1 {
        let wide = kv.unsqueeze(2)?.broadcast_as((b, kv_heads, group, keys, nope + value))?;
        wide.reshape((b, heads, keys, nope + value))?
    } else {
        kv
    }; // B N T (dn + dv)
    let k_nope = kv.narrow(D::Minus1, 0, nope)?.contiguous()?;
    let v = kv.narrow(D::Minus1, nope, value)?.contiguous()?;
    let k = if rope == 0 {
        k_nope
    } else {
        let k_rope = k_rope.unsqueeze(1)?.broadcast_as((b, heads, keys, rope))?;
        Tensor::cat(&[&k_nope, &k_rope.contiguous()?], D::Minus1)?
    }; // B N T d
    let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)?.to_dtype(DType::F32)? * scale)?; // B N T T
    let mask = allowed.mask((b, t, keys), q.device())?.unsqueeze(1)?.broadcast_as(scores.shape())?;
    let floor = Tensor::full(MASKED, scores.shape(), q.device())?;
    let p = candle_nn::ops::softmax(&mask.where_cond(&scores, &floor)?, D::Minus1)?;
    let out = p.to_dtype(dtype)?.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((b, t, heads * value))?;
    let probs = if want_probs { Some(p.mean(1)?.detach()) } else { None };
    Ok((out, probs))
}

struct Mla {
    shape: MlaShape,
    /// How many query heads one head of keys and values serves.
    group: usize,
    scale: f32,
    allowed: Allowed,
    probs: Option<Arc<Mutex<Vec<f32>>>>,
}

/// The operands of one sequence.
#[derive(Clone, Copy)]
struct Sequence<'a> {
    /// `None` where every visible key takes part.
    selected: Option<&'a Selection>,
    queries: usize,
    keys: usize,
    q: &'a [f32],
    kv: &'a [f32],
    k_rope: &'a [f32],
}

impl Sequence<'_> {
    /// Returns how many keys query `i` sees.
    #[inline(always)]
    fn visible(&self, i: usize) -> usize {
        self.keys - self.queries + i + 1
    }
}

impl Mla {
    fn widths(&self) -> (usize, usize, usize) {
        let MlaShape { heads, nope, rope, value } = self.shape;
        (heads * (nope + rope), heads / self.group * (nope + value), heads * value)
    }

    /// Packs keys 0 to `upto` of key head `g` as rows `[k_nope | k_rope]`.
    #[inline(always)]
    fn pack_keys(&self, s: Sequence, g: usize, upto: usize, keys: &mut Vec<f32>) {
        let MlaShape { nope, rope, value, .. } = self.shape;
        let (_, wkv, _) = self.widths();
        keys.clear();
        for j in 0..upto {
            keys.extend_from_slice(&s.kv[j * wkv + g * (nope + value)..][..nope]);
            keys.extend_from_slice(&s.k_rope[j * rope..][..rope]);
        }
    }

    /// Fills `p`, one row per query from `start`, with the probabilities of head `n` over the keys packed in `keys`.
    #[inline(always)]
    fn probabilities(&self, s: Sequence, n: usize, start: usize, keys: &[f32], p: &mut [f32], kept: &mut Vec<f32>) {
        let d = self.shape.nope + self.shape.rope;
        let (wq, ..) = self.widths();
        let end = keys.len() / d;
        let queries = Mat::new(&s.q[start * wq + n * d..], p.len() / end, d, wq);
        matmul(p, end, queries, Mat::new(keys, end, d, d).t(), self.scale, false);
        for (row, i) in p.chunks_mut(end).zip(start..) {
            let (seen, unseen) = row.split_at_mut(s.visible(i));
            if let Some(selected) = s.selected {
                keep(selected.row(i), seen, kept);
            }
            simd::softmax(seen);
            unseen.fill(0.0);
        }
    }

    /// Writes the output rows `start..end` of one sequence and, if asked, their head-averaged probabilities.
    fn forward_block(&self, s: Sequence, start: usize, out: &mut [f32], mut mean: Option<&mut [f32]>) {
        simd::dispatch(
            #[inline(always)]
            || {
                let MlaShape { heads, nope, value, .. } = self.shape;
                let group = self.group;
                let (_, wkv, wo) = self.widths();
                let rows = out.len() / wo;
                let end = s.visible(start + rows - 1);
                let (mut keys, mut kept) = (Vec::new(), Vec::new());
                let mut p = vec![0.0; rows * end];
                for n in 0..heads {
                    let g = n / group;
                    if n % group == 0 {
                        self.pack_keys(s, g, end, &mut keys);
                    }
                    self.probabilities(s, n, start, &keys, &mut p, &mut kept);
                    let values = Mat::new(&s.kv[g * (nope + value) + nope..], end, value, wkv);
                    matmul(&mut out[n * value..], wo, Mat::new(&p, rows, end, end), values, 1.0, false);
                    if let Some(mean) = mean.as_deref_mut() {
                        for (to, from) in mean.chunks_mut(s.keys).zip(p.chunks(end)) {
                            to.iter_mut().zip(from).for_each(|(a, b)| *a += b / heads as f32);
                        }
                    }
                }
            },
        );
    }

    /// Accumulates the gradients of one sequence.
    fn backward_sequence(&self, s: Sequence, grad: &[f32], dq: &mut [f32], dkv: &mut [f32], dk_rope: &mut [f32]) {
        simd::dispatch(
            #[inline(always)]
            || {
                let MlaShape { heads, nope, rope, value } = self.shape;
                let group = self.group;
                let (wq, wkv, wo) = self.widths();
                let d = nope + rope;
                let (mut keys, mut kept) = (Vec::new(), Vec::new());
                let (mut p, mut dp, mut dk) = (Vec::new(), Vec::new(), vec![0.0; s.keys * d]);
                for n in 0..heads {
                    let g = n / group;
                    if n % group == 0 {
                        self.pack_keys(s, g, s.keys, &mut keys);
                        dk.fill(0.0);
                    }
                    for start in (0..s.queries).step_by(ROWS) {
                        let rows = ROWS.min(s.queries - start);
                        let end = s.visible(start + rows - 1);
                        p.resize(rows * end, 0.0);
                        dp.resize(rows * end, 0.0);
                        self.probabilities(s, n, start, &keys[..end * d], &mut p, &mut kept);
                        let dout = Mat::new(&grad[start * wo + n * value..], rows, value, wo);
                        let values = Mat::new(&s.kv[g * (nope + value) + nope..], end, value, wkv);
                        // dV += Pᵀ dO; dP = dO Vᵀ; dS = P ∘ (dP − Σ P∘dP) · scale
                        matmul(
                            &mut dkv[g * (nope + value) + nope..],
                            wkv,
                            Mat::new(&p, rows, end, end).t(),
                            dout,
                            1.0,
                            true,
                        );
                        matmul(&mut dp, end, dout, values.t(), 1.0, false);
                        for (dp, p) in dp.chunks_mut(end).zip(p.chunks(end)) {
                            let inner = simd::dot(dp, p);
                            dp.iter_mut().zip(p).for_each(|(ds, p)| *ds = p * (*ds - inner) * self.scale);
                        }
                        let ds = Mat::new(&dp, rows, end, end);
                        matmul(&mut dq[start * wq + n * d..], wq, ds, Mat::new(&keys, end, d, d), 1.0, false);
                        matmul(&mut dk, d, ds.t(), Mat::new(&s.q[start * wq + n * d..], rows, d, wq), 1.0, true);
                    }
                    if n % group + 1 < group {
                        continue;
                    }
                    for (j, dk) in dk.chunks(d).enumerate() {
                        dkv[j * wkv + g * (nope + value)..][..nope].copy_from_slice(&dk[..nope]);
                        dk_rope[j * rope..][..rope].iter_mut().zip(&dk[nope..]).for_each(|(a, b)| *a += b);
                    }
                }
            },
        );
    }
}

impl CustomOp3 for Mla {
    fn name(&self) -> &'static str {
        "mla-attention"
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
        let (b, t, _) = l1.shape().dims3()?;
        let (q, kv, k_rope) = (floats(s1, l1)?, floats(s2, l2)?, floats(s3, l3)?);
        let (wq, wkv, wo) = self.widths();
        let rope = self.shape.rope;
        let keys = l2.shape().dims3()?.1;
        l1.shape().dims3().and_then(|d| check(d == (b, t, wq) && t <= keys, "q"))?;
        l2.shape().dims3().and_then(|d| check(d == (b, keys, wkv), "kv"))?;
        l3.shape().dims3().and_then(|d| check(d == (b, keys, rope), "k_rope"))?;
        let sets = self.allowed.sets()?;
        check(sets.is_none_or(|sets| sets.len() == b && sets.iter().all(|s| s.len() == t)), "the selection")?;
        let sequence = |n: usize| Sequence {
            selected: sets.map(|sets| &sets[n]),
            queries: t,
            keys,
            q: &q[n * t * wq..][..t * wq],
            kv: &kv[n * keys * wkv..][..keys * wkv],
            k_rope: &k_rope[n * keys * rope..][..keys * rope],
        };
        let mut out = vec![0.0; b * t * wo];
        let mut mean = vec![0.0; if self.probs.is_some() { b * t * keys } else { 0 }];
        // A block is ROWS query rows of one sequence: contiguous in the output and in the mean.
        let mut blocks = Vec::new();
        let mut means = mean.chunks_mut((t * keys).max(1));
        for (n, rows) in out.chunks_mut((t * wo).max(1)).enumerate() {
            let mut mean_rows = means.next().map(|m| m.chunks_mut(ROWS * keys));
            for (i, chunk) in rows.chunks_mut(ROWS * wo).enumerate() {
                blocks.push((n, i * ROWS, chunk, mean_rows.as_mut().and_then(Iterator::next)));
            }
        }
        blocks.into_par_iter().for_each(|(n, start, out, mean)| self.forward_block(sequence(n), start, out, mean));
        if let Some(cell) = &self.probs {
            *cell.lock().unwrap_or_else(PoisonError::into_inner) = mean;
        }
        Ok((CpuStorage::F32(out), (b, t, wo).into()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        kv: &Tensor,
        k_rope: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (b, t, _) = q.dims3()?;
        let keys = kv.dim(1)?;
        let (wq, wkv, wo) = self.widths();
        let (rope, sets) = (self.shape.rope, self.allowed.sets()?);
        let (mut dq, mut dkv, mut dr) = (vec![0.0; b * t * wq], vec![0.0; b * keys * wkv], vec![0.0; b * keys * rope]);
        // Parts of nothing would be no parts at all.
        let mut shared: Vec<&mut [f32]> = match rope {
            0 => (0..b).map(|_| Default::default()).collect(),
            _ => dr.chunks_mut(keys * rope).collect(),
        };
        with_floats(q, |q| {
            with_floats(kv, |kv| {
                with_floats(k_rope, |k_rope| {
                    with_floats(grad, |grad| {
                        let outs =
                            dq.par_chunks_mut(t * wq).zip(dkv.par_chunks_mut(keys * wkv)).zip(shared.par_iter_mut());
                        outs.enumerate().for_each(|(n, ((dq, dkv), dr))| {
                            let s = Sequence {
                                selected: sets.map(|sets| &sets[n]),
                                queries: t,
                                keys,
                                q: &q[n * t * wq..][..t * wq],
                                kv: &kv[n * keys * wkv..][..keys * wkv],
                                k_rope: &k_rope[n * keys * rope..][..keys * rope],
                            };
                            self.backward_sequence(s, &grad[n * t * wo..][..t * wo], dq, dkv, dr);
                        });
                        Ok(())
                    })
                })
            })
        })?;
        Ok((
            Some(Tensor::from_vec(dq, q.shape(), q.device())?),
            Some(Tensor::from_vec(dkv, kv.shape(), q.device())?),
            Some(Tensor::from_vec(dr, k_rope.shape(), q.device())?),
        ))
    }
}

#[cfg(test)]
mod tests;
