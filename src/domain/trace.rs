//! A recording: which keys every layer selected for every recorded query.

use serde::{Deserialize, Serialize};

use super::random::choose;
use super::{LayerSet, MassRecall, Pattern, Selection, SelectionUnit, Sites, TopK};

/// A recorded query: the token at `position` of sequence `sequence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Query {
    /// Index of the sequence.
    pub sequence: u32,
    /// 0-based position; the query sees positions 0 to this one.
    pub position: u32,
}

impl Query {
    /// Returns the number of units that the query can see.
    pub fn visible(self, unit: SelectionUnit) -> usize {
        unit.visible(self.position as usize)
    }
}

/// Which queries of each sequence were recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuerySampling {
    /// Every position.
    All,
    /// So many positions per sequence, drawn with a seed.
    Sampled {
        /// Positions per sequence.
        per_sequence: usize,
        /// The seed.
        seed: u64,
    },
}

impl QuerySampling {
    /// Returns the positions to record of sequence number `sequence`, which is `len` long; ascending.
    pub fn positions(self, sequence: usize, len: usize) -> Vec<usize> {
        match self {
            Self::All => (0..len).collect(),
            Self::Sampled { per_sequence, seed } => choose(len, per_sequence, seed ^ (sequence as u64) << 32),
        }
    }

    /// Returns the queries to record of sequences of these lengths, in (sequence, position) order.
    pub fn draw(self, lengths: impl IntoIterator<Item = usize>) -> Vec<Query> {
        let query = |sequence, position| Query { sequence: sequence as u32, position: position as u32 };
        let one = |(n, len)| self.positions(n, len).into_iter().map(move |position| query(n, position));
        lengths.into_iter().enumerate().flat_map(one).collect()
    }
}

/// What was recorded, and from what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceMeta {
    /// Version of this structure.
    pub schema: u32,
    /// The model's name for people.
    pub model: String,
    /// Fingerprint of the checkpoint.
    pub fingerprint: String,
    /// The pattern under which the recording ran.
    pub pattern: Pattern,
    /// k.
    pub index_topk: usize,
    /// Number of layers of the model.
    pub layers: usize,
    /// The layers that select, where not all do; empty where all do.
    #[serde(default, skip_serializing_if = "no_layers")]
    pub sites: LayerSet,
    /// What one index stands for.
    pub unit: SelectionUnit,
    /// Sets per query and site: one per group of key-value heads where each group selects for itself.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub groups: usize,
    /// Units of every set that are selected whatever their scores.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub forced: usize,
    /// Indexer heads.
    pub heads: usize,
    /// Which queries were recorded.
    pub queries: QuerySampling,
    /// Hash of the tokens.
    pub tokens_hash: String,
    /// Mass recall, where it was measured along with the sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mass_recall: Option<MassRecall>,
}

fn no_layers(layers: &LayerSet) -> bool {
    layers.is_empty()
}

fn one() -> usize {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_one(n: &usize) -> bool {
    *n == 1
}

impl TraceMeta {
    /// Returns the layers that select.
    pub fn sites(&self) -> Sites {
        let all = Sites::every(self.layers);
        if self.sites.is_empty() { all } else { Sites::new(self.layers, self.sites.iter()).unwrap_or(all) }
    }

    /// Returns k and what it counts.
    pub fn topk(&self) -> TopK {
        TopK { unit: self.unit, k: self.index_topk }
    }

    /// Returns the number of units that a query sees.
    pub fn visible(&self, query: Query) -> usize {
        query.visible(self.unit)
    }
}

/// Returns a fingerprint of lists of numbers, such as the token ids of sequences: `fnv1a:` and 16 hex digits.
///
/// It is FNV-1a over each list's length and entries as little-endian u32; it tells files apart, and guards nothing.
pub fn hash_ids<'a>(lists: impl IntoIterator<Item = &'a [u32]>) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for list in lists {
        for byte in [list.len() as u32].iter().chain(list).flat_map(|v| v.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    format!("fnv1a:{hash:016x}")
}

/// A recording of every site's index sets.
///
/// `selections[s].row(q)` is what site `s` used for `queries[q]`; a Shared site holds the set that it reused. With
/// several groups the rows of a query follow each other: group g of query q is row q · groups + g.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// What was recorded.
    pub meta: TraceMeta,
    /// The token ids of every sequence.
    pub tokens: Vec<Vec<u32>>,
    /// The recorded queries in (sequence, position) order.
    pub queries: Vec<Query>,
    /// One selection per site, rows in the order of `queries`.
    pub selections: Vec<Selection>,
}

impl Trace {
    /// Returns the indices of queries whose sets can differ: those that see more than k units.
    pub fn counted(&self) -> impl Iterator<Item = usize> + '_ {
        let topk = self.meta.topk();
        (0..self.queries.len()).filter(move |&q| topk.counts(self.queries[q].position as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_ascending_repeatable_and_no_more_than_there_are() {
        let sampling = QuerySampling::Sampled { per_sequence: 8, seed: 1 };
        let queries = sampling.draw([50, 3]);
        assert_eq!(queries, sampling.draw([50, 3]));
        assert_eq!(queries.iter().filter(|q| q.sequence == 0).count(), 8);
        assert_eq!(queries.iter().filter(|q| q.sequence == 1).count(), 3);
        assert!(queries.windows(2).all(|w| (w[0].sequence, w[0].position) < (w[1].sequence, w[1].position)));
        assert_eq!(QuerySampling::All.draw([50, 3]).len(), 53);
    }
}
