//! How much the index sets of two layers have in common.

use std::fmt;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::domain::{Estimate, Selection, Trace, intersection_len};

/// How two sets of one query are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// |A ∩ B| / k.
    #[default]
    Overlap,
    /// |A ∩ B| / |A ∪ B|.
    Jaccard,
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overlap => "overlap",
            Self::Jaccard => "jaccard",
        })
    }
}

impl Metric {
    /// Compares two ascending rows of sets of up to `k` members.
    fn of(self, a: &[u32], b: &[u32], k: usize) -> f64 {
        let both = intersection_len(a, b);
        let whole = match self {
            Self::Overlap => k,
            Self::Jaccard => a.len() + b.len() - both,
        };
        both as f64 / whole.max(1) as f64
    }
}

/// Similarity of every pair of layers, symmetric, with 1 on the diagonal.
///
/// Only queries that see more than k keys are counted; where there are none, every set holds all visible keys and
/// every entry is 1.
#[derive(Clone, Debug, PartialEq)]
pub struct OverlapMatrix {
    /// How sets were compared.
    pub metric: Metric,
    /// Number of layers.
    pub layers: usize,
    /// Means over counted queries, row-major `[layers, layers]`.
    pub values: Vec<f64>,
    /// Their standard errors over blocks of 128 consecutive counted queries; `None` below eight blocks.
    pub se: Vec<Option<f64>>,
    /// The mean that two random sets would reach; `None` where no query is counted.
    pub chance: Option<f64>,
    /// Recorded queries.
    pub queries: usize,
    /// Queries that see more than k keys.
    pub counted: usize,
    /// Layers whose sets in the recording are those of an earlier Full layer.
    pub borrowed: Vec<usize>,
}

impl OverlapMatrix {
    /// Returns the similarity of two layers; `None` for a layer outside the matrix.
    pub fn get(&self, row: usize, column: usize) -> Option<f64> {
        self.index(row, column).map(|i| self.values[i])
    }

    /// Returns the similarity of two layers with its standard error; `None` for a layer outside the matrix.
    pub fn estimate(&self, row: usize, column: usize) -> Option<Estimate> {
        self.index(row, column).map(|i| Estimate { value: self.values[i], se: self.se[i], n: self.counted })
    }

    /// Returns whether `layer` ran its own indexer in the recording.
    pub fn is_own(&self, layer: usize) -> bool {
        !self.borrowed.contains(&layer)
    }

    fn index(&self, row: usize, column: usize) -> Option<usize> {
        (row < self.layers && column < self.layers).then_some(row * self.layers + column)
    }
}

/// Compares every pair of layers of a recording.
pub fn matrix(trace: &Trace, metric: Metric) -> OverlapMatrix {
    let layers = trace.selections.len();
    let counted: Vec<usize> = trace.counted().collect();
    // Counted queries, cut where a new sequence begins: blocks never straddle sequences.
    let sequences: Vec<&[usize]> =
        counted.chunk_by(|&a, &b| trace.queries[a].sequence == trace.queries[b].sequence).collect();
    let pairs: Vec<(usize, usize)> = (0..layers).flat_map(|i| (i..layers).map(move |j| (i, j))).collect();
    let estimates: Vec<Estimate> = pairs
        .par_iter()
        .map(|&(i, j)| compare(&trace.selections[i], &trace.selections[j], &sequences, metric, trace.meta.index_topk))
        .collect();
    let mut values = vec![1.0; layers * layers];
    let mut se = vec![None; layers * layers];
    for (&(i, j), estimate) in pairs.iter().zip(&estimates) {
        for at in [i * layers + j, j * layers + i] {
            values[at] = estimate.value;
            se[at] = estimate.se;
        }
    }
    OverlapMatrix {
        metric,
        layers,
        values,
        se,
        chance: chance(trace, metric),
        queries: trace.queries.len(),
        counted: counted.len(),
        borrowed: (0..layers).filter(|&l| !trace.meta.pattern.is_full(l)).collect(),
    }
}

/// Returns the mean similarity of two layers over the queries of `sequences`.
fn compare(a: &Selection, b: &Selection, sequences: &[&[usize]], metric: Metric, k: usize) -> Estimate {
    let values: Vec<Vec<f64>> =
        sequences.iter().map(|queries| queries.iter().map(|&q| metric.of(a.row(q), b.row(q), k)).collect()).collect();
    Estimate::paired(values.iter().map(Vec::as_slice)).map_or(Estimate { value: 1.0, se: None, n: 0 }, |(e, _)| e)
}

/// Returns what random sets would reach: k/n for overlap; for Jaccard that of the expected intersection.
fn chance(trace: &Trace, metric: Metric) -> Option<f64> {
    match metric {
        Metric::Overlap => trace.chance(),
        Metric::Jaccard => {
            let (sum, n) = trace.counted().fold((0.0, 0usize), |(sum, n), q| {
                let share = trace.meta.index_topk as f64 / trace.queries[q].visible() as f64;
                (sum + share / (2.0 - share), n + 1)
            });
            (n > 0).then(|| sum / n as f64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Query, QuerySampling, TraceMeta, Unit};

    /// Two positions of one sequence of 4 keys with k = 2, and one that sees only 2 keys.
    fn trace(pattern: &str, rows: &[[&[u32]; 3]]) -> Trace {
        let selections = rows.iter().map(|rows| {
            let mut selection = Selection::default();
            for row in rows {
                selection.push(row);
            }
            selection
        });
        Trace {
            meta: TraceMeta {
                schema: 1,
                model: "m".into(),
                fingerprint: "f".into(),
                pattern: pattern.parse().unwrap(),
                index_topk: 2,
                layers: rows.len(),
                unit: Unit::Token,
                heads: 1,
                queries: QuerySampling::All,
                tokens_hash: String::new(),
            },
            tokens: vec![vec![0; 4]],
            queries: [1, 2, 3].map(|position| Query { sequence: 0, position }).to_vec(),
            selections: selections.collect(),
        }
    }

    #[test]
    fn only_queries_that_see_more_than_k_keys_count() {
        let t = trace("FFS", &[[&[0, 1], &[0, 1], &[1, 3]], [&[0, 1], &[1, 2], &[1, 3]], [&[0, 1], &[1, 2], &[1, 3]]]);
        let overlap = matrix(&t, Metric::Overlap);
        assert_eq!((overlap.queries, overlap.counted), (3, 2));
        assert_eq!(overlap.get(0, 1), Some(0.75));
        assert_eq!(overlap.get(1, 0), Some(0.75));
        assert_eq!(overlap.get(2, 2), Some(1.0));
        assert_eq!(overlap.get(0, 3), None);
        assert_eq!(overlap.borrowed, [2]);
        // (2/3 + 2/4) / 2
        assert!((overlap.chance.unwrap() - 7.0 / 12.0).abs() < 1e-12);
        assert!(overlap.se.iter().all(Option::is_none), "one block is too little for an error");
        let jaccard = matrix(&t, Metric::Jaccard);
        assert!((jaccard.get(0, 1).unwrap() - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn without_counted_queries_every_entry_is_one() {
        let mut t = trace("FF", &[[&[0, 1], &[0, 1], &[1, 3]], [&[0, 1], &[1, 2], &[1, 3]]]);
        t.meta.index_topk = 8;
        let overlap = matrix(&t, Metric::Overlap);
        assert_eq!((overlap.counted, overlap.chance), (0, None));
        assert!(overlap.values.iter().all(|&v| v == 1.0));
    }
}
