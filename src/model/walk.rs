//! Runs batches through the layers: the one place that decides which keys each layer attends to.
//!
//! A [`Walk`] takes one or many subjects (patterns or controls) over weights that are resident or streamed, sequence by
//! sequence or layer by layer. Subjects whose roles were equal so far share one residual state. A [`Visitor`] sees every
//! layer before and after it runs; evaluation, recording, shadow coverage, affinity, timing, search losses and training
//! targets are visitors.

use std::ops::Range;
use std::time::Instant;

use candle_core::Tensor;

use super::cache::Cache;
use super::clock::PhaseTimes;
use super::decoder::Model;
use super::inputs::Inputs;
use super::layer::Layer;
use super::ops::{Indices, Stop};
use super::pass::{Attend, LayerOutput, Ops, Pass};
use super::stream::Stream;
use super::{ModelError, Result};
use crate::domain::{Site, Sites, Subject};

/// Where a layer gets the keys that it attends to.
#[derive(Clone, Copy, Debug)]
pub enum Route<'a> {
    /// Every visible key takes part.
    Dense,
    /// The layer runs its own indexer (Full).
    Own,
    /// The layer reuses the keys of the nearest earlier layer that selected (Shared).
    Reuse,
    /// The layer attends to these keys, such as a control's window or the selection of an indexer under training.
    Given(&'a Indices),
}

impl Route<'static> {
    /// Returns a layer's route under a subject; a layer that is no site has nothing to select from.
    pub fn of(sites: Sites, subject: Subject, layer: usize) -> Self {
        match (subject, sites.site(layer)) {
            (Subject::Dense, _) | (_, None) => Self::Dense,
            (Subject::Pattern(pattern), Some(Site(site))) if pattern.is_full(site) => Self::Own,
            (Subject::Pattern(_), Some(_)) => Self::Reuse,
        }
    }
}

/// What a layer is entered with.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The residual stream, `[B, T, hidden]`.
    pub hidden: Tensor,
    /// The keys of the nearest earlier layer that selected; `None` before the first and under dense attention.
    pub indices: Option<Indices>,
}

impl Entry {
    /// Returns the entry of the first layer.
    pub fn first(hidden: Tensor) -> Self {
        Self { hidden, indices: None }
    }

    /// Resolves a route: returns what the layer is asked to attend to.
    fn attend<'a>(&'a self, route: Route<'a>, layer: usize) -> Result<Attend<'a>> {
        Ok(match route {
            Route::Dense => Attend::Dense,
            Route::Own => Attend::Own,
            Route::Given(indices) => Attend::Given(indices),
            Route::Reuse => Attend::Given(self.indices.as_ref().ok_or(ModelError::NothingToShare(layer))?),
        })
    }

    /// Returns the entry of the next layer.
    pub fn after(&self, output: &LayerOutput) -> Self {
        let indices = output.indices.as_ref().or(self.indices.as_ref());
        Self { hidden: output.hidden.clone(), indices: indices.cloned() }
    }
}

/// Subjects that have had the same routes so far, and their common state.
#[derive(Clone, Debug)]
pub struct Group {
    /// Their places in [`Walk::subjects`], ascending.
    pub subjects: Vec<usize>,
    /// What they enter the next layer with.
    pub entry: Entry,
}

/// The forward of one batch.
#[derive(Debug)]
pub struct Forward<'a> {
    /// The number of the batch, for visitors.
    pub batch: usize,
    /// Its tokens and the tables of their positions.
    pub inputs: &'a Inputs,
    /// The next layer.
    pub layer: usize,
    /// The states of all subjects.
    pub groups: Vec<Group>,
    /// Keys of earlier tokens, to which those of this forward are added.
    pub cache: Option<&'a mut Cache>,
}

impl<'a> Forward<'a> {
    /// Returns the forward of a batch of which all `subjects` enter `layer` with the same state.
    pub fn new(batch: usize, inputs: &'a Inputs, subjects: usize, (layer, entry): (usize, Entry)) -> Self {
        Self { batch, inputs, layer, groups: vec![Group { subjects: (0..subjects).collect(), entry }], cache: None }
    }

    /// Returns the residual stream after the last layer, of a forward of one subject.
    ///
    /// # Errors
    /// Where there is no subject.
    pub fn into_hidden(mut self) -> Result<Tensor> {
        let group = self.groups.pop().ok_or_else(|| candle_core::Error::Msg("a forward without subjects".into()))?;
        Ok(group.entry.hidden)
    }
}

/// A layer that is about to run for some subjects of a batch.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The number of the batch.
    pub batch: usize,
    /// The layer.
    pub layer: usize,
    /// Its number among the layers that select; `None` where it does not.
    pub site: Option<Site>,
    /// Its weights.
    pub weights: &'a Layer,
    /// Tokens of the batch and the tables of their positions.
    pub inputs: &'a Inputs,
    /// The subjects that go the same way here, ascending.
    pub subjects: &'a [usize],
    /// What the layer is entered with.
    pub entry: &'a Entry,
}

/// A layer that has run.
#[derive(Debug)]
pub struct Ran {
    /// What it gave.
    pub output: LayerOutput,
    /// When it began.
    pub begin: Instant,
    /// Where its time went; nothing unless [`Walk::laps`].
    pub times: PhaseTimes,
}

/// Sees every layer of a walk.
pub trait Visitor<E> {
    /// Is called before a layer runs and may give it other keys than the subject's.
    ///
    /// # Errors
    /// Those of the visitor; they end the walk.
    fn enter(&mut self, at: &At, route: Route<'static>) -> Result<Route<'_>, E> {
        let _ = at;
        Ok(route)
    }

    /// Is called after a layer has run.
    ///
    /// # Errors
    /// Those of the visitor; they end the walk.
    fn ran(&mut self, at: &At, ran: &Ran) -> Result<(), E>;
}

impl<E, F: FnMut(&At, &Ran) -> Result<(), E>> Visitor<E> for F {
    fn ran(&mut self, at: &At, ran: &Ran) -> Result<(), E> {
        self(at, ran)
    }
}

/// A visitor that has nothing to see.
#[derive(Clone, Copy, Debug)]
pub struct Unseen;

impl<E> Visitor<E> for Unseen {
    fn ran(&mut self, _: &At, _: &Ran) -> Result<(), E> {
        Ok(())
    }
}

/// Where the weights of the layers are.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// All in memory.
    Resident(&'a Model),
    /// One layer at a time is loaded and dropped.
    Streamed(&'a Stream),
}

impl Weights<'_> {
    /// Returns which layers select.
    fn sites(self) -> Sites {
        match self {
            Self::Resident(model) => model.config().sites(),
            Self::Streamed(stream) => stream.config().sites(),
        }
    }

    /// Calls `each` with the layers in order.
    fn each<E: From<ModelError>>(
        self,
        layers: Range<usize>,
        each: &mut dyn FnMut(usize, &Layer) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Resident(model) => {
                let range = layers.clone();
                layers.zip(&model.layers()[range]).try_for_each(|(layer, weights)| each(layer, weights))
            }
            Self::Streamed(stream) => stream.each_layer(layers, each),
        }
    }
}

/// In which order batches and layers follow each other; the numbers are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A batch passes all layers before the next one starts: one batch's states at a time.
    Sequences,
    /// All batches pass a layer before the next one is needed: one layer's weights at a time.
    Layers,
}

/// What is run, and how.
#[derive(Clone, Copy, Debug)]
pub struct Walk<'a> {
    /// Patterns and controls, each once.
    pub subjects: &'a [Subject],
    /// Which form of attention runs.
    pub ops: Ops,
    /// Also run the indexers of layers that reuse keys.
    pub shadow: bool,
    /// Also return the indexers' scores and the head-averaged attention, `[B, T, T]` each.
    pub want_scores: bool,
    /// Time the phases of every layer.
    pub laps: bool,
    /// Let no graph reach from one layer into the next.
    pub detach: bool,
    /// One past the last layer; `None` runs all.
    pub end: Option<usize>,
    /// When to give up; asked before every layer and inside.
    pub stop: Stop<'a>,
}

impl<'a> Walk<'a> {
    /// Returns a walk through all layers that asks for nothing but the residual stream.
    pub fn new(subjects: &'a [Subject], ops: Ops) -> Self {
        Self {
            subjects,
            ops,
            shadow: false,
            want_scores: false,
            laps: false,
            detach: false,
            end: None,
            stop: Stop::NEVER,
        }
    }

    /// Runs the forwards through the layers; what is left of their entries is in them.
    ///
    /// # Errors
    /// [`ModelError::Stopped`] once the walk's stop says so, [`ModelError::NothingToShare`], and those of layers and visitor.
    pub fn run<E: From<ModelError>>(
        &self,
        weights: Weights,
        order: Order,
        forwards: &mut [Forward],
        visitor: &mut dyn Visitor<E>,
    ) -> Result<(), E> {
        let sites = weights.sites();
        let end = self.end.unwrap_or(sites.layers()).min(sites.layers());
        let mut pass = |forwards: &mut [Forward]| {
            let first = forwards.iter().map(|f| f.layer).min().unwrap_or(end);
            weights.each(first..end, &mut |layer, weights| {
                forwards
                    .iter_mut()
                    .filter(|f| f.layer == layer)
                    .try_for_each(|forward| self.advance(sites, forward, weights, visitor))
            })
        };
        match order {
            Order::Layers => pass(forwards),
            Order::Sequences => forwards.chunks_mut(1).try_for_each(pass),
        }
    }

    /// Runs one layer for all groups of a forward; each is split by the routes of its subjects.
    fn advance<E: From<ModelError>>(
        &self,
        sites: Sites,
        forward: &mut Forward,
        weights: &Layer,
        visitor: &mut dyn Visitor<E>,
    ) -> Result<(), E> {
        let (layer, mut next) = (forward.layer, Vec::with_capacity(forward.groups.len()));
        for group in std::mem::take(&mut forward.groups) {
            for (route, subjects) in self.split(sites, &group.subjects, layer) {
                if self.stop.asked() {
                    return Err(ModelError::Stopped.into());
                }
                let at = At {
                    batch: forward.batch,
                    layer,
                    site: sites.site(layer),
                    weights,
                    inputs: forward.inputs,
                    subjects: &subjects,
                    entry: &group.entry,
                };
                let cache = forward.cache.as_mut().map(|cache| &mut cache.layers[layer]);
                let (begin, mut times) = (Instant::now(), PhaseTimes::default());
                let attend = group.entry.attend(visitor.enter(&at, route)?, layer)?;
                let mut pass = Pass {
                    ops: self.ops,
                    want_scores: self.want_scores,
                    want_probs: self.want_scores,
                    shadow: self.shadow && matches!(attend, Attend::Given(_)) && weights.has_indexer(),
                    cache,
                    times: self.laps.then_some(&mut times),
                    stop: self.stop,
                    ..Pass::new(attend)
                };
                let output = weights.forward(&group.entry.hidden, forward.inputs, &mut pass)?;
                let mut entry = group.entry.after(&output);
                visitor.ran(&at, &Ran { output, begin, times })?;
                if self.detach {
                    entry.hidden = entry.hidden.detach();
                }
                next.push(Group { subjects, entry });
            }
        }
        (forward.groups, forward.layer) = (next, layer + 1);
        Ok(())
    }

    /// Returns the routes that some subjects take at a layer, and which take each.
    fn split(&self, sites: Sites, subjects: &[usize], layer: usize) -> Vec<(Route<'static>, Vec<usize>)> {
        let mut ways: Vec<(Route<'static>, Vec<usize>)> = Vec::new();
        for &subject in subjects {
            let route = Route::of(sites, self.subjects[subject], layer);
            let same =
                |way: &&mut (Route, Vec<usize>)| std::mem::discriminant(&way.0) == std::mem::discriminant(&route);
            match ways.iter_mut().find(same) {
                Some((_, taking)) => taking.push(subject),
                None => ways.push((route, vec![subject])),
            }
        }
        ways
    }
}
