//! The top-k sets of one layer: for every query the positions that it attends to.

use serde::{Deserialize, Serialize};

/// What one entry of a selection stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// A single token.
    #[default]
    Token,
    /// A block of so many tokens.
    Block(u32),
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

    proptest! {
        #[test]
        fn intersection_counts_common_members(a: BTreeSet<u32>, b: BTreeSet<u32>, common: BTreeSet<u32>) {
            let (a, b): (BTreeSet<u32>, BTreeSet<u32>) = (&a | &common, &b | &common).to_owned();
            let (x, y): (Vec<u32>, Vec<u32>) = (a.iter().copied().collect(), b.iter().copied().collect());
            prop_assert_eq!(intersection_len(&x, &y), a.intersection(&b).count());
        }
    }
}
