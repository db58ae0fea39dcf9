//! Residual streams: the weights that mix them, and the mixing; no gradient in the fast forms.

use candle_core::{D, DType, Result, Tensor};
use rayon::prelude::*;

use super::allowed::check;
use super::storage::{on_cpu, with_floats};
use super::{PARALLEL, simd};

/// How the weights of streams are made from a projection.
#[derive(Clone, Copy, Debug)]
pub struct StreamMix {
    /// Number of streams.
    pub streams: usize,
    /// Factors on the projections of pre, post and comb.
    pub scale: [f64; 3],
    /// Normalisations, pairs of rows and columns; the first has a softmax for the rows.
    pub iterations: usize,
    /// Added to pre, to the softmax and to every sum.
    pub eps: f64,
}

/// Makes from `m` `[N, (2 + streams) · streams]` and `base` of that width: pre `[N, streams]`, post `[N, streams]` and comb
/// `[N, streams, streams]`, f32.
///
/// # Errors
/// Where shapes disagree.
pub fn stream_weights(m: &Tensor, base: &Tensor, mix: StreamMix) -> Result<[Tensor; 3]> {
    if !on_cpu(&[m, base]) {
        return stream_weights_plain(m, base, mix);
    }
    let ((n, width), s) = (m.dims2()?, mix.streams);
    check(s > 0 && width == (2 + s) * s && base.dims() == [width], "the projection of the streams")?;
    let (mut pre, mut post, mut comb) = (vec![0.0f32; n * s], vec![0.0f32; n * s], vec![0.0f32; n * s * s]);
    let (scale, eps) = (mix.scale.map(|v| v as f32), mix.eps as f32);
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    with_floats(m, |m| {
        with_floats(base, |base| {
            let rows = m.par_chunks(width).zip(pre.par_chunks_mut(s)).zip(post.par_chunks_mut(s));
            rows.zip(comb.par_chunks_mut(s * s)).with_min_len(64).for_each(|(((m, pre), post), c)| {
                for j in 0..s {
                    pre[j] = sigmoid(m[j] * scale[0] + base[j]) + eps;
                    post[j] = 2.0 * sigmoid(m[s + j] * scale[1] + base[s + j]);
                }
                for ((c, m), base) in c.iter_mut().zip(&m[2 * s..]).zip(&base[2 * s..]) {
                    *c = m * scale[2] + base;
                }
                for row in c.chunks_mut(s) {
                    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    row.iter_mut().for_each(|v| *v = (*v - top).exp());
                    let total: f32 = row.iter().sum();
                    row.iter_mut().for_each(|v| *v = *v / total + eps);
                }
                for iteration in 0..mix.iterations {
                    if iteration > 0 {
                        for row in c.chunks_mut(s) {
                            let total = row.iter().sum::<f32>() + eps;
                            row.iter_mut().for_each(|v| *v /= total);
                        }
                    }
                    for k in 0..s {
                        let total = (0..s).map(|j| c[j * s + k]).sum::<f32>() + eps;
                        (0..s).for_each(|j| c[j * s + k] /= total);
                    }
                }
            });
            Ok(())
        })
    })?;
    let device = m.device();
    Ok([
        Tensor::from_vec(pre, (n, s), device)?,
        Tensor::from_vec(post, (n, s), device)?,
        Tensor::from_vec(comb, (n, s, s), device)?,
    ])
}

/// The same in candle's stock ops.
///
/// # Errors
/// Where shapes disagree.
pub fn stream_weights_plain(m: &Tensor, base: &Tensor, mix: StreamMix) -> Result<[Tensor; 3]> {
    let (n, s) = (m.dim(0)?, mix.streams);
    let part = |at: usize, width: usize, factor: usize| {
        (m.narrow(1, at, width)? * mix.scale[factor])?.broadcast_add(&base.narrow(0, at, width)?)
    };
    let pre = (candle_nn::ops::sigmoid(&part(0, s, 0)?)? + mix.eps)?;
    let post = (candle_nn::ops::sigmoid(&part(s, s, 1)?)? * 2.0)?;
    let logits = part(2 * s, s * s, 2)?.reshape((n, s, s))?.contiguous()?;
    let mut comb = (candle_nn::ops::softmax(&logits, D::Minus1)? + mix.eps)?;
    for iteration in 0..mix.iterations {
        if iteration > 0 {
            comb = comb.broadcast_div(&(comb.sum_keepdim(2)? + mix.eps)?)?;
        }
        comb = comb.broadcast_div(&(comb.sum_keepdim(1)? + mix.eps)?)?;
    }
    Ok([pre, post, comb])
}

/// Sums streams `x` `[N, streams, hidden]` by weights `[N, streams]`: `[N, hidden]`.
///
/// # Errors
/// Where shapes disagree.
pub fn weighted_streams(x: &Tensor, weights: &Tensor) -> Result<Tensor> {
    if !on_cpu(&[x, weights]) {
        return x.broadcast_mul(&weights.unsqueeze(2)?)?.sum(1);
    }
    let (n, s, hidden) = x.dims3()?;
    check(weights.dims() == [n, s], "the weights of the streams")?;
    let mut out = vec![0.0f32; n * hidden];
    with_floats(x, |x| {
        with_floats(weights, |weights| {
            let rows = out.par_chunks_mut(hidden).zip(x.par_chunks(s * hidden)).zip(weights.par_chunks(s));
            rows.with_min_len(PARALLEL.div_ceil(s * hidden)).for_each(|((out, x), weights)| {
                simd::dispatch(
                    #[inline(always)]
                    || {
                        for (x, w) in x.chunks(hidden).zip(weights) {
                            out.iter_mut().zip(x).for_each(|(out, x)| *out += w * x);
                        }
                    },
                );
            });
            Ok(())
        })
    })?;
    Tensor::from_vec(out, (n, hidden), x.device())
}

/// Returns the streams after a sublayer, `[N, streams, hidden]`: stream k is post[k] · out + Σ_j comb[j, k] · x[j].
///
/// # Errors
/// Where shapes disagree.
pub fn spread(x: &Tensor, out: &Tensor, post: &Tensor, comb: &Tensor) -> Result<Tensor> {
    if !on_cpu(&[x, out, post, comb]) {
        return spread_plain(x, out, post, comb);
    }
    let (n, s, hidden) = x.dims3()?;
    let fits = out.dims() == [n, hidden] && post.dims() == [n, s] && comb.dims() == [n, s, s];
    check(fits, "the output or the weights of the streams")?;
    let mut next = vec![0.0f32; n * s * hidden];
    with_floats(x, |x| {
        with_floats(out, |out| {
            with_floats(post, |post| {
                with_floats(comb, |comb| {
                    let from = x.par_chunks(s * hidden).zip(out.par_chunks(hidden));
                    let weights = post.par_chunks(s).zip(comb.par_chunks(s * s));
                    let rows = next.par_chunks_mut(s * hidden).zip(from.zip(weights));
                    rows.with_min_len(PARALLEL.div_ceil(s * hidden)).for_each(|(next, ((x, out), (post, comb)))| {
                        simd::dispatch(
                            #[inline(always)]
                            || {
                                for (k, next) in next.chunks_mut(hidden).enumerate() {
                                    next.iter_mut().zip(out).for_each(|(next, out)| *next = post[k] * out);
                                    for (j, x) in x.chunks(hidden).enumerate() {
                                        let w = comb[j * s + k];
                                        next.iter_mut().zip(x).for_each(|(next, x)| *next += w * x);
                                    }
                                }
                            },
                        );
                    });
                    Ok(())
                })
            })
        })
    })?;
    Tensor::from_vec(next, (n, s, hidden), x.device())
}

/// The same in candle's stock ops.
///
/// # Errors
/// Where shapes disagree.
pub fn spread_plain(x: &Tensor, out: &Tensor, post: &Tensor, comb: &Tensor) -> Result<Tensor> {
    let given = post.unsqueeze(2)?.broadcast_mul(&out.unsqueeze(1)?)?;
    given + comb.transpose(1, 2)?.contiguous()?.matmul(&x.to_dtype(DType::F32)?)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::{assert_close, random, values};

    #[test]
    fn both_forms_agree() {
        for (n, streams, hidden, iterations, eps) in [(1, 1, 1, 1, 0.0), (5, 3, 7, 3, 1e-3), (70, 4, 33, 20, 1e-6)] {
            let mix = StreamMix { streams, scale: [0.7, -1.3, 2.0], iterations, eps };
            let (m, base) = (random(&[n, (2 + streams) * streams], 1), random(&[(2 + streams) * streams], 2));
            let fast = stream_weights(&m, &base, mix).unwrap();
            let plain = stream_weights_plain(&m, &base, mix).unwrap();
            fast.iter().zip(&plain).for_each(|(fast, plain)| assert_close(fast, plain, 1e-6));
            let [pre, post, comb] = &fast;
            let (x, out) = (random(&[n, streams, hidden], 3), random(&[n, hidden], 4));
            let want = x.broadcast_mul(&pre.unsqueeze(2).unwrap()).unwrap().sum(1).unwrap();
            assert_close(&weighted_streams(&x, pre).unwrap(), &want, 1e-6);
            assert_close(&spread(&x, &out, post, comb).unwrap(), &spread_plain(&x, &out, post, comb).unwrap(), 1e-6);
        }
    }

    #[test]
    fn columns_are_normalised_last_and_the_mixing_is_over_the_first_index() {
        let mix = StreamMix { streams: 2, scale: [1.0; 3], iterations: 1, eps: 0.0 };
        let (m, base) = (random(&[1, 8], 5), random(&[8], 6));
        let comb = values(&stream_weights(&m, &base, mix).unwrap()[2]);
        assert!((comb[0] + comb[2] - 1.0).abs() < 1e-6 && (comb[1] + comb[3] - 1.0).abs() < 1e-6, "{comb:?}");
        let (x, out) = (random(&[1, 2, 1], 7), random(&[1, 1], 8));
        let (post, c) = (random(&[1, 2], 9), random(&[1, 2, 2], 10));
        let (got, x, c) = (values(&spread(&x, &out, &post, &c).unwrap()), values(&x), values(&c));
        let want = values(&post)[1] * values(&out)[0] + c[1] * x[0] + c[3] * x[1];
        assert!((got[1] - want).abs() < 1e-6);
    }
}
