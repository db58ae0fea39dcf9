//! KL divergence from a target to the softmax of indexer scores, on sampled query rows, with its gradient in one pass.
//!
//! Row r at position i: KL(p_r ‖ softmax over the support of I_r), I_r[j] = Σ_h w[r,h] · relu(scale · q[r,h]·k[j]); the
//! support is the visible keys j ≤ i, or the selected ones of them, and p_r is renormalised over it. The result is the
//! mean over rows with more than one supported key. With all rows it equals [`kl`](super::kl) of
//! [`indexer_scores`](super::indexer_scores); but scores exist for one block of rows at a time only, and the gradient
//! (softmax − p) needs nothing that the value has not computed.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::gemm::{Mat, matmul};
use super::storage::floats;
use super::{check, simd};
use crate::domain::Selection;

/// Query rows of a block: few, so that the scores of every head stay in the second-level cache.
const ROWS: usize = 32;

/// What an indexer is trained towards on some query rows of one sequence.
#[derive(Clone, Debug)]
pub struct RowTargets {
    /// Positions of the rows, ascending.
    pub rows: Arc<Vec<usize>>,
    /// Probabilities `[R, T]`, row by row; what lies outside a row's support is ignored.
    pub probs: Arc<Vec<f32>>,
    /// The selected keys of each row; `None` for all visible ones.
    pub support: Option<Arc<Selection>>,
}

impl RowTargets {
    /// Returns the positions of row `r`'s support.
    fn keys(&self, r: usize, all: &mut Vec<u32>) {
        all.clear();
        match &self.support {
            Some(selection) => all.extend_from_slice(selection.row(r)),
            None => all.extend(0..=self.rows[r] as u32),
        }
    }

    /// Returns how many rows have a choice, at least 1.
    fn counted(&self) -> f32 {
        let has_choice = |(r, &i): (usize, &usize)| self.support.as_ref().map_or(i + 1, |s| s.row(r).len()) > 1;
        self.rows.iter().enumerate().filter(|row| has_choice(*row)).count().max(1) as f32
    }
}

/// Computes the mean KL (scalar, nats) of one sequence's sampled rows.
///
/// `q` is `[R, heads · dim]` and `w` is `[R, heads]`, of the sampled rows only; `k` is `[T, dim]`. All are f32 on the
/// CPU. The target gets no gradient.
///
/// # Errors
/// Where shapes disagree.
pub fn indexer_kl(q: &Tensor, k: &Tensor, w: &Tensor, scale: f64, target: &RowTargets) -> Result<Tensor> {
    let op = IndexerKl { scale: scale as f32, target: target.clone(), gradients: Arc::default() };
    q.contiguous()?.apply_op3(&k.contiguous()?, &w.contiguous()?, op)
}

struct IndexerKl {
    scale: f32,
    target: RowTargets,
    /// Of q, k and w, for an upstream gradient of 1; filled by the forward.
    gradients: Arc<Mutex<[Vec<f32>; 3]>>,
}

/// The operands.
#[derive(Clone, Copy)]
struct Operands<'a> {
    heads: usize,
    dim: usize,
    keys: usize,
    q: &'a [f32],
    k: &'a [f32],
    w: &'a [f32],
}

/// Returns whether relu makes a dot product 0; one that is no number passes, so that the loss shows it.
#[inline(always)]
fn is_off(a: f32) -> bool {
    a <= 0.0
}

/// What a block of rows adds: its divergence and its part of the keys' gradient.
struct Part {
    sum: f64,
    dk: Vec<f32>,
}

impl IndexerKl {
    /// Works on rows from `start`; `dq` and `dw` are theirs.
    fn block(&self, x: Operands, start: usize, dq: &mut [f32], dw: &mut [f32], weight: f32) -> Part {
        simd::dispatch(
            #[inline(always)]
            || {
                let Operands { heads, dim, keys, .. } = x;
                let rows = dw.len() / heads;
                let end = self.target.rows[start + rows - 1] + 1;
                let width = heads * dim;
                let mut a = vec![0.0; heads * rows * end]; // scale · q·k, head by head
                for (h, a) in a.chunks_mut(rows * end).enumerate() {
                    let q = Mat::new(&x.q[start * width + h * dim..], rows, dim, width);
                    matmul(a, end, q, Mat::new(x.k, end, dim, dim).t(), self.scale, false);
                }
                let mut slopes = vec![0.0; rows * end]; // ∂loss/∂I
                let (mut support, mut p, mut s) = (Vec::new(), Vec::new(), vec![0.0; end]);
                let mut sum = 0.0;
                for r in 0..rows {
                    let seen = self.target.rows[start + r] + 1;
                    s[..seen].fill(0.0);
                    for h in 0..heads {
                        let w = x.w[(start + r) * heads + h];
                        let a = &a[(h * rows + r) * end..][..seen];
                        s.iter_mut().zip(a).for_each(|(s, &a)| *s += w * if is_off(a) { 0.0 } else { a });
                    }
                    self.target.keys(start + r, &mut support);
                    let given = &self.target.probs[(start + r) * keys..][..keys];
                    p.clear();
                    p.extend(support.iter().map(|&j| given[j as usize]));
                    let mass = simd::sum(&p);
                    if support.len() < 2 || mass <= 0.0 {
                        continue;
                    }
                    p.iter_mut().for_each(|p| *p /= mass);
                    let mut q: Vec<f32> = support.iter().map(|&j| s[j as usize]).collect();
                    let cross = simd::dot(&p, &q);
                    let entropy: f32 = p.iter().map(|&p| if p > 0.0 { p * p.ln() } else { 0.0 }).sum();
                    sum += f64::from(entropy - cross + simd::softmax(&mut q));
                    let slopes = &mut slopes[r * end..][..end];
                    for ((&j, q), p) in support.iter().zip(&q).zip(&p) {
                        slopes[j as usize] = (q - p) * weight;
                    }
                }
                let mut dk = vec![0.0; end * dim];
                for (h, a) in a.chunks_mut(rows * end).enumerate() {
                    for (r, (a, slopes)) in a.chunks_mut(end).zip(slopes.chunks(end)).enumerate() {
                        let mut of_w = 0.0;
                        let slope = x.w[(start + r) * heads + h] * self.scale;
                        for (a, &g) in a.iter_mut().zip(slopes) {
                            let off = is_off(*a);
                            of_w += if off { 0.0 } else { *a * g };
                            *a = if off { 0.0 } else { g * slope };
                        }
                        dw[r * heads + h] = of_w;
                    }
                    let ds = Mat::new(a, rows, end, end);
                    matmul(&mut dq[h * dim..], width, ds, Mat::new(x.k, end, dim, dim), 1.0, false);
                    let q = Mat::new(&x.q[start * width + h * dim..], rows, dim, width);
                    matmul(&mut dk, dim, ds.t(), q, 1.0, true);
                }
                Part { sum, dk }
            },
        )
    }
}

impl CustomOp3 for IndexerKl {
    fn name(&self) -> &'static str {
        "indexer-kl-rows"
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
        let ((rows, heads), (keys, dim)) = (l3.shape().dims2()?, l2.shape().dims2()?);
        let positions = &self.target.rows;
        check(l1.shape().dims2()? == (rows, heads * dim) && rows == positions.len(), "the indexer's q or w")?;
        check(positions.is_sorted() && positions.last().is_none_or(|&i| i < keys), "the list of rows")?;
        check(self.target.probs.len() == rows * keys, "the target")?;
        check(self.target.support.as_ref().is_none_or(|s| s.len() == rows), "the support")?;
        let x = Operands { heads, dim, keys, q: floats(s1, l1)?, k: floats(s2, l2)?, w: floats(s3, l3)? };
        let weight = 1.0 / self.target.counted();
        let (mut dq, mut dk, mut dw) = (vec![0.0; rows * heads * dim], vec![0.0; keys * dim], vec![0.0; rows * heads]);
        let blocks = dq.par_chunks_mut((ROWS * heads * dim).max(1)).zip(dw.par_chunks_mut((ROWS * heads).max(1)));
        let parts: Vec<Part> =
            blocks.enumerate().map(|(n, (dq, dw))| self.block(x, n * ROWS, dq, dw, weight)).collect();
        // In the order of the rows, so that the sums do not depend on the number of threads.
        let mut sum = 0.0;
        for part in parts {
            sum += part.sum;
            dk.iter_mut().zip(&part.dk).for_each(|(a, b)| *a += b);
        }
        *self.gradients.lock().unwrap_or_else(PoisonError::into_inner) = [dq, dk, dw];
        Ok((CpuStorage::F32(vec![(sum * f64::from(weight)) as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        w: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let upstream = grad.to_scalar::<f32>()?;
        let gradients = self.gradients.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |values: &[f32], like: &Tensor| {
            let scaled: Vec<f32> = values.iter().map(|v| v * upstream).collect();
            Tensor::from_vec(scaled, like.shape(), like.device()).map(Some)
        };
        Ok((of(&gradients[0], q)?, of(&gradients[1], k)?, of(&gradients[2], w)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::{assert_close, assert_gradients, random, random_indices, values};
    use crate::model::ops::{Allowed, indexer_scores, kl};
    use candle_core::D;

    const SCALE: f64 = 0.4;

    fn probs(rows: usize, keys: usize, seed: u64) -> Tensor {
        candle_nn::ops::softmax(&(random(&[rows, keys], seed) * 3.0).unwrap(), D::Minus1).unwrap()
    }

    fn target(rows: Vec<usize>, probs: &Tensor, support: Option<Selection>) -> RowTargets {
        RowTargets { rows: Arc::new(rows), probs: Arc::new(values(probs)), support: support.map(Arc::new) }
    }

    #[test]
    fn all_rows_equal_the_whole_form_in_value_and_gradient() {
        let t = 70;
        let operands = [random(&[t, 3 * 5], 1), random(&[t, 5], 2), random(&[t, 3], 3)];
        let p = probs(t, t, 4);
        let picked = random_indices(1, t, t, 9, 5);
        for support in [None, Some(picked)] {
            let rows = target((0..t).collect(), &p, support.as_ref().map(|s| s.sets().unwrap()[0].clone()));
            let allowed = support.map_or(Allowed::Causal, Allowed::Selected);
            let fused = |x: &[Tensor]| indexer_kl(&x[0], &x[1], &x[2], SCALE, &rows).unwrap();
            let whole = |x: &[Tensor]| {
                let [q, k, w] = [0, 1, 2].map(|n| x[n].unsqueeze(0).unwrap());
                kl(&indexer_scores(&q, &k, &w, SCALE).unwrap(), &p.unsqueeze(0).unwrap(), &allowed).unwrap()
            };
            assert_close(&fused(&operands), &whole(&operands), 1e-5);
            assert_gradients(&operands, fused, whole, 1e-6);
        }
    }

    #[test]
    fn sampled_rows_are_the_mean_of_their_own_divergences() {
        let t = 50;
        let (q, k, w) = (random(&[t, 3 * 5], 1), random(&[t, 5], 2), random(&[t, 3], 3));
        let p = probs(t, t, 4);
        let take = |x: &Tensor, rows: &[usize]| {
            let rows: Vec<u32> = rows.iter().map(|&r| r as u32).collect();
            x.index_select(&Tensor::new(rows, x.device()).unwrap(), 0).unwrap()
        };
        let at = |rows: &[usize]| {
            let of = target(rows.to_vec(), &take(&p, rows), None);
            indexer_kl(&take(&q, rows), &k, &take(&w, rows), SCALE, &of).unwrap().to_scalar::<f32>().unwrap()
        };
        let rows = [0, 3, 20, 21, 49];
        // The first row sees one key and has nothing to learn.
        let mean = rows[1..].iter().map(|&r| at(&[r])).sum::<f32>() / 4.0;
        assert!((at(&rows) - mean).abs() < 1e-6 && at(&[0]) == 0.0);
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let (q, k, w) = (random(&[2, 15], 1), random(&[9, 5], 2), random(&[2, 3], 3));
        for rows in [vec![3], vec![4, 3], vec![3, 9]] {
            let p = probs(2, 9, 4);
            assert!(indexer_kl(&q, &k, &w, SCALE, &target(rows, &p, None)).is_err());
        }
    }
}
