//! Times what a person waits for: a toggled layer, a pattern seen before, a newer edit that stops an older one.
//!
//! `cargo bench --bench toggle -- CKPT [LENGTH]`, such as `… /tmp/mid 4096`; CKPT/bench_ids.json holds the ids. Each
//! toggle of the all-Full pattern is beside the layers from the toggled one on, and the head, in a full forward of the
//! new pattern.

#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indexscope::checkpoint::Checkpoint;
use indexscope::domain::{Pattern, Role, Subject, median_mad};
use indexscope::engine::{
    Backend, BackendError, Calibration, Cancel, DeviceChoice, Generation, Placement, Runtime, Sequence, Settings,
    Source,
};
use indexscope::model::{At, Entry, Forward, Model, ModelError, Ops, Order, Ran, Walk, Weights};

/// The program's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Times that everything is done, each with a backend of its own.
const ROUNDS: usize = 3;
/// Evaluations that are stopped per round.
const STOPS: usize = 10;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    let folder = args.next().context("usage: toggle CKPT [LENGTH]")?;
    let length: usize = args.next().map_or(Ok(4096), |n| n.parse())?;
    let ids: serde_json::Value =
        serde_json::from_reader(std::fs::File::open(Path::new(&folder).join("bench_ids.json"))?)?;
    let ids: Vec<u32> =
        serde_json::from_value::<Vec<u32>>(ids["ids"].clone())?.into_iter().cycle().take(length).collect();
    let checkpoint = Checkpoint::open(Path::new(&folder))?;
    let layers = checkpoint.config().num_hidden_layers;
    let calibration = Calibration::new(vec![Sequence::of(ids.clone())], "bench", checkpoint.config().vocab_size)
        .map_err(anyhow::Error::msg)?;
    let all_full = Pattern::all_full(layers)?;
    let flip = |layer| all_full.with(layer, Role::Shared);
    println!("T = {length}, {layers} layers, {} threads, medians of {ROUNDS}", rayon::current_num_threads());
    println!("layer  toggle s  layers from it on + head s  ratio  within 1.15x + 10 ms  seen before ms");
    // [layer][round]: toggle, the same in a full forward, the same pattern again.
    let mut seconds = vec![[[0.0; ROUNDS]; 3]; layers];
    let mut waits = Vec::new();
    for round in 0..ROUNDS {
        let placement = Placement::open(DeviceChoice::Cpu, None)?;
        let model = Model::load(&checkpoint, &placement.device, placement.dtype)?;
        let mut backend =
            Source::new(checkpoint.clone(), calibration.clone(), Runtime::Process(Settings::new(placement)))
                .open(&Cancel::never())?;
        let mut evaluate = |pattern| -> Result<f64> {
            let began = Instant::now();
            backend.evaluate(Subject::Pattern(pattern), &Cancel::never(), &mut |_| {})?;
            Ok(began.elapsed().as_secs_f64())
        };
        let whole = evaluate(all_full)?;
        // The first comparison also computes the reference's logits, once.
        evaluate(flip(layers - 1)?.with(layers - 2, Role::Shared)?)?;
        for (layer, times) in seconds.iter_mut().enumerate().skip(1) {
            let [toggle, again] = [evaluate(flip(layer)?)?, evaluate(flip(layer)?)?];
            for (of, value) in times.iter_mut().zip([toggle, tail(&model, &ids, flip(layer)?, layer)?, again]) {
                of[round] = value;
            }
        }
        for stop in 1..=STOPS {
            // Patterns that have not been seen, stopped at times spread over a whole evaluation.
            let bits = stop + STOPS * round;
            let pattern = Pattern::from_fn(layers, |l| {
                if l == 1 || (l > 1 && bits >> (l - 2) & 1 == 1) { Role::Shared } else { Role::Full }
            })?;
            waits.extend(stopped(backend.as_mut(), pattern, whole * stop as f64 / (STOPS + 1) as f64)?);
        }
    }
    for (layer, times) in seconds.iter().enumerate().skip(1) {
        let [toggle, tail, again] = times.each_ref().map(|t| median_mad(t).map_or(f64::NAN, |(median, _)| median));
        let within = if toggle <= 1.15 * tail + 0.010 { "yes" } else { "no" };
        println!(
            "{layer:>5}  {toggle:>8.3}  {tail:>26.3}  {:>5.2}  {within:>20}  {:>14.3}",
            toggle / tail,
            again * 1e3
        );
    }
    waits.sort_by(f64::total_cmp);
    let (median, most) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!(
        "{} stopped evaluations: the worker is free after {:.1} ms (median), {:.1} ms (longest)",
        waits.len(),
        median * 1e3,
        most * 1e3
    );
    Ok(())
}

/// Seconds of the layers from `from` on and the head, in a full forward.
fn tail(model: &Model, ids: &[u32], pattern: Pattern, from: usize) -> Result<f64> {
    let inputs = model.inputs(&[ids.to_vec()], 0)?;
    let entry = Entry::first(model.embed(&[ids.to_vec()])?);
    let mut forward = [Forward::new(0, &inputs, 1, (0, entry))];
    let mut began = Instant::now();
    let mut note = |at: &At, ran: &Ran| -> Result<(), ModelError> {
        if at.layer == from {
            began = ran.begin;
        }
        Ok(())
    };
    let subjects = [Subject::Pattern(pattern)];
    Walk::new(&subjects, Ops::Fast).run(Weights::Resident(model), Order::Sequences, &mut forward, &mut note)?;
    let [forward] = forward;
    let hidden = forward.into_hidden()?;
    std::hint::black_box(model.logits(&hidden)?);
    Ok(began.elapsed().as_secs_f64())
}

/// Stops an evaluation after `after` seconds and returns how long it goes on; nothing where it had ended.
fn stopped(backend: &mut dyn Backend, pattern: Pattern, after: f64) -> Result<Option<f64>> {
    let generation = Generation::default();
    let cancel = generation.advance();
    let timer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs_f64(after));
        let at = Instant::now();
        generation.advance();
        at
    });
    let ended = backend.evaluate(Subject::Pattern(pattern), &cancel, &mut |_| {});
    let now = Instant::now();
    let at = timer.join().map_err(|_| anyhow::anyhow!("the timer failed"))?;
    match ended {
        Err(BackendError::Cancelled) => Ok(Some((now - at).as_secs_f64())),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(None),
    }
}
