//! A scripted backend: invented numbers, one step per sequence, every step under the test's control.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use super::{Backend, BackendError, Capabilities, Capability, Coverage, LayerCoverage, ModelInfo, Training, Weights};
use crate::domain::Diagnostic;
use crate::domain::IndexSource;
use crate::domain::{
    Confirmation, Constraints, Delta, Estimate, Evaluation, LayerSet, LeftTraining, Origin, Pattern, PhaseShare, Query,
    QuerySampling, Selection, SelectionUnit, Speed, Subject, Targets, Timing, Trace, TraceMeta, TrainingSettings,
    TrainingStep, Trial, Validation, Verdict,
};
use crate::engine::{Calibration, Cancel};
use crate::search::{Affinity, AffinityKind, Budget, Layout, Measured, Part, Unit};
use crate::train::indexers::state_path;

/// Sequences of the invented calibration set.
const SEQUENCES: usize = 3;

/// What lets the steps pass one by one.
type Gate = Arc<Mutex<Receiver<()>>>;

/// A backend without a model: Δ is 0.01 per Shared layer.
pub(crate) struct Fake {
    info: ModelInfo,
    gate: Option<Gate>,
    panic_on: Option<Pattern>,
}

impl Fake {
    /// Returns a backend of `layers` layers that never waits.
    pub(crate) fn new(layers: usize) -> Self {
        let native = Pattern::all_full(layers).expect("tests use 1 to 128 layers");
        let info = ModelInfo {
            name: "fake".into(),
            fingerprint: "fake".into(),
            model_type: "glm_moe_dsa".into(),
            index_topk: 2,
            unit: SelectionUnit::Token,
            groups: 1,
            forced: 0,
            index_heads: 1,
            index: IndexSource::Checkpoint,
            constraints: Constraints::every(layers),
            native,
            reference: native,
            device: "cpu".into(),
            dtype: "f32".into(),
            ops: "reference".into(),
            can: Capabilities::all(),
            sequences: SEQUENCES,
            targets: 24,
            eligible: 18,
            context: 9,
            calibration: "fake".into(),
            data: "invented".into(),
            training: vec![("invented".into(), 100)],
            noise: None,
        };
        Self { info, gate: None, panic_on: None }
    }

    /// Makes it unable to do some things.
    pub(crate) fn without(mut self, capabilities: &[Capability]) -> Self {
        self.info.can = self.info.can.without(capabilities);
        self
    }

    /// Makes every step wait for one token of the returned sender; dropping the sender lets it run.
    pub(crate) fn gated(mut self) -> (Self, Sender<()>) {
        let (sender, receiver) = channel();
        self.gate = Some(Arc::new(Mutex::new(receiver)));
        (self, sender)
    }

    /// Makes the evaluation of `pattern` panic, and the fourth step of a training for it.
    pub(crate) fn panicking(mut self, pattern: Pattern) -> Self {
        self.panic_on = Some(pattern);
        self
    }

    fn step(&self, cancel: &Cancel) -> Result<(), BackendError> {
        pass(self.gate.as_ref(), cancel)
    }
}

/// Waits for the test, unless it lets everything run.
fn pass(gate: Option<&Gate>, cancel: &Cancel) -> Result<(), BackendError> {
    if let Some(gate) = gate {
        let _ = gate.lock().expect("no test panics while it holds the gate").recv();
    }
    if cancel.is_stale() { Err(BackendError::Cancelled) } else { Ok(()) }
}

/// A training without weights: KL is halved by every step, and becomes NaN at a rate above 1.
struct FakeTraining {
    settings: TrainingSettings,
    layers: Vec<usize>,
    done: u64,
    gate: Option<Gate>,
    panics: Option<Pattern>,
}

impl FakeTraining {
    fn found(&self, done: u64) -> TrainingStep {
        TrainingStep {
            sparse: done > self.settings.steps,
            done,
            kl: self.layers.iter().map(|&l| (l + 1) as f64 / 2f64.powi(done as i32)).collect(),
            floor: vec![0.0; self.layers.len()],
            rate: self.settings.lr,
            tokens: 9 * done,
            tokens_per_second: 100.0,
        }
    }
}

impl Training for FakeTraining {
    fn step(&mut self, cancel: &Cancel) -> Result<Option<TrainingStep>, BackendError> {
        if self.done == self.settings.all_steps() {
            return Ok(None);
        }
        pass(self.gate.as_ref(), cancel)?;
        assert!(self.done < 3 || self.panics != Some(self.settings.pattern), "scripted panic in a step");
        if self.settings.lr > 1.0 && self.done > 1 {
            return Err(BackendError::Failed(Diagnostic { message: "the loss became NaN".into(), hint: None }));
        }
        self.done += 1;
        Ok(Some(self.found(self.done)))
    }

    fn history(&self) -> Vec<TrainingStep> {
        (1..=self.done).map(|done| self.found(done)).collect()
    }

    fn weights(&self) -> Weights {
        Weights { layers: self.layers.clone(), tensors: Vec::new(), steps: self.done }
    }

    fn write(&self, path: &Path) -> Result<(), BackendError> {
        written(std::fs::write(path, self.done.to_string()))
    }

    fn save(&self, sidecar: &Path) -> Result<(), BackendError> {
        let TrainingSettings { pattern, steps, sparse_steps, lr, .. } = self.settings;
        let text = format!("{pattern} {steps} {sparse_steps} {lr} {}", self.done);
        written(std::fs::write(state_path(sidecar), text))
    }
}

fn written(result: std::io::Result<()>) -> Result<(), BackendError> {
    result.map_err(|e| BackendError::Failed(Diagnostic { message: e.to_string(), hint: None }))
}

impl Backend for Fake {
    fn describe(&self) -> &ModelInfo {
        &self.info
    }

    fn evaluate(
        &mut self,
        subject: Subject,
        cancel: &Cancel,
        partial: &mut dyn FnMut(&Evaluation),
    ) -> Result<Evaluation, BackendError> {
        let shared = match subject {
            Subject::Pattern(pattern) => {
                assert!(Some(pattern) != self.panic_on, "scripted panic at {pattern}");
                pattern.shared_count()
            }
            Subject::Dense => 0,
        };
        let value = 0.01 * shared as f64;
        let mut evaluation = Evaluation {
            subject,
            loss: 2.0 + value,
            delta: Some(Delta::bare(value, 0)),
            delta_all: value,
            reference_loss: 2.0,
            agreement: None,
            bits_per_byte: None,
            by_position: Vec::new(),
            worst_sequence: None,
            by_cluster: Vec::new(),
            sequences: (0, SEQUENCES),
            targets: 0,
            eligible: 0,
            blocks: 0,
            resumed_from: 0,
            layer_forwards: self.info.constraints.len() as f64,
            seconds: 0.0,
            origin: Origin::Measured,
        };
        for done in 1..=SEQUENCES {
            self.step(cancel)?;
            evaluation.sequences.0 = done;
            evaluation.targets = 8 * done;
            evaluation.eligible = 6 * done;
            partial(&evaluation);
        }
        Ok(evaluation)
    }

    fn on(&self, _: Calibration) -> Result<Box<dyn Backend>, BackendError> {
        Ok(Box::new(Self { info: self.info.clone(), gate: None, panic_on: None }))
    }

    fn record(
        &mut self,
        pattern: Pattern,
        _: QuerySampling,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Trace, BackendError> {
        for done in 1..=SEQUENCES {
            self.step(cancel)?;
            progress(done as f64 / SEQUENCES as f64);
        }
        let layers = self.info.constraints.len();
        let mut selection = Selection::default();
        selection.push(&[0, 1]);
        Ok(Trace {
            meta: TraceMeta {
                schema: 1,
                model: self.info.name.clone(),
                fingerprint: self.info.fingerprint.clone(),
                pattern,
                index_topk: self.info.index_topk,
                layers,
                sites: LayerSet::default(),
                unit: SelectionUnit::Token,
                groups: 1,
                forced: 0,
                heads: 1,
                queries: QuerySampling::All,
                tokens_hash: String::new(),
                mass_recall: None,
            },
            tokens: vec![vec![0, 1, 2]],
            queries: vec![Query { sequence: 0, position: 2 }],
            selections: vec![selection; layers],
        })
    }

    fn coverage(&mut self, pattern: Pattern, cancel: &Cancel) -> Result<Coverage, BackendError> {
        self.info.needs(Capability::Shadow)?;
        self.step(cancel)?;
        let overlap = Estimate { value: 0.5, se: None, n: 1 };
        let shared = (0..pattern.len()).filter(|&l| !pattern.is_full(l));
        Ok(Coverage { pattern, layers: shared.map(|layer| LayerCoverage { layer, overlap }).collect() })
    }

    fn measure(
        &mut self,
        pattern: Pattern,
        _: Option<usize>,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
        _: &mut dyn FnMut(&Speed),
    ) -> Result<Vec<Speed>, BackendError> {
        self.info.needs(Capability::Timed)?;
        self.step(cancel)?;
        progress(1.0);
        let timing = Timing { median: 1.0, mad: 0.0, runs: 6, interval: None };
        Ok(vec![Speed {
            pattern,
            phase: "prefill".into(),
            context: 9,
            seconds: timing,
            ratio: timing,
            share: PhaseShare { attention: 1.0, ..PhaseShare::default() },
            ops: "reference".into(),
            origin: Origin::Measured,
        }])
    }

    fn profile(
        &mut self,
        pattern: Pattern,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Vec<Speed>, BackendError> {
        let measured = self.measure(pattern, None, cancel, progress, &mut |_| ())?;
        Ok([3, 6]
            .into_iter()
            .flat_map(|context| measured.iter().map(move |s| Speed { context, ..s.clone() }))
            .collect())
    }

    fn validate(
        &mut self,
        pattern: Pattern,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Option<Validation>, BackendError> {
        self.step(cancel)?;
        progress(1.0);
        let value = 0.02 * pattern.shared_count() as f64;
        let delta = Some(Delta::measured(value, 0.001, 9));
        Ok(Some(Validation { loss: 2.0 + value, delta, sequences: 2, data: "unseen".into() }))
    }

    fn confirm(
        &mut self,
        chain: &[Pattern],
        budget: Budget,
        cancel: &Cancel,
        _: &mut dyn FnMut(f64),
    ) -> Result<Option<Confirmation>, BackendError> {
        self.step(cancel)?;
        // As on the text searched on, but a little worse.
        let cost = |p: Pattern| (0..p.len()).filter(|&l| !p.is_full(l)).map(|l| 0.012 * l as f64).sum::<f64>();
        let within = chain.iter().take_while(|&&p| cost(p) <= budget.most).count();
        let trial = |(at, &pattern): (usize, &Pattern)| Trial {
            pattern,
            verdict: if at < within { Verdict::Confirmed } else { Verdict::OverBudget },
            delta: Some(Delta::measured(cost(pattern), 0.001, 9)),
            bounds: Some((cost(pattern), cost(pattern))),
        };
        let tested = (within + 1).min(chain.len());
        Ok(Some(Confirmation {
            budget: budget.most,
            strict: budget.strict,
            clusters: 24,
            trials: chain[..tested].iter().enumerate().map(trial).collect(),
            untested: chain[tested..].to_vec(),
        }))
    }

    fn layout(&self) -> Layout {
        let part = |cluster| Part { blocks: vec![2; 3], clusters: vec![cluster; 3], targets: 8, sequences: 1 };
        Layout { parts: (0..SEQUENCES).map(part).collect() }
    }

    fn losses(&mut self, units: &[Unit], cancel: &Cancel, done: &mut dyn FnMut(Measured)) -> Result<(), BackendError> {
        for &(pattern, part) in units {
            self.step(cancel)?;
            // Later layers cost more, so that searches have one result.
            let delta: f64 = (0..pattern.len()).filter(|&l| !pattern.is_full(l)).map(|l| 0.01 * l as f64).sum();
            done(Measured {
                pattern,
                part,
                blocks: vec![delta; 3],
                nll: 8.0 * (2.0 + delta),
                is_reference: pattern == self.info.reference,
                layers: pattern.len(),
                seconds: 0.0,
            });
        }
        Ok(())
    }

    fn train(&mut self, settings: &TrainingSettings, left: Option<&Path>) -> Result<Box<dyn Training>, BackendError> {
        self.info.needs(Capability::Train)?;
        let layers = (0..settings.pattern.len()).filter(|&l| settings.pattern.is_full(l)).collect();
        let left = left.map(|sidecar| self.left(sidecar)).transpose()?.flatten();
        let (done, gate) = (left.map_or(0, |left| left.done), self.gate.clone());
        Ok(Box::new(FakeTraining { settings: *settings, layers, done, gate, panics: self.panic_on }))
    }

    fn left(&self, sidecar: &Path) -> Result<Option<LeftTraining>, BackendError> {
        let Ok(text) = std::fs::read_to_string(state_path(sidecar)) else { return Ok(None) };
        let words: Vec<&str> = text.split(' ').collect();
        let &[pattern, steps, sparse_steps, lr, done] = words.as_slice() else {
            return Err(BackendError::Failed(Diagnostic { message: format!("'{text}' is no training"), hint: None }));
        };
        let number = |word: &str| word.parse().expect("a number was written");
        let (pattern, lr) = (pattern.parse().expect("a pattern was written"), lr.parse().expect("a rate was written"));
        let (steps, sparse_steps) = (number(steps), number(sparse_steps));
        let settings = TrainingSettings { pattern, targets: Targets::Served, steps, sparse_steps, lr };
        Ok(Some(LeftTraining { settings, done: number(done) }))
    }

    fn evaluate_with(
        &mut self,
        weights: &Weights,
        pattern: Pattern,
        cancel: &Cancel,
        partial: &mut dyn FnMut(&Evaluation),
    ) -> Result<(Evaluation, Coverage), BackendError> {
        let mut evaluation = self.evaluate(Subject::Pattern(pattern), cancel, partial)?;
        let value = 0.01 * pattern.shared_count() as f64 / (1 + weights.steps) as f64;
        evaluation.delta = Some(Delta::bare(value, 0));
        let layers = Vec::new();
        Ok((evaluation, Coverage { pattern, layers }))
    }

    fn affinity(&mut self, _: AffinityKind, cancel: &Cancel) -> Result<Affinity, BackendError> {
        self.info.needs(Capability::Affinity)?;
        self.step(cancel)?;
        let layers = self.info.constraints.len();
        Ok(Affinity { layers, values: vec![1.0; layers * layers], layer_forwards: 0.0, seconds: 0.0 })
    }
}
