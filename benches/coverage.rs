//! How often 95 % intervals hold the truth: draws of sequences from a text that was measured whole.
//!
//! `benches/coverage.sh` measures; this draws. Arguments: NAME=FILE, each the output of `eval --json` over all sequences of
//! one text; with `unequal` in its name for sequences of different lengths, which are drawn at random only.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use indexscope::domain::{Cluster, Delta, Rng, student};
use serde_json::Value;

/// Rng draws per design.
const DRAWS: usize = 2000;

fn main() {
    println!("| text | pattern | Δ | draw | sequences | sd/se | 95 % intervals hold | offered |");
    println!("|---|---|---:|---|---:|---:|---:|---|");
    // `cargo bench` adds an option of its own.
    for (name, file) in
        std::env::args().filter_map(|arg| arg.split_once('=').map(|(n, f)| (n.to_owned(), f.to_owned())))
    {
        let json: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        for result in json["results"].as_array().unwrap() {
            let all: Vec<Cluster> = serde_json::from_value(result["by_cluster"].clone()).unwrap();
            let pattern = result["pattern"].as_str().unwrap();
            study(&name, pattern, &all, !name.contains("unequal"));
        }
    }
}

fn study(name: &str, pattern: &str, all: &[Cluster], in_order: bool) {
    let truth = Delta::of(all, None).unwrap().value;
    for n in [4, 8, 16] {
        let mut random = Rng::new(n as u64, 0);
        let mut order: Vec<usize> = (0..all.len()).collect();
        let drawn: Vec<Vec<usize>> = (0..DRAWS)
            .map(|_| {
                random.shuffle(&mut order);
                order[..n].to_vec()
            })
            .collect();
        row(name, pattern, truth, "random", n, all, &drawn);
        if !in_order {
            continue;
        }
        let stride = all.len() / n;
        let strided: Vec<Vec<usize>> = (0..stride).map(|o| (0..n).map(|i| o + i * stride).collect()).collect();
        row(name, pattern, truth, "strided", n, all, &strided);
        let consecutive: Vec<Vec<usize>> = (0..=all.len() - n).map(|o| (o..o + n).collect()).collect();
        row(name, pattern, truth, "consecutive", n, all, &consecutive);
    }
}

/// Prints one line: with fewer than eight clusters, and for neighbours of one text, nothing is offered as more than
/// "within-document"; what an interval by the formula would have held is printed all the same.
fn row(name: &str, pattern: &str, truth: f64, design: &str, n: usize, all: &[Cluster], draws: &[Vec<usize>]) {
    let (mut misses, mut squares, mut held) = (0.0, 0.0, 0usize);
    for draw in draws {
        let clusters: Vec<Cluster> = draw.iter().map(|&i| all[i]).collect();
        let delta = Delta::of(&clusters, None).unwrap();
        let (se, interval) = match (delta.se, delta.interval) {
            (Some(se), Some(interval)) => (se, interval),
            _ => formula(&clusters, delta.value),
        };
        misses += (delta.value - truth).powi(2);
        squares += se * se;
        held += usize::from(interval.0 <= truth && truth <= interval.1);
    }
    let ratio = (misses / squares).sqrt();
    let coverage = held as f64 / draws.len() as f64;
    let offered = n >= 8 && design != "consecutive";
    println!(
        "| {name} | `{pattern}` | {truth:+.4} | {design} | {n} | {ratio:.2} | {coverage:.3} | {} |",
        if offered { "yes" } else { "within-document only" }
    );
}

/// Returns error and interval where too few clusters are given for [`Delta`] to offer any.
fn formula(clusters: &[Cluster], value: f64) -> (f64, (f64, f64)) {
    let (count, n) = (clusters.len() as f64, clusters.iter().map(|c| c.n).sum::<usize>() as f64);
    let squares: f64 = clusters.iter().map(|c| (c.sum - value * c.n as f64).powi(2)).sum();
    let se = (count / (count - 1.0) * squares).sqrt() / n;
    let half = student(0.975, clusters.len() - 1) * se;
    (se, (value - half, value + half))
}
