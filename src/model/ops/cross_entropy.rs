//! Loss of the next token: nll[n] = log Σ_v e^{logits[n,v]} − logits[n, target[n]].

use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::simd;
use super::storage::{floats, on_cpu, with_floats};

/// Computes the negative log-likelihood `[N]` (f32, nats) of each target under its row of logits `[N, V]`.
///
/// # Errors
/// Where the number of targets is not N, or a target is outside the vocabulary.
pub fn cross_entropy(logits: &Tensor, targets: &[u32]) -> Result<Tensor> {
    let (n, vocab) = logits.dims2()?;
    if targets.len() != n {
        candle_core::bail!("{} targets for {n} rows of logits", targets.len());
    }
    if let Some(bad) = targets.iter().find(|&&t| t as usize >= vocab) {
        candle_core::bail!("target {bad} is outside the vocabulary of {vocab}");
    }
    if on_cpu(&[logits]) {
        return logits.contiguous()?.apply_op1(CrossEntropy { targets: targets.to_vec() });
    }
    plain(logits, targets)
}

fn plain(logits: &Tensor, targets: &[u32]) -> Result<Tensor> {
    let logits = logits.to_dtype(DType::F32)?;
    let targets = Tensor::from_slice(targets, (targets.len(), 1), logits.device())?;
    candle_nn::ops::log_softmax(&logits, D::Minus1)?.gather(&targets, 1)?.squeeze(1)?.neg()
}

struct CrossEntropy {
    targets: Vec<u32>,
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, vocab) = layout.shape().dims2()?;
        let logits = floats(storage, layout)?;
        let nll = logits.par_chunks(vocab).zip(&self.targets).map(|(row, &target)| {
            simd::dispatch(
                #[inline(always)]
                || {
                    let top = simd::max(row);
                    let mut lanes = [0.0f32; 16];
                    let chunks = row.chunks_exact(16);
                    let tail: f32 = chunks.remainder().iter().map(|v| simd::exp(v - top)).sum();
                    for chunk in chunks {
                        for (lane, v) in lanes.iter_mut().zip(chunk) {
                            *lane += simd::exp(v - top);
                        }
                    }
                    let total = lanes.iter().sum::<f32>() + tail;
                    top + total.ln() - row[target as usize]
                },
            )
        });
        Ok((CpuStorage::F32(nll.collect()), n.into()))
    }

    fn bwd(&self, logits: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, vocab) = logits.dims2()?;
        let mut out = vec![0.0; logits.elem_count()];
        with_floats(logits, |logits| {
            with_floats(grad, |grad| {
                let rows = out.par_chunks_mut(vocab).zip(logits.par_chunks(vocab)).zip(grad).zip(&self.targets);
                rows.for_each(|(((out, logits), &g), &target)| {
                    simd::dispatch(
                        #[inline(always)]
                        || {
                            out.copy_from_slice(logits);
                            simd::softmax(out);
                            out[target as usize] -= 1.0;
                            out.iter_mut().for_each(|v| *v *= g);
                        },
                    );
                });
                Ok(())
            })
        })?;
        Ok(Some(Tensor::from_vec(out, logits.shape(), logits.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::{assert_close, assert_gradients, random};

    #[test]
    fn fused_and_plain_agree_with_gradients() {
        let logits = (random(&[5, 37], 1) * 9.0).unwrap();
        let targets = [0, 36, 5, 5, 17];
        assert_close(&cross_entropy(&logits, &targets).unwrap(), &plain(&logits, &targets).unwrap(), 1e-6);
        assert_gradients(
            &[logits],
            |x| cross_entropy(&x[0], &targets).unwrap(),
            |x| plain(&x[0], &targets).unwrap(),
            1e-5,
        );
    }

    #[test]
    fn a_logit_that_is_no_number_makes_the_loss_none() {
        for place in [0, 3, 18] {
            let mut logits = vec![0.5f32; 19];
            logits[place] = f32::NAN;
            let logits = Tensor::from_vec(logits, (1, 19), &candle_core::Device::Cpu).unwrap();
            let nll: Vec<f32> = cross_entropy(&logits, &[3]).unwrap().to_vec1().unwrap();
            assert!(nll[0].is_nan(), "at {place}: {nll:?}");
        }
    }

    #[test]
    fn wrong_targets_are_refused() {
        assert!(cross_entropy(&random(&[2, 3], 1), &[0]).is_err());
        assert!(cross_entropy(&random(&[2, 3], 1), &[0, 3]).is_err());
    }
}
