//! Rotary position embedding of a part of each head.
//!
//! Pair (a, b) at position t becomes (a·cos − b·sin, b·cos + a·sin), written back in place. Pairs are adjacent
//! (interleaved) in the main attention of both model types and in GLM's indexer, half a width apart in DeepSeek's.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::PARALLEL;
use super::storage::{floats, on_cpu, with_floats};

/// Which two dimensions form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// (2j, 2j + 1).
    Interleaved,
    /// (j, j + width/2).
    Half,
}

/// Cosines and sines `[T, width/2]`, f32, of the positions of one forward.
#[derive(Clone, Debug)]
pub struct Rotary {
    /// Cosines.
    pub cos: Tensor,
    /// Sines.
    pub sin: Tensor,
}

impl Rotary {
    /// Returns the tables of some rows, in their order.
    ///
    /// # Errors
    /// Where there is no such row.
    pub fn select(&self, rows: &[usize]) -> Result<Self> {
        let rows = Tensor::from_iter(rows.iter().map(|&r| r as u32), self.cos.device())?;
        Ok(Self { cos: self.cos.index_select(&rows, 0)?, sin: self.sin.index_select(&rows, 0)? })
    }

    /// Returns the tables of every `n`-th frequency, which are those of a head of a `n`-th of the width.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn every(&self, n: usize) -> Result<Self> {
        if n <= 1 {
            return Ok(self.clone());
        }
        let columns = Tensor::from_iter((0..self.cos.dim(1)? as u32).step_by(n), self.cos.device())?;
        Ok(Self { cos: self.cos.index_select(&columns, 1)?, sin: self.sin.index_select(&columns, 1)? })
    }
}

/// Rotates dims `offset..offset + width` of every head; `x` is `[B, T, heads · head_dim]`.
///
/// # Errors
/// Where shapes disagree.
pub fn rope(x: &Tensor, rotary: &Rotary, head_dim: usize, offset: usize, pairing: Pairing) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(y) = super::cuda::rotate(x, rotary, head_dim, offset, pairing)? {
        return Ok(y);
    }
    if !on_cpu(&[x]) {
        return plain(x, rotary, head_dim, offset, pairing);
    }
    let op = Rotate { rotary: rotary.clone(), head_dim, offset, pairing, backward: false };
    x.contiguous()?.apply_op1(op)
}

fn plain(x: &Tensor, rotary: &Rotary, head_dim: usize, offset: usize, pairing: Pairing) -> Result<Tensor> {
    let (b, t, all) = x.dims3()?;
    let half = rotary.cos.dim(1)?;
    let (heads, width) = (all / head_dim, 2 * half);
    let x = x.reshape((b, t, heads, head_dim))?;
    let part = x.narrow(D::Minus1, offset, width)?;
    let table = |c: &Tensor| c.to_dtype(x.dtype())?.reshape((1, t, 1, half));
    let (cos, sin) = (table(&rotary.cos)?, table(&rotary.sin)?);
    let (first, second) = match pairing {
        Pairing::Interleaved => {
            let pairs = part.contiguous()?.reshape((b, t, heads, half, 2))?;
            (pairs.narrow(4, 0, 1)?.squeeze(4)?, pairs.narrow(4, 1, 1)?.squeeze(4)?)
        }
        Pairing::Half => (part.narrow(3, 0, half)?, part.narrow(3, half, half)?),
    };
    let (first, second) = (first.contiguous()?, second.contiguous()?);
    let a = (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?;
    let c = (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?;
    let turned = match pairing {
        Pairing::Interleaved => Tensor::stack(&[&a, &c], 4)?.reshape((b, t, heads, width))?,
        Pairing::Half => Tensor::cat(&[&a, &c], 3)?,
    };
    let rest = offset + width;
    let before = x.narrow(3, 0, offset)?;
    let after = x.narrow(3, rest, head_dim - rest)?;
    let parts: Vec<Tensor> = [before, turned, after].into_iter().filter(|p| p.elem_count() > 0).collect();
    Tensor::cat(&parts, 3)?.reshape((b, t, all))
}

struct Rotate {
    rotary: Rotary,
    head_dim: usize,
    offset: usize,
    pairing: Pairing,
    /// Rotates back: the gradient of a rotation is its inverse.
    backward: bool,
}

impl CustomOp1 for Rotate {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, t, all) = layout.shape().dims3()?;
        let half = self.rotary.cos.dim(1)?;
        if self.rotary.cos.dim(0)? != t || !all.is_multiple_of(self.head_dim) || self.offset + 2 * half > self.head_dim
        {
            candle_core::bail!("rope tables of shape {:?} do not fit {:?}", self.rotary.cos.dims(), layout.dims());
        }
        let mut out = floats(storage, layout)?.to_vec();
        with_floats(&self.rotary.cos, |cos| {
            with_floats(&self.rotary.sin, |sin| {
                let sign = if self.backward { -1.0 } else { 1.0 };
                out.par_chunks_mut(all.max(1)).with_min_len(PARALLEL.div_ceil(all.max(1))).enumerate().for_each(
                    |(row, x)| {
                        let (cos, sin) = (&cos[row % t * half..][..half], &sin[row % t * half..][..half]);
                        for head in x.chunks_mut(self.head_dim) {
                            let part = &mut head[self.offset..][..2 * half];
                            for j in 0..half {
                                let (a, b) = match self.pairing {
                                    Pairing::Interleaved => (2 * j, 2 * j + 1),
                                    Pairing::Half => (j, j + half),
                                };
                                let (x, y) = (part[a], part[b]);
                                part[a] = x * cos[j] - y * sin[j] * sign;
                                part[b] = y * cos[j] + x * sin[j] * sign;
                            }
                        }
                    },
                );
                Ok(())
            })
        })?;
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let back = Rotate { rotary: self.rotary.clone(), backward: !self.backward, ..*self };
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&back)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::{assert_close, assert_gradients, random};
    use candle_core::Device;

    fn tables(t: usize, half: usize) -> Rotary {
        let angles: Vec<f32> = (0..t * half).map(|i| (i / half) as f32 * 0.3 / (1 + i % half) as f32).collect();
        let angles = Tensor::from_vec(angles, (t, half), &Device::Cpu).unwrap();
        Rotary { cos: angles.cos().unwrap(), sin: angles.sin().unwrap() }
    }

    #[test]
    fn fused_and_plain_agree_with_gradients() {
        let tables = tables(5, 3);
        let x = random(&[2, 5, 4 * 9], 1);
        for pairing in [Pairing::Interleaved, Pairing::Half] {
            for offset in [0, 1, 3] {
                let fused = |x: &Tensor| rope(x, &tables, 9, offset, pairing).unwrap();
                let oracle = |x: &Tensor| plain(x, &tables, 9, offset, pairing).unwrap();
                assert_close(&fused(&x), &oracle(&x), 1e-6);
                assert_gradients(std::slice::from_ref(&x), |x| fused(&x[0]), |x| oracle(&x[0]), 1e-6);
            }
        }
    }

    #[test]
    fn position_zero_is_unchanged_and_pairs_differ() {
        let tables = tables(2, 1);
        let x = Tensor::new(&[[[1.0f32, 2.0], [1.0, 2.0]]], &Device::Cpu).unwrap();
        let y: Vec<Vec<Vec<f32>>> = rope(&x, &tables, 2, 0, Pairing::Half).unwrap().to_vec3().unwrap();
        assert_eq!(y[0][0], [1.0, 2.0]);
        let (c, s) = (0.3f32.cos(), 0.3f32.sin());
        assert!((y[0][1][0] - (c - 2.0 * s)).abs() < 1e-6 && (y[0][1][1] - (2.0 * c + s)).abs() < 1e-6);
    }
}
