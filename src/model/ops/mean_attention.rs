//! Head-averaged dense attention of some queries: what a good selection would keep.
//!
//! p[r,j] = 1/heads · Σ_n softmax_j(scale · q[n,r]·k[n',j]) over j ≤ position(r), n' = the key head that n shares. In
//! the latent form of MLA there is one key head, the latent beside the rotated key, for queries taken into it.

use candle_core::{D, DType, Device, Result, Tensor};
use rayon::prelude::*;

use super::gemm::{Mat, matmul};
use super::storage::{on_cpu, with_floats};
use super::{MASKED, check, simd};
use crate::domain::Selection;

/// Query rows per task: as few as keep the matrix products busy, for each task holds a score per key and row.
const ROWS: usize = 16;

/// Returns the head-averaged probabilities `[R, T]`, f32 on the CPU, without a gradient; 0 for keys that are not visible.
///
/// `q` is `[heads, R, d]` at `positions`; `k` is `[key heads, T, d]`, of which each serves as many consecutive heads.
/// One head's scores of [`ROWS`] rows are held per thread; elsewhere than on the CPU one head's scores of all rows.
///
/// # Errors
/// Where shapes disagree or a position has no key.
pub fn mean_attention(q: &Tensor, k: &Tensor, positions: &[usize], scale: f64) -> Result<Tensor> {
    mean_attention_within(q, k, positions, scale, None)
}

/// Returns the same with each head's softmax over the keys of a support, one row of visible keys per query; 0 elsewhere.
///
/// Heads then weigh alike however little of their attention lies on the support, which they do not where the average is
/// restricted afterwards.
///
/// # Errors
/// As [`mean_attention`], and where the support has another number of rows.
pub fn mean_attention_within(
    q: &Tensor,
    k: &Tensor,
    positions: &[usize],
    scale: f64,
    support: Option<&Selection>,
) -> Result<Tensor> {
    let (heads, rows, d) = q.dims3()?;
    let (key_heads, keys, _) = k.dims3()?;
    check(k.dim(2)? == d && key_heads > 0 && heads % key_heads == 0, "k")?;
    check(rows == positions.len() && positions.iter().all(|&p| p < keys), "the list of positions")?;
    check(support.is_none_or(|s| s.rows().count() == rows), "the support")?;
    if !on_cpu(&[q, k]) {
        return plain(q, k, positions, scale, support);
    }
    let mut mean = vec![0.0; rows * keys];
    with_floats(q, |q| {
        with_floats(k, |k| {
            let blocks = mean.par_chunks_mut((ROWS * keys).max(1)).zip(positions.par_chunks(ROWS)).enumerate();
            blocks.for_each_init(<(Vec<f32>, Vec<f32>)>::default, |(p, kept), (block, (mean, positions))| {
                let visible = positions.iter().max().map_or(0, |&p| p + 1);
                for n in 0..heads {
                    let q = Mat::new(&q[(n * rows + block * ROWS) * d..], positions.len(), d, d);
                    let k = Mat::new(&k[n * key_heads / heads * keys * d..], visible, d, d);
                    p.resize(positions.len() * visible, 0.0);
                    matmul(p, visible, q, k.t(), scale as f32, false);
                    simd::dispatch(
                        #[inline(always)]
                        || {
                            let rows = p.chunks_mut(visible).zip(mean.chunks_mut(keys)).zip(positions);
                            for (r, ((p, mean), &position)) in rows.enumerate() {
                                let Some(support) = support else {
                                    let p = &mut p[..=position];
                                    simd::softmax(p);
                                    mean.iter_mut().zip(p).for_each(|(sum, p)| *sum += *p / heads as f32);
                                    continue;
                                };
                                let chosen = support.row(block * ROWS + r);
                                kept.clear();
                                kept.extend(chosen.iter().map(|&j| p[j as usize]));
                                simd::softmax(kept);
                                chosen.iter().zip(&*kept).for_each(|(&j, p)| mean[j as usize] += p / heads as f32);
                            }
                        },
                    );
                }
            });
            Ok(())
        })
    })?;
    Tensor::from_vec(mean, (rows, keys), &Device::Cpu)
}

/// The same in candle's stock ops: the oracle, and the form for other devices.
fn plain(q: &Tensor, k: &Tensor, positions: &[usize], scale: f64, support: Option<&Selection>) -> Result<Tensor> {
    let (heads, rows, _) = q.dims3()?;
    let (key_heads, keys, _) = k.dims3()?;
    let of = |(r, &p): (usize, &usize)| -> Vec<u8> {
        let chosen = |j: usize| support.is_none_or(|s| s.row(r).contains(&(j as u32)));
        (0..keys).map(|j| u8::from(j <= p && chosen(j))).collect()
    };
    let visible: Vec<u8> = positions.iter().enumerate().flat_map(of).collect();
    let visible = Tensor::from_vec(visible, (rows, keys), q.device())?;
    let floor = Tensor::full(MASKED, (rows, keys), q.device())?;
    let mut sum = Tensor::zeros((rows, keys), DType::F32, q.device())?;
    for n in 0..heads {
        let keys = k.get(n * key_heads / heads)?.t()?.contiguous()?;
        let scores = (q.get(n)?.contiguous()?.matmul(&keys)?.detach().to_dtype(DType::F32)? * scale)?;
        sum = (sum + candle_nn::ops::softmax(&visible.where_cond(&scores, &floor)?, D::Minus1)?)?;
    }
    (sum / heads as f64)?.to_device(&Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::{assert_close, random};

    #[test]
    fn heads_weigh_alike_within_a_support() {
        // Two heads and three keys, of which the last is left out: the first head has ¼ of its attention on the other
        // two, as 1 : 1; the second all of it, as 3 : 1.
        let logits = [[1f32.ln(), 1f32.ln(), 6f32.ln()], [3f32.ln(), 1f32.ln(), 1e-9f32.ln()]];
        let q = Tensor::new(&[[[1f32, 0.0]], [[0.0, 1.0]]], &Device::Cpu).unwrap();
        let k: Vec<[f32; 2]> = (0..3).map(|j| [logits[0][j], logits[1][j]]).collect();
        let k = Tensor::new(k.concat(), &Device::Cpu).unwrap().reshape((1, 3, 2)).unwrap();
        let mut support = Selection::default();
        support.push(&[0, 1]);
        let within = mean_attention_within(&q, &k, &[2], 1.0, Some(&support)).unwrap().to_vec2::<f32>().unwrap();
        assert!((within[0][0] - 0.625).abs() < 1e-6 && (within[0][1] - 0.375).abs() < 1e-6, "{within:?}");
        // Restricted afterwards, the first head counts a quarter: (1/8 + 3/4) : (1/8 + 1/4).
        let mean = mean_attention(&q, &k, &[2], 1.0).unwrap().to_vec2::<f32>().unwrap();
        assert!((mean[0][0] / (mean[0][0] + mean[0][1]) - 0.7).abs() < 1e-6, "{mean:?}");
    }

    #[test]
    fn fused_and_plain_agree() {
        for (heads, key_heads, t, positions) in [
            (3, 1, 1, vec![0]),
            (4, 2, 33, (0..33).collect::<Vec<_>>()),
            (2, 2, 70, vec![69, 3, 3, 50, 0]),
            (5, 1, 40, (0..40).step_by(2).collect()),
        ] {
            let (q, k) = (random(&[heads, positions.len(), 7], 1), random(&[key_heads, t, 7], 2));
            let mean = mean_attention(&q, &k, &positions, 1.7).unwrap();
            assert_close(&mean, &plain(&q, &k, &positions, 1.7, None).unwrap(), 2e-6);
            // Every third visible key, and the query's own.
            let mut support = Selection::default();
            for &p in &positions {
                support.push(&(0..=p as u32).filter(|j| j % 3 == 1 || *j == p as u32).collect::<Vec<_>>());
            }
            let within = mean_attention_within(&q, &k, &positions, 1.7, Some(&support)).unwrap();
            assert_close(&within, &plain(&q, &k, &positions, 1.7, Some(&support)).unwrap(), 2e-6);
            for (r, row) in within.to_vec2::<f32>().unwrap().iter().enumerate() {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                assert!((0..t).all(|j| row[j] == 0.0 || support.row(r).contains(&(j as u32))));
            }
            let rows: Vec<Vec<f32>> = mean.to_vec2().unwrap();
            for (row, position) in rows.iter().zip(positions) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                assert!(row[position + 1..].iter().all(|&p| p == 0.0));
            }
        }
    }

    #[test]
    fn no_queries_have_no_rows_and_wrong_shapes_are_refused() {
        let none = mean_attention(&random(&[2, 0, 7], 1), &random(&[1, 9, 7], 2), &[], 1.0).unwrap();
        assert_eq!(none.dims(), [0, 9]);
        let (q, k) = (random(&[3, 2, 7], 1), random(&[2, 9, 7], 2));
        assert!(mean_attention(&q, &k, &[0, 1], 1.0).is_err(), "three heads cannot share two");
        assert!(mean_attention(&q, &k.narrow(0, 0, 1).unwrap(), &[0, 9], 1.0).is_err(), "position 9 has no key");
    }
}
