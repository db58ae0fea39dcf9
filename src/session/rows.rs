//! One row of a packed trace: an ascending set of `len` keys below `visible`, in as few bytes as its form allows.
//!
//! Which form a row has follows from the two numbers, so that nothing but them need be stored:
//! - all visible keys, or none: no byte at all;
//! - *bitset*: bit `key % 8` of byte `key / 8`, where `visible` bits are no more than the next form takes;
//! - *Elias–Fano*: with l = ⌊log₂(visible / len)⌋, the l low bits of every key one after another, then from the next
//!   byte on bit `(key >> l) + i` for the i-th key. That is below 2 + log₂(visible / len) bits a key, whatever the set:
//!   for 2,048 keys 1 KB at 8K visible keys and 1.75 KB at 64K, 0.219 of their size as int32.
//!
//! Bits are counted from the lowest of the first byte; what is left of a form's last byte is 0.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Trivial,
    Bitset,
    /// With so many low bits.
    EliasFano(usize),
}

fn form(len: usize, visible: usize) -> Form {
    if len == 0 || len >= visible {
        return Form::Trivial;
    }
    let low = (visible / len).ilog2() as usize;
    if visible <= len * low + upper_bits(len, visible, low) { Form::Bitset } else { Form::EliasFano(low) }
}

/// Returns the bits of the upper half of Elias–Fano.
fn upper_bits(len: usize, visible: usize, low: usize) -> usize {
    len + ((visible - 1) >> low)
}

/// Returns the bytes of a row.
pub(super) fn size(len: usize, visible: usize) -> usize {
    match form(len, visible) {
        Form::Trivial => 0,
        Form::Bitset => visible.div_ceil(8),
        Form::EliasFano(low) => (len * low).div_ceil(8) + upper_bits(len, visible, low).div_ceil(8),
    }
}

/// Appends a row: ascending keys, all below `visible`.
pub(super) fn encode(row: &[u32], visible: usize, out: &mut Vec<u8>) {
    let begin = out.len();
    out.resize(begin + size(row.len(), visible), 0);
    let bytes = &mut out[begin..];
    match form(row.len(), visible) {
        Form::Trivial => {}
        Form::Bitset => row.iter().for_each(|&key| bytes[key as usize / 8] |= 1 << (key % 8)),
        Form::EliasFano(low) => {
            let (lower, upper) = bytes.split_at_mut((row.len() * low).div_ceil(8));
            for (i, &key) in row.iter().enumerate() {
                let (at, bits) = (i * low, u64::from(key) & mask(low));
                let spread = bits << (at % 8);
                for (byte, part) in lower[at / 8..].iter_mut().zip(spread.to_le_bytes()) {
                    *byte |= part;
                }
                let at = (key as usize >> low) + i;
                upper[at / 8] |= 1 << (at % 8);
            }
        }
    }
}

/// Reads a row of [`size`] bytes into `row`; `None` where they are not what [`encode`] writes for that many keys.
pub(super) fn decode(bytes: &[u8], len: usize, visible: usize, row: &mut Vec<u32>) -> Option<()> {
    row.clear();
    row.reserve(len);
    match form(len, visible) {
        Form::Trivial => row.extend(0..len as u32),
        Form::Bitset => ones(bytes, |at| row.push(at as u32)),
        Form::EliasFano(low) => {
            let (lower, upper) = bytes.split_at_checked((len * low).div_ceil(8))?;
            let mut i = 0;
            ones(upper, |at| {
                // More ones than keys run out of low bits and are counted all the same.
                let high = (at - i.min(at)) << low;
                row.push(high as u32 | (word(lower, i * low) & mask(low)) as u32);
                i += 1;
            });
        }
    }
    let ascending = row.windows(2).all(|w| w[0] < w[1]);
    (row.len() == len && ascending && row.last().is_none_or(|&key| (key as usize) < visible)).then_some(())
}

fn mask(bits: usize) -> u64 {
    (1 << bits) - 1
}

/// Returns at least 57 bits from bit `at` on, with zeros after the end.
#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at / 8..).unwrap_or_default();
    let word = rest.first_chunk().map_or_else(|| padded(rest), |chunk| u64::from_le_bytes(*chunk));
    word >> (at % 8)
}

/// Returns fewer than eight bytes as a word.
fn padded(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// Calls `found` with the place of every set bit, ascending.
fn ones(bytes: &[u8], mut found: impl FnMut(usize)) {
    let chunks = bytes.chunks_exact(8);
    let last = padded(chunks.remainder());
    let words = chunks.map(|chunk| chunk.first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk)));
    for (w, mut word) in words.chain([last]).enumerate() {
        while word != 0 {
            found(w * 64 + word.trailing_zeros() as usize);
            word &= word - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_come_back_and_have_the_size_said(
            (visible, keys) in (1u32..3000).prop_flat_map(|n| (Just(n), btree_set(0..n, 0..=(n as usize).min(400))))
        ) {
            let row: Vec<u32> = keys.into_iter().collect();
            let mut bytes = vec![7];
            encode(&row, visible as usize, &mut bytes);
            prop_assert_eq!(bytes.len() - 1, size(row.len(), visible as usize));
            let mut back = vec![9];
            prop_assert_eq!(decode(&bytes[1..], row.len(), visible as usize, &mut back), Some(()));
            prop_assert_eq!(back, row);
        }

        #[test]
        fn any_bytes_are_a_valid_row_or_refused(len in 0usize..40, visible in 1usize..2000, noise in vec(any::<u8>(), 300)) {
            let mut row = Vec::new();
            if len <= visible && decode(&noise[..size(len, visible).min(300)], len, visible, &mut row).is_some() {
                prop_assert_eq!(row.len(), len);
                prop_assert!(row.windows(2).all(|w| w[0] < w[1]) && row.last().is_none_or(|&k| (k as usize) < visible));
            }
        }
    }

    #[test]
    fn every_form_is_used_where_it_is_smaller() {
        assert_eq!((form(4, 4), form(0, 9), size(4, 4)), (Form::Trivial, Form::Trivial, 0));
        assert_eq!((form(2048, 4096), size(2048, 4096)), (Form::Bitset, 512));
        assert_eq!((form(2048, 65_536), size(2048, 65_536)), (Form::EliasFano(5), 1792));
        let most = (1..=65_536).map(|visible| size(visible.min(2048), visible)).max();
        assert_eq!(most, Some(1792), "0.219 of 8,192 bytes");
    }
}
