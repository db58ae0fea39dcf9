//! The top-k sets of one layer: for every query the positions that it attends to.

use serde::{Deserialize, Serialize};

/// What one index of a selection stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SelectionUnit {
    /// A single token.
    #[default]
    Token,
    /// A compressed entry of so many tokens, which a query sees once all of them are there (DeepSeek-V4).
    Entry(u32),
    /// A block of so many tokens, which a query sees from its first token on (MiniMax-M3).
    Block(u32),
}

impl SelectionUnit {
    /// Returns how many units the query at `position` sees.
    pub fn visible(self, position: usize) -> usize {
        match self {
            Self::Token => position + 1,
            Self::Entry(tokens) => (position + 1) / (tokens as usize).max(1),
            Self::Block(tokens) => position / (tokens as usize).max(1) + 1,
        }
    }

    /// Returns the tokens of a unit.
    pub fn tokens(self, unit: u32) -> std::ops::Range<usize> {
        let size = match self {
            Self::Token => 1,
            Self::Entry(tokens) | Self::Block(tokens) => tokens as usize,
        };
        unit as usize * size..(unit as usize + 1) * size
    }

    /// Returns the unit that the token at `position` is part of.
    pub fn holding(self, position: usize) -> u32 {
        match self {
            Self::Token => position as u32,
            Self::Entry(tokens) | Self::Block(tokens) => (position / (tokens as usize).max(1)) as u32,
        }
    }

    /// Returns the word for units, such as `keys`.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Token => "keys",
            Self::Entry(_) => "entries",
            Self::Block(_) => "blocks",
        }
    }
}

/// How many units a query may select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopK {
    /// What is counted.
    pub unit: SelectionUnit,
    /// Most units of a set.
    pub k: usize,
}

impl TopK {
    /// Returns whether the query at `position` sees more than k units, so that patterns can differ there.
    pub fn counts(self, position: usize) -> bool {
        self.unit.visible(position) > self.k
    }

    /// Returns the first position that counts.
    pub fn first(self) -> usize {
        match self.unit {
            SelectionUnit::Token => self.k,
            SelectionUnit::Entry(tokens) => ((self.k + 1) * tokens as usize).saturating_sub(1),
            SelectionUnit::Block(tokens) => self.k * tokens as usize,
        }
    }
}

/// The selected positions of one layer, one ascending row per query; rows may be shorter than k.
///
/// Rows are stored one after another, so that a layer is two allocations whatever the number of queries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    keys: Vec<u32>,
    ends: Vec<usize>,
}

impl Selection {
    /// Returns a selection without rows, with room for `queries` rows of `k`.
    pub fn with_capacity(queries: usize, k: usize) -> Self {
        Self { keys: Vec::with_capacity(queries * k), ends: Vec::with_capacity(queries) }
    }

    /// Appends the row of the next query; the positions must be ascending.
    pub fn push(&mut self, row: &[u32]) {
        debug_assert!(row.windows(2).all(|w| w[0] < w[1]), "rows are ascending");
        self.keys.extend_from_slice(row);
        self.ends.push(self.keys.len());
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the positions of one query, ascending; an empty slice beyond the last row.
    pub fn row(&self, query: usize) -> &[u32] {
        let Some(&end) = self.ends.get(query) else { return &[] };
        let start = if query == 0 { 0 } else { self.ends[query - 1] };
        &self.keys[start..end]
    }

    /// Iterates over the rows.
    pub fn rows(&self) -> impl Iterator<Item = &[u32]> {
        (0..self.len()).map(|q| self.row(q))
    }

    /// Returns the bytes held.
    pub fn bytes(&self) -> usize {
        self.keys.capacity() * size_of::<u32>() + self.ends.capacity() * size_of::<usize>()
    }
}

/// Returns |a ∩ b| of two ascending rows.
pub fn intersection_len(a: &[u32], b: &[u32]) -> usize {
    let (mut i, mut j, mut both) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        // Branch-free steps: which side moves is unpredictable on real sets.
        both += usize::from(a[i] == b[j]);
        let (x, y) = (a[i], b[j]);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn rows_come_back_as_pushed() {
        let mut selection = Selection::with_capacity(3, 2);
        selection.push(&[0]);
        selection.push(&[]);
        selection.push(&[1, 2]);
        assert_eq!(selection.rows().collect::<Vec<_>>(), [&[0][..], &[], &[1, 2]]);
        assert_eq!((selection.len(), selection.row(3)), (3, &[][..]));
    }

    #[test]
    fn units_are_seen_by_their_own_rules() {
        let seen = |unit: SelectionUnit| [0, 2, 3, 4, 7, 8].map(|p| unit.visible(p));
        assert_eq!(seen(SelectionUnit::Token), [1, 3, 4, 5, 8, 9]);
        assert_eq!(seen(SelectionUnit::Entry(4)), [0, 0, 1, 1, 2, 2]);
        assert_eq!(seen(SelectionUnit::Block(4)), [1, 1, 1, 2, 2, 3]);
        assert_eq!([0, 3, 4].map(|p| SelectionUnit::Block(4).holding(p)), [0, 0, 1]);
        assert_eq!((SelectionUnit::Token.tokens(5), SelectionUnit::Entry(4).tokens(5)), (5..6, 20..24));
    }

    proptest! {
        #[test]
        fn the_first_position_that_counts_is_the_first(k in 1usize..40, size in 1u32..9) {
            for unit in [SelectionUnit::Token, SelectionUnit::Entry(size), SelectionUnit::Block(size)] {
                let topk = TopK { unit, k };
                prop_assert!(topk.counts(topk.first()) && !topk.counts(topk.first() - 1), "{topk:?}");
            }
        }

        #[test]
        fn intersection_counts_common_members(a: BTreeSet<u32>, b: BTreeSet<u32>, common: BTreeSet<u32>) {
            let (a, b): (BTreeSet<u32>, BTreeSet<u32>) = (&a | &common, &b | &common).to_owned();
            let (x, y): (Vec<u32>, Vec<u32>) = (a.iter().copied().collect(), b.iter().copied().collect());
            prop_assert_eq!(intersection_len(&x, &y), a.intersection(&b).count());
        }
    }
}
