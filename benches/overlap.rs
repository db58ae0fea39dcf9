//! Pairwise overlap of 78 layers × 4,096 queries × k = 2,048, at several numbers of visible keys.
//!
//! Run with `cargo bench --bench overlap [-- VISIBLE…]`; the sets are random, which no form of comparison likes better
//! or worse than real ones. Figures are the median and the fastest of five runs on all cores.

#![allow(clippy::print_stdout)]

use std::time::Instant;

use indexscope::analysis::{Accumulator, Metric};
use indexscope::domain::{LayerSet, Query, QuerySampling, Selection, SelectionUnit, TraceMeta, median_mad};

const LAYERS: usize = 78;
const QUERIES: usize = 4096;
const TOPK: usize = 2048;
const RUNS: usize = 5;
/// Sets that are made; the queries go round them, or 64K contexts would need 2.6 GB for nothing.
const DISTINCT: usize = 512;

fn main() {
    let mut asked: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    if asked.is_empty() {
        asked = vec![8192, 16_384, 65_536, 131_072, 262_144, 524_288];
    }
    println!("{LAYERS} layers, {QUERIES} queries, k = {TOPK}, {} threads", rayon::current_num_threads());
    for visible in asked {
        let selections: Vec<Selection> = (0..LAYERS).map(|layer| random(layer as u64, visible)).collect();
        let query = |q: usize| Query { sequence: q as u32, position: visible as u32 - 1 };
        let queries: Vec<Query> = (0..QUERIES).map(query).collect();
        let seconds: Vec<f64> = (0..RUNS)
            .map(|_| {
                let started = Instant::now();
                let mut all = Accumulator::new(&meta(), &queries, Metric::Overlap);
                (0..QUERIES / DISTINCT).for_each(|_| all.add(&selections));
                let matrix = all.finish();
                assert_eq!((matrix.counted, matrix.values[0]), (QUERIES, 1.0));
                started.elapsed().as_secs_f64()
            })
            .collect();
        let fastest = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let (median, _) = median_mad(&seconds).expect("there were runs");
        println!("visible {visible:>7}: median {median:.3} s, fastest {fastest:.3} s");
    }
}

fn meta() -> TraceMeta {
    TraceMeta {
        schema: 1,
        model: "random".into(),
        fingerprint: String::new(),
        pattern: "F".repeat(LAYERS).parse().expect("a pattern"),
        index_topk: TOPK,
        layers: LAYERS,
        sites: LayerSet::default(),
        unit: SelectionUnit::Token,
        groups: 1,
        forced: 0,
        heads: 1,
        queries: QuerySampling::All,
        tokens_hash: String::new(),
        mass_recall: None,
    }
}

/// Draws sets of `TOPK` of `visible` keys (Knuth's algorithm S).
fn random(seed: u64, visible: usize) -> Selection {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut selection = Selection::with_capacity(DISTINCT, TOPK);
    let mut row = Vec::with_capacity(TOPK);
    for _ in 0..DISTINCT {
        row.clear();
        for key in 0..visible {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state % ((visible - key) as u64) < (TOPK - row.len()) as u64 {
                row.push(key as u32);
            }
        }
        selection.push(&row);
    }
    selection
}
