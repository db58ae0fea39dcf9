//! Several sequences as one, for attention over selected keys: what a decode of many sequences needs few launches for.

use candle_core::{Result, Tensor};

/// Sequences laid side by side.
pub(super) struct SideBySide<const N: usize> {
    /// `[1, B · T, …]`.
    pub q: Tensor,
    /// `[1, B · keys, …]`.
    pub kept: [Tensor; N],
    /// Selected keys, counted from the first sequence's first: `[1, B · T, k]` u32.
    pub rows: Tensor,
}

/// Lays sequences side by side: queries `[B, T, …]`, what is kept of their keys `[B, keys, …]`, padded selections
/// `[B, T, k]`.
///
/// `None` where that would not be the same: where there is one sequence, where a query sees fewer than k keys (its row has
/// an end that only its place in its own sequence tells), or where what is kept would have to be copied.
///
/// # Errors
/// Where the device fails.
pub(super) fn side_by_side<const N: usize>(
    q: &Tensor,
    kept: [&Tensor; N],
    rows: &Tensor,
) -> Result<Option<SideBySide<N>>> {
    let (b, t, k) = rows.dims3()?;
    let keys = kept.first().map_or(Ok(0), |kept| kept.dim(1))?;
    let apart = kept.iter().any(|kept| !kept.is_contiguous());
    if b < 2 || apart || keys + 1 < t + k || i32::try_from(b * keys).is_err() {
        return Ok(None);
    }
    let begins = Tensor::from_iter((0..b).map(|n| (n * keys) as u32), rows.device())?.reshape((b, 1, 1))?;
    let rows = rows.broadcast_add(&begins)?.reshape((1, b * t, k))?;
    let one = |x: &Tensor| x.flatten(0, 1)?.unsqueeze(0);
    let kept = kept.into_iter().map(one).collect::<Result<Vec<_>>>()?;
    let Ok(kept) = <[Tensor; N]>::try_from(kept) else { return Ok(None) };
    Ok(Some(SideBySide { q: one(q)?, kept, rows }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::{assert_close, random, random_indices};
    use crate::model::ops::{Indices, MlaShape, Picked, Stop, sparse_latent};
    use candle_core::Device;

    #[test]
    fn sequences_side_by_side_attend_to_their_own_keys() {
        let (b, t, keys, k) = (3, 2, 9, 4);
        let shape = MlaShape { heads: 2, nope: 5, rope: 4, value: 6 };
        let (q, c_kv, k_rope) = (random(&[b, t, 18], 1), random(&[b, keys, 7], 2), random(&[b, keys, 4], 3));
        let (w, indices) = (random(&[22, 7], 4), random_indices(b, t, keys, k, 5));
        let attend = |q: &Tensor, c_kv: &Tensor, k_rope: &Tensor, indices: &Indices| {
            let picked = Picked { indices, stop: Stop::NEVER };
            sparse_latent(q, c_kv, k_rope, &w, shape, 0.3, picked).unwrap()
        };
        let rows = indices.on(&Device::Cpu, keys).unwrap();
        let all = side_by_side(&q, [&c_kv, &k_rope], &rows).unwrap().expect("every query sees k keys");
        let got = attend(&all.q, &all.kept[0], &all.kept[1], &Indices::padded(all.rows).unwrap());
        assert_close(&got.reshape((b, t, 12)).unwrap(), &attend(&q, &c_kv, &k_rope, &indices), 1e-6);
    }

    #[test]
    fn what_cannot_lie_side_by_side_is_left() {
        let laid = |b: usize, t: usize, keys: usize, k: usize, kept: &Tensor| {
            let rows = random_indices(b, t, keys, k, 5).on(&Device::Cpu, keys).unwrap();
            side_by_side(&random(&[b, t, 3], 1), [kept], &rows).unwrap().is_some()
        };
        let kept = random(&[2, 9, 3], 2);
        assert!(laid(2, 2, 9, 4, &kept) && laid(2, 1, 9, 9, &kept));
        assert!(!laid(2, 2, 9, 9, &kept), "the first query sees one key less");
        assert!(!laid(1, 2, 9, 4, &kept.narrow(0, 0, 1).unwrap()));
        assert!(!laid(2, 2, 8, 4, &kept.narrow(1, 0, 8).unwrap()), "part of a larger buffer");
    }
}
