//! How far two recordings of the same tokens agree, and how much of a query's set later queries select again.

use serde::Serialize;

use super::overlap::similarity;
use crate::domain::{Estimate, Metric, Query, Selection, Trace, intersection_len};

/// End of the first bucket of positions; each further one doubles the context.
const FIRST_BUCKET: usize = 32;

/// Why two recordings cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incomparable {
    /// Other models.
    #[error("one recording has {0} layers that select, and the other {1}, or other ones")]
    Layers(usize, usize),
    /// Sets of something else.
    #[error("the recordings hold sets of different units, or of different numbers of groups")]
    Units,
    /// Sets of other sizes.
    #[error("one recording keeps {0} keys per query (index_topk) and the other {1}")]
    Topk(usize, usize),
    /// Other texts.
    #[error("the recordings are of different tokens: sequence {sequence} differs at position {position}")]
    Tokens {
        /// The sequence.
        sequence: usize,
        /// The first token that differs.
        position: usize,
    },
    /// No query is in both.
    #[error("the recordings have no query in common")]
    NoQueries,
}

/// The sets of one layer in two recordings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerAgreement {
    /// Mean similarity over counted queries; `None` without any.
    pub mean: Option<Estimate>,
    /// Share of the counted queries whose sets are identical.
    pub identical: Option<f64>,
    /// The counted query at which the sets agree least, and how much they do there.
    pub worst: Option<(Query, f64)>,
}

/// The counted queries of a range of positions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PositionAgreement {
    /// First position.
    pub from: usize,
    /// One past the last.
    pub to: usize,
    /// Counted queries in it.
    pub queries: usize,
    /// Mean similarity per layer that selects.
    pub layers: Vec<f64>,
}

/// Two recordings of the same tokens, layer by layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// How two sets are compared.
    pub metric: Metric,
    /// Queries that both recorded.
    pub queries: usize,
    /// Those of them that see more than k keys; the sets of others hold all keys.
    pub counted: usize,
    /// What two random sets would have in common, as a share of k; `None` without counted queries.
    pub chance: Option<f64>,
    /// The layers that select.
    pub sites: Vec<usize>,
    /// One entry for each of them.
    pub layers: Vec<LayerAgreement>,
    /// The same by position.
    pub by_position: Vec<PositionAgreement>,
}

/// Compares two recordings of the same tokens, such as of two engines, two dtypes, or before and after training.
///
/// # Errors
/// [`Incomparable`] where layers, k or tokens differ; one recording may hold more queries or sequences than the other.
pub fn between(a: &Trace, b: &Trace, metric: Metric) -> Result<Agreement, Incomparable> {
    let (k, groups) = (a.meta.index_topk, a.meta.groups);
    if a.meta.sites() != b.meta.sites() {
        return Err(Incomparable::Layers(a.meta.sites().len(), b.meta.sites().len()));
    }
    if (a.meta.unit, groups) != (b.meta.unit, b.meta.groups) {
        return Err(Incomparable::Units);
    }
    if k != b.meta.index_topk {
        return Err(Incomparable::Topk(k, b.meta.index_topk));
    }
    for (sequence, (ours, theirs)) in a.tokens.iter().zip(&b.tokens).enumerate() {
        if let Some(position) = ours.iter().zip(theirs).position(|(x, y)| x != y) {
            return Err(Incomparable::Tokens { sequence, position });
        }
    }
    let common = common(&a.queries, &b.queries);
    if common.is_empty() {
        return Err(Incomparable::NoQueries);
    }
    let counted: Vec<(usize, usize)> =
        common.iter().copied().filter(|&(at, _)| a.meta.visible(a.queries[at]) > k).collect();
    let values: Vec<Vec<f64>> = a
        .selections
        .iter()
        .zip(&b.selections)
        .map(|(ours, theirs)| {
            let one = |&(i, j): &(usize, usize)| compared(metric, (ours, i), (theirs, j), groups, k);
            counted.iter().map(one).collect()
        })
        .collect();
    let queries: Vec<Query> = counted.iter().map(|&(at, _)| a.queries[at]).collect();
    let layer = |(layer, values): (usize, &Vec<f64>)| {
        let (ours, theirs) = (&a.selections[layer], &b.selections[layer]);
        let is_same =
            |&&(i, j): &&(usize, usize)| (0..groups).all(|g| ours.row(i * groups + g) == theirs.row(j * groups + g));
        let same = counted.iter().filter(is_same).count();
        LayerAgreement {
            mean: mean_of(&queries, values),
            identical: (!counted.is_empty()).then(|| same as f64 / counted.len() as f64),
            worst: queries.iter().copied().zip(values.iter().copied()).min_by(|x, y| x.1.total_cmp(&y.1)),
        }
    };
    Ok(Agreement {
        metric,
        queries: common.len(),
        counted: counted.len(),
        chance: chance(a, &queries),
        sites: a.meta.sites().iter().collect(),
        layers: values.iter().enumerate().map(layer).collect(),
        by_position: by_position(&queries, &values),
    })
}

/// How much of a query's set the query so many positions later selects again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Temporal {
    /// Positions between the two queries.
    pub lag: usize,
    /// Pairs of recorded queries that far apart, the earlier of which sees more than k keys.
    pub pairs: usize,
    /// What two random sets would have in common, as a share of k; `None` without pairs.
    pub chance: Option<f64>,
    /// The layers that select.
    pub sites: Vec<usize>,
    /// Mean of |S(t) ∩ S(t + lag)| / k per layer that selects; `None` without pairs.
    pub layers: Vec<Option<Estimate>>,
}

/// Positions between queries that are compared where none are given: the next, and steps of decoding apart.
pub const LAGS: [usize; 3] = [1, 8, 64];

/// Returns how much of its set each layer keeps from one query to that `lag` positions later.
///
/// Caches of decode steps and indices shared with MTP layers rest on it. Sampled recordings have few neighbours.
pub fn temporal(trace: &Trace, lag: usize) -> Temporal {
    let k = trace.meta.index_topk;
    let key = |q: &Query| (q.sequence, q.position);
    let later = |at: usize| {
        let query = trace.queries[at];
        let wanted = (query.sequence, query.position.checked_add(u32::try_from(lag).ok()?)?);
        trace.queries.binary_search_by_key(&wanted, key).ok()
    };
    let pairs: Vec<(usize, usize)> = trace.counted().filter_map(|at| Some((at, later(at)?))).collect();
    let queries: Vec<Query> = pairs.iter().map(|&(_, later)| trace.queries[later]).collect();
    let kept = |set: &Selection| {
        let kept = |&(i, j): &(usize, usize)| compared(Metric::Overlap, (set, i), (set, j), trace.meta.groups, k);
        mean_of(&queries, &pairs.iter().map(kept).collect::<Vec<_>>())
    };
    Temporal {
        lag,
        pairs: pairs.len(),
        chance: chance(trace, &queries),
        sites: trace.meta.sites().iter().collect(),
        layers: trace.selections.iter().map(kept).collect(),
    }
}

/// Compares the sets of a query in one selection and of a query in another, as the mean over groups.
fn compared(metric: Metric, a: (&Selection, usize), b: (&Selection, usize), groups: usize, k: usize) -> f64 {
    let one = |group: usize| {
        let (a, b) = (a.0.row(a.1 * groups + group), b.0.row(b.1 * groups + group));
        similarity(metric, a.len(), b.len(), intersection_len(a, b), k)
    };
    (0..groups).map(one).sum::<f64>() / groups.max(1) as f64
}

/// Returns the places of the queries that both lists have; both are in (sequence, position) order.
fn common(a: &[Query], b: &[Query]) -> Vec<(usize, usize)> {
    let (mut i, mut j, mut both) = (0, 0, Vec::new());
    while i < a.len() && j < b.len() {
        let (x, y) = ((a[i].sequence, a[i].position), (b[j].sequence, b[j].position));
        if x == y {
            both.push((i, j));
        }
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    both
}

/// Returns the mean of one value per query, with the error over blocks that never straddle sequences.
fn mean_of(queries: &[Query], values: &[f64]) -> Option<Estimate> {
    let mut from = 0;
    let sequences = queries.chunk_by(|a, b| a.sequence == b.sequence).map(|sequence| {
        let own = &values[from..from + sequence.len()];
        from += sequence.len();
        own
    });
    Estimate::paired(sequences).map(|(estimate, _)| estimate)
}

/// Returns the mean share of k that random sets have in common.
fn chance(trace: &Trace, queries: &[Query]) -> Option<f64> {
    let share = queries.iter().map(|&q| trace.meta.index_topk as f64 / trace.meta.visible(q) as f64).sum::<f64>();
    (!queries.is_empty()).then(|| share / queries.len() as f64)
}

fn by_position(queries: &[Query], values: &[Vec<f64>]) -> Vec<PositionAgreement> {
    let end = queries.iter().map(|q| q.position as usize + 1).max().unwrap_or(0);
    let (mut from, mut to, mut buckets) = (0, FIRST_BUCKET, Vec::new());
    while from < end {
        let own: Vec<usize> =
            (0..queries.len()).filter(|&q| (from..to).contains(&(queries[q].position as usize))).collect();
        if !own.is_empty() {
            let mean = |values: &Vec<f64>| own.iter().map(|&q| values[q]).sum::<f64>() / own.len() as f64;
            buckets.push(PositionAgreement { from, to, queries: own.len(), layers: values.iter().map(mean).collect() });
        }
        (from, to) = (to, 2 * to);
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{LayerSet, QuerySampling, SelectionUnit, TraceMeta};

    /// A recording of one layer with k = 2 over one sequence: the sets of positions 0 to 3.
    fn trace(sets: [&[u32]; 4]) -> Trace {
        let mut selection = Selection::default();
        sets.iter().for_each(|set| selection.push(set));
        Trace {
            meta: TraceMeta {
                schema: 1,
                model: "m".into(),
                fingerprint: String::new(),
                pattern: "F".parse().unwrap(),
                index_topk: 2,
                layers: 1,
                unit: SelectionUnit::Token,
                sites: LayerSet::default(),
                groups: 1,
                forced: 0,
                heads: 1,
                queries: QuerySampling::All,
                tokens_hash: String::new(),
                mass_recall: None,
            },
            tokens: vec![vec![7, 8, 9, 10]],
            queries: (0..4).map(|position| Query { sequence: 0, position }).collect(),
            selections: vec![selection],
        }
    }

    #[test]
    fn recordings_agree_by_layer_and_position() {
        let a = trace([&[0], &[0, 1], &[0, 2], &[1, 3]]);
        let b = trace([&[0], &[0, 1], &[0, 2], &[2, 3]]);
        let got = between(&a, &b, Metric::Overlap).unwrap();
        // Positions 2 and 3 see more than two keys: one set is the same, half of the other.
        assert_eq!((got.queries, got.counted), (4, 2));
        assert_eq!(got.layers[0].mean.unwrap().value, 0.75);
        assert_eq!(got.layers[0].identical, Some(0.5));
        assert_eq!(got.layers[0].worst, Some((Query { sequence: 0, position: 3 }, 0.5)));
        assert_eq!(got.chance, Some(f64::midpoint(2.0 / 3.0, 0.5)));
        assert_eq!((got.by_position.len(), got.by_position[0].queries), (1, 2));
        assert_eq!(between(&a, &a, Metric::Jaccard).unwrap().layers[0].mean.unwrap().value, 1.0);
        // One that recorded fewer queries is compared on those.
        let mut few = b.clone();
        few.queries = vec![a.queries[3]];
        few.selections[0] = Selection::default();
        few.selections[0].push(&[1, 3]);
        let got = between(&a, &few, Metric::Overlap).unwrap();
        assert_eq!((got.queries, got.layers[0].mean.unwrap().value), (1, 1.0));
    }

    #[test]
    fn recordings_of_something_else_are_refused() {
        let a = trace([&[0], &[0, 1], &[0, 2], &[1, 3]]);
        let refused = |change: fn(&mut Trace)| {
            let mut b = a.clone();
            change(&mut b);
            between(&a, &b, Metric::Overlap).unwrap_err()
        };
        assert_eq!(refused(|b| b.tokens[0][2] = 5), Incomparable::Tokens { sequence: 0, position: 2 });
        assert_eq!(refused(|b| b.meta.index_topk = 3), Incomparable::Topk(2, 3));
        assert_eq!(refused(|b| b.meta.layers = 2), Incomparable::Layers(1, 2));
        assert_eq!(refused(|b| b.queries.clear()), Incomparable::NoQueries);
    }

    #[test]
    fn a_set_is_compared_with_that_of_a_later_query() {
        let a = trace([&[0], &[0, 1], &[0, 2], &[1, 2]]);
        let next = temporal(&a, 1);
        // Only position 2 counts and has a successor.
        assert_eq!((next.pairs, next.layers[0].unwrap().value, next.chance), (1, 0.5, Some(0.5)));
        let far = temporal(&a, 9);
        assert_eq!((far.pairs, far.layers[0], far.chance), (0, None, None));
    }
}
