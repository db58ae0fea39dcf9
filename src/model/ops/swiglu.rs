//! The gated activations of the MLPs: silu(gate) · up, and the clamped form of MiniMax-M3.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::storage::{floats, on_cpu, with_floats};
use super::{PARALLEL, simd};

/// Computes silu(gate) · up, element by element.
///
/// # Errors
/// Where shapes differ.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if on_cpu(&[gate, up]) {
        return gate.contiguous()?.apply_op2(&up.contiguous()?, SwiGlu);
    }
    #[cfg(feature = "cuda")]
    if let Some(y) = super::cuda::swiglu(gate, up)? {
        return Ok(y);
    }
    gate.silu()? * up
}

/// Computes (u + 1) · g · σ(alpha · g), element by element, of g = min(gate, limit) and u = up between −limit and limit;
/// no gradient on the CPU.
///
/// # Errors
/// Where shapes differ.
pub fn clamped_swiglu(gate: &Tensor, up: &Tensor, alpha: f64, limit: f64) -> Result<Tensor> {
    if on_cpu(&[gate, up]) {
        let op = Clamped { alpha: alpha as f32, limit: limit as f32 };
        return gate.contiguous()?.apply_op2_no_bwd(&up.contiguous()?, &op);
    }
    plain_clamped(gate, up, alpha, limit)
}

fn plain_clamped(gate: &Tensor, up: &Tensor, alpha: f64, limit: f64) -> Result<Tensor> {
    let g = gate.minimum(limit)?;
    (up.clamp(-limit, limit)? + 1.0)? * (&g * candle_nn::ops::sigmoid(&(&g * alpha)?)?)?
}

/// 1 / (1 + e^−x), from the side on which the exponential does not overflow.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let e = simd::exp(-x.abs());
    let small = e / (1.0 + e);
    if x >= 0.0 { 1.0 - small } else { small }
}

/// Applies `f` to pairs of elements.
fn zip(
    (s1, l1): (&CpuStorage, &Layout),
    (s2, l2): (&CpuStorage, &Layout),
    f: impl Fn(f32, f32) -> f32 + Copy + Sync,
) -> Result<(CpuStorage, Shape)> {
    if l1.shape() != l2.shape() {
        candle_core::bail!("gate {:?} and up {:?} differ in shape", l1.dims(), l2.dims());
    }
    let (gate, up) = (floats(s1, l1)?, floats(s2, l2)?);
    let mut out = vec![0.0; gate.len()];
    let chunks = out.par_chunks_mut(PARALLEL).zip(gate.par_chunks(PARALLEL)).zip(up.par_chunks(PARALLEL));
    chunks.for_each(|((out, gate), up)| {
        simd::dispatch(
            #[inline(always)]
            || {
                for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
                    *o = f(*g, *u);
                }
            },
        );
    });
    Ok((CpuStorage::F32(out), l1.shape().clone()))
}

struct Clamped {
    alpha: f32,
    limit: f32,
}

impl CustomOp2 for Clamped {
    fn name(&self) -> &'static str {
        "clamped-swiglu"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let Self { alpha, limit } = *self;
        zip(
            (s1, l1),
            (s2, l2),
            #[inline(always)]
            move |gate, up| {
                // Not `min` and `clamp`, which would make a number of NaN.
                let g = if gate > limit { limit } else { gate };
                let u = if up > limit {
                    limit
                } else if up < -limit {
                    -limit
                } else {
                    up
                };
                (u + 1.0) * g * sigmoid(alpha * g)
            },
        )
    }
}

struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        zip(
            (s1, l1),
            (s2, l2),
            #[inline(always)]
            |gate, up| gate * sigmoid(gate) * up,
        )
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let n = gate.elem_count();
        let (mut dg, mut du) = (vec![0.0; n], vec![0.0; n]);
        with_floats(gate, |gate| {
            with_floats(up, |up| {
                with_floats(grad, |grad| {
                    let inputs = gate.par_chunks(PARALLEL).zip(up.par_chunks(PARALLEL)).zip(grad.par_chunks(PARALLEL));
                    let outputs = dg.par_chunks_mut(PARALLEL).zip(du.par_chunks_mut(PARALLEL));
                    outputs.zip(inputs).for_each(|((dg, du), ((gate, up), grad))| {
                        simd::dispatch(
                            #[inline(always)]
                            || {
                                for i in 0..gate.len() {
                                    let s = sigmoid(gate[i]);
                                    dg[i] = grad[i] * up[i] * s * (1.0 + gate[i] * (1.0 - s));
                                    du[i] = grad[i] * gate[i] * s;
                                }
                            },
                        );
                    });
                    Ok(())
                })
            })
        })?;
        let tensor = |v| Tensor::from_vec(v, gate.shape(), gate.device());
        Ok((Some(tensor(dg)?), Some(tensor(du)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::{assert_close, assert_gradients, random};

    #[test]
    fn fused_and_plain_agree_with_gradients() {
        let scaled = |seed| (random(&[3, 41], seed) * 8.0).unwrap();
        let inputs = [scaled(1), scaled(2)];
        let plain = |x: &[Tensor]| (x[0].silu().unwrap() * &x[1]).unwrap();
        assert_close(&swiglu(&inputs[0], &inputs[1]).unwrap(), &plain(&inputs), 2e-6);
        assert_gradients(&inputs, |x| swiglu(&x[0], &x[1]).unwrap(), plain, 1e-5);
    }

    #[test]
    fn fused_and_plain_agree_where_clamped() {
        let scaled = |seed| (random(&[3, 41], seed) * 4.0).unwrap();
        let (gate, up) = (scaled(1), scaled(2));
        let want = plain_clamped(&gate, &up, 1.702, 1.25).unwrap();
        assert_close(&clamped_swiglu(&gate, &up, 1.702, 1.25).unwrap(), &want, 2e-6);
        let spoilt = (&gate * f64::NAN).unwrap();
        let sum: f32 = clamped_swiglu(&spoilt, &up, 1.702, 1.25).unwrap().sum_all().unwrap().to_scalar().unwrap();
        assert!(sum.is_nan());
    }
}
