//! Products of attention in the latent form, head by head, of matrices that lie between one another: nothing is copied
//! or transposed for them. Sizes only, so that they are tested without a GPU.

use super::MlaShape;

/// How far apart rows and the matrices of a batch begin, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Apart {
    pub row: usize,
    pub batch: usize,
}

/// A batch of products out = x w, all row after row: `[rows, inner] · [inner, columns]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Product {
    pub batch: usize,
    pub rows: usize,
    pub inner: usize,
    pub columns: usize,
    pub x: Apart,
    pub w: Apart,
    /// Whether w lies transposed, `[columns, inner]`.
    pub transposed: bool,
    pub out: Apart,
}

impl Product {
    /// Queries to latents: `[rows, heads · (nope + rope)]`, of which the nope part takes part, by W_k, the first `nope`
    /// rows of each head of the weight `[heads · (nope + value), latent]`, to `[rows, heads, latent]`.
    pub(super) fn absorb(rows: usize, shape: MlaShape, latent: usize) -> Self {
        let MlaShape { heads, nope, rope, value } = shape;
        Self {
            batch: heads,
            rows,
            inner: nope,
            columns: latent,
            x: Apart { row: heads * (nope + rope), batch: nope + rope },
            w: Apart { row: latent, batch: (nope + value) * latent },
            transposed: false,
            out: Apart { row: heads * latent, batch: latent },
        }
    }

    /// Mixed latents `[rows, heads, latent]` to values `[rows, heads · value]`, by W_v: the weight from its row `nope` on.
    pub(super) fn expand(rows: usize, shape: MlaShape, latent: usize) -> Self {
        let MlaShape { heads, nope, value, .. } = shape;
        Self {
            batch: heads,
            rows,
            inner: latent,
            columns: value,
            x: Apart { row: heads * latent, batch: latent },
            w: Apart { row: latent, batch: (nope + value) * latent },
            transposed: true,
            out: Apart { row: heads * value, batch: value },
        }
    }

    /// Returns how many elements x, w and out must have at least.
    pub(super) fn extents(self) -> [usize; 3] {
        let last = |apart: Apart, rows: usize, width: usize| {
            (self.batch.max(1) - 1) * apart.batch + (rows.max(1) - 1) * apart.row + width
        };
        let (rows, width) = if self.transposed { (self.columns, self.inner) } else { (self.inner, self.columns) };
        [last(self.x, self.rows, self.inner), last(self.w, rows, width), last(self.out, self.rows, self.columns)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::{assert_close, random, values};
    use candle_core::{Device, Tensor};

    /// Computes a product as cuBLAS is told to: by distances alone.
    fn compute(p: Product, x: &[f32], w: &[f32]) -> Vec<f32> {
        let mut out = vec![f32::NAN; p.extents()[2]];
        for (b, i, j) in
            (0..p.batch).flat_map(|b| (0..p.rows).flat_map(move |i| (0..p.columns).map(move |j| (b, i, j))))
        {
            let at = |k: usize| b * p.w.batch + if p.transposed { j * p.w.row + k } else { k * p.w.row + j };
            let term = |k: usize| x[b * p.x.batch + i * p.x.row + k] * w[at(k)];
            out[b * p.out.batch + i * p.out.row + j] = (0..p.inner).map(term).sum();
        }
        out
    }

    #[test]
    fn products_in_place_are_those_of_copied_heads() {
        let (rows, latent) = (5, 7);
        let shape = MlaShape { heads: 3, nope: 4, rope: 2, value: 6 };
        let MlaShape { heads, nope, rope, value } = shape;
        let (q, w) = (random(&[rows, heads * (nope + rope)], 1), random(&[heads * (nope + value), latent], 2));
        let by_head = w.reshape((heads, nope + value, latent)).unwrap();
        let cut = |from, n| by_head.narrow(1, from, n).unwrap().contiguous().unwrap();
        let tensor = |values, shape: &[usize]| Tensor::from_vec(values, shape, &Device::Cpu).unwrap();

        let absorb = Product::absorb(rows, shape, latent);
        let q_nope = q.reshape((rows, heads, nope + rope)).unwrap().narrow(2, 0, nope).unwrap();
        let q_nope = q_nope.transpose(0, 1).unwrap().contiguous().unwrap();
        let want = q_nope.matmul(&cut(0, nope)).unwrap().transpose(0, 1).unwrap().contiguous().unwrap();
        let got = compute(absorb, &values(&q), &values(&w));
        assert_close(&tensor(got, &[rows, heads, latent]), &want, 1e-6);
        assert_eq!(absorb.extents(), [q.elem_count() - rope, w.elem_count() - value * latent, want.elem_count()]);

        let mixed = random(&[rows, heads, latent], 3);
        let expand = Product::expand(rows, shape, latent);
        let by_heads = mixed.transpose(0, 1).unwrap().contiguous().unwrap();
        let want = by_heads.matmul(&cut(nope, value).transpose(1, 2).unwrap().contiguous().unwrap()).unwrap();
        let want = want.transpose(0, 1).unwrap().contiguous().unwrap();
        let from = nope * latent;
        let got = compute(expand, &values(&mixed), &values(&w)[from..]);
        assert_close(&tensor(got, &[rows, heads, value]), &want, 1e-6);
        assert_eq!(expand.extents(), [mixed.elem_count(), w.elem_count() - from, want.elem_count()]);
    }
}
