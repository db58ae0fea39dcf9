//! Forwards that are timed: of a pattern and of the reference in alternation.

use std::time::{Duration, Instant};

use super::LocalBackend;
use crate::checkpoint::Config;
use crate::domain::Diagnostic;
use crate::domain::{Pattern, PhaseShare, Subject, Timing, median_interval, median_mad};
use crate::engine::{BackendError, Cancel};
use crate::model::{
    At, Cache, Entry, Forward, Inputs, Model, Ops, Order, PhaseTimes, Ran, Route, Visitor, Walk, Weights,
};

/// Most runs of each of the two.
const MAX_RUNS: usize = 24;
/// After this time no further pair is begun, once the fewest are done.
const ENOUGH: Duration = Duration::from_secs(3);

/// Tokens decoded per timed run.
pub(super) const DECODE_TOKENS: usize = 16;

/// Tokens at once where a cache is filled and nobody looks at the clock.
const FILL: usize = 16 * 1024;

/// Tokens in a forward below which a device would notice that every phase is waited for.
const LAPPED: usize = 1024;

/// Elements of a tensor that the kernels of candle can count.
const COUNTED: usize = 1 << 31;

/// What alternating runs gave.
#[derive(Default)]
pub(super) struct Runs {
    pub seconds: Vec<f64>,
    pub ratios: Vec<f64>,
    pub phases: PhaseTimes,
}

pub(super) fn timing(values: &[f64]) -> Timing {
    let (median, mad) = median_mad(values).unwrap_or((f64::NAN, f64::NAN));
    Timing { median, mad, runs: values.len(), interval: median_interval(values) }
}

/// Returns the ratio of times from runs in alternating order.
///
/// Which of the two runs first makes a difference; the geometric mean of two neighbours of opposite order is free of it.
pub(super) fn ratio(ratios: &[f64]) -> Timing {
    let balanced: Vec<f64> = ratios.chunks_exact(2).map(|pair| (pair[0] * pair[1]).sqrt()).collect();
    Timing { runs: ratios.len(), ..timing(&balanced) }
}

/// The tokens that are timed.
pub(super) struct Bench<'a> {
    pub model: &'a Model,
    ops: Ops,
    cancel: &'a Cancel,
    pub ids: Vec<u32>,
    pub context: usize,
    /// Tokens that are run at once in a prefill; `None` for all.
    chunk: Option<usize>,
    /// What layers are given of the context.
    pub inputs: Inputs,
    /// Fewest runs of each of the two; an even number is done.
    runs: usize,
}

impl<'a> Bench<'a> {
    pub(super) fn new(backend: &'a LocalBackend, context: usize, cancel: &'a Cancel) -> Result<Self, BackendError> {
        let model = &backend.runner.model;
        let all = backend.calibration.sequences().iter().flat_map(|s| s.ids.iter().copied());
        let ids: Vec<u32> = all.cycle().take(context + DECODE_TOKENS).collect();
        let (ops, chunk) = (backend.settings.ops, backend.settings.chunk);
        let at_once = chunk.unwrap_or(context).min(context);
        if !model.device().is_cpu() {
            check_counted(model.config(), at_once, context, ops)?;
        }
        let runs = backend.settings.runs.max(1);
        let inputs = model.inputs(&[ids[..context.min(ids.len())].to_vec()], 0)?;
        Ok(Self { model, ops, cancel, ids, context, chunk, inputs, runs })
    }

    /// Returns whether the phases of a forward of so many tokens can be timed along with it.
    pub(super) fn laps(&self, tokens: usize) -> bool {
        self.model.device().is_cpu() || tokens >= LAPPED
    }

    /// Calls `run` with the pattern (0) and the reference (1) in alternation; the first pair warms caches and is thrown
    /// away. The second argument is whether phases are to be timed; where they are not `lapped`, one more run does it.
    ///
    /// Where the two are the `same`, the ratio is 1 by what it means, and not the noise between two runs of one thing.
    pub(super) fn alternate(
        &self,
        same: bool,
        lapped: bool,
        run: &mut dyn FnMut(usize, bool) -> Result<PhaseTimes, BackendError>,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Runs, BackendError> {
        run(0, lapped)?;
        if !same {
            run(1, lapped)?;
        }
        let started = Instant::now();
        let mut runs = Runs::default();
        let more = |done: usize| done < self.runs || done < MAX_RUNS && started.elapsed() < ENOUGH;
        while more(runs.seconds.len()) || runs.seconds.len() % 2 == 1 {
            // Which of the two goes first alternates, so that a drift of the clock favours neither.
            let first = runs.seconds.len() % 2;
            let mut times = [PhaseTimes::default(); 2];
            if same {
                times = [run(0, lapped)?; 2];
            } else {
                times[first] = run(first, lapped)?;
                times[1 - first] = run(1 - first, lapped)?;
            }
            let [ours, theirs] = times;
            runs.seconds.push(ours.total().as_secs_f64());
            runs.ratios.push(theirs.total().as_secs_f64() / ours.total().as_secs_f64());
            runs.phases += ours;
            let done = runs.seconds.len() as f64 / MAX_RUNS as f64;
            progress(done.max(started.elapsed().div_duration_f64(ENOUGH)).min(1.0));
        }
        if !lapped {
            runs.phases = run(0, true)?;
        }
        Ok(runs)
    }

    /// Runs the context, in chunks after one another where chunks are shorter.
    pub(super) fn prefill(&self, pattern: Pattern, laps: bool) -> Result<PhaseTimes, BackendError> {
        if let Some(chunk) = self.chunk.filter(|&chunk| chunk < self.context) {
            let mut cache = self.model.cache(self.context)?;
            return self.chunks(chunk, pattern, &mut cache, laps);
        }
        self.forward(&[self.ids[..self.context].to_vec()], &self.inputs, pattern, None, laps, &mut |_, _, _, _| {})
    }

    /// Runs `tokens` query tokens of each of `batch` sequences after a prefix, in chunks where those are shorter.
    pub(super) fn step(
        &self,
        pattern: Pattern,
        cache: &mut Cache,
        (batch, tokens, prefix): (usize, usize, usize),
        laps: bool,
    ) -> Result<PhaseTimes, BackendError> {
        let mut times = PhaseTimes::default();
        let chunk = self.chunk.unwrap_or(tokens).min(tokens);
        for start in (0..tokens).step_by(chunk.max(1)) {
            let n = chunk.min(tokens - start);
            let query = |b: usize| self.ids.iter().cycle().skip(prefix + start + b).take(n).copied().collect();
            let ids: Vec<Vec<u32>> = (0..batch).map(query).collect();
            let inputs = self.model.inputs(&ids, prefix + start)?;
            times += self.forward(&ids, &inputs, pattern, Some(cache), laps, &mut |_, _, _, _| {})?;
        }
        cache.truncate(prefix);
        Ok(times)
    }

    fn chunks(
        &self,
        chunk: usize,
        pattern: Pattern,
        cache: &mut Cache,
        laps: bool,
    ) -> Result<PhaseTimes, BackendError> {
        let mut times = PhaseTimes::default();
        for start in (0..self.context).step_by(chunk) {
            let ids = [self.ids[start..self.context.min(start + chunk)].to_vec()];
            let inputs = self.model.inputs(&ids, start)?;
            times += self.forward(&ids, &inputs, pattern, Some(cache), laps, &mut |_, _, _, _| {})?;
        }
        Ok(times)
    }

    /// Returns the cache after the context.
    pub(super) fn filled(&self, pattern: Pattern) -> Result<Cache, BackendError> {
        let mut cache = self.model.cache(self.context + DECODE_TOKENS)?;
        self.chunks(self.chunk.unwrap_or(FILL), pattern, &mut cache, false)?;
        Ok(cache)
    }

    pub(super) fn decode(&self, pattern: Pattern, cache: &mut Cache, laps: bool) -> Result<PhaseTimes, BackendError> {
        let mut times = PhaseTimes::default();
        for position in self.context..self.ids.len() {
            let ids = [vec![self.ids[position]]];
            let inputs = self.model.inputs(&ids, position)?;
            times += self.forward(&ids, &inputs, pattern, Some(cache), laps, &mut |_, _, _, _| {})?;
        }
        cache.truncate(self.context);
        Ok(times)
    }

    /// Runs every layer and the head for the last token; returns where the time went, all of it booked somewhere.
    ///
    /// Unless `lapped` it is all booked as the rest. `each` hears of every layer: when it began, how long it took, and its
    /// phases.
    pub(super) fn forward(
        &self,
        ids: &[Vec<u32>],
        inputs: &Inputs,
        pattern: Pattern,
        cache: Option<&mut Cache>,
        lapped: bool,
        each: &mut dyn FnMut(usize, Duration, Duration, &PhaseTimes),
    ) -> Result<PhaseTimes, BackendError> {
        let started = Instant::now();
        let entry = Entry::first(self.model.embed(ids)?);
        let forward = Forward { cache, ..Forward::new(0, inputs, 1, (0, entry)) };
        let mut laps = Laps { started, cancel: self.cancel, times: PhaseTimes::default(), each };
        let subjects = [Subject::Pattern(pattern)];
        let walk = Walk { laps: lapped, ..Walk::new(&subjects, self.ops) };
        let mut forwards = [forward];
        walk.run(Weights::Resident(self.model), Order::Sequences, &mut forwards, &mut laps)?;
        let mut times = laps.times;
        let [forward] = forwards;
        let hidden = forward.into_hidden()?;
        let last = hidden.narrow(1, hidden.dim(1)? - 1, 1)?;
        // Reading the logits waits for the device.
        self.model.logits(&last)?.flatten_all()?.to_vec1::<f32>()?;
        times.rest = Duration::ZERO;
        times.rest = started.elapsed().saturating_sub(times.total());
        Ok(times)
    }
}

/// Adds up the times of the layers of a forward.
struct Laps<'a> {
    started: Instant,
    cancel: &'a Cancel,
    times: PhaseTimes,
    each: &'a mut dyn FnMut(usize, Duration, Duration, &PhaseTimes),
}

impl Visitor<BackendError> for Laps<'_> {
    fn enter(&mut self, _: &At, route: Route<'static>) -> Result<Route<'_>, BackendError> {
        // Not by the walk's own stop: inside a layer it would wait for the device.
        if self.cancel.is_stale() { Err(BackendError::Cancelled) } else { Ok(route) }
    }

    fn ran(&mut self, at: &At, ran: &Ran) -> Result<(), BackendError> {
        (self.each)(at.layer, ran.begin - self.started, ran.begin.elapsed(), &ran.times);
        self.times += ran.times;
        Ok(())
    }
}

/// Refuses tokens at once of which a tensor has more elements than a device's kernels can count.
fn check_counted(config: &Config, tokens: usize, context: usize, ops: Ops) -> Result<(), BackendError> {
    let scores = config.num_attention_heads * tokens * context;
    if ops == Ops::Reference && scores >= COUNTED {
        return Err(BackendError::Failed(Diagnostic {
            message: format!(
                "{} heads' scores of {tokens} tokens and {context} keys are more than the device's kernels can count",
                config.num_attention_heads
            ),
            hint: Some("use --attention fast, or a shorter --context or --chunk".to_owned()),
        }));
    }
    let heads = config.num_attention_heads * (config.qk_nope_head_dim + config.qk_rope_head_dim).max(config.v_head_dim);
    let widest = heads.max(config.index_n_heads * config.index_head_dim).max(config.hidden_size);
    if tokens * widest < COUNTED {
        return Ok(());
    }
    Err(BackendError::Failed(Diagnostic {
        message: format!(
            "{tokens} tokens at once, {widest} elements wide, are more than the device's kernels can count"
        ),
        hint: Some(format!("give --chunk {}, or fewer", ((COUNTED - 1) / widest + 1).next_power_of_two() / 2)),
    }))
}

pub(super) fn shares(times: PhaseTimes) -> PhaseShare {
    let of = |part: Duration| part.div_duration_f64(times.total());
    PhaseShare {
        indexer: of(times.indexer),
        topk: of(times.topk),
        attention: of(times.attention),
        mlp: of(times.mlp),
        rest: of(times.rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::RandomModel;

    #[test]
    fn what_a_device_cannot_count_is_refused_with_a_chunk_that_it_can() {
        let config = RandomModel::read("glm-4.7-flash-dsa", &[]).unwrap().config;
        // The widest are attention's queries: 20 · 256.
        let fast = |tokens| check_counted(&config, tokens, 1 << 20, Ops::Fast);
        assert!(fast(419_430).is_ok());
        let Err(BackendError::Failed(Diagnostic { message, hint })) = fast(419_431) else { panic!("refused") };
        assert!(message.contains("419431 tokens at once, 5120 elements wide"), "{message}");
        assert_eq!(hint.as_deref(), Some("give --chunk 262144, or fewer"));
        assert!(fast(262_144).is_ok());
        // 20 heads: 10,362 squared times 20 is just below 2^31.
        let reference = |tokens| check_counted(&config, tokens, tokens, Ops::Reference);
        assert!(reference(10_362).is_ok());
        let Err(BackendError::Failed(Diagnostic { message, hint })) = reference(10_363) else { panic!("refused") };
        assert!(message.contains("20 heads' scores of 10363 tokens and 10363 keys"), "{message}");
        assert!(hint.is_some_and(|hint| hint.contains("--attention fast")));
    }

    #[test]
    fn what_comes_first_makes_no_difference() {
        // Whatever runs second takes 3 % longer; the pattern is 20 % faster.
        let order = |i: usize| if i.is_multiple_of(2) { 1.2 * 1.03 } else { 1.2 / 1.03 };
        let ratios: Vec<f64> = (0..12).map(order).collect();
        let timing = ratio(&ratios);
        assert!((timing.median - 1.2).abs() < 1e-12 && timing.mad < 1e-12, "{timing:?}");
        assert_eq!((timing.runs, timing.interval.is_some()), (12, true));
        assert_eq!(ratio(&ratios[..10]).interval, None, "five means do not reach 95 %");
    }
}
