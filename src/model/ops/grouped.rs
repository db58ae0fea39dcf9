//! Sparse attention of grouped queries: heads that share a head of keys and values read its selected rows once.

use candle_core::{Result, Tensor};

use super::allowed::check;
use super::attention::MlaShape;
use super::shared_rows::{Query, Rows, Scratch};
use super::sparse::{Picked, each_block};
use super::storage::with_floats;

/// Visible keys per selected one from which reading only the selected ones is cheaper than masking the others.
///
/// Masked attention runs in matrix products of many queries; this form fills a vector with the few heads of a group.
const WORTH: usize = 4;

/// Returns whether reading only the selected keys is the cheaper form for these sizes.
pub fn prefers_grouped(keys: usize, topk: usize) -> bool {
    keys > WORTH * topk
}

/// Attends to the picked keys; `q`, `kv` and `shape` as in [`super::mla_attention`], with no part that all heads share.
///
/// # Errors
/// Where shapes disagree, or a tensor is neither f32 on the CPU nor bf16 on a CUDA device.
pub fn sparse_grouped(q: &Tensor, kv: &Tensor, shape: MlaShape, scale: f64, picked: Picked) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if q.device().is_cuda() {
        return super::cuda::sparse_grouped(q, kv, shape, scale, picked);
    }
    let (b, t, wq) = q.dims3()?;
    let (_, keys, wkv) = kv.dims3()?;
    let MlaShape { heads, nope, value, .. } = shape;
    let (group, wo) = (shape.group(kv)?, heads * value);
    check(wq == heads * nope && shape.rope == 0, "q")?;
    let mut out = vec![0.0; b * t * wo];
    with_floats(q, |q| {
        with_floats(kv, |kv| {
            each_block(&mut out, (b, t, wo), picked, |n, start, out, selection| {
                let (q, kv) = (&q[n * t * wq..], &kv[n * keys * wkv..][..keys * wkv]);
                let mut scratch = Scratch::default();
                for (out, i) in out.chunks_mut(wo).zip(start..) {
                    let heads = q[i * wq..][..wq].chunks(group * nope).zip(out.chunks_mut(group * value));
                    for (g, (q, out)) in heads.enumerate() {
                        let at = g * (nope + value);
                        pulp::Arch::new().dispatch(Query {
                            q,
                            keys: [Rows::of(kv, at, nope, wkv), Rows::new(&[], 0)],
                            values: Rows::of(kv, at + nope, value, wkv),
                            sinks: &[],
                            selected: selection.row(i),
                            scale: scale as f32,
                            scratch: &mut scratch,
                            out,
                        });
                    }
                }
            })
        })
    })?;
    Tensor::from_vec(out, (b, t, wo), q.device())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::{assert_close, random, random_indices};
    use crate::model::ops::{Allowed, Stop, mla_attention};

    #[test]
    fn agrees_with_masked_attention() {
        for (heads, kv_heads, t, keys, k) in [(1, 1, 1, 1, 1), (6, 2, 7, 7, 1), (9, 3, 65, 65, 6), (24, 2, 40, 90, 17)]
        {
            let shape = MlaShape { heads, nope: 5, rope: 0, value: 6 };
            let (q, kv) = (random(&[2, t, heads * 5], 1), random(&[2, keys, kv_heads * 11], 2));
            let nothing = Tensor::zeros((2, keys, 0), q.dtype(), q.device()).unwrap();
            let indices = random_indices(2, t, keys, k, 5);
            let allowed = Allowed::Selected(indices.clone());
            let want = mla_attention(&q, &kv, &nothing, shape, 0.3, &allowed, false).unwrap().0;
            let picked = Picked { indices: &indices, stop: Stop::NEVER };
            assert_close(&sparse_grouped(&q, &kv, shape, 0.3, picked).unwrap(), &want, 2e-6);
        }
    }
}
