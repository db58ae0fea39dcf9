//! Adds up [`MassRecall`] layer by layer, so that neither all sets nor all attention need be in memory.

use rayon::prelude::*;

use crate::domain::{Estimate, MassRecall, Query, Selection, SelectionUnit, block_means};

/// A mean under way.
#[derive(Clone, Debug, Default)]
struct Mean {
    sum: f64,
    n: usize,
    blocks: Vec<f64>,
}

impl Mean {
    /// Adds the values of one sequence.
    fn add(&mut self, values: &[f64]) {
        self.sum += values.iter().sum::<f64>();
        self.n += values.len();
        self.blocks.extend(block_means(values));
    }

    fn estimate(&self) -> Option<Estimate> {
        let round = |e: Estimate| Estimate { value: rounded(e.value), se: e.se.map(rounded), ..e };
        (self.n > 0).then(|| round(Estimate::of_blocks(self.sum, self.n, &self.blocks)))
    }
}

/// Rounds to 12 decimals, which a decimal number in a file keeps exactly.
fn rounded(value: f64) -> f64 {
    (value * 1e12).round() / 1e12
}

/// Takes layers in any order, but every layer's sequences in theirs.
#[derive(Clone, Debug)]
pub struct Accumulator {
    topk: usize,
    layers: usize,
    /// `[layers, layers]`, of which (i, j ≥ i) are in use.
    pairs: Vec<Mean>,
    own: Vec<Mean>,
    chance: Vec<Mean>,
}

impl Accumulator {
    /// Returns an accumulator of a model of so many layers with k = `topk`.
    pub fn new(layers: usize, topk: usize) -> Self {
        let means = |n| vec![Mean::default(); n];
        Self { topk, layers, pairs: means(layers * layers), own: means(layers), chance: means(layers) }
    }

    /// Adds the drawn queries of one sequence at one layer.
    ///
    /// `attention` holds a row per query, the layer's head-averaged attention to every key; `sets` one selection per
    /// layer up to and with this one, a row per query.
    pub fn add(&mut self, layer: usize, queries: &[Query], attention: &[f32], sets: &[Selection]) {
        debug_assert_eq!(sets.len(), layer + 1, "one selection per layer up to this one");
        let keys = (attention.len() / queries.len().max(1)).max(1);
        let kept = |(q, row): (usize, &[f32])| -> Vec<f64> {
            sets.iter().map(|set| set.row(q).iter().map(|&key| f64::from(row[key as usize])).sum()).collect()
        };
        let kept: Vec<Vec<f64>> = attention.par_chunks(keys).enumerate().map(kept).collect();
        // A layer whose own set keeps nothing loses nothing by another.
        let relative = |kept: f64, own: f64| if own > 0.0 { kept / own } else { 1.0 };
        let column = |value: &dyn Fn(usize, &[f64]) -> f64| -> Vec<f64> {
            kept.iter().enumerate().map(|(q, kept)| value(q, kept)).collect()
        };
        for source in 0..=layer {
            let values = column(&|_, kept| relative(kept[source], kept[layer]));
            self.pairs[source * self.layers + layer].add(&values);
        }
        self.own[layer].add(&column(&|_, kept| kept[layer]));
        let random = |q: usize| self.topk as f64 / queries[q].visible(SelectionUnit::Token) as f64;
        self.chance[layer].add(&column(&|q, kept| relative(random(q), kept[layer])));
    }

    /// Returns the matrix; `per_sequence` and `seed` say how the queries were drawn.
    pub fn finish(self, per_sequence: usize, seed: u64) -> MassRecall {
        let estimates: Vec<Option<Estimate>> = self.pairs.iter().map(Mean::estimate).collect();
        let chances: Vec<f64> = self.chance.iter().filter_map(Mean::estimate).map(|e| e.value).collect();
        MassRecall {
            layers: self.layers,
            per_sequence,
            seed,
            queries: self.own.first().map_or(0, |mean| mean.n),
            values: estimates.iter().map(|e| e.map(|e| e.value)).collect(),
            se: estimates.iter().map(|e| e.and_then(|e| e.se)).collect(),
            own: self.own.iter().map(Mean::estimate).collect(),
            chance: (!chances.is_empty()).then(|| rounded(chances.iter().sum::<f64>() / chances.len() as f64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(rows: &[&[u32]]) -> Selection {
        let mut selection = Selection::default();
        rows.iter().for_each(|row| selection.push(row));
        selection
    }

    #[test]
    fn a_small_case_by_hand() {
        // k = 1 and two queries that see 2 and 4 keys.
        let queries = [1, 3].map(|position| Query { sequence: 0, position });
        let sets = [selection(&[&[0], &[2]]), selection(&[&[1], &[2]])];
        let mut sums = Accumulator::new(2, 1);
        sums.add(0, &queries, &[0.75, 0.25, 0.0, 0.0, 0.125, 0.125, 0.5, 0.25], &sets[..1]);
        sums.add(1, &queries, &[0.5, 0.5, 0.0, 0.0, 0.25, 0.25, 0.25, 0.25], &sets);
        let mass = sums.finish(2, 0);
        assert_eq!((mass.queries, mass.get(0, 0).unwrap().value), (2, 1.0));
        // Layer 1: its own sets keep ½ and ¼, those of layer 0 the same.
        assert_eq!(mass.get(0, 1).unwrap(), Estimate { value: 1.0, se: None, n: 2 });
        assert_eq!(mass.get(1, 0), None);
        assert_eq!(mass.get(0, 2), None);
        assert_eq!(mass.own.iter().map(|e| e.unwrap().value).collect::<Vec<_>>(), [0.625, 0.375]);
        // Layer 0: (½ / ¾ + ¼ / ½) / 2; layer 1: (½ / ½ + ¼ / ¼) / 2.
        assert!((mass.chance.unwrap() - 19.0 / 24.0).abs() < 1e-12);
    }

    #[test]
    fn the_order_of_layers_does_not_matter_and_errors_need_eight_blocks() {
        let queries = [2, 5].map(|position| Query { sequence: 0, position });
        let attention = |s: usize| -> Vec<f32> { (0..12).map(|i| ((i * 7 + s * 3) % 11) as f32 / 20.0).collect() };
        let sets = [selection(&[&[0, 2], &[3, 5]]), selection(&[&[1, 2], &[0, 5]])];
        let mut by_sequence = Accumulator::new(2, 2);
        let mut by_layer = Accumulator::new(2, 2);
        for s in 0..8 {
            (0..2).for_each(|l| by_sequence.add(l, &queries, &attention(s), &sets[..=l]));
        }
        for l in [0, 1] {
            (0..8).for_each(|s| by_layer.add(l, &queries, &attention(s), &sets[..=l]));
        }
        let mass = by_sequence.finish(2, 0);
        assert_eq!(mass, by_layer.finish(2, 0));
        assert!(mass.get(0, 1).unwrap().se.is_some());
        let text = serde_json::to_string(&mass).unwrap();
        assert_eq!(serde_json::from_str::<MassRecall>(&text).unwrap(), mass, "a file keeps every digit");
    }

    #[test]
    fn without_queries_there_is_nothing() {
        let mass = Accumulator::new(2, 4).finish(8, 0);
        assert_eq!((mass.queries, mass.get(0, 1), mass.chance), (0, None, None));
    }
}
