//! A run: set up, step by step, saved now and then, stopped at any time, written as a sidecar.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::{DType, Device};
use rayon::prelude::*;

use super::event::{IndexerEvent, IndexerStep};
use super::recipe::{self, IndexerRecipe};
use super::rest::Rest;
use super::saved::{Header, KEY, state_path};
use super::start::{check, initial};
use super::step::{Divergence, Trail, step};
use crate::checkpoint::{Checkpoint, Config, IndexerShape, Sidecar, SidecarHeader, Trained, sidecar_bytes};
use crate::domain::Rng;
use crate::model::Model;
use crate::train::TrainError;
use crate::train::data::Data;
use crate::train::optimizer;
use crate::train::params::Params;
use crate::train::state::{self, write_atomic};

/// Steps between two saved states.
const SAVE_EVERY: u64 = 50;
/// Weight of the newest step in the averages of KL.
const NEWEST: f64 = 0.05;
/// Stream of random numbers of the sampled rows; the data use small numbers.
const ROWS: u64 = 1 << 33;

/// What a run is made from.
pub struct Setup<'a> {
    /// The frozen model; with its own indexers, or those of a sidecar, training starts from them.
    pub checkpoint: &'a Checkpoint,
    /// What decides the result; its fingerprints are filled in here.
    pub recipe: IndexerRecipe,
    /// Sizes of the indexers.
    pub shape: IndexerShape,
    /// Names and tokens of the training texts.
    pub texts: Vec<(String, Vec<u32>)>,
    /// Where training starts instead of the checkpoint's own or random indexers.
    pub start: Option<&'a Sidecar>,
    /// The sidecar to be written, its state beside it until the end; `None` writes nothing of its own accord.
    pub out: Option<&'a Path>,
    /// The frozen model in f32 on the CPU, where it is loaded already.
    pub model: Option<Model>,
    /// Go on from that state.
    pub resume: bool,
}

/// A training run.
pub struct IndexerRun {
    recipe: IndexerRecipe,
    config: Config,
    model: Model,
    data: Data,
    names: Vec<String>,
    /// Name of the model, and what its weights are stored in.
    origin: (String, String),
    params: Vec<Params>,
    rest: Option<Rest>,
    at: Header,
    out: Option<PathBuf>,
}

impl IndexerRun {
    /// Loads the model and prepares a new run, or the one that was stopped.
    ///
    /// # Errors
    /// [`TrainError`] about sizes, texts, the saved state or the model.
    pub fn prepare(setup: Setup) -> Result<Self, TrainError> {
        let Setup { checkpoint, mut recipe, shape, texts, start, out, model, resume } = setup;
        let base = checkpoint.base();
        let path = out.map(state_path).unwrap_or_default();
        match (path.exists(), resume) {
            (true, false) => return Err(TrainError::Occupied(path)),
            (false, true) => return Err(TrainError::Resume { path, reason: "there is no saved state".into() }),
            _ => {}
        }
        let config = Config { index_topk: recipe.index_topk, ..shape.of(base.config()) };
        check(&recipe, base, &config)?;
        if let Some(start) = start {
            start.check(base)?;
        }
        let names = texts.iter().map(|(name, _)| name.clone()).collect();
        let data = Data::of_tokens(texts, recipe.seq_len, recipe.seed)?;
        (recipe.base, recipe.tokens) = (base.lineage()?, data.fingerprint());
        let params = recipe.layers.iter().map(|&layer| initial(checkpoint, start, &config, layer, recipe.seed));
        let mut params = params.collect::<Result<Vec<_>, _>>()?;
        let mut at = Header::begin(&recipe, shape.heads, shape.dim);
        let mut rest = recipe.lm_lr.map(|_| Rest::open(base, &config)).transpose()?;
        if resume {
            let bytes = state::read_bytes(&path)?;
            let saved = Header::read(&path, &bytes)?;
            if let Some(reason) = at.differs(&saved) {
                return Err(TrainError::Resume { path, reason });
            }
            let all = params.iter_mut().chain(rest.iter_mut().map(|r| &mut r.params)).flat_map(|p| p.0.iter_mut());
            state::read_params(&path, &bytes, all)?;
            params.iter_mut().flat_map(|p| p.0.iter_mut()).for_each(|p| p.updates = saved.step);
            let sparse = saved.step.saturating_sub(recipe.steps);
            rest.iter_mut().flat_map(|r| r.params.0.iter_mut()).for_each(|p| p.updates = sparse);
            at = saved;
        }
        let model = match (&mut rest, model) {
            (Some(rest), _) => rest.model(&config)?,
            (None, Some(model)) => model,
            (None, None) => Model::load(base, &Device::Cpu, DType::F32)?,
        };
        let origin = (base.name().to_owned(), base.stored());
        Ok(Self { recipe, config, model, data, names, origin, params, rest, at, out: out.map(Into::into) })
    }

    /// Returns steps done, the number of weights trained, and tokens per epoch.
    pub fn size(&self) -> (u64, usize, u64) {
        let weights = self.all_params().map(Params::count).sum();
        (self.at.step, weights, self.data.epoch_len() * self.recipe.seq_len as u64)
    }

    /// Returns name, shape and values of every trained tensor as they are now, layer by layer.
    pub fn weights(&self) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let tensors = self.all_params().flat_map(|p| &p.0);
        tensors.map(|p| (p.name.clone(), p.shape.clone(), p.value.clone())).collect()
    }

    /// Returns the indexers' weights, layer by layer, and those of the rest of the model where they learn, too.
    fn all_params(&self) -> impl Iterator<Item = &Params> {
        self.params.iter().chain(self.rest.as_ref().map(|rest| &rest.params))
    }

    /// Returns the loss of the language model, nats per token, averaged over the last steps; `None` where it is frozen.
    pub fn lm(&self) -> Option<f64> {
        self.at.lm
    }

    /// Returns what the steps so far found, of all sessions together; of a long run not every step is remembered.
    pub fn history(&self) -> &[IndexerStep] {
        self.at.history.steps()
    }

    /// Returns seconds of training so far, all sessions together.
    pub fn seconds(&self) -> f64 {
        self.at.seconds
    }

    /// Returns each trained layer with its divergence, averaged over the last steps.
    pub fn divergences(&self) -> Vec<(usize, Divergence)> {
        let found = self.at.kl.iter().zip(&self.at.floor).map(|(&kl, &floor)| Divergence { kl, floor });
        self.recipe.layers.iter().copied().zip(found).collect()
    }

    /// Runs until all steps are done or `stop` is set, and saves in either case.
    ///
    /// Returns whether they are done; then the sidecar has been written and the state removed. Where the rest of the model
    /// learned, too, no sidecar is written, as its indexers belong to weights that no file has yet; the state stays until
    /// [`discard_state`](Self::discard_state).
    ///
    /// # Errors
    /// [`TrainError::NonFinite`] leaves the last saved state as it is.
    pub fn run(&mut self, stop: &AtomicBool, tell: &mut dyn FnMut(IndexerEvent)) -> Result<bool, TrainError> {
        while self.at.step < self.recipe.all_steps() {
            if stop.load(Ordering::Relaxed) {
                self.save(tell)?;
                return Ok(false);
            }
            tell(IndexerEvent::Step(self.step(&|| false)?));
            if self.at.step.is_multiple_of(SAVE_EVERY) {
                self.save(tell)?;
            }
        }
        match &self.out {
            None => {}
            Some(_) if self.rest.is_some() => self.save(tell)?,
            Some(out) => {
                self.write(out)?;
                tell(IndexerEvent::Written(out.clone()));
                self.discard_state()?;
            }
        }
        Ok(true)
    }

    /// Removes the saved state, once its weights are written elsewhere.
    ///
    /// # Errors
    /// [`TrainError::Write`].
    pub fn discard_state(&self) -> Result<(), TrainError> {
        let Some(state) = self.out.as_deref().map(state_path).filter(|state| state.exists()) else { return Ok(()) };
        std::fs::remove_file(&state).map_err(|e| TrainError::Write { path: state, reason: e.to_string() })
    }

    /// Does one step, unless `stop` says so in its midst.
    ///
    /// # Errors
    /// [`TrainError::NonFinite`] and [`TrainError::Stopped`] before any weight has changed.
    pub fn step(&mut self, stop: &dyn Fn() -> bool) -> Result<IndexerStep, TrainError> {
        let began = Instant::now();
        let number = self.at.step;
        let sparse = self.recipe.is_sparse(number);
        let sequence = self.data.sequences(number, 1).swap_remove(0);
        let rows = sample(self.recipe.rows, sequence.ids.len(), self.recipe.seed, number);
        let on = (sequence.ids.as_slice(), rows.as_slice(), sparse);
        let learns = self.rest.as_ref().filter(|_| sparse);
        let mut trail = learns.map(|_| Trail::default());
        let found = step(&self.model, &self.config, &self.recipe, &self.params, on, stop, trail.as_mut())?;
        let of_rest = match (learns, &trail) {
            (Some(rest), Some(trail)) => {
                let inputs = self.model.inputs(std::slice::from_ref(&sequence.ids), 0)?;
                let on = (sequence.ids.as_slice(), sequence.targets.as_slice());
                Some(rest.gradients(&self.model, trail, on, &inputs, stop)?)
            }
            _ => None,
        };
        let o = recipe::optimizer();
        let stage = if sparse { "sparse" } else { "warmup" };
        let finite = |what, value: f64| {
            let error = TrainError::NonFinite { what, value, step: number, stage };
            if value.is_finite() { Ok(()) } else { Err(error) }
        };
        for ((divergence, grads), params) in found.iter().zip(&self.params) {
            finite("loss", divergence.kl)?;
            finite("gradient norm", optimizer::norm(params, grads, true))?;
        }
        if let (Some(rest), Some((loss, grads))) = (&self.rest, &of_rest) {
            finite("language-model loss", *loss)?;
            finite("gradient norm", optimizer::norm(&rest.params, grads, false))?;
        }
        let rate = self.recipe.rate(number);
        let (layers, grads): (Vec<Divergence>, Vec<_>) = found.into_iter().unzip();
        self.params
            .par_iter_mut()
            .zip(grads)
            .try_for_each(|(params, grads)| optimizer::update(params, grads, &o, rate))?;
        let lm = of_rest.as_ref().map(|(loss, _)| *loss);
        if let (Some(rest), Some((_, grads)), Some(rate)) = (&mut self.rest, of_rest, self.recipe.lm_rate(number)) {
            rest.update(grads, rate)?;
            self.model = rest.model(&self.config)?;
        }
        self.at.lm = lm.map(|lm| self.at.lm.map_or(lm, |mean| mean + NEWEST * (lm - mean))).or(self.at.lm);
        let averages = self.at.kl.iter_mut().zip(&mut self.at.floor).zip(&layers);
        for ((kl, floor), now) in averages {
            let weight = if number == 0 { 1.0 } else { NEWEST };
            *kl += weight * (now.kl - *kl);
            *floor += weight * (now.floor - *floor);
        }
        let seconds = began.elapsed().as_secs_f64();
        self.at.step += 1;
        self.at.seconds += seconds;
        let step = IndexerStep {
            sparse,
            step: (self.at.step, self.recipe.all_steps()),
            layers: self.recipe.layers.iter().copied().zip(layers).collect(),
            lm,
            rate,
            tokens: self.at.step * self.recipe.seq_len as u64,
            tokens_per_second: self.recipe.seq_len as f64 / seconds.max(1e-9),
        };
        self.at.history.push(step.clone(), &self.recipe);
        Ok(step)
    }

    /// Writes the indexers as they are now as a sidecar.
    ///
    /// # Errors
    /// [`TrainError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), TrainError> {
        let r = &self.recipe;
        let trained = Trained {
            tokens: self.at.step * r.seq_len as u64,
            steps: (self.at.step.min(r.steps), self.at.step.saturating_sub(r.steps)),
            seq_len: r.seq_len,
            index_topk: r.index_topk,
            pattern: r.pattern.to_string(),
            targets: r.targets.name().to_owned(),
            model: self.origin.0.clone(),
            weights: self.origin.1.clone(),
            seconds: self.at.seconds,
            texts: self.names.clone(),
            kl: self.at.kl.clone(),
            floor: self.at.floor.clone(),
        };
        let header = SidecarHeader::new(&r.base, &self.config, r.layers.clone(), trained);
        let tensors: Vec<(&str, &[usize], &[f32])> = self
            .params
            .iter()
            .flat_map(|p| &p.0)
            .map(|p| (p.name.as_str(), p.shape.as_slice(), p.value.as_slice()))
            .collect();
        let bytes =
            sidecar_bytes(&header, &tensors).map_err(|reason| TrainError::Write { path: path.into(), reason })?;
        write_atomic(path, &bytes)
    }

    /// Saves the state where a run that will write `out` keeps it.
    ///
    /// # Errors
    /// [`TrainError::Write`] leaves what was saved before.
    pub fn save_beside(&self, out: &Path) -> Result<(), TrainError> {
        state::write(&state_path(out), KEY, &self.at, self.all_params().flat_map(|p| &p.0))
    }

    fn save(&self, tell: &mut dyn FnMut(IndexerEvent)) -> Result<(), TrainError> {
        let Some(out) = &self.out else { return Ok(()) };
        self.save_beside(out)?;
        tell(IndexerEvent::Saved(state_path(out)));
        Ok(())
    }

    /// Returns the weights, layer by layer.
    #[cfg(test)]
    pub(super) fn params(&self) -> &[Params] {
        &self.params
    }

    /// Makes a weight of the rest of the model NaN, and the model with it.
    #[cfg(test)]
    pub(super) fn spoil(&mut self) {
        let rest = self.rest.as_mut().unwrap();
        let head = rest.params.0.iter_mut().find(|p| p.name == "lm_head.weight").unwrap();
        head.value[0] = f32::NAN;
        self.model = rest.model(&self.config).unwrap();
    }

    /// Returns them to be changed.
    #[cfg(test)]
    pub(super) fn params_mut(&mut self) -> &mut [Params] {
        &mut self.params
    }
}

/// Draws the query rows of a step: `count` of the `length` positions, ascending, none twice.
fn sample(count: usize, length: usize, seed: u64, step: u64) -> Vec<usize> {
    // The first position sees only itself and has nothing to teach.
    let mut all: Vec<usize> = (1..length).collect();
    Rng::new(seed, ROWS + step).shuffle(&mut all);
    all.truncate(count);
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sampled_without_repetition_and_anew_each_step() {
        let rows = sample(7, 20, 1, 0);
        assert!(rows.len() == 7 && rows.windows(2).all(|w| w[0] < w[1]) && rows[0] > 0 && rows[6] < 20, "{rows:?}");
        assert_eq!(rows, sample(7, 20, 1, 0));
        assert_ne!(rows, sample(7, 20, 1, 1));
        assert_eq!(sample(99, 20, 1, 0), (1..20).collect::<Vec<_>>());
    }
}
