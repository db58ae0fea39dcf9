//! Recording that gives every layer's sets away as soon as they are known, in either order of work.

use std::io;

use candle_core::Tensor;

use super::data::Calibration;
use super::forward::Batch;
use super::memory::Peak;
use super::queries::head;
use super::states::Entry;
use super::stream::each_layer;
use super::{BackendError, Cancel, LocalBackend, ModelInfo, Settings};
use crate::analysis::mass_recall::Accumulator;
use crate::checkpoint::Checkpoint;
use crate::domain::{MassRecall, Pattern, Query, QuerySampling, Selection, Subject, Trace, choose};
use crate::model::{Attend, Indices, Layer, Ops, Pass, Stop, Stream};

/// Rows given away at once.
const ROWS: usize = 4096;
/// The seed by which queries are drawn for mass recall.
const SEED: u64 = 0;

/// What is to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recording {
    /// The pattern in force.
    pub pattern: Pattern,
    /// Whose sets are kept.
    pub queries: QuerySampling,
    /// Of how many queries of each sequence, of those that see more than k keys, mass recall is taken.
    pub mass_recall: Option<usize>,
}

/// What a recording gives besides the sets.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Mass recall, where it was asked for.
    pub mass_recall: Option<MassRecall>,
    /// The most anonymous memory held, looked at after each forward of a batch through a layer; `None` where the system
    /// does not tell.
    pub peak_anonymous_bytes: Option<u64>,
}

/// Takes sets: the layer, the index of the first query, and the rows from there on.
///
/// For each layer queries come in their order; layers come in any.
pub type Sink<'a> = dyn FnMut(usize, usize, &Selection) -> io::Result<()> + 'a;

impl Recording {
    /// Returns the recording without its sets: what is recorded, the tokens and the queries.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where the model cannot have the pattern.
    pub fn head(
        &self,
        checkpoint: &Checkpoint,
        calibration: &Calibration,
        settings: &Settings,
    ) -> Result<Trace, BackendError> {
        let info = ModelInfo::of(checkpoint, calibration, settings)?;
        info.check(Subject::Pattern(self.pattern))?;
        Ok(head(&info, calibration, self.pattern, self.queries))
    }

    /// Records sequence by sequence with a loaded model, so that the sets are never all in memory.
    ///
    /// # Errors
    /// [`BackendError`], those of `sink` included.
    pub fn run(
        &self,
        backend: &LocalBackend,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
        sink: &mut Sink,
    ) -> Result<Recorded, BackendError> {
        let head = head(&backend.info, &backend.calibration, self.pattern, self.queries);
        let mut recorder = Recorder::new(self, &head, backend.settings.ops, cancel, sink);
        let (model, batches) = (&backend.runner.model, &backend.runner.batches);
        let steps = (batches.len() * head.meta.layers) as f64;
        for (n, batch) in batches.iter().enumerate() {
            let mut entry = Entry { hidden: model.embed(&batch.ids)?, indices: None };
            for (layer, weights) in model.layers().iter().enumerate() {
                progress((n * head.meta.layers + layer) as f64 / steps);
                entry = recorder.advance(layer, weights, batch, entry)?;
            }
        }
        Ok(recorder.finish())
    }

    /// Records layer by layer, with one layer's weights in memory at a time; what it gives is what [`Self::run`] gives.
    ///
    /// # Errors
    /// [`BackendError`], those of `sink` included.
    pub fn stream(
        &self,
        checkpoint: &Checkpoint,
        calibration: &Calibration,
        settings: &Settings,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
        sink: &mut Sink,
    ) -> Result<Recorded, BackendError> {
        let head = self.head(checkpoint, calibration, settings)?;
        let device = &settings.placement.device;
        let stream = Stream::new(checkpoint.clone(), device.clone(), settings.placement.dtype);
        stream.prefetch(0);
        let batches = Batch::cut(calibration, device, |len| stream.rope(len))?;
        let embedding = stream.embedding()?;
        let embed = |batch: &Batch| -> Result<Entry, BackendError> {
            Ok(Entry { hidden: embedding.embed(&batch.ids)?, indices: None })
        };
        let mut entries = batches.iter().map(embed).collect::<Result<Vec<_>, _>>()?;
        let mut recorder = Recorder::new(self, &head, settings.ops, cancel, sink);
        recorder.peak.sample();
        drop(embedding);
        stream.release(None);
        let steps = (batches.len() * head.meta.layers) as f64;
        each_layer(&stream, &mut |layer, weights| {
            for (n, (batch, entry)) in batches.iter().zip(&mut entries).enumerate() {
                progress((layer * batches.len() + n) as f64 / steps);
                *entry = recorder.advance(layer, weights, batch, entry.clone())?;
            }
            Ok(())
        })?;
        Ok(recorder.finish())
    }
}

/// A recording under way.
struct Recorder<'a> {
    head: &'a Trace,
    ops: Ops,
    cancel: &'a Cancel,
    sink: &'a mut Sink<'a>,
    mass: Option<Mass>,
    peak: Peak,
}

impl<'a> Recorder<'a> {
    fn new(recording: &Recording, head: &'a Trace, ops: Ops, cancel: &'a Cancel, sink: &'a mut Sink<'a>) -> Self {
        let mass = recording.mass_recall.map(|per_sequence| Mass::new(head, per_sequence));
        Self { head, ops, cancel, sink, mass, peak: Peak::default() }
    }

    /// Takes one batch through one layer.
    fn advance(&mut self, layer: usize, weights: &Layer, batch: &Batch, entry: Entry) -> Result<Entry, BackendError> {
        let stale = || self.cancel.is_stale();
        if stale() {
            return Err(BackendError::Cancelled);
        }
        let attend = match &entry.indices {
            Some(indices) if !self.head.meta.pattern.is_full(layer) => Attend::Given(indices),
            _ => Attend::Own,
        };
        let mut pass = Pass { ops: self.ops, stop: Stop::when(&stale), ..Pass::new(attend) };
        let output = weights.forward(&entry.hidden, &batch.rotary, &mut pass)?;
        self.peak.sample();
        if let Some(sets) = &output.indices {
            self.give(layer, batch, sets)?;
            if let Some(mass) = &mut self.mass {
                mass.add(layer, weights, batch, &entry.hidden, sets)?;
                self.peak.sample();
            }
        }
        Ok(Entry { hidden: output.hidden, indices: output.indices })
    }

    /// Gives away one layer's sets of a batch.
    fn give(&mut self, layer: usize, batch: &Batch, sets: &Indices) -> Result<(), BackendError> {
        let all = &self.head.queries;
        let place = |sequence: usize| all.partition_point(|q| (q.sequence as usize) < sequence);
        let (first, last) = (place(batch.first), place(batch.first + sets.sequences()));
        for (n, queries) in all[first..last].chunks(ROWS).enumerate() {
            let mut rows = Selection::with_capacity(queries.len(), self.head.meta.index_topk);
            for queries in queries.chunk_by(|a, b| a.sequence == b.sequence) {
                let positions: Vec<usize> = queries.iter().map(|q| q.position as usize).collect();
                sets.pick(queries[0].sequence as usize - batch.first, &positions, &mut rows)?;
            }
            (self.sink)(layer, first + n * ROWS, &rows).map_err(|e| BackendError::Failed {
                message: format!("the recording cannot be written: {e}"),
                hint: None,
            })?;
        }
        Ok(())
    }

    fn finish(self) -> Recorded {
        Recorded { mass_recall: self.mass.map(Mass::finish), peak_anonymous_bytes: self.peak.bytes() }
    }
}

/// Mass recall under way.
struct Mass {
    per_sequence: usize,
    /// The drawn queries of every sequence.
    drawn: Vec<Vec<Query>>,
    /// Their sets at every layer so far, sequence by sequence.
    sets: Vec<Vec<Selection>>,
    layers: usize,
    sums: Accumulator,
}

impl Mass {
    fn new(head: &Trace, per_sequence: usize) -> Self {
        let (layers, topk) = (head.meta.layers, head.meta.index_topk);
        let draw = |(sequence, ids): (usize, &Vec<u32>)| -> Vec<Query> {
            let positions = choose(ids.len().saturating_sub(topk), per_sequence, SEED ^ (sequence as u64) << 32);
            let query = |p: usize| Query { sequence: sequence as u32, position: (topk + p) as u32 };
            positions.into_iter().map(query).collect()
        };
        let drawn: Vec<Vec<Query>> = head.tokens.iter().enumerate().map(draw).collect();
        Self { per_sequence, sets: vec![Vec::new(); drawn.len()], drawn, layers, sums: Accumulator::new(layers, topk) }
    }

    /// Adds one layer of a batch that was entered with `hidden`.
    fn add(
        &mut self,
        layer: usize,
        weights: &Layer,
        batch: &Batch,
        hidden: &Tensor,
        sets: &Indices,
    ) -> Result<(), BackendError> {
        for n in 0..sets.sequences() {
            let queries = &self.drawn[batch.first + n];
            let positions: Vec<usize> = queries.iter().map(|q| q.position as usize).collect();
            if positions.is_empty() {
                continue;
            }
            let kept = &mut self.sets[batch.first + n];
            kept.push(sets.picked(n, &positions)?);
            let attention = weights.mean_attention(&hidden.narrow(0, n, 1)?, &batch.rotary, &positions)?;
            self.sums.add(layer, queries, &attention.flatten_all()?.to_vec1::<f32>()?, kept);
            if layer + 1 == self.layers {
                kept.clear();
            }
        }
        Ok(())
    }

    fn finish(self) -> MassRecall {
        self.sums.finish(self.per_sequence, SEED)
    }
}
