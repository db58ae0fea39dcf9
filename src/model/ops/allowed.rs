//! Which keys take part in attention, or in a distribution over keys.

use candle_core::{Device, Result, Tensor};

use super::{Indices, MASKED};
use crate::domain::Selection;

/// Which keys take part besides the causal rule.
#[derive(Clone)]
pub enum Allowed {
    /// Every visible key (dense attention).
    Causal,
    /// The selected keys only.
    Selected(Indices),
}

impl Allowed {
    /// Returns a `[B, queries, keys]` u8 mask, 1 where a key takes part.
    ///
    /// # Errors
    /// Where the mask cannot be made on `device`.
    pub(super) fn mask(&self, (b, t, keys): (usize, usize, usize), device: &Device) -> Result<Tensor> {
        let sets = self.sets()?;
        let mut mask = vec![0u8; b * t * keys];
        for (row, r) in mask.chunks_mut(keys.max(1)).zip(0..) {
            match sets {
                None => row[..=keys - t + r % t].fill(1),
                Some(sets) => sets[r / t].row(r % t).iter().for_each(|&j| row[j as usize] = 1),
            }
        }
        Tensor::from_vec(mask, (b, t, keys), device)
    }

    /// Returns the sets of every sequence, on the host; `None` where every visible key takes part.
    ///
    /// # Errors
    /// Where they cannot be brought there.
    pub(super) fn sets(&self) -> Result<Option<&[Selection]>> {
        match self {
            Self::Causal => Ok(None),
            Self::Selected(indices) => indices.sets().map(Some),
        }
    }
}

/// Sets the entries of one row of scores (the visible keys) that are not among `keys` to [`MASKED`].
#[inline(always)]
pub(super) fn keep(keys: &[u32], row: &mut [f32], kept: &mut Vec<f32>) {
    kept.clear();
    kept.extend(keys.iter().map(|&j| row[j as usize]));
    row.fill(MASKED);
    for (&j, &s) in keys.iter().zip(kept.iter()) {
        row[j as usize] = s;
    }
}

/// Fails unless `right`, naming what has the wrong shape.
pub(super) fn check(right: bool, what: &str) -> Result<()> {
    if right { Ok(()) } else { candle_core::bail!("{what} does not have the shape that the other operands demand") }
}
