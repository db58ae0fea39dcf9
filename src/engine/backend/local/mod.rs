//! The backend that runs a checkpoint in this process.

mod affinity;
mod answers;
mod compare;
mod coverage;
mod forward;
mod losses;
mod measure;
mod memory;
mod random;
mod record;
mod recorder;
#[cfg(test)]
mod recorder_tests;
mod states;
mod stream;
mod targets;
#[cfg(test)]
mod tests;
mod timing;
mod trainer;

pub use self::measure::{LayerTime, NoRoom, StepSpeed, Steps};
pub use self::random::{GEOMETRIES, RandomModel};
pub use self::recorder::{Recorded, Recording, Sink};
pub use self::stream::{Streamed, stream};
pub use self::trainer::TrainingText;

use std::collections::HashMap;

use self::compare::Predictions;
use self::forward::{How, Runner};
use self::targets::Targets;
use crate::analysis::tally::Tally;
use crate::checkpoint::{Checkpoint, Config};
use crate::domain::Diagnostic;
use crate::domain::{Evaluation, Pattern, Subject};
use crate::engine::Calibration;
use crate::engine::Placement;
use crate::engine::backend::search::Baseline;
use crate::engine::backend::unseen::UnseenText;
use crate::engine::{BackendError, Cancel, Coverage, ModelInfo};
use crate::model::ops::{FastParts, Sizes, fast_parts, selects_in_fp8};
use crate::model::{At, Indices, Model, Ops, Ran, Unseen};

/// What is kept between evaluations, bytes.
const CACHE_BYTES: usize = 1 << 30;
/// Share of that budget that the reference's logits may take; states have the rest.
const LOGITS_SHARE: f64 = 0.25;

/// Fewest pairs of timed runs, unless the settings say otherwise.
const MIN_RUNS: usize = 5;

/// How a [`LocalBackend`] works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the model runs, and in which dtype.
    pub placement: Placement,
    /// Which form of attention runs.
    pub ops: Ops,
    /// Tokens of the forwards that are timed; `None` takes the longest calibration sequence.
    pub speed_context: Option<usize>,
    /// Tokens that are run at once in a prefill that is timed; `None` for all.
    pub chunk: Option<usize>,
    /// Fewest pairs of runs of which a time is the median.
    pub runs: usize,
    /// Bytes of residual states and of the reference's logits kept between evaluations.
    pub cache_bytes: usize,
    /// Whether a recording will be asked for: the reference forwards then keep their selections for it.
    pub keep_selections: bool,
}

impl Settings {
    /// Returns the usual settings.
    pub fn new(placement: Placement) -> Self {
        let ops = if placement.device.is_cpu() { Ops::Fast } else { Ops::Reference };
        Self {
            placement,
            ops,
            speed_context: None,
            chunk: None,
            runs: MIN_RUNS,
            cache_bytes: CACHE_BYTES,
            keep_selections: false,
        }
    }

    /// Returns the form of attention that runs by its name, and what else every number depends on.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where nothing of the form asked for runs on the device.
    pub(super) fn attention(&self, config: &Config) -> Result<String, BackendError> {
        let Placement { device, dtype, .. } = &self.placement;
        let parts = fast_parts(device, *dtype, Sizes::of(config));
        attention(self.ops, parts, selects_in_fp8(device, *dtype)).ok_or_else(|| {
            BackendError::Failed(Diagnostic {
                message: format!(
                    "--attention fast has no kernel for this model in {} on {}",
                    self.placement.dtype_name(),
                    self.placement.device_name()
                ),
                hint: Some("use --dtype bf16, or --attention reference".to_owned()),
            })
        })
    }
}

/// Names a form of attention with what of it runs otherwise; `None` where nothing of it runs.
fn attention(ops: Ops, parts: FastParts, fp8: bool) -> Option<String> {
    // The reference form selects in f32.
    let name = match (ops, parts.indexer, parts.attention) {
        (Ops::Fast, false, false) => return None,
        (Ops::Fast, false, true) => "fast, indexer in stock ops",
        (Ops::Fast, true, false) if fp8 => "fast, indexer in fp8, attention in stock ops",
        (Ops::Fast, true, false) => "fast, attention in stock ops",
        (Ops::Fast, true, true) if fp8 => "fast, indexer in fp8",
        (Ops::Fast | Ops::Reference, _, _) => return Some(ops.to_string()),
    };
    Some(name.to_owned())
}

/// What is kept of the reference's forward of one batch.
#[derive(Debug)]
struct Reference {
    /// What it predicts.
    pub predictions: Predictions,
    /// Every layer's selection, until a recording takes them.
    pub selections: Option<Vec<Indices>>,
}

/// What a model predicts under its reference pattern, for another one to be compared with.
#[derive(Clone, Debug)]
pub struct ReferencePredictions(Vec<Predictions>);

/// A checkpoint loaded into this process, with its calibration set.
#[derive(Debug)]
pub struct LocalBackend {
    info: ModelInfo,
    runner: Runner,
    calibration: Calibration,
    settings: Settings,
    references: Vec<Option<Reference>>,
    /// Whether those are another model's, see [`compare_with`](crate::engine::Backend::compare_with).
    foreign: bool,
    /// What indexers can be trained on.
    training: Option<TrainingText>,
    coverages: HashMap<Pattern, Coverage>,
    evaluations: HashMap<Subject, Evaluation>,
    baselines: Vec<Option<Baseline>>,
    unseen: Option<UnseenText<LocalBackend>>,
}

impl LocalBackend {
    /// Loads a checkpoint.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where the checkpoint or the device is at fault.
    pub fn load(checkpoint: &Checkpoint, calibration: Calibration, settings: Settings) -> Result<Self, BackendError> {
        let info = ModelInfo::of(checkpoint, &calibration, &settings)?;
        let model = Model::load(checkpoint, &settings.placement.device, settings.placement.dtype)?;
        Self::assemble(info, model, calibration, settings)
    }

    /// Returns a backend that has measured nothing yet.
    fn assemble(
        info: ModelInfo,
        model: Model,
        calibration: Calibration,
        settings: Settings,
    ) -> Result<Self, BackendError> {
        let states = (settings.cache_bytes as f64 * (1.0 - LOGITS_SHARE)) as usize;
        let runner = Runner::new(model, &calibration, settings.ops, states, info.reference)?;
        Ok(Self {
            references: runner.batches.iter().map(|_| None).collect(),
            foreign: false,
            baselines: runner.batches.iter().map(|_| None).collect(),
            info,
            runner,
            calibration,
            settings,
            coverages: HashMap::new(),
            evaluations: HashMap::new(),
            unseen: None,
            training: None,
        })
    }

    /// Returns the backend with text for validation; `None` leaves it without.
    #[must_use]
    pub fn with_unseen(mut self, text: Option<Calibration>) -> Self {
        self.unseen = text.map(UnseenText::new);
        self
    }

    /// Returns the scored queries of a batch.
    fn targets(&self, batch: usize) -> Targets {
        Targets::of(&self.calibration, &self.runner.batches[batch])
    }

    /// Runs the reference on a batch unless that has been done; returns how many layers were run.
    fn run_reference(&mut self, batch: usize, selections: bool, cancel: &Cancel) -> Result<usize, BackendError> {
        let known = self.references[batch].as_ref();
        if known.is_some_and(|r| !selections || r.selections.is_some()) {
            return Ok(0);
        }
        let mut kept = Vec::new();
        // Every layer must run for its selection to be seen.
        let how = if selections { How::FRESH } else { How::RESUMED };
        let subject = Subject::Pattern(self.info.reference);
        let run = self.runner.forward(batch, subject, how, cancel, &mut |at: &At, ran: &Ran| {
            if selections {
                // Those of all layers and batches: more than a GPU has room for.
                let selected = ran.output.indices.as_ref().filter(|_| at.site.is_some());
                kept.extend(selected.map(Indices::on_host).transpose()?);
            }
            Ok(())
        })?;
        let predictions = self.targets(batch).rows(&run.hidden)?;
        self.references[batch] = Some(Reference { predictions, selections: selections.then_some(kept) });
        Ok(self.info.constraints.sites.layers() - run.resumed_from)
    }

    /// Scores one batch and adds it to the tally.
    fn score(&mut self, batch: usize, tally: &mut Tally, cancel: &Cancel) -> Result<(), BackendError> {
        let layers = self.info.constraints.sites.layers();
        let mut run =
            self.run_reference(batch, self.settings.keep_selections && self.needs_selections(batch), cancel)?;
        let mut resumed_from = layers - run;
        let targets = self.targets(batch);
        let rows = if !self.foreign && tally.subject == Subject::Pattern(self.info.reference) {
            None
        } else {
            let forwarded = self.runner.forward(batch, tally.subject, How::RESUMED, cancel, &mut Unseen)?;
            resumed_from = forwarded.resumed_from;
            run = layers - resumed_from;
            Some(targets.rows(&forwarded.hidden)?)
        };
        if rows.is_some() {
            self.keep_logits(batch)?;
        }
        if let Some(Reference { predictions, .. }) = &self.references[batch] {
            tally.scored.extend(targets.score(
                tally.subject,
                self.runner.model.head(),
                predictions,
                rows.as_ref(),
                cancel,
            )?);
        }
        tally.resumed_from = tally.resumed_from.min(resumed_from);
        tally.layer_forwards += (run * targets.len()) as f64 / self.info.sequences as f64;
        Ok(())
    }

    /// Keeps the reference's logits, which every pattern is compared with, where the budget has room for them.
    fn keep_logits(&mut self, batch: usize) -> Result<(), BackendError> {
        let head = self.runner.model.head();
        let mut held = 0;
        for reference in self.references.iter().flatten().filter(|r| r.predictions.is_kept()) {
            held += reference.predictions.logit_bytes(head)?;
        }
        if let Some(Reference { predictions, .. }) = &mut self.references[batch]
            && !predictions.is_kept()
            && held + predictions.logit_bytes(head)? <= (self.settings.cache_bytes as f64 * LOGITS_SHARE) as usize
        {
            predictions.keep(head)?;
        }
        Ok(())
    }

    fn needs_selections(&self, batch: usize) -> bool {
        self.references[batch].is_none()
    }
}
