//! Normalisation over the last dimension.
//!
//! RMS: y = w · (x / √(mean x² + eps)), with the cast back to the activation dtype before the product with w, as the
//! reference does. `LayerNorm` (only the indexer's key has one) subtracts the mean and adds a bias.

use candle_core::{CpuStorage, CustomOp2, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::storage::{floats, on_cpu, with_floats};
use super::{PARALLEL, simd};

/// Applies RMS normalisation over the last dimension; `w` has its width.
///
/// # Errors
/// Where shapes disagree.
pub fn rms_norm(x: &Tensor, w: &Tensor, eps: f64) -> Result<Tensor> {
    if on_cpu(&[x, w]) {
        return x.contiguous()?.apply_op2(&w.contiguous()?, RmsNorm { eps: eps as f32 });
    }
    #[cfg(feature = "cuda")]
    if let Some(y) = super::cuda::norm(x, w, None, eps)? {
        return Ok(y);
    }
    plain(x, w, eps)
}

fn plain(x: &Tensor, w: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let scale = (wide.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    wide.broadcast_div(&scale)?.to_dtype(x.dtype())?.broadcast_mul(w)
}

/// Applies layer normalisation (biased variance) over the last dimension, in f32.
///
/// # Errors
/// Where shapes disagree.
pub fn layer_norm(x: &Tensor, w: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(y) = super::cuda::norm(x, w, Some(bias), eps)? {
        return Ok(y);
    }
    let wide = x.to_dtype(DType::F32)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let scale = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    centred.broadcast_div(&scale)?.to_dtype(x.dtype())?.broadcast_mul(w)?.broadcast_add(bias)
}

struct RmsNorm {
    eps: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (floats(s1, l1)?, floats(s2, l2)?);
        let width = w.len();
        if l1.dims().last() != Some(&width) {
            candle_core::bail!("a norm of width {width} cannot take a tensor of shape {:?}", l1.dims());
        }
        let mut out = vec![0.0; x.len()];
        let chunk = width * PARALLEL.div_ceil(width);
        out.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(out, x)| {
            simd::dispatch(
                #[inline(always)]
                || {
                    for (out, x) in out.chunks_mut(width).zip(x.chunks(width)) {
                        let r = 1.0 / (simd::dot(x, x) / width as f32 + self.eps).sqrt();
                        for ((o, x), w) in out.iter_mut().zip(x).zip(w) {
                            *o = x * r * w;
                        }
                    }
                },
            );
        });
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let width = w.elem_count();
        let (mut dx, mut dw) = (vec![0.0; x.elem_count()], vec![0.0; width]);
        with_floats(x, |xs| {
            with_floats(w, |ws| {
                with_floats(grad, |gs| {
                    // One thread: dw is a sum over all rows, and its order must not depend on the number of threads.
                    simd::dispatch(
                        #[inline(always)]
                        || {
                            let rows = dx.chunks_mut(width).zip(xs.chunks(width)).zip(gs.chunks(width));
                            for ((dx, x), g) in rows {
                                let r = 1.0 / (simd::dot(x, x) / width as f32 + self.eps).sqrt();
                                for (((dx, dw), (x, g)), w) in dx.iter_mut().zip(&mut dw).zip(x.iter().zip(g)).zip(ws) {
                                    *dx = g * w;
                                    *dw += g * x * r;
                                }
                                let inner = simd::dot(dx, x) * r * r * r / width as f32;
                                for (dx, x) in dx.iter_mut().zip(x) {
                                    *dx = *dx * r - x * inner;
                                }
                            }
                        },
                    );
                    Ok(())
                })
            })
        })?;
        Ok((Some(Tensor::from_vec(dx, x.shape(), x.device())?), Some(Tensor::from_vec(dw, w.shape(), w.device())?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::{assert_close, assert_gradients, random};

    #[test]
    fn fused_and_plain_agree_with_gradients() {
        let inputs = [random(&[2, 70, 37], 1), random(&[37], 2)];
        assert_close(
            &rms_norm(&inputs[0], &inputs[1], 1e-3).unwrap(),
            &plain(&inputs[0], &inputs[1], 1e-3).unwrap(),
            1e-6,
        );
        assert_gradients(
            &inputs,
            |x| rms_norm(&x[0], &x[1], 1e-3).unwrap(),
            |x| plain(&x[0], &x[1], 1e-3).unwrap(),
            1e-5,
        );
    }

    #[test]
    fn a_wrong_width_is_refused() {
        assert!(rms_norm(&random(&[2, 5], 1), &random(&[4], 2), 1e-6).is_err());
    }
}
