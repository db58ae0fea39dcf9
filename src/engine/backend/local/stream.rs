//! Evaluation layer by layer, for checkpoints larger than memory.
//!
//! Every sequence passes a layer under every pattern before the next layer is loaded. Patterns that have had the same
//! roles so far share one residual state. The numbers are bit for bit those of [`super::LocalBackend`].

use std::time::Instant;

use super::compare::Predictions;
use super::forward::Batch;
use super::memory::Peak;
use super::targets::Targets;
use crate::checkpoint::Checkpoint;
use crate::domain::{Evaluation, Subject};
use crate::engine::Calibration;
use crate::engine::backend::tally;
use crate::engine::{BackendError, Cancel, ModelInfo, Settings};
use crate::model::{At, Entry, Forward, Group, Order, Ran, Route, Stop, Stream, Visitor, Walk, Weights};

/// What a streamed evaluation gives.
#[derive(Clone, Debug)]
pub struct Streamed {
    /// What is known of the model.
    pub info: ModelInfo,
    /// The reference pattern's.
    pub reference: Evaluation,
    /// One per subject, in order; `seconds` is the time of all together.
    pub evaluations: Vec<Evaluation>,
    /// The most anonymous memory held, looked at after each forward of a batch through a layer, while its weights are
    /// held, and with the head loaded; `None` where the system does not tell.
    pub peak_anonymous_bytes: Option<u64>,
}

/// Evaluates all subjects with one layer in memory at a time; `progress` is told the layer and the share of all work.
///
/// # Errors
/// [`BackendError`]; nothing of a cancelled evaluation is left.
pub fn stream(
    checkpoint: &Checkpoint,
    calibration: &Calibration,
    settings: &Settings,
    subjects: &[Subject],
    cancel: &Cancel,
    progress: &mut dyn FnMut(usize, f64),
) -> Result<Streamed, BackendError> {
    let info = ModelInfo::of(checkpoint, calibration, settings)?;
    subjects.iter().try_for_each(|&subject| info.check(subject))?;
    let mut distinct = vec![Subject::Pattern(info.reference)];
    subjects.iter().for_each(|s| {
        if !distinct.contains(s) {
            distinct.push(*s);
        }
    });
    let started = Instant::now();
    let placement = &settings.placement;
    let stream = Stream::new(checkpoint.clone(), placement.device.clone(), placement.dtype);
    stream.prefetch(0);
    let batches = Batch::cut(calibration, &placement.device, |ids| stream.inputs(ids))?;
    let mut watch = Watch::new(&batches, distinct.len(), info.constraints.sites.layers(), progress);
    let mut forwards = embed(&stream, &batches, distinct.len(), &mut watch.peak)?;
    let stale = || cancel.is_stale();
    let walk = Walk { stop: Stop::when(&stale), ..Walk::new(&distinct, settings.ops) };
    walk.run(Weights::Streamed(&stream), Order::Layers, &mut forwards, &mut watch)?;
    let Watch { layers_run, mut peak, .. } = watch;

    let targets: Vec<Targets> = batches.iter().map(|batch| Targets::of(calibration, batch)).collect();
    let rows = scored_rows(forwards, &targets, distinct.len())?;
    let head = stream.head()?;
    let mut evaluations = Vec::with_capacity(distinct.len());
    for (s, &subject) in distinct.iter().enumerate() {
        let mut tally = tally::begin(subject, &info, calibration);
        for (targets, rows) in targets.iter().zip(&rows) {
            if let (Some(reference), Some(ours)) = (&rows[0], &rows[s]) {
                tally.scored.extend(targets.score(subject, &head, reference, (s > 0).then_some(ours), cancel)?);
                peak.sample();
            }
        }
        tally.layer_forwards = layers_run[s] as f64 / info.sequences as f64;
        tally.resumed_from = info.constraints.sites.layers() - layers_run[s] / info.sequences;
        evaluations.push(tally);
    }
    stream.release(None);
    let seconds = started.elapsed().as_secs_f64();
    let evaluations: Vec<Evaluation> = evaluations.iter().map(|tally| tally.evaluation(seconds)).collect();
    let place = |subject: &Subject| distinct.iter().position(|s| s == subject).unwrap_or(0);
    Ok(Streamed {
        reference: evaluations[0].clone(),
        evaluations: subjects.iter().map(|s| evaluations[place(s)].clone()).collect(),
        peak_anonymous_bytes: peak.bytes(),
        info,
    })
}

/// Embeds every batch: the forwards of all `subjects` at their first layer.
pub(super) fn embed<'a>(
    stream: &Stream,
    batches: &'a [Batch],
    subjects: usize,
    peak: &mut Peak,
) -> Result<Vec<Forward<'a>>, BackendError> {
    let embedding = stream.embedding()?;
    let embed = |(n, batch): (usize, &'a Batch)| {
        Ok(Forward::new(n, &batch.inputs, subjects, (0, Entry::first(embedding.embed(&batch.ids)?))))
    };
    let forwards = batches.iter().enumerate().map(embed).collect::<Result<_, BackendError>>()?;
    peak.sample();
    stream.release(None);
    Ok(forwards)
}

/// Picks the scored rows of every batch and subject; the other positions are not needed any more.
fn scored_rows(
    forwards: Vec<Forward>,
    targets: &[Targets],
    subjects: usize,
) -> Result<Vec<Vec<Option<Predictions>>>, BackendError> {
    let pick = |(forward, targets): (Forward, &Targets)| {
        let mut picked = vec![None; subjects];
        for Group { subjects, entry } in forward.groups {
            let rows = targets.rows(&entry.hidden)?;
            subjects.into_iter().for_each(|s| picked[s] = Some(rows.clone()));
        }
        Ok(picked)
    };
    forwards.into_iter().zip(targets).map(pick).collect()
}

/// Counts what a streamed evaluation runs and holds, and reports its progress.
struct Watch<'a> {
    batches: &'a [Batch],
    layers: usize,
    /// Sequences times layers that were run for each subject; shared ones count for the first that needs them.
    layers_run: Vec<usize>,
    peak: Peak,
    progress: &'a mut dyn FnMut(usize, f64),
}

impl<'a> Watch<'a> {
    fn new(batches: &'a [Batch], subjects: usize, layers: usize, progress: &'a mut dyn FnMut(usize, f64)) -> Self {
        Self { batches, layers, layers_run: vec![0; subjects], peak: Peak::default(), progress }
    }
}

impl Visitor<BackendError> for Watch<'_> {
    fn enter(&mut self, at: &At, route: Route<'static>) -> Result<Route<'_>, BackendError> {
        let batches = self.batches.len() as f64;
        (self.progress)(at.layer, (at.layer as f64 + at.batch as f64 / batches) / self.layers as f64);
        Ok(route)
    }

    fn ran(&mut self, at: &At, _: &Ran) -> Result<(), BackendError> {
        self.peak.sample();
        self.layers_run[at.subjects[0]] += self.batches[at.batch].ids.len();
        Ok(())
    }
}
