//! The reference form in candle's stock ops: dense scores, pooled or masked.

use candle_core::{D, DType, Result, Tensor};

use super::Blocks;
use crate::domain::Selection;
use crate::model::ops::topk::top_k_row;
use crate::model::ops::{Indices, MASKED};

/// Computes the score of every block, `[B, groups, queries, blocks]` f32; [`MASKED`] where no key is visible.
pub(super) fn scores(q: &Tensor, k: &Tensor, blocks: Blocks) -> Result<Tensor> {
    let (b, t, _) = q.dims3()?;
    let (_, keys, dim) = k.dims3()?;
    let Blocks { groups, size, .. } = blocks;
    let q = q.reshape((b, t, groups, dim))?.transpose(1, 2)?.contiguous()?; // B G T d
    let k = k.unsqueeze(1)?.transpose(2, 3)?; // B 1 d K
    let scores = q.broadcast_matmul(&k)?; // B G T K
    let (scores, last) = (masked(&scores, |i, j| j <= keys - t + i)?, keys.div_ceil(size) * size - keys);
    let floor = Tensor::full(MASKED, (b, groups, t, last), q.device())?;
    let scores = if last == 0 { scores } else { Tensor::cat(&[&scores, &floor], D::Minus1)? };
    scores.reshape((b, groups, t, keys.div_ceil(size), size))?.max(D::Minus1)
}

/// Selects the best blocks of every row of scores; `before` keys precede the first query.
pub(super) fn select(scores: &Tensor, blocks: Blocks, before: usize) -> Result<Indices> {
    let (b, groups, t, _) = scores.dims4()?;
    let mut selections = Vec::with_capacity(b);
    for n in 0..b {
        let rows = scores.get(n)?.to_vec3::<f32>()?;
        let (mut selection, mut scratch) = (Selection::with_capacity(t * groups, blocks.topk), Vec::new());
        for i in 0..t {
            for of_group in &rows {
                let mut row = of_group[i][..blocks.visible(before + i)].to_vec();
                blocks.force(before + i, &mut row);
                top_k_row(&row, blocks.topk, &mut scratch, &mut selection);
            }
        }
        selections.push(selection);
    }
    Ok(Indices::grouped(selections, blocks.groups))
}

/// Attends to the selected blocks by masking all other keys.
pub(super) fn attend(q: &Tensor, kv: &Tensor, blocks: Blocks, scale: f64, sets: &[Selection]) -> Result<Tensor> {
    let (b, t, width) = q.dims3()?;
    let (_, keys, both) = kv.dims3()?;
    let Blocks { groups, size, .. } = blocks;
    let dim = both / (2 * groups);
    let each = width / (groups * dim);
    let q = q.reshape((b, t, groups, each, dim))?.permute((0, 2, 3, 1, 4))?; // B G E T d
    let q = q.reshape((b, groups, each * t, dim))?;
    let kv = kv.reshape((b, keys, groups, 2 * dim))?.transpose(1, 2)?; // B G K 2d
    let (k, v) = (kv.narrow(3, 0, dim)?.contiguous()?, kv.narrow(3, dim, dim)?.contiguous()?);
    let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)?.to_dtype(DType::F32)? * scale)?; // B G ET K
    let mut allowed = vec![0u8; b * groups * t * keys];
    for (at, row) in allowed.chunks_mut(keys).enumerate() {
        let (n, g, i) = (at / (groups * t), at / t % groups, at % t);
        for &block in sets[n].row(i * groups + g) {
            let end = ((block as usize + 1) * size).min(keys - t + i + 1);
            row[block as usize * size..end].fill(1);
        }
    }
    let allowed = Tensor::from_vec(allowed, (b, groups, 1, t, keys), q.device())?;
    let scores = scores.reshape((b, groups, each, t, keys))?;
    let floor = Tensor::full(MASKED, scores.shape(), q.device())?;
    let p = allowed.broadcast_as(scores.shape())?.where_cond(&scores, &floor)?;
    let p = candle_nn::ops::softmax(&p, D::Minus1)?.to_dtype(q.dtype())?.reshape((b, groups, each * t, keys))?;
    let out = p.matmul(&v)?.reshape((b, groups, each, t, dim))?; // B G E T d
    out.permute((0, 3, 1, 2, 4))?.reshape((b, t, width))
}

/// Sets the entries of `[B, G, T, K]` that `allowed` excludes to [`MASKED`].
fn masked(scores: &Tensor, allowed: impl Fn(usize, usize) -> bool) -> Result<Tensor> {
    let (_, _, t, keys) = scores.dims4()?;
    let mask: Vec<u8> =
        (0..t).flat_map(|i| (0..keys).map(move |j| (i, j))).map(|(i, j)| u8::from(allowed(i, j))).collect();
    let mask = Tensor::from_vec(mask, (1, 1, t, keys), scores.device())?.broadcast_as(scores.shape())?;
    mask.where_cond(scores, &Tensor::full(MASKED, scores.shape(), scores.device())?)
}
