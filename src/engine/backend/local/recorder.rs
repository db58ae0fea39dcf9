//! Recording that gives every layer's sets away as soon as they are known, in either order of work.

use std::io;

use super::LocalBackend;
use super::forward::Batch;
use super::memory::Peak;
use super::stream::embed;
use crate::analysis::mass_recall::Accumulator;
use crate::checkpoint::Checkpoint;
use crate::domain::{MassRecall, Pattern, Query, QuerySampling, Selection, Site, Subject, Trace, choose};
use crate::engine::Calibration;
use crate::engine::backend::queries::{check_finite, head};
use crate::engine::backend::unwritable;
use crate::engine::{BackendError, Cancel, ModelInfo, Settings};
use crate::model::{At, Entry, Forward, Indices, Ops, Order, Ran, Route, Stop, Stream, Visitor, Walk, Weights};

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

/// Takes sets: the site, the index of the first query, and the rows from there on.
///
/// For each site queries come in their order; sites come in any.
pub type Sink<'a> = dyn FnMut(usize, usize, &Selection) -> io::Result<()> + 'a;

impl Recording {
    /// Returns the recording without its sets: what is recorded, the tokens and the queries.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where the model cannot have the pattern.
    pub fn head(&self, info: &ModelInfo, calibration: &Calibration) -> Result<Trace, BackendError> {
        info.check(Subject::Pattern(self.pattern))?;
        Ok(head(info, calibration, self.pattern, self.queries))
    }

    /// Records sequence by sequence with a loaded model, so that the sets are never all in memory.
    pub(super) fn run(
        &self,
        backend: &LocalBackend,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f64),
        sink: &mut Sink,
    ) -> Result<Recorded, BackendError> {
        let head = head(&backend.info, &backend.calibration, self.pattern, self.queries);
        let (model, batches) = (&backend.runner.model, &backend.runner.batches);
        let mut recorder = Recorder::new(self, &head, batches, Order::Sequences, progress, sink);
        for (n, batch) in batches.iter().enumerate() {
            let entry = Entry::first(model.embed(&batch.ids)?);
            let mut forward = [Forward::new(n, &batch.inputs, 1, (0, entry))];
            recorder.walk(Weights::Resident(model), backend.settings.ops, &mut forward, cancel)?;
        }
        Ok(recorder.finish())
    }

    /// Records layer by layer, with one layer's weights in memory at a time; what it gives is what
    /// [`Backend::record_into`](crate::engine::Backend::record_into) gives.
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
        let head = self.head(&ModelInfo::of(checkpoint, calibration, settings)?, calibration)?;
        let device = &settings.placement.device;
        let stream = Stream::new(checkpoint.clone(), device.clone(), settings.placement.dtype);
        stream.prefetch(0);
        let batches = Batch::cut(calibration, device, |ids| stream.inputs(ids))?;
        let mut recorder = Recorder::new(self, &head, &batches, Order::Layers, progress, sink);
        let mut forwards = embed(&stream, &batches, 1, &mut recorder.peak)?;
        recorder.walk(Weights::Streamed(&stream), settings.ops, &mut forwards, cancel)?;
        Ok(recorder.finish())
    }
}

/// A recording under way.
struct Recorder<'a> {
    head: &'a Trace,
    batches: &'a [Batch],
    order: Order,
    progress: &'a mut dyn FnMut(f64),
    sink: &'a mut Sink<'a>,
    mass: Option<Mass>,
    peak: Peak,
}

impl<'a> Recorder<'a> {
    fn new(
        recording: &Recording,
        head: &'a Trace,
        batches: &'a [Batch],
        order: Order,
        progress: &'a mut dyn FnMut(f64),
        sink: &'a mut Sink<'a>,
    ) -> Self {
        let mass = recording.mass_recall.map(|per_sequence| Mass::new(head, per_sequence));
        Self { head, batches, order, progress, sink, mass, peak: Peak::default() }
    }

    /// Takes batches through all layers.
    fn walk(
        &mut self,
        weights: Weights,
        ops: Ops,
        forwards: &mut [Forward],
        cancel: &Cancel,
    ) -> Result<(), BackendError> {
        let stale = || cancel.is_stale();
        let subjects = [Subject::Pattern(self.head.meta.pattern)];
        let walk = Walk { stop: Stop::when(&stale), ..Walk::new(&subjects, ops) };
        walk.run(weights, self.order, forwards, self)
    }

    /// Gives away one site's sets of a batch.
    fn give(&mut self, site: usize, batch: &Batch, sets: &Indices) -> Result<(), BackendError> {
        let all = &self.head.queries;
        let place = |sequence: usize| all.partition_point(|q| (q.sequence as usize) < sequence);
        let (first, last) = (place(batch.first), place(batch.first + sets.sequences()));
        for (n, queries) in all[first..last].chunks(ROWS).enumerate() {
            let mut rows = Selection::with_capacity(queries.len(), self.head.meta.index_topk);
            for queries in queries.chunk_by(|a, b| a.sequence == b.sequence) {
                let positions: Vec<usize> = queries.iter().map(|q| q.position as usize).collect();
                sets.pick(queries[0].sequence as usize - batch.first, &positions, &mut rows)?;
            }
            (self.sink)(site, first + n * ROWS, &rows).map_err(unwritable)?;
        }
        Ok(())
    }

    fn finish(self) -> Recorded {
        Recorded { mass_recall: self.mass.map(Mass::finish), peak_anonymous_bytes: self.peak.bytes() }
    }
}

impl Visitor<BackendError> for Recorder<'_> {
    fn enter(&mut self, at: &At, route: Route<'static>) -> Result<Route<'_>, BackendError> {
        let (layers, batches) = (self.head.meta.layers, self.batches.len());
        let step = match self.order {
            Order::Sequences => at.batch * layers + at.layer,
            Order::Layers => at.layer * batches + at.batch,
        };
        (self.progress)(step as f64 / (batches * layers) as f64);
        Ok(route)
    }

    fn ran(&mut self, at: &At, ran: &Ran) -> Result<(), BackendError> {
        self.peak.sample();
        check_finite(at)?;
        if let (Some(Site(site)), Some(sets)) = (at.site, &ran.output.indices) {
            let batch = &self.batches[at.batch];
            self.give(site, batch, sets)?;
            if let Some(mass) = &mut self.mass {
                mass.add(site, at, batch, sets)?;
                self.peak.sample();
            }
        }
        Ok(())
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
        let (layers, topk) = (head.meta.sites().len(), head.meta.topk());
        let first = topk.first();
        let draw = |(sequence, ids): (usize, &Vec<u32>)| -> Vec<Query> {
            let positions = choose(ids.len().saturating_sub(first), per_sequence, SEED ^ (sequence as u64) << 32);
            let query = |p: usize| Query { sequence: sequence as u32, position: (first + p) as u32 };
            positions.into_iter().map(query).collect()
        };
        let drawn: Vec<Vec<Query>> = head.tokens.iter().enumerate().map(draw).collect();
        Self {
            per_sequence,
            sets: vec![Vec::new(); drawn.len()],
            drawn,
            layers,
            sums: Accumulator::new(layers, topk.k),
        }
    }

    /// Adds one layer of a batch.
    fn add(&mut self, site: usize, at: &At, batch: &Batch, sets: &Indices) -> Result<(), BackendError> {
        for n in 0..sets.sequences() {
            let queries = &self.drawn[batch.first + n];
            let positions: Vec<usize> = queries.iter().map(|q| q.position as usize).collect();
            if positions.is_empty() {
                continue;
            }
            let kept = &mut self.sets[batch.first + n];
            kept.push(sets.picked(n, &positions)?);
            let hidden = at.entry.hidden.narrow(0, n, 1)?;
            let attention = at.weights.mean_attention(&hidden, &at.inputs.rotary, &positions)?;
            self.sums.add(site, queries, &attention.flatten_all()?.to_vec1::<f32>()?, kept);
            if site + 1 == self.layers {
                kept.clear();
            }
        }
        Ok(())
    }

    fn finish(self) -> MassRecall {
        self.sums.finish(self.per_sequence, SEED)
    }
}
