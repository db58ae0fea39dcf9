//! Evaluation layer by layer, for checkpoints larger than memory.
//!
//! Every sequence passes a layer under every pattern before the next layer is loaded. Patterns that have had the same
//! roles so far share one residual state. The numbers are bit for bit those of [`super::LocalBackend`].

use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use super::compare::Predictions;
use super::data::Calibration;
use super::forward::Batch;
use super::memory::Peak;
use super::states::Entry;
use super::tally;
use super::targets::Targets;
use super::{BackendError, Cancel, ModelInfo, Settings};
use crate::checkpoint::Checkpoint;
use crate::domain::{Evaluation, Subject};
use crate::model::{Attend, Layer, Pass, Stop, Stream};

/// Bytes of stack of the thread that reads ahead: it calls the system and nothing else.
const READER_STACK: usize = 128 << 10;

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

/// Sequences of one batch under all subjects that have had the same roles so far.
#[derive(Debug)]
struct Group {
    /// Which subjects, ascending.
    subjects: Vec<usize>,
    entry: Entry,
}

/// Where a layer's indices come from under a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Dense,
    Full,
    Shared,
}

impl Way {
    fn of(subject: Subject, layer: usize) -> Self {
        match subject {
            Subject::Dense => Self::Dense,
            Subject::Pattern(pattern) if pattern.is_full(layer) => Self::Full,
            Subject::Pattern(_) => Self::Shared,
        }
    }
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
    let mut run = Run::begin(checkpoint, calibration, settings, distinct)?;
    each_layer(&run.stream.clone(), &mut |layer, weights| run.layer(layer, weights, cancel, progress))?;
    let evaluations = run.score(&info, calibration, cancel)?;
    let place = |subject: &Subject| run.subjects.iter().position(|s| s == subject).unwrap_or(0);
    Ok(Streamed {
        reference: evaluations[0].clone(),
        evaluations: subjects.iter().map(|s| evaluations[place(s)].clone()).collect(),
        peak_anonymous_bytes: run.peak.bytes(),
        info,
    })
}

/// Calls `each` with one layer after the other; a layer is dropped before the next is loaded, but read ahead.
pub(super) fn each_layer(
    stream: &Stream,
    each: &mut dyn FnMut(usize, &Layer) -> Result<(), BackendError>,
) -> Result<(), BackendError> {
    let mut reader: Option<JoinHandle<()>> = None;
    for layer in 0..stream.config().num_hidden_layers {
        let weights = stream.layer(layer)?;
        // Reading ahead may wait for the disk; its thread ends by itself and has nothing to tell. Where it is slower
        // than the layers there is nothing to be won by more of them, and each would hold memory.
        if reader.as_ref().is_none_or(JoinHandle::is_finished) {
            let ahead = stream.clone();
            let spawned = Builder::new().stack_size(READER_STACK).spawn(move || ahead.prefetch(layer + 1));
            reader = spawned.ok();
        }
        each(layer, &weights)?;
        drop(weights);
        stream.release(Some(layer));
    }
    Ok(())
}

/// A streamed evaluation under way.
struct Run {
    stream: Stream,
    settings: Settings,
    /// The reference first, then what was asked for, each once.
    subjects: Vec<Subject>,
    batches: Vec<Batch>,
    /// The groups of every batch.
    groups: Vec<Vec<Group>>,
    /// Sequences times layers that were run for each subject; shared ones count for the first that needs them.
    forwards: Vec<usize>,
    peak: Peak,
    started: Instant,
}

impl Run {
    /// Embeds all sequences.
    fn begin(
        checkpoint: &Checkpoint,
        calibration: &Calibration,
        settings: &Settings,
        subjects: Vec<Subject>,
    ) -> Result<Self, BackendError> {
        let started = Instant::now();
        let placement = &settings.placement;
        let stream = Stream::new(checkpoint.clone(), placement.device.clone(), placement.dtype);
        stream.prefetch(0);
        let batches = Batch::cut(calibration, &placement.device, |len| stream.rope(len))?;
        let embedding = stream.embedding()?;
        let mut peak = Peak::default();
        peak.sample();
        let embed = |batch: &Batch| -> Result<Vec<Group>, BackendError> {
            let entry = Entry { hidden: embedding.embed(&batch.ids)?, indices: None };
            Ok(vec![Group { subjects: (0..subjects.len()).collect(), entry }])
        };
        let groups = batches.iter().map(embed).collect::<Result<_, _>>()?;
        stream.release(None);
        let forwards = vec![0; subjects.len()];
        Ok(Self { stream, settings: settings.clone(), subjects, batches, groups, forwards, peak, started })
    }

    /// Takes every batch through a layer under every subject.
    fn layer(
        &mut self,
        layer: usize,
        weights: &Layer,
        cancel: &Cancel,
        progress: &mut dyn FnMut(usize, f64),
    ) -> Result<(), BackendError> {
        let (layers, batches) = (self.stream.config().num_hidden_layers, self.batches.len());
        for batch in 0..batches {
            let share = (layer as f64 + batch as f64 / batches as f64) / layers as f64;
            progress(layer, share);
            let mut next = Vec::with_capacity(self.subjects.len());
            for group in std::mem::take(&mut self.groups[batch]) {
                next.extend(self.split(weights, layer, batch, &group, cancel)?);
            }
            self.groups[batch] = next;
        }
        Ok(())
    }

    /// Takes one group of a batch through a layer, once for each way that its subjects go.
    fn split(
        &mut self,
        weights: &Layer,
        layer: usize,
        batch: usize,
        group: &Group,
        cancel: &Cancel,
    ) -> Result<Vec<Group>, BackendError> {
        let stale = || cancel.is_stale();
        let mut parts = Vec::new();
        let Batch { ids, rotary, .. } = &self.batches[batch];
        for way in [Way::Dense, Way::Full, Way::Shared] {
            let goes = |&s: &usize| Way::of(self.subjects[s], layer) == way;
            let subjects: Vec<usize> = group.subjects.iter().copied().filter(goes).collect();
            let Some(&first) = subjects.first() else { continue };
            if stale() {
                return Err(BackendError::Cancelled);
            }
            let attend = match (way, &group.entry.indices) {
                (Way::Dense, _) => Attend::Dense,
                (Way::Shared, Some(indices)) => Attend::Given(indices),
                _ => Attend::Own,
            };
            let mut pass = Pass { ops: self.settings.ops, stop: Stop::when(&stale), ..Pass::new(attend) };
            let output = weights.forward(&group.entry.hidden, rotary, &mut pass)?;
            self.peak.sample();
            self.forwards[first] += ids.len();
            parts.push(Group { subjects, entry: Entry { hidden: output.hidden, indices: output.indices } });
        }
        Ok(parts)
    }

    /// Loads the head and scores every subject against the reference.
    fn score(
        &mut self,
        info: &ModelInfo,
        calibration: &Calibration,
        cancel: &Cancel,
    ) -> Result<Vec<Evaluation>, BackendError> {
        let targets: Vec<Targets> = self.batches.iter().map(|b| Targets::of(calibration, b)).collect();
        // The scored rows of every batch and subject; the other positions are not needed any more.
        let mut rows: Vec<Vec<Option<Predictions>>> = Vec::with_capacity(targets.len());
        for (groups, targets) in std::mem::take(&mut self.groups).into_iter().zip(&targets) {
            let mut picked = vec![None; self.subjects.len()];
            for group in groups {
                let rows = targets.rows(&group.entry.hidden)?;
                group.subjects.iter().for_each(|&s| picked[s] = Some(rows.clone()));
            }
            rows.push(picked);
        }
        let head = self.stream.head()?;
        let mut tallies = Vec::with_capacity(self.subjects.len());
        for (s, &subject) in self.subjects.iter().enumerate() {
            let mut tally = tally::begin(subject, info, calibration);
            for (targets, rows) in targets.iter().zip(&rows) {
                if let (Some(reference), Some(ours)) = (&rows[0], &rows[s]) {
                    let ours = (s > 0).then_some(ours);
                    tally.scored.extend(targets.score(&head, reference, ours, cancel)?);
                    self.peak.sample();
                }
                tally::check(&tally)?;
            }
            tally.layer_forwards = self.forwards[s] as f64 / info.sequences as f64;
            tally.resumed_from = info.constraints.layers - self.forwards[s] / info.sequences;
            tallies.push(tally);
        }
        self.stream.release(None);
        let seconds = self.started.elapsed().as_secs_f64();
        Ok(tallies.iter().map(|tally| tally.evaluation(seconds)).collect())
    }
}
