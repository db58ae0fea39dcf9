//! Training indexers in this process: a run that shares the frozen model, and its result beside what was before.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Tensor};

use super::LocalBackend;
use crate::checkpoint::{Checkpoint, IndexerShape, Sidecar};
use crate::domain::Diagnostic;
use crate::domain::{Evaluation, LeftTraining, Pattern, Subject, TrainingSettings, TrainingStep};
use crate::engine::{Backend, BackendError, Cancel, Coverage, Settings, Training, Weights};
use crate::train::TrainError;
use crate::train::indexers::{IndexerRecipe, IndexerRun, IndexerStep, Setup, SparseTarget, saved};

/// Fewest query rows sampled per step.
const ROWS: usize = 128;

/// What a backend can train indexers with.
#[derive(Clone, Debug)]
pub struct TrainingText {
    /// The checkpoint with the indexers that training starts from.
    pub checkpoint: Checkpoint,
    /// Names and tokens of the texts, none of which patterns are judged on.
    pub texts: Vec<(String, Vec<u32>)>,
}

impl LocalBackend {
    /// Returns the backend with texts to train indexers on; `None` leaves it without.
    #[must_use]
    pub fn with_training(mut self, text: Option<TrainingText>) -> Self {
        let texts = text.iter().flat_map(|text| &text.texts);
        self.info.training = texts.map(|(name, tokens)| (name.clone(), tokens.len())).collect();
        self.training = text;
        self
    }
}

/// A run of this process.
struct LocalTraining {
    run: IndexerRun,
    layers: Vec<usize>,
    all: u64,
}

/// Prepares a training under `settings`, or the one that was saved beside the sidecar `left`.
pub(super) fn train(
    backend: &LocalBackend,
    settings: &TrainingSettings,
    left: Option<&Path>,
) -> Result<Box<dyn Training>, BackendError> {
    let refuse = |message: &str, hint: &str| {
        Err(BackendError::Failed(Diagnostic { message: message.to_owned(), hint: Some(hint.to_owned()) }))
    };
    let Some(TrainingText { checkpoint, texts }) = &backend.training else {
        return refuse("there is no text to train on", "start with --train-text FILE, text that is not judged on");
    };
    if backend.info.index.is_oracle() {
        return refuse(
            "the model has no indexers that could be trained further",
            "'indexscope train indexers' makes some; open the model with --index SIDECAR",
        );
    }
    let (config, seq_len) = (checkpoint.config(), backend.info.context);
    let TrainingSettings { pattern, targets, steps, sparse_steps, lr } = *settings;
    let layers: Vec<usize> = (0..pattern.len()).filter(|&l| pattern.is_full(l)).collect();
    let recipe = IndexerRecipe {
        seed: 0,
        base: String::new(),
        tokens: String::new(),
        pattern,
        layers: layers.clone(),
        targets,
        seq_len,
        rows: (seq_len / 4).max(ROWS).min(seq_len),
        steps,
        sparse_steps,
        lr,
        index_topk: backend.info.index_topk,
        lm_lr: None,
        // A training that was suspended goes on towards the same target.
        sparse_target: left.map(saved).transpose()?.flatten().map_or(SparseTarget::default(), |(r, _)| r.sparse_target),
    };
    let shape =
        IndexerShape { heads: config.index_n_heads, dim: config.index_head_dim, rope_dims: config.index_rope_head_dim };
    let placement = &backend.settings.placement;
    let shared = placement.device.is_cpu() && placement.dtype == DType::F32;
    let run = IndexerRun::prepare(Setup {
        checkpoint,
        recipe,
        shape,
        texts: texts.clone(),
        start: None,
        out: left,
        model: shared.then(|| backend.runner.model.clone()),
        resume: left.is_some(),
    })?;
    Ok(Box::new(LocalTraining { run, layers, all: settings.all_steps() }))
}

/// Returns what was saved beside a sidecar.
pub(super) fn left(sidecar: &Path) -> Result<Option<LeftTraining>, BackendError> {
    Ok(saved(sidecar)?.map(|(recipe, done)| {
        let IndexerRecipe { pattern, targets, steps, sparse_steps, lr, .. } = recipe;
        LeftTraining { settings: TrainingSettings { pattern, targets, steps, sparse_steps, lr }, done }
    }))
}

/// Measures a pattern with other indexers, against the reference of those before.
pub(super) fn evaluate_with(
    backend: &mut LocalBackend,
    weights: &Weights,
    pattern: Pattern,
    cancel: &Cancel,
    partial: &mut dyn FnMut(&Evaluation),
) -> Result<(Evaluation, Coverage), BackendError> {
    let device = backend.runner.model.device().clone();
    let tensor = |(name, shape, values): &(String, Vec<usize>, Vec<f32>)| {
        Ok((name.clone(), Tensor::from_slice(values, shape.as_slice(), &device)?))
    };
    let tensors = weights.tensors.iter().map(tensor).collect::<candle_core::Result<HashMap<_, _>>>()?;
    let model = backend.runner.model.with_indexers(&tensors, &weights.layers)?;
    // Nothing is kept for later: the next time the weights are others.
    let settings = Settings { cache_bytes: 0, keep_selections: false, ..backend.settings.clone() };
    let mut after = LocalBackend::assemble(backend.info.clone(), model, backend.calibration.clone(), settings)?;
    after.compare_with(backend, cancel, &mut |_| {})?;
    let evaluation = after.evaluate(Subject::Pattern(pattern), cancel, partial)?;
    Ok((evaluation, after.coverage(pattern, cancel)?))
}

fn told(step: &IndexerStep) -> TrainingStep {
    TrainingStep {
        sparse: step.sparse,
        done: step.step.0,
        kl: step.layers.iter().map(|(_, d)| d.kl).collect(),
        floor: step.layers.iter().map(|(_, d)| d.floor).collect(),
        rate: step.rate,
        tokens: step.tokens,
        tokens_per_second: step.tokens_per_second,
    }
}

impl Training for LocalTraining {
    fn step(&mut self, cancel: &Cancel) -> Result<Option<TrainingStep>, BackendError> {
        if self.run.size().0 >= self.all {
            return Ok(None);
        }
        let step = self.run.step(&|| cancel.is_stale())?;
        Ok(Some(told(&step)))
    }

    fn history(&self) -> Vec<TrainingStep> {
        self.run.history().iter().map(told).collect()
    }

    fn weights(&self) -> Weights {
        Weights { layers: self.layers.clone(), tensors: self.run.weights(), steps: self.run.size().0 }
    }

    fn write(&self, path: &Path) -> Result<(), BackendError> {
        // A person has typed this path; a model's weights have the same ending.
        if path.exists() && Sidecar::open(path).is_err() {
            return Err(BackendError::Failed(Diagnostic {
                message: format!("'{}' is there already, and no sidecar", path.display()),
                hint: Some("keep the indexers under another name".to_owned()),
            }));
        }
        Ok(self.run.write(path)?)
    }

    fn save(&self, sidecar: &Path) -> Result<(), BackendError> {
        Ok(self.run.save_beside(sidecar)?)
    }
}

impl From<TrainError> for BackendError {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Stopped => Self::Cancelled,
            TrainError::Resume { .. } => Self::Failed(Diagnostic {
                message: error.to_string(),
                hint: Some("begin a new one, or open the session that it belongs to".to_owned()),
            }),
            other => Self::Failed(Diagnostic { message: other.to_string(), hint: other.hint() }),
        }
    }
}
