//! How much the index sets of every two layers have in common.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Estimate, MAX_LAYERS};

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

/// Similarity of every pair of layers, symmetric, with 1 on the diagonal.
///
/// Only queries that see more than k keys are counted; where there are none, every set holds all visible keys and
/// every entry is 1. In a file `values` and `se` are rows of the upper triangle, the diagonal included, one after the
/// other, and `se` is left out where it is unknown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Triangle", into = "Triangle")]
pub struct OverlapMatrix {
    /// How sets were compared.
    pub metric: Metric,
    /// Number of layers.
    pub layers: usize,
    /// Means over counted queries, row-major `[layers, layers]`.
    pub values: Vec<f64>,
    /// Their standard errors over blocks of 128 consecutive counted queries; all `None` below eight blocks.
    pub se: Vec<Option<f64>>,
    /// The mean that two random sets would reach; `None` where no query is counted.
    pub chance: Option<f64>,
    /// Recorded queries.
    pub queries: usize,
    /// Queries that see more than k keys.
    pub counted: usize,
    /// Layers whose sets in the recording are those of an earlier Full layer.
    pub borrowed: Vec<usize>,
    /// Hash of the recorded tokens; empty where it is not known.
    pub tokens_hash: String,
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
        // Without a query that counts there is nothing to tell, not full overlap.
        (row < self.layers && column < self.layers && self.counted > 0).then_some(row * self.layers + column)
    }
}

/// The matrix as files hold it.
#[derive(Serialize, Deserialize)]
struct Triangle {
    metric: Metric,
    layers: usize,
    queries: usize,
    counted: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chance: Option<f64>,
    #[serde(default)]
    borrowed: Vec<usize>,
    #[serde(default)]
    tokens_hash: String,
    values: Vec<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    se: Vec<f64>,
}

impl From<OverlapMatrix> for Triangle {
    fn from(m: OverlapMatrix) -> Self {
        let upper = || (0..m.layers).flat_map(|i| (i..m.layers).map(move |j| i * m.layers + j));
        Self {
            values: upper().map(|at| m.values[at]).collect(),
            se: upper().map(|at| m.se[at]).collect::<Option<_>>().unwrap_or_default(),
            metric: m.metric,
            layers: m.layers,
            queries: m.queries,
            counted: m.counted,
            chance: m.chance,
            borrowed: m.borrowed,
            tokens_hash: m.tokens_hash,
        }
    }
}

impl TryFrom<Triangle> for OverlapMatrix {
    type Error = String;

    fn try_from(t: Triangle) -> Result<Self, String> {
        let n = t.layers;
        if n > MAX_LAYERS {
            return Err(format!("a matrix of {n} layers is more than {MAX_LAYERS}"));
        }
        let pairs = n * (n + 1) / 2;
        let sized = |name, len: usize| {
            (len == pairs).then_some(()).ok_or(format!("'{name}' has {len} entries for {pairs} pairs"))
        };
        sized("values", t.values.len())?;
        if !t.se.is_empty() {
            sized("se", t.se.len())?;
        }
        if let Some(value) = t.values.iter().chain(&t.chance).find(|v| !(0.0..=1.0).contains(*v)) {
            return Err(format!("an overlap of {value} is not between 0 and 1"));
        }
        let mut matrix = Self {
            metric: t.metric,
            layers: n,
            values: vec![0.0; n * n],
            se: vec![None; n * n],
            chance: t.chance,
            queries: t.queries,
            counted: t.counted,
            borrowed: t.borrowed,
            tokens_hash: t.tokens_hash,
        };
        let upper = (0..n).flat_map(|i| (i..n).map(move |j| (i, j)));
        for (pair, (i, j)) in upper.enumerate() {
            for at in [i * n + j, j * n + i] {
                matrix.values[at] = t.values[pair];
                matrix.se[at] = t.se.get(pair).copied();
            }
        }
        Ok(matrix)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_wrong_with_a_stored_matrix_is_said() {
        let read = |text: &str| toml::from_str::<OverlapMatrix>(text).unwrap_err().to_string();
        let head = "metric = 'overlap'\nlayers = 2\nqueries = 4\ncounted = 4\n";
        for (rest, wanted) in [
            ("values = [1, 0.5]", "'values' has 2 entries for 3 pairs"),
            ("values = [1, 0.5, 1]\nse = [0.0]", "'se' has 1 entries for 3 pairs"),
            ("values = [1, 1.5, 1]", "1.5 is not between 0 and 1"),
            ("values = [1, nan, 1]", "NaN is not between"),
        ] {
            let error = read(&format!("{head}{rest}"));
            assert!(error.contains(wanted), "{error}");
        }
        assert!(read("metric = 'overlap'\nlayers = 999999\nqueries = 0\ncounted = 0\nvalues = []").contains("999999"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_matrix_comes_back_bit_for_bit(matrix in overlaps()) {
            let text = toml::to_string(&matrix).unwrap();
            prop_assert_eq!(toml::from_str::<OverlapMatrix>(&text).unwrap(), matrix);
        }
    }

    /// Symmetric matrices of up to 12 layers.
    pub fn overlaps() -> impl Strategy<Value = OverlapMatrix> {
        let pairs = |n: usize| (Just(n), proptest::collection::vec((0.0f64..=1.0, 0.0f64..0.2), n * (n + 1) / 2));
        let some = (any::<bool>(), proptest::option::of(0.0f64..1.0), 0usize..9000, "[a-z0-9:]{0,20}");
        ((1usize..12).prop_flat_map(pairs), some).prop_map(|((n, pairs), (known, chance, counted, tokens_hash))| {
            let place = |i: usize, j: usize| {
                let (i, j) = (i.min(j), i.max(j));
                pairs[(0..i).map(|row| n - row).sum::<usize>() + j - i]
            };
            let all = || (0..n * n).map(|at| place(at / n, at % n));
            OverlapMatrix {
                metric: Metric::Overlap,
                layers: n,
                values: all().map(|(value, _)| value).collect(),
                se: all().map(|(_, se)| known.then_some(se)).collect(),
                chance,
                queries: counted + 7,
                counted,
                borrowed: (1..n).step_by(3).collect(),
                tokens_hash,
            }
        })
    }
}
