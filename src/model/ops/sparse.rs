//! Attention that reads only the selected keys, in two forms of the same mathematics; no gradient.
//!
//! *Expanded*: keys and values per head, as the reference computes them; a query's work is k·(nope + rope + value)
//! per head, in dot products. *Latent* (absorbed): scores and sums against the shared latent c_kv,
//!   s[n,j] = scale · ((q_nope[n] W_k[n]) · c_kv[j] + q_rope[n] · k_rope[j]),  out[n] = W_v[n] Σ_j p[n,j] c_kv[j];
//! k·(2·latent + rope) per head, but one gather for all heads and matrix products over them, and the expansion of
//! every token's keys and values never happens.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::Indices;
use super::allowed::check;
use super::attention::MlaShape;
use super::gemm::{Mat, matmul};
use super::shared_rows::{Query, Rows, Scratch};
use super::simd;
use super::stop::Stop;
use super::storage::with_floats;
use crate::domain::Selection;

/// Query rows per task.
const ROWS: usize = 32;

/// Heads from which the matrix products of the latent form outrun the dot products of the expanded form.
///
/// A product over fewer rows than a vector register block leaves most of the unit idle.
const LATENT_HEADS: usize = 4;

/// The keys that each query reads, and when to give up.
#[derive(Clone, Copy, Debug)]
pub struct Picked<'a> {
    /// One row per query row.
    pub indices: &'a Indices,
    /// Asked between blocks of rows.
    pub stop: Stop<'a>,
}

/// Returns whether the latent form is the cheaper one for these sizes.
pub fn prefers_latent(shape: MlaShape, latent: usize) -> bool {
    let MlaShape { heads, nope, rope, value } = shape;
    // Matrix products run at about four times the rate of short dot products over gathered rows.
    heads >= LATENT_HEADS && 2 * latent + rope <= 4 * (nope + rope + value)
}

/// Returns whether attention over selected keys runs where `q` is: on the CPU, and in bf16 on a CUDA device where a
/// kernel of our own takes the sizes.
///
/// `kept` is what is kept of the keys: latents of width `latent`, or keys and values of grouped heads.
pub fn runs_sparse(q: &Tensor, kept: &Tensor, shape: MlaShape, latent: Option<usize>) -> bool {
    #[cfg(feature = "cuda")]
    if q.device().is_cuda() {
        return match latent {
            Some(latent) => super::cuda::takes_latent(q, shape, latent),
            None => super::cuda::takes_grouped(q, kept, shape),
        };
    }
    let _ = (kept, shape, latent);
    q.device().is_cpu()
}

/// Attends in the expanded form; operands as in [`super::mla_attention`], and the picked keys.
///
/// # Errors
/// Where shapes disagree or a tensor is not f32 on the CPU.
pub fn sparse_expanded(
    q: &Tensor,
    kv: &Tensor,
    k_rope: &Tensor,
    shape: MlaShape,
    scale: f64,
    picked: Picked,
) -> Result<Tensor> {
    let (b, t, wq) = q.dims3()?;
    let MlaShape { heads, nope, rope, value } = shape;
    let (wkv, wo, d, scale) = (heads * (nope + value), heads * value, nope + rope, scale as f32);
    let keys = kv.dim(1)?;
    check(wq == heads * d && kv.dims() == [b, keys, wkv] && k_rope.dims() == [b, keys, rope], "q, kv or k_rope")?;
    let mut out = vec![0.0; b * t * wo];
    with_floats(q, |q| {
        with_floats(kv, |kv| {
            with_floats(k_rope, |k_rope| {
                each_block(&mut out, (b, t, wo), picked, |n, start, out, selection| {
                    let (q, kv, k_rope) = (&q[n * t * wq..], &kv[n * keys * wkv..], &k_rope[n * keys * rope..]);
                    let mut p = Vec::new();
                    for (out, i) in out.chunks_mut(wo).zip(start..) {
                        let keys = selection.row(i);
                        let query = &q[i * wq..][..wq];
                        p.clear();
                        p.resize(heads * keys.len(), 0.0);
                        for (c, &j) in keys.iter().enumerate() {
                            let (row, turned) = (&kv[j as usize * wkv..][..wkv], &k_rope[j as usize * rope..][..rope]);
                            for n in 0..heads {
                                let (q_nope, q_rope) = query[n * d..][..d].split_at(nope);
                                let s =
                                    simd::dot(q_nope, &row[n * (nope + value)..][..nope]) + simd::dot(q_rope, turned);
                                p[n * keys.len() + c] = s * scale;
                            }
                        }
                        p.chunks_mut(keys.len().max(1)).for_each(|row| {
                            simd::softmax(row);
                        });
                        for (c, &j) in keys.iter().enumerate() {
                            let row = &kv[j as usize * wkv..][..wkv];
                            for (n, out) in out.chunks_mut(value).enumerate() {
                                let w = p[n * keys.len() + c];
                                let v = &row[n * (nope + value) + nope..][..value];
                                out.iter_mut().zip(v).for_each(|(o, v)| *o += w * v);
                            }
                        }
                    }
                })
            })
        })
    })?;
    Tensor::from_vec(out, (b, t, wo), q.device())
}

/// Attends in the latent form; `c_kv` is `[B, keys, latent]` and `w` is kv_b's weight `[heads · (nope + value), latent]`.
///
/// # Errors
/// Where shapes disagree, or a tensor is neither f32 on the CPU nor bf16 on a CUDA device.
pub fn sparse_latent(
    q: &Tensor,
    c_kv: &Tensor,
    k_rope: &Tensor,
    w: &Tensor,
    shape: MlaShape,
    scale: f64,
    picked: Picked,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if q.device().is_cuda() {
        return super::cuda::sparse_latent(q, c_kv, k_rope, w, shape, scale, picked);
    }
    let (b, t, wq) = q.dims3()?;
    let MlaShape { heads, nope, rope, value } = shape;
    let (_, tokens, latent) = c_kv.dims3()?;
    let (wo, d, wide, scale) = (heads * value, nope + rope, latent + rope, scale as f32);
    check(
        wq == heads * d && w.dims() == [heads * (nope + value), latent] && k_rope.dims() == [b, tokens, rope],
        "q, kv_b or k_rope",
    )?;
    let mut out = vec![0.0; b * t * wo];
    with_floats(q, |q| {
        with_floats(c_kv, |c_kv| {
            with_floats(k_rope, |k_rope| {
                with_floats(w, |w| {
                    each_block(&mut out, (b, t, wo), picked, |n, start, out, selection| {
                        let (q, c_kv, k_rope) =
                            (&q[n * t * wq..], &c_kv[n * tokens * latent..], &k_rope[n * tokens * rope..]);
                        let rows = out.len() / wo;
                        // Absorb W_k into the block's queries: [rows, heads, latent + rope].
                        let mut absorbed = vec![0.0; rows * heads * wide];
                        for h in 0..heads {
                            let q_nope = Mat::new(&q[start * wq + h * d..], rows, nope, wq);
                            let w_k = Mat::new(&w[h * (nope + value) * latent..], nope, latent, latent);
                            matmul(&mut absorbed[h * wide..], heads * wide, q_nope, w_k, 1.0, false);
                            for (i, row) in absorbed.chunks_mut(heads * wide).enumerate() {
                                let q_rope = &q[(start + i) * wq + h * d + nope..][..rope];
                                row[h * wide + latent..][..rope].copy_from_slice(q_rope);
                            }
                        }
                        let mut scratch = Scratch::default();
                        let mut mixed = vec![0.0; rows * heads * latent];
                        let queries = absorbed.chunks(heads * wide).zip(mixed.chunks_mut(heads * latent));
                        for ((q, out), i) in queries.zip(start..) {
                            pulp::Arch::new().dispatch(Query {
                                q,
                                keys: [Rows::new(c_kv, latent), Rows::new(k_rope, rope)],
                                values: Rows::new(c_kv, latent),
                                selected: selection.row(i),
                                sinks: &[],
                                scale,
                                scratch: &mut scratch,
                                out,
                            });
                        }
                        for h in 0..heads {
                            let mixed = Mat::new(&mixed[h * latent..], rows, latent, heads * latent);
                            let w_v = Mat::new(&w[(h * (nope + value) + nope) * latent..], value, latent, latent);
                            matmul(&mut out[h * value..], wo, mixed, w_v.t(), 1.0, false);
                        }
                    })
                })
            })
        })
    })?;
    Tensor::from_vec(out, (b, t, wo), q.device())
}

/// Calls `f` for blocks of query rows in parallel: (sequence, first row, its output rows, its selection).
pub(super) fn each_block(
    out: &mut [f32],
    (b, t, width): (usize, usize, usize),
    Picked { indices, stop }: Picked,
    f: impl Fn(usize, usize, &mut [f32], &Selection) + Sync,
) -> Result<()> {
    let sets = indices.sets()?;
    check(sets.len() == b && sets.iter().all(|s| s.len() == t), "the selection")?;
    let blocks: Vec<(usize, usize, &mut [f32])> = out
        .chunks_mut((t * width).max(1))
        .enumerate()
        .flat_map(|(n, rows)| rows.chunks_mut(ROWS * width).enumerate().map(move |(i, block)| (n, i * ROWS, block)))
        .collect();
    blocks.into_par_iter().for_each(|(n, start, block)| {
        if stop.asked() {
            return;
        }
        simd::dispatch(
            #[inline(always)]
            || f(n, start, block, &sets[n]),
        );
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::{assert_close, random, random_indices};
    use crate::model::ops::{Allowed, mla_attention};

    #[test]
    fn both_forms_agree_with_masked_attention() {
        for (heads, t, keys, k) in
            [(1, 1, 1, 1), (3, 7, 7, 1), (3, 31, 31, 40), (9, 65, 65, 6), (2, 150, 150, 17), (4, 1, 70, 9)]
        {
            let shape = MlaShape { heads, nope: 5, rope: 4, value: 6 };
            let latent = 7;
            let (q, k_rope) = (random(&[2, t, heads * 9], 1), random(&[2, keys, 4], 3));
            let (c_kv, w) = (random(&[2, keys, latent], 2), random(&[heads * 11, latent], 4));
            let kv = c_kv.reshape((2 * keys, latent)).unwrap().matmul(&w.t().unwrap()).unwrap();
            let kv = kv.reshape((2, keys, heads * 11)).unwrap();
            let indices = random_indices(2, t, keys, k, 5);
            let want =
                mla_attention(&q, &kv, &k_rope, shape, 0.3, &Allowed::Selected(indices.clone()), false).unwrap().0;
            let picked = Picked { indices: &indices, stop: Stop::NEVER };
            assert_close(&sparse_expanded(&q, &kv, &k_rope, shape, 0.3, picked).unwrap(), &want, 2e-6);
            assert_close(&sparse_latent(&q, &c_kv, &k_rope, &w, shape, 0.3, picked).unwrap(), &want, 5e-6);
        }
    }

    #[test]
    fn the_form_follows_the_sizes() {
        let shape = |heads| MlaShape { heads, nope: 48, rope: 16, value: 64 };
        assert!(prefers_latent(shape(4), 128) && !prefers_latent(shape(3), 128) && !prefers_latent(shape(8), 512));
    }
}
