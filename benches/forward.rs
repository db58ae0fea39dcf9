//! Times one forward with logits of a checkpoint, beside the machine's measured matrix product rate.
//!
//! `cargo bench --bench forward -- CKPT [LENGTHS [PATTERN [RUNS]]]`, such as `… /tmp/mid 1024,2048,4096 FFFFFFFFFFFF 5`.
//! Prints one JSON object per length; the ids are those of CKPT/bench_ids.json, repeated where they do not suffice.
//! `benches/peer/compare.py` runs it in alternation with transformers.

#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use indexscope::analysis::cost::{Step, Widths};
use indexscope::checkpoint::Checkpoint;
use indexscope::domain::{Pattern, SelectionUnit, Subject, median_mad};
use indexscope::engine::geometry;
use indexscope::model::{At, Entry, Forward, Model, ModelError, Ops, Order, PhaseTimes, Ran, Walk, Weights};

/// The program's own allocator, so that memory and time are those of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rows and columns of the square products whose rate is the machine's.
const SQUARE: usize = 2048;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    let folder = args.next().context("usage: forward CKPT [LENGTHS [PATTERN [RUNS]]]")?;
    let lengths = args.next().unwrap_or_else(|| "1024,2048,4096".to_owned());
    let checkpoint = Checkpoint::open(Path::new(&folder))?;
    let pattern = match args.next() {
        Some(text) => text.parse()?,
        None => checkpoint.constraints().reference()?,
    };
    let runs: usize = args.next().map_or(Ok(5), |n| n.parse())?;
    let ids: serde_json::Value =
        serde_json::from_reader(std::fs::File::open(Path::new(&folder).join("bench_ids.json"))?)?;
    let ids: Vec<u32> = serde_json::from_value(ids["ids"].clone())?;
    let model = Model::load(&checkpoint, &Device::Cpu, DType::F32)?;
    let rate = matmul_rate()?;
    for length in lengths.split(',') {
        let length: usize = length.parse()?;
        let ids: Vec<u32> = ids.iter().copied().cycle().take(length).collect();
        forward(&model, &ids[..64.min(length)], pattern)?;
        let (mut seconds, mut phases) = (Vec::new(), PhaseTimes::default());
        for _ in 0..runs {
            let began = Instant::now();
            phases = forward(&model, &ids, pattern)?;
            seconds.push(began.elapsed().as_secs_f64());
        }
        let (median, mad) = median_mad(&seconds).context("RUNS is 0")?;
        // What other families compute is not counted.
        let counted = model.config().unit() == SelectionUnit::Token;
        let flop = counted.then(|| flop(&model, length, pattern));
        let line = serde_json::json!({
            "T": length, "pattern": pattern.to_string(), "median_s": median, "mad_s": mad, "runs": runs,
            "best_s": seconds.iter().copied().fold(f64::INFINITY, f64::min),
            "indexer_s": phases.indexer.as_secs_f64(), "topk_s": phases.topk.as_secs_f64(),
            "attention_s": phases.attention.as_secs_f64(), "mlp_s": phases.mlp.as_secs_f64(),
            "rest_s": phases.rest.as_secs_f64(), "gflop": flop.map(|n| n / 1e9), "gflop_per_s": flop.map(|n| n / median / 1e9),
            "matmul_gflop_per_s": rate / 1e9, "fraction": flop.map(|n| n / median / rate), "peak_rss_mib": peak_rss_mib(),
        });
        println!("{line}");
    }
    Ok(())
}

/// Runs every layer and the head for every token, as the peer does.
fn forward(model: &Model, ids: &[u32], pattern: Pattern) -> Result<PhaseTimes> {
    let mut times = PhaseTimes::default();
    let inputs = model.inputs(&[ids.to_vec()], 0)?;
    let entry = Entry::first(model.embed(&[ids.to_vec()])?);
    let mut forward = [Forward::new(0, &inputs, 1, (0, entry))];
    let subjects = [Subject::Pattern(pattern)];
    let walk = Walk { laps: true, ..Walk::new(&subjects, Ops::Fast) };
    let mut add = |_: &At, ran: &Ran| -> Result<(), ModelError> {
        times += ran.times;
        Ok(())
    };
    walk.run(Weights::Resident(model), Order::Sequences, &mut forward, &mut add)?;
    let [forward] = forward;
    let hidden = forward.into_hidden()?;
    std::hint::black_box(model.logits(&hidden)?);
    Ok(times)
}

/// Operations of a forward with logits for every token, attention in its latent form.
fn flop(model: &Model, length: usize, pattern: Pattern) -> f64 {
    let geometry = geometry(model.config());
    let work = geometry.work(Step::Prefill(length), Widths { weight: 4.0, latent: 4.0, index_key: 4.0 });
    let indexer = work.index_projections.flops + work.index_scores.flops;
    // A prefill has logits for its last token.
    let other_logits = 2.0 * (geometry.hidden * geometry.vocab * (length - 1)) as f64;
    work.products.flops + other_logits + work.attention.flops + indexer * pattern.full_count() as f64
}

/// Operations per second of square f32 products on all cores, the best of five.
fn matmul_rate() -> Result<f64> {
    let a = Tensor::rand(-1f32, 1.0, (SQUARE, SQUARE), &Device::Cpu)?;
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let began = Instant::now();
        std::hint::black_box(a.matmul(&a)?);
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(2.0 * (SQUARE as f64).powi(3) / best)
}

/// The most memory held so far, mapped files included; null where the system does not tell.
fn peak_rss_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib / 1024)
}
