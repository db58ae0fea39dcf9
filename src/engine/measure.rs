//! Speed: forwards of pattern and reference in alternation, apart from any loss.

use std::time::{Duration, Instant};

use super::local::LocalBackend;
use super::{BackendError, Cancel};
use crate::domain::{Origin, Pattern, PhaseShare, Speed, Timing, median_mad};
use crate::model::{Attend, Model, Pass, PhaseTimes, Rotary};

/// Fewest pairs of runs.
const MIN_RUNS: usize = 5;
/// Most pairs of runs.
const MAX_RUNS: usize = 15;
/// After this time no further pair is begun, once the fewest are done.
const ENOUGH: Duration = Duration::from_secs(3);

/// Times prefill: the whole context through every layer, and the head for its last token.
pub(super) fn measure(
    backend: &LocalBackend,
    pattern: Pattern,
    cancel: &Cancel,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Speed>, BackendError> {
    let model = &backend.runner.model;
    let all = backend.calibration.sequences().iter().flat_map(|s| s.ids.iter().copied());
    let context = backend.settings.speed_context.unwrap_or(backend.info.context);
    let ids = vec![all.cycle().take(context).collect::<Vec<u32>>()];
    let rotary = model.rope(context)?;
    let run = |pattern| forward(model, &ids, &rotary, pattern, cancel);
    let reference = backend.info.reference;
    // The first pair warms caches and is thrown away.
    run(pattern)?;
    run(reference)?;
    let started = Instant::now();
    let (mut seconds, mut ratios, mut phases) = (Vec::new(), Vec::new(), PhaseTimes::default());
    while seconds.len() < MIN_RUNS || (seconds.len() < MAX_RUNS && started.elapsed() < ENOUGH) {
        // Which of the two goes first alternates, so that a drift of the clock favours neither.
        let (ours, theirs) = if seconds.len() % 2 == 0 {
            let ours = run(pattern)?;
            (ours, run(reference)?)
        } else {
            let theirs = run(reference)?;
            (run(pattern)?, theirs)
        };
        seconds.push(total(&ours).as_secs_f64());
        ratios.push(total(&theirs).as_secs_f64() / total(&ours).as_secs_f64());
        phases = add(phases, ours);
        progress((seconds.len() as f64 / MAX_RUNS as f64).max(started.elapsed().div_duration_f64(ENOUGH)).min(1.0));
    }
    let timing = |values: &[f64]| {
        let (median, mad) = median_mad(values).unwrap_or((f64::NAN, f64::NAN));
        Timing { median, mad, runs: values.len() }
    };
    Ok(vec![Speed {
        pattern,
        phase: "prefill".to_owned(),
        context,
        seconds: timing(&seconds),
        ratio: timing(&ratios),
        share: shares(phases),
        ops: backend.info.ops.clone(),
        origin: Origin::Measured,
    }])
}

/// Runs every layer of one pattern and returns where the time went; all of it is booked somewhere.
fn forward(
    model: &Model,
    ids: &[Vec<u32>],
    rotary: &Rotary,
    pattern: Pattern,
    cancel: &Cancel,
) -> Result<PhaseTimes, BackendError> {
    let mut times = PhaseTimes::default();
    let started = Instant::now();
    let mut hidden = model.embed(ids)?;
    let mut indices = None;
    for layer in 0..pattern.len() {
        if cancel.is_stale() {
            return Err(BackendError::Cancelled);
        }
        let attend = match &indices {
            Some(indices) if !pattern.is_full(layer) => Attend::Given(indices),
            _ => Attend::Own,
        };
        let mut pass = Pass::new(attend);
        pass.times = Some(&mut times);
        let output = model.layer(layer, &hidden, rotary, &mut pass)?;
        (hidden, indices) = (output.hidden, output.indices);
    }
    let last = hidden.narrow(1, hidden.dim(1)? - 1, 1)?;
    // Reading the logits waits for the device.
    model.logits(&last)?.flatten_all()?.to_vec1::<f32>()?;
    times.rest = Duration::ZERO;
    times.rest = started.elapsed().saturating_sub(total(&times));
    Ok(times)
}

fn total(t: &PhaseTimes) -> Duration {
    t.indexer + t.topk + t.attention + t.mlp + t.rest
}

fn add(a: PhaseTimes, b: PhaseTimes) -> PhaseTimes {
    PhaseTimes {
        indexer: a.indexer + b.indexer,
        topk: a.topk + b.topk,
        attention: a.attention + b.attention,
        mlp: a.mlp + b.mlp,
        rest: a.rest + b.rest,
    }
}

fn shares(times: PhaseTimes) -> PhaseShare {
    let of = |part: Duration| part.div_duration_f64(total(&times));
    PhaseShare {
        indexer: of(times.indexer),
        topk: of(times.topk),
        attention: of(times.attention),
        mlp: of(times.mlp),
        rest: of(times.rest),
    }
}
