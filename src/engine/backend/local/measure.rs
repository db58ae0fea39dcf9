//! Speed: forwards of pattern and reference in alternation, apart from any loss.

use std::time::Duration;

use super::LocalBackend;
use super::timing::{Bench, DECODE_TOKENS, Runs, ratio, shares, timing};
use crate::domain::{Origin, Pattern, Speed};
use crate::engine::{BackendError, Cancel};
use crate::model::ops::give_back;

/// Steps beside a prefill and single tokens, as servers run them.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    /// Decode: sequences in a batch, and query tokens of each (more than one where tokens are drafted).
    pub decode: Vec<(usize, usize)>,
    /// Prefill of so many last tokens of the context on a cached prefix.
    pub suffix: Option<usize>,
}

impl Steps {
    /// Returns whether there is nothing to time.
    pub fn is_empty(&self) -> bool {
        self.decode.is_empty() && self.suffix.is_none()
    }
}

/// The speed of one kind of step.
#[derive(Clone, Debug)]
pub struct StepSpeed {
    /// What was timed: `decode` or `suffix`; seconds of one step of the whole batch.
    pub speed: Speed,
    /// Sequences in the batch.
    pub batch: usize,
    /// Query tokens of each sequence in one step.
    pub tokens: usize,
}

/// Times prefill (the whole context through every layer, and the head for its last token) and then decode (single
/// tokens after that context), both against the reference pattern; `done` hears of each as soon as it is timed.
///
/// Both decode on the keys that the reference leaves, which are those of all layers that can be Full: what they hold
/// does not change the work, and two caches of a long context would not fit beside a large model.
pub(super) fn measure(
    backend: &LocalBackend,
    pattern: Pattern,
    context: usize,
    cancel: &Cancel,
    progress: &mut dyn FnMut(f64),
    done: &mut dyn FnMut(&Speed),
) -> Result<Vec<Speed>, BackendError> {
    let bench = Bench::new(backend, context, cancel)?;
    let reference = backend.info.reference;
    let same = pattern == reference;
    let patterns = [pattern, reference];
    let lapped = bench.laps(context);
    let prefill =
        bench.alternate(same, lapped, &mut |which, laps| bench.prefill(patterns[which], laps), &mut |share| {
            progress(share / 2.0);
        })?;
    let speed = |phase: &str, runs: Runs, tokens: f64| Speed {
        pattern,
        phase: phase.to_owned(),
        context: bench.context,
        seconds: timing(&runs.seconds.iter().map(|s| s / tokens).collect::<Vec<_>>()),
        ratio: ratio(&runs.ratios),
        share: shares(runs.phases),
        ops: backend.info.ops.clone(),
        origin: Origin::Measured,
    };
    let prefill = speed("prefill", prefill, 1.0);
    done(&prefill);
    give_back(bench.model.device())?;
    let mut cache = bench.filled(reference)?;
    let decode = bench.alternate(
        same,
        bench.laps(1),
        &mut |which, laps| bench.decode(patterns[which], &mut cache, laps),
        &mut |share| progress(0.5 + share / 2.0),
    )?;
    let decode = speed("decode", decode, DECODE_TOKENS as f64);
    done(&decode);
    Ok(vec![prefill, decode])
}

/// Times steps on a cached prefix, each against the reference pattern, and calls `done` with each.
///
/// All sequences of a batch have the same prefix, and copies of its keys, as the reference leaves them; their query tokens
/// differ. Where the device has no room for a step, `done` hears which, and why.
pub(super) fn steps(
    backend: &LocalBackend,
    pattern: Pattern,
    context: usize,
    steps: &Steps,
    cancel: &Cancel,
    done: &mut dyn FnMut(Result<StepSpeed, NoRoom>),
) -> Result<(), BackendError> {
    let bench = Bench::new(backend, context, cancel)?;
    let patterns = [pattern, backend.info.reference];
    let suffix = steps.suffix.map(|tokens| ("suffix", 1, tokens, context.saturating_sub(tokens)));
    let decode = steps.decode.iter().map(|&(batch, tokens)| ("decode", batch, tokens, context));
    // The suffix comes last: its prefix is the shorter one.
    let all: Vec<_> = decode.chain(suffix).collect();
    let mut filled = bench.filled(backend.info.reference)?;
    for (phase, batch, tokens, prefix) in all {
        filled.truncate(prefix);
        let run = || -> Result<Runs, BackendError> {
            give_back(bench.model.device())?;
            // With just so much room the keys of all sequences lie side by side.
            let mut cache = filled.repeated(batch, prefix + tokens)?;
            let mut step = |which: usize, laps| bench.step(patterns[which], &mut cache, (batch, tokens, prefix), laps);
            bench.alternate(patterns[0] == patterns[1], bench.laps(batch * tokens), &mut step, &mut |_| ())
        };
        let runs = match run() {
            Ok(runs) => runs,
            Err(BackendError::OutOfMemory(_)) => {
                done(Err(NoRoom { phase, batch, tokens }));
                continue;
            }
            Err(error) => return Err(error),
        };
        let speed = Speed {
            pattern,
            phase: phase.to_owned(),
            context,
            seconds: timing(&runs.seconds),
            ratio: ratio(&runs.ratios),
            share: shares(runs.phases),
            ops: backend.info.ops.clone(),
            origin: Origin::Measured,
        };
        done(Ok(StepSpeed { speed, batch, tokens }));
    }
    Ok(())
}

/// A step that the device has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// What was to be timed: `decode` or `suffix`.
    pub phase: &'static str,
    /// Sequences in the batch.
    pub batch: usize,
    /// Query tokens of each sequence.
    pub tokens: usize,
}

/// Where one layer of a prefill spent its time.
#[derive(Clone, Copy, Debug)]
pub struct LayerTime {
    /// The layer.
    pub layer: usize,
    /// Whether it ran its own indexer.
    pub full: bool,
    /// When it began, from the beginning of the forward.
    pub begin: Duration,
    /// How long it took.
    pub length: Duration,
    /// Its phases and how long each took, all in all.
    pub phases: [(&'static str, Duration); 5],
}

/// Runs one prefill to warm up, and one of which every layer is timed.
pub(super) fn trace(
    backend: &LocalBackend,
    pattern: Pattern,
    context: usize,
    cancel: &Cancel,
) -> Result<Vec<LayerTime>, BackendError> {
    let bench = Bench::new(backend, context, cancel)?;
    bench.prefill(pattern, true)?;
    let sites = backend.info.constraints.sites;
    let mut layers = Vec::with_capacity(sites.layers());
    bench.forward(
        &[bench.ids[..bench.context].to_vec()],
        &bench.inputs,
        pattern,
        None,
        true,
        &mut |layer, begin, length, t| {
            let phases = [
                ("indexer", t.indexer),
                ("topk", t.topk),
                ("attention", t.attention),
                ("mlp", t.mlp),
                ("rest", length.saturating_sub(t.indexer + t.topk + t.attention + t.mlp)),
            ];
            layers.push(LayerTime {
                layer,
                full: sites.site(layer).is_some_and(|site| pattern.is_full(site.0)),
                begin,
                length,
                phases,
            });
        },
    )?;
    Ok(layers)
}
