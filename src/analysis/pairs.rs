//! How many keys every two of one query's sets share.
//!
//! Two forms, the cheaper one per query. **Bitsets**: every layer's set as bits over the visible keys, all of them
//! side by side (10 KB at 1K visible keys and 78 layers, 640 KB at 64K), each pair an AND and a population count.
//! **Lists**: one layer's set as bits, in which the keys of all later layers are looked up.

/// Words of bitset that are compared in the time of looking up one key.
const WORDS_PER_LOOKUP: usize = 2;

/// Room for bitsets, reused between queries.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    bits: Vec<u64>,
}

/// Returns the number of pairs (i, j ≥ i) of so many layers.
pub(super) fn pair_count(layers: usize) -> usize {
    layers * (layers + 1) / 2
}

/// Counts |rows[i] ∩ rows[j]| for every i ≤ j, in the order (0,0), (0,1), … (1,1), …; rows are ascending.
pub(super) fn intersections(rows: &[&[u32]], scratch: &mut Scratch, counts: &mut [u32]) {
    let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    if words_of(rows) <= longest * WORDS_PER_LOOKUP {
        by_bitsets(rows, scratch, counts);
    } else {
        by_lists(rows, scratch, counts);
    }
}

/// Returns the words of a bitset that holds the largest key.
fn words_of(rows: &[&[u32]]) -> usize {
    rows.iter().filter_map(|row| row.last()).max().map_or(0, |&key| key as usize / 64 + 1)
}

/// Sets the bits of ascending keys in words that are 0.
fn set(bits: &mut [u64], row: &[u32]) {
    let (mut at, mut word) = (0, 0u64);
    for &key in row {
        // Words are only stored: reading one back right after it was written is what takes time.
        let next = key as usize / 64;
        word = if next == at { word } else { 0 } | 1 << (key % 64);
        at = next;
        bits[at] = word;
    }
}

fn by_bitsets(rows: &[&[u32]], scratch: &mut Scratch, counts: &mut [u32]) {
    let words = words_of(rows);
    scratch.bits.clear();
    scratch.bits.resize(words * rows.len(), 0);
    for (l, row) in rows.iter().enumerate() {
        set(&mut scratch.bits[l * words..][..words], row);
    }
    let bits = &scratch.bits[..];
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            let mut counts = counts.iter_mut();
            for (i, row) in rows.iter().enumerate() {
                let own = &bits[i * words..][..words];
                // The set with itself first, then with those of later layers.
                counts.next().into_iter().for_each(|count| *count = row.len() as u32);
                for (j, count) in (i + 1..rows.len()).zip(&mut counts) {
                    *count = common_bits(own, &bits[j * words..][..words]);
                }
            }
        },
    );
}

/// Counts the bits that are set in both.
#[inline(always)]
fn common_bits(a: &[u64], b: &[u64]) -> u32 {
    // Sums of 64-bit lanes: narrower ones cost conversions in every step.
    a.iter().zip(b).map(|(a, b)| u64::from((a & b).count_ones())).sum::<u64>() as u32
}

fn by_lists(rows: &[&[u32]], scratch: &mut Scratch, counts: &mut [u32]) {
    scratch.bits.clear();
    scratch.bits.resize(words_of(rows), 0);
    let bits = &mut scratch.bits[..];
    let mut counts = counts.iter_mut();
    for (i, row) in rows.iter().enumerate() {
        set(bits, row);
        for (other, count) in rows[i..].iter().zip(&mut counts) {
            *count = other.iter().map(|&key| (bits[key as usize / 64] >> (key % 64)) as u32 & 1).sum();
        }
        for &key in *row {
            bits[key as usize / 64] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::intersection_len;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_forms_count_what_merging_counts(
            sets in vec(btree_set(0u32..700, 0..60), 0..7),
            again in vec(btree_set(0u32..90, 0..60), 0..4),
        ) {
            let mut scratch = Scratch::default();
            // Twice with the same room, so that nothing is left over from the first.
            for sets in [sets, again] {
                let sets: Vec<Vec<u32>> = sets.into_iter().map(|s| s.into_iter().collect()).collect();
                let rows: Vec<&[u32]> = sets.iter().map(Vec::as_slice).collect();
                let naive: Vec<u32> = (0..rows.len())
                    .flat_map(|i| (i..rows.len()).map(move |j| (i, j)))
                    .map(|(i, j)| intersection_len(rows[i], rows[j]) as u32)
                    .collect();
                prop_assert_eq!(naive.len(), pair_count(rows.len()));
                for form in [by_bitsets, by_lists, intersections] {
                    let mut counts = vec![u32::MAX; naive.len()];
                    form(&rows, &mut scratch, &mut counts);
                    prop_assert_eq!(&counts, &naive);
                }
            }
        }
    }
}
