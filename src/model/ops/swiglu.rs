//! The gated activation of the MLPs: silu(gate) · up.

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

/// 1 / (1 + e^−x), from the side on which the exponential does not overflow.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let e = simd::exp(-x.abs());
    let small = e / (1.0 + e);
    if x >= 0.0 { 1.0 - small } else { small }
}

struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
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
                        *o = g * sigmoid(*g) * u;
                    }
                },
            );
        });
        Ok((CpuStorage::F32(out), l1.shape().clone()))
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
}
