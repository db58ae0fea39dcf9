//! Exact top-k per query row; ties go to the lowest index.

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use super::Indices;
use super::storage::with_floats;
use crate::domain::Selection;

/// Maps a score to an integer of the same order; −0 equals 0, NaN comes last.
fn order(score: f32) -> u32 {
    if score.is_nan() {
        return 0;
    }
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// Appends to `selection` the `k` highest of `scores`, ascending by position; all of them if there are not more.
///
/// `scratch` is working memory that callers reuse from row to row.
pub fn top_k_row(scores: &[f32], k: usize, scratch: &mut Vec<u64>, selection: &mut Selection) {
    scratch.clear();
    // High half: the score; low half: the complement of the index, so that a lower index wins a tie.
    scratch.extend(scores.iter().enumerate().map(|(j, &s)| u64::from(order(s)) << 32 | u64::from(!(j as u32))));
    if k < scratch.len() {
        if k > 0 {
            scratch.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
        }
        scratch.truncate(k);
    }
    let mut row: Vec<u32> = scratch.iter().map(|&key| !(key as u32)).collect();
    row.sort_unstable();
    selection.push(&row);
}

/// Selects for every query row the `k` highest of its visible keys.
///
/// `scores` is `[B, queries, keys]`; the queries are the last of the keys' positions, so that key j is visible to
/// query i iff j ≤ i + keys − queries.
///
/// # Errors
/// Where the scores cannot be read.
pub fn top_k_rows(scores: &Tensor, k: usize) -> Result<Indices> {
    let (_, queries, keys) = scores.dims3()?;
    top_k_seen(scores, k, |i| keys - queries + i + 1)
}

/// Selects for every query row the `k` highest of the keys that it sees, the first `seen(i)` ones.
pub(super) fn top_k_seen(scores: &Tensor, k: usize, seen: impl Fn(usize) -> usize + Sync) -> Result<Indices> {
    let (b, queries, keys) = scores.dims3()?;
    let scores = scores.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
    let selections: Vec<Selection> = with_floats(&scores, |values| {
        Ok((0..b)
            .into_par_iter()
            .map(|n| {
                let mut selection = Selection::with_capacity(queries, k.min(keys));
                let mut scratch = Vec::with_capacity(keys);
                for i in 0..queries {
                    let row = &values[(n * queries + i) * keys..][..seen(i)];
                    top_k_row(row, k, &mut scratch, &mut selection);
                }
                selection
            })
            .collect())
    })?;
    Ok(selections.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pick(scores: &[f32], k: usize) -> Vec<u32> {
        let mut selection = Selection::default();
        top_k_row(scores, k, &mut Vec::new(), &mut selection);
        selection.row(0).to_vec()
    }

    #[test]
    fn ties_go_to_the_lowest_index_and_zeros_are_equal() {
        assert_eq!(pick(&[0.0, 1.0, -0.0, 0.0], 2), [0, 1]);
        assert_eq!(pick(&[-0.0, 0.0, 1.0], 2), [0, 2]);
        assert_eq!(pick(&[-1.0, -2.0, f32::NAN, f32::MIN], 3), [0, 1, 3]);
        assert_eq!(pick(&[3.0, 2.0], 5), [0, 1]);
        assert_eq!(pick(&[3.0, 2.0], 0), [] as [u32; 0]);
    }

    proptest! {
        #[test]
        fn agrees_with_a_full_stable_sort(scores in prop::collection::vec((-4i8..4).prop_map(f32::from), 0..60), k in 0usize..70) {
            let mut order: Vec<u32> = (0..scores.len() as u32).collect();
            order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
            order.truncate(k);
            order.sort_unstable();
            prop_assert_eq!(pick(&scores, k), order);
        }
    }
}
