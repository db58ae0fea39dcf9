//! KL divergence from a target distribution over keys to the softmax of indexer scores.
//!
//! Row i of sequence b: KL(p ‖ softmax over the support of I) = Σ_j p_j (ln p_j − I_j + log Σ_j' e^{I_j'}); p is
//! renormalised over the support. The result is the mean over rows with more than one supported key. With a selected
//! support it is the sparse-stage loss of the DSA recipe, with a causal one the warm-up loss.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::allowed::Allowed;
use super::storage::{floats, with_floats};
use super::{MASKED, simd};
use crate::domain::Selection;

/// Computes the mean KL (scalar, nats) of scores `[B, T, T]` from target probabilities `[B, T, T]`.
///
/// The target is data: it gets no gradient.
///
/// # Errors
/// Where shapes differ, or off the CPU.
pub fn kl(scores: &Tensor, target: &Tensor, support: &Allowed) -> Result<Tensor> {
    if scores.dims() != target.dims() {
        candle_core::bail!("scores {:?} and target {:?} differ in shape", scores.dims(), target.dims());
    }
    let op = Kl { target: target.detach().contiguous()?, support: support.clone() };
    scores.contiguous()?.apply_op1(op)
}

struct Kl {
    target: Tensor,
    support: Allowed,
}

/// Working memory of one row.
#[derive(Default)]
struct Row {
    keys: Vec<u32>,
    p: Vec<f32>,
    q: Vec<f32>,
}

impl Kl {
    /// Gathers the row's support; returns whether it counts (more than one key, and mass in the target).
    #[inline(always)]
    fn gather(selected: Option<&Selection>, i: usize, scores: &[f32], target: &[f32], row: &mut Row) -> bool {
        row.keys.clear();
        match selected {
            None => row.keys.extend(0..=i as u32),
            Some(selected) => row.keys.extend_from_slice(selected.row(i)),
        }
        row.p.clear();
        row.q.clear();
        row.p.extend(row.keys.iter().map(|&j| target[j as usize]));
        row.q.extend(row.keys.iter().map(|&j| scores[j as usize]));
        let mass = simd::sum(&row.p);
        row.p.iter_mut().for_each(|p| *p /= mass);
        row.keys.len() > 1 && mass > 0.0
    }

    fn rows(t: usize, b: usize) -> f32 {
        // Row 0 sees one key only.
        (b * t.saturating_sub(1)).max(1) as f32
    }
}

impl CustomOp1 for Kl {
    fn name(&self) -> &'static str {
        "indexer-kl"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (b, t, _) = layout.shape().dims3()?;
        let (scores, sets) = (floats(storage, layout)?, self.support.sets()?);
        let total: Vec<f64> = with_floats(&self.target, |target| {
            let per_sequence = |n: usize| {
                let mut row = Row::default();
                let mut sum = 0.0f64;
                for i in 0..t {
                    let at = (n * t + i) * t;
                    if !Self::gather(sets.map(|sets| &sets[n]), i, &scores[at..][..t], &target[at..][..t], &mut row) {
                        continue;
                    }
                    let cross: f32 = simd::dot(&row.p, &row.q);
                    let entropy: f32 = row.p.iter().map(|&p| if p > 0.0 { p * p.ln() } else { 0.0 }).sum();
                    let lse = simd::dispatch(
                        #[inline(always)]
                        || simd::softmax(&mut row.q),
                    );
                    sum += f64::from(entropy - cross + lse);
                }
                sum
            };
            Ok((0..b).into_par_iter().map(per_sequence).collect())
        })?;
        let mean = total.iter().sum::<f64>() as f32 / Self::rows(t, b);
        Ok((CpuStorage::F32(vec![mean]), Shape::from(())))
    }

    fn bwd(&self, scores: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (b, t, _) = scores.dims3()?;
        let scale = grad.to_scalar::<f32>()? / Self::rows(t, b);
        let sets = self.support.sets()?;
        let mut out = vec![0.0; b * t * t];
        with_floats(scores, |scores| {
            with_floats(&self.target, |target| {
                out.par_chunks_mut(t * t).enumerate().for_each(|(n, out)| {
                    let mut row = Row::default();
                    for (i, out) in out.chunks_mut(t).enumerate() {
                        let at = (n * t + i) * t;
                        if !Self::gather(sets.map(|sets| &sets[n]), i, &scores[at..][..t], &target[at..][..t], &mut row)
                        {
                            continue;
                        }
                        simd::dispatch(
                            #[inline(always)]
                            || simd::softmax(&mut row.q),
                        );
                        for ((&j, q), p) in row.keys.iter().zip(&row.q).zip(&row.p) {
                            out[j as usize] = (q - p) * scale;
                        }
                    }
                });
                Ok(())
            })
        })?;
        debug_assert!(MASKED.is_finite(), "masked scores never enter a row's support");
        Ok(Some(Tensor::from_vec(out, scores.shape(), scores.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::{assert_close, assert_gradients, random, random_indices};
    use candle_core::{D, DType};

    /// The same in stock ops.
    fn plain(scores: &Tensor, target: &Tensor, support: &Allowed) -> Tensor {
        let (b, t, _) = scores.dims3().unwrap();
        let mask = support.mask((b, t, t), scores.device()).unwrap();
        let inside = mask.to_dtype(DType::F32).unwrap();
        let floor = Tensor::full(-1e30f32, (b, t, t), scores.device()).unwrap();
        let log_q = candle_nn::ops::log_softmax(&mask.where_cond(scores, &floor).unwrap(), D::Minus1).unwrap();
        let p = (target * &inside).unwrap();
        let p = p.broadcast_div(&p.sum_keepdim(D::Minus1).unwrap()).unwrap();
        let log_p = (p.clone() + 1e-38).unwrap().log().unwrap();
        let zero = log_q.zeros_like().unwrap();
        let term = (&p * (log_p - mask.where_cond(&log_q, &zero).unwrap()).unwrap()).unwrap();
        (term.sum_all().unwrap() / (b * (t - 1)) as f64).unwrap()
    }

    fn target(b: usize, t: usize) -> Tensor {
        candle_nn::ops::softmax(&(random(&[b, t, t], 5) * 3.0).unwrap(), D::Minus1).unwrap()
    }

    #[test]
    fn value_and_gradient_agree_with_stock_ops() {
        let (b, t) = (2, 19);
        let (scores, p) = (random(&[b, t, t], 4), target(b, t));
        for support in [Allowed::Causal, Allowed::Selected(random_indices(b, t, t, 6, 3))] {
            assert_close(&kl(&scores, &p, &support).unwrap(), &plain(&scores, &p, &support), 1e-5);
            assert_gradients(
                std::slice::from_ref(&scores),
                |x| kl(&x[0], &p, &support).unwrap(),
                |x| plain(&x[0], &p, &support),
                1e-6,
            );
        }
    }

    #[test]
    fn a_perfect_indexer_has_no_divergence() {
        let p = target(1, 9);
        let value = kl(&p.log().unwrap(), &p, &Allowed::Causal).unwrap().to_scalar::<f32>().unwrap();
        assert!(value.abs() < 1e-6, "{value}");
    }
}
