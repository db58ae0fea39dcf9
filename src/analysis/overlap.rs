//! How much the index sets of two layers have in common.

use rayon::prelude::*;

use super::pairs::{Scratch, intersections, pair_count};
use crate::domain::{Estimate, Query, Selection, TopK, Trace, TraceMeta, block_ends};
pub use crate::domain::{Metric, OverlapMatrix};

/// Compares sets of `a` and `b` members, `both` of which are common; sets have up to `k` members.
pub(super) fn similarity(metric: Metric, a: usize, b: usize, both: usize, k: usize) -> f64 {
    let whole = match metric {
        Metric::Overlap => k,
        Metric::Jaccard => a + b - both,
    };
    both as f64 / whole.max(1) as f64
}

/// Which sets of a query are compared where each group of heads selects for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Groups {
    /// Each group's with the same group's of the other layer; the mean of all.
    #[default]
    Each,
    /// Those of one group.
    One(usize),
    /// The union of all groups' with that of the other layer, which have far more in common.
    Pooled,
}

/// Compares every pair of layers of a recording.
pub fn matrix(trace: &Trace, metric: Metric) -> OverlapMatrix {
    let mut all = Accumulator::new(&trace.meta, &trace.queries, metric);
    all.add(&trace.selections);
    all.finish()
}

/// Queries that are compared before their values are added up: enough for every core, few enough for the cache.
const TOGETHER: usize = 64;

/// Compares every pair of layers, some queries at a time, so that not all sets of a recording need be in memory.
///
/// Per pair it holds a few sums and one mean per block of 128 queries. The result does not depend on how the queries
/// are cut.
#[derive(Clone, Debug)]
pub struct Accumulator {
    metric: Metric,
    topk: TopK,
    /// Sets per query and layer.
    groups: usize,
    /// Which of them are compared.
    compared: Groups,
    /// Units that are in every set whatever their scores.
    forced: usize,
    layers: usize,
    borrowed: Vec<usize>,
    tokens_hash: String,
    queries: Vec<Query>,
    /// Queries added so far.
    added: usize,
    /// Counted queries added so far.
    counted: usize,
    /// Where blocks end, in counted queries, in reverse; and whether their sequence ends there too.
    ends: Vec<(usize, bool)>,
    /// Where the present block began.
    begin: usize,
    /// Per pair: sum over the present block, over the present sequence, over all sequences before it.
    block: Vec<f64>,
    sequence: Vec<f64>,
    total: Vec<f64>,
    /// `[blocks, pairs]`.
    means: Vec<f64>,
}

impl Accumulator {
    /// Returns an accumulator for all `queries` of a recording, in their order.
    pub fn new(meta: &TraceMeta, queries: &[Query], metric: Metric) -> Self {
        let (topk, layers) = (meta.topk(), meta.sites().len());
        let mut ends = Vec::new();
        let mut counted = 0;
        // Blocks never straddle sequences.
        for sequence in queries.chunk_by(|a, b| a.sequence == b.sequence) {
            let n = sequence.iter().filter(|q| topk.counts(q.position as usize)).count();
            ends.extend(block_ends(n).into_iter().map(|end| (counted + end, end == n)));
            counted += n;
        }
        ends.reverse();
        let zeros = vec![0.0; pair_count(layers)];
        Self {
            metric,
            topk,
            groups: meta.groups,
            compared: Groups::default(),
            forced: meta.forced,
            layers,
            borrowed: (0..layers).filter(|&l| !meta.pattern.is_full(l)).collect(),
            tokens_hash: meta.tokens_hash.clone(),
            queries: queries.to_vec(),
            added: 0,
            counted: 0,
            ends,
            begin: 0,
            block: zeros.clone(),
            sequence: zeros.clone(),
            total: zeros,
            means: Vec::new(),
        }
    }

    /// Returns the accumulator for other groups than each.
    pub fn of(self, compared: Groups) -> Self {
        Self { compared, ..self }
    }

    /// Adds the next queries: one selection per layer, all with as many rows.
    pub fn add(&mut self, selections: &[Selection]) {
        debug_assert_eq!(selections.len(), self.layers, "one selection per layer");
        let rows = selections.first().map_or(0, Selection::len) / self.groups;
        let here = &self.queries[self.added..];
        let counted: Vec<usize> =
            (0..rows.min(here.len())).filter(|&q| self.topk.counts(here[q].position as usize)).collect();
        self.added += rows;
        let pairs = self.total.len();
        let mut values = vec![0.0; TOGETHER.min(counted.len()) * pairs];
        for queries in counted.chunks(TOGETHER) {
            let values = &mut values[..queries.len() * pairs];
            values.par_chunks_mut(pairs).zip(queries).for_each_init(Default::default, |room, (values, &query)| {
                self.compare(query, selections, room, values);
            });
            values.chunks(pairs).for_each(|values| self.count(values));
        }
    }

    /// Compares every pair of layers at one query.
    fn compare(
        &self,
        query: usize,
        selections: &[Selection],
        (scratch, counts): &mut (Scratch, Vec<u32>),
        values: &mut [f64],
    ) {
        counts.resize(values.len(), 0);
        values.fill(0.0);
        let mut add = |rows: &[&[u32]], k: Option<usize>, sets: usize| {
            intersections(rows, scratch, counts);
            let mut pair = values.iter_mut().zip(&mut *counts);
            for (i, a) in rows.iter().enumerate() {
                for (b, (value, &mut both)) in rows[i..].iter().zip(&mut pair) {
                    let k = k.unwrap_or(a.len().max(b.len()));
                    *value += similarity(self.metric, a.len(), b.len(), both as usize, k) / sets as f64;
                }
            }
        };
        let of_group =
            |group: usize| -> Vec<&[u32]> { selections.iter().map(|s| s.row(query * self.groups + group)).collect() };
        match self.compared {
            Groups::Each => (0..self.groups).for_each(|g| add(&of_group(g), Some(self.topk.k), self.groups)),
            Groups::One(group) => add(&of_group(group), Some(self.topk.k), 1),
            Groups::Pooled => {
                let pooled: Vec<Vec<u32>> = selections.iter().map(|s| union(s, query, self.groups)).collect();
                add(&pooled.iter().map(Vec::as_slice).collect::<Vec<_>>(), None, 1);
            }
        }
    }

    /// Adds the values of the next counted query.
    fn count(&mut self, values: &[f64]) {
        for ((block, sequence), value) in self.block.iter_mut().zip(&mut self.sequence).zip(values) {
            *block += value;
            *sequence += value;
        }
        self.counted += 1;
        if let Some(&(end, last)) = self.ends.last()
            && end == self.counted
        {
            self.ends.pop();
            let n = (end - std::mem::replace(&mut self.begin, end)) as f64;
            self.means.extend(self.block.iter_mut().map(|sum| std::mem::take(sum) / n));
            if last {
                for (total, sum) in self.total.iter_mut().zip(&mut self.sequence) {
                    *total += std::mem::take(sum);
                }
            }
        }
    }

    /// Returns the matrix of all queries, which must have been added.
    pub fn finish(self) -> OverlapMatrix {
        debug_assert_eq!(self.added, self.queries.len(), "all queries were added");
        let (layers, pairs) = (self.layers, self.total.len());
        let mut values = vec![1.0; layers * layers];
        let mut se = vec![None; layers * layers];
        let all = (0..layers).flat_map(|i| (i..layers).map(move |j| (i, j)));
        for (pair, (i, j)) in all.enumerate().take_while(|_| self.counted > 0) {
            let means: Vec<f64> = self.means.iter().skip(pair).step_by(pairs).copied().collect();
            let estimate = Estimate::of_blocks(self.total[pair], self.counted, &means);
            for at in [i * layers + j, j * layers + i] {
                values[at] = estimate.value;
                se[at] = estimate.se;
            }
        }
        OverlapMatrix {
            metric: self.metric,
            layers,
            values,
            se,
            // What unions of random sets have in common depends on how much the groups do.
            chance: (self.compared != Groups::Pooled)
                .then(|| chance(&self.queries, self.topk, self.forced, self.metric))
                .flatten(),
            queries: self.queries.len(),
            counted: self.counted,
            borrowed: self.borrowed,
            tokens_hash: self.tokens_hash,
        }
    }
}

/// Returns all that a query's groups selected, ascending.
fn union(selection: &Selection, query: usize, groups: usize) -> Vec<u32> {
    let mut all: Vec<u32> =
        (query * groups..(query + 1) * groups).flat_map(|row| selection.row(row)).copied().collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Returns what random sets would reach: the mean of k/n over counted queries for overlap; for Jaccard that of the
/// expected intersection. Units that are `forced` into every set are in common, the others are drawn from the rest. `None`
/// where no query is counted.
fn chance(queries: &[Query], topk: TopK, forced: usize, metric: Metric) -> Option<f64> {
    let seen = queries.iter().map(|q| q.visible(topk.unit)).filter(|&n| n > topk.k);
    let drawn = topk.k.saturating_sub(forced) as f64;
    let common = move |n: usize| forced as f64 + drawn * drawn / n.saturating_sub(forced).max(1) as f64;
    let shares = seen.map(|n| if forced == 0 { topk.k as f64 / n as f64 } else { common(n) / topk.k as f64 });
    let (sum, n) = shares.fold((0.0, 0usize), |(sum, n), share| match metric {
        Metric::Overlap => (sum + share, n + 1),
        Metric::Jaccard => (sum + share / (2.0 - share), n + 1),
    });
    (n > 0).then(|| sum / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{LayerSet, QuerySampling, SelectionUnit, intersection_len};
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn groups_are_compared_apart_and_pooled_only_when_asked() {
        let mut trace = trace("FF", &[[&[], &[], &[]], [&[], &[], &[]]]);
        trace.meta.groups = 2;
        trace.queries.truncate(2);
        // Query 0 sees no more than k keys; at query 1 the groups of one layer selected what the other's swapped.
        for (selection, rows) in trace.selections.iter_mut().zip([[[0u32, 1], [1, 2]], [[1, 2], [0, 1]]]) {
            *selection = Selection::default();
            [[0, 1], [0, 1]].iter().chain(&rows).for_each(|row| selection.push(row));
        }
        let compare = |groups| {
            let mut all = Accumulator::new(&trace.meta, &trace.queries, Metric::Overlap).of(groups);
            all.add(&trace.selections);
            let matrix = all.finish();
            (matrix.values[1], matrix.chance)
        };
        assert_eq!(compare(Groups::Each), (0.5, Some(2.0 / 3.0)));
        assert_eq!(compare(Groups::One(1)), (0.5, Some(2.0 / 3.0)));
        assert_eq!(compare(Groups::Pooled), (1.0, None));
    }

    #[test]
    fn what_is_in_every_set_is_taken_out_of_chance() {
        let (topk, queries) = (TopK { unit: SelectionUnit::Block(8), k: 4 }, [Query { sequence: 0, position: 99 }]);
        let close = |got: Option<f64>, want: f64| assert!((got.unwrap() - want).abs() < 1e-12, "{got:?}, not {want}");
        // 13 blocks: one of four is the query's own, the others are drawn from 12.
        close(chance(&queries, topk, 1, Metric::Overlap), (1.0 + 3.0 * 3.0 / 12.0) / 4.0);
        close(chance(&queries, topk, 1, Metric::Jaccard), 1.75 / (8.0 - 1.75));
        close(chance(&queries, topk, 0, Metric::Overlap), 4.0 / 13.0);
    }

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
                sites: LayerSet::default(),
                unit: SelectionUnit::Token,
                groups: 1,
                forced: 0,
                heads: 1,
                queries: QuerySampling::All,
                tokens_hash: String::new(),
                mass_recall: None,
            },
            tokens: vec![vec![0; 4]],
            queries: [1, 2, 3].map(|position| Query { sequence: 0, position }).to_vec(),
            selections: selections.collect(),
        }
    }

    #[test]
    fn entries_and_blocks_are_compared_group_by_group() {
        for (unit, groups) in [(SelectionUnit::Entry(4), 1), (SelectionUnit::Block(8), 2)] {
            let none: [&[u32]; 3] = [&[]; 3];
            let mut trace = trace("FF", &[none, none]);
            (trace.meta.index_topk, trace.meta.layers, trace.meta.sites) = (3, 9, [2, 6].into_iter().collect());
            (trace.meta.unit, trace.meta.groups, trace.tokens) = (unit, groups, vec![vec![0; 60]]);
            trace.queries = (0..60).map(|position| Query { sequence: 0, position }).collect();
            for (site, selection) in trace.selections.iter_mut().enumerate() {
                *selection = Selection::default();
                for query in &trace.queries {
                    for group in 0..groups {
                        let visible = query.visible(unit) as u32;
                        let from = visible.saturating_sub(3 + (site * (1 - group)) as u32);
                        selection.push(&(from..visible).take(3).collect::<Vec<_>>());
                    }
                }
            }
            let matrix = matrix(&trace, Metric::Overlap);
            let counted = trace.queries.iter().filter(|q| q.visible(unit) > 3).count();
            assert_eq!((matrix.layers, matrix.counted), (2, counted));
            // The second site's sets of the first group lie one unit earlier: two of three are common. The second
            // group's are alike.
            let wanted = if groups == 1 { 2.0 / 3.0 } else { 5.0 / 6.0 };
            assert!((matrix.get(0, 1).unwrap() - wanted).abs() < 1e-12, "{unit:?}: {:?}", matrix.get(0, 1));
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

    /// The definition, pair by pair from all queries' values.
    fn naive(trace: &Trace, metric: Metric, i: usize, j: usize) -> Option<Estimate> {
        let counted: Vec<usize> = trace.counted().collect();
        let values: Vec<Vec<f64>> = counted
            .chunk_by(|&a, &b| trace.queries[a].sequence == trace.queries[b].sequence)
            .map(|queries| {
                let rows = queries.iter().map(|&q| (trace.selections[i].row(q), trace.selections[j].row(q)));
                rows.map(|(a, b)| similarity(metric, a.len(), b.len(), intersection_len(a, b), trace.meta.index_topk))
                    .collect()
            })
            .collect();
        Estimate::paired(values.iter().map(Vec::as_slice)).map(|(estimate, _)| estimate)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_matrix_is_that_of_the_definition_however_queries_are_cut(
            seed: u64, lengths in vec(1usize..700, 1..4), layers in 1usize..5, k in 1usize..9, cut in 1usize..300,
        ) {
            let trace = random(seed, &lengths, layers, k);
            for metric in [Metric::Overlap, Metric::Jaccard] {
                let matrix = matrix(&trace, metric);
                for (i, j) in (0..layers).flat_map(|i| (0..layers).map(move |j| (i, j))) {
                    let want = naive(&trace, metric, i.min(j), i.max(j));
                    prop_assert_eq!(matrix.estimate(i, j).filter(|e| e.n > 0), want);
                }
                prop_assert_eq!(matrix.chance, chance(&trace.queries, trace.meta.topk(), 0, metric));
                let mut pieces = Accumulator::new(&trace.meta, &trace.queries, metric);
                for queries in (0..trace.queries.len()).collect::<Vec<_>>().chunks(cut) {
                    let part = |selection: &Selection| {
                        let mut part = Selection::default();
                        queries.iter().for_each(|&q| part.push(selection.row(q)));
                        part
                    };
                    pieces.add(&trace.selections.iter().map(part).collect::<Vec<_>>());
                }
                prop_assert_eq!(pieces.finish(), matrix);
            }
        }
    }

    /// Every position of sequences of these lengths, each layer with `k` keys drawn at random.
    fn random(mut seed: u64, lengths: &[usize], layers: usize, k: usize) -> Trace {
        let mut next = move |n: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % n
        };
        let rows: [&[u32]; 3] = [&[0]; 3];
        let mut trace = trace(&"F".repeat(layers), &vec![rows; layers]);
        trace.meta.index_topk = k;
        let positions =
            |(s, &n): (usize, &usize)| (0..n).map(move |p| Query { sequence: s as u32, position: p as u32 });
        trace.queries = lengths.iter().enumerate().flat_map(positions).collect();
        for selection in &mut trace.selections {
            *selection = Selection::default();
            for query in &trace.queries {
                let mut row = std::collections::BTreeSet::new();
                while row.len() < k.min(query.visible(SelectionUnit::Token)) {
                    row.insert(next(query.visible(SelectionUnit::Token)) as u32);
                }
                selection.push(&row.into_iter().collect::<Vec<_>>());
            }
        }
        trace
    }
}
