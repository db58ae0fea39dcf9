//! The loop: step by step through the stages, saved now and then, stopped at any time.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::{DType, Device};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::data::{Data, Sequence, read_text};
use super::export::export;
use super::loss::{self, Measured};
use super::optimizer;
use super::params::Params;
use super::state::{self, Position, STATE_FILE, write_atomic};
use super::{Recipe, Stage, TrainError};
use crate::checkpoint::Config;
use crate::model::Model;
use crate::model::tokenizer::Tokenizer;

/// Steps between two saved states.
const SAVE_EVERY: u64 = 50;
/// Steps between two looks at the monitor text.
const MONITOR_EVERY: u64 = 200;
/// File of the tokenizer within a run's folder and a checkpoint.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// What a run tells as it goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Something that takes a while has begun.
    Preparing(String),
    /// A step is done.
    Step(StepReport),
    /// Loss on the monitor text.
    Monitor {
        /// The attention it was measured under.
        stage: Stage,
        /// Nats per token.
        loss: f64,
        /// Bits per byte of text.
        bits_per_byte: f64,
    },
    /// The state was saved.
    Saved(PathBuf),
    /// The checkpoint was written.
    Exported(PathBuf),
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// The stage.
    pub stage: Stage,
    /// Steps done within it, and its length.
    pub step: (u64, u64),
    /// What was measured.
    pub measured: Measured,
    /// Multiple of the learning rates.
    pub rate: f64,
    /// Tokens of this step per second.
    pub tokens_per_second: f64,
    /// Steps left in all stages.
    pub steps_left: u64,
}

/// A training run in a folder.
pub struct Trainer {
    recipe: Recipe,
    config: Config,
    tokenizer: Tokenizer,
    data: Data,
    monitor: (Vec<Sequence>, usize),
    params: Params,
    position: Position,
    folder: PathBuf,
    pools: Vec<ThreadPool>,
}

impl Trainer {
    /// Prepares a run in `folder`: a new one, or where `resume` is set the one that was stopped there.
    ///
    /// The tokenizer is trained where the folder has none. `threads` micro-batches are worked on at a time; the
    /// result does not depend on their number.
    ///
    /// # Errors
    /// [`TrainError`] about the recipe's model, texts, or the saved state.
    pub fn prepare(
        recipe_path: &Path,
        folder: &Path,
        resume: bool,
        threads: usize,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Self, TrainError> {
        let recipe = Recipe::open(recipe_path)?;
        let config = Config::parse(&recipe.config_json())?;
        let state = folder.join(STATE_FILE);
        match (state.exists(), resume) {
            (true, false) => return Err(TrainError::Occupied(folder.into())),
            (false, true) => return Err(TrainError::Resume { path: state, reason: "there is no saved state".into() }),
            _ => {}
        }
        std::fs::create_dir_all(folder)
            .map_err(|e| TrainError::Write { path: folder.into(), reason: e.to_string() })?;
        let texts = recipe_path.parent().unwrap_or(Path::new("."));
        let tokenizer_path = folder.join(TOKENIZER_FILE);
        let tokenizer = if tokenizer_path.exists() {
            Tokenizer::open(&tokenizer_path)?
        } else {
            tell(Event::Preparing(format!("training a tokenizer of {} tokens", config.vocab_size)));
            let corpus = recipe.data.corpus.iter().map(|c| read_text(&texts.join(&c.file)));
            let corpus = corpus.collect::<Result<Vec<_>, _>>()?;
            let tokenizer = Tokenizer::train_bpe(corpus.iter().map(String::as_str), config.vocab_size)?;
            write_atomic(&tokenizer_path, tokenizer.to_json()?.as_bytes())?;
            tokenizer
        };
        tell(Event::Preparing("reading the texts".into()));
        let data = Data::load(&recipe.data, texts, &tokenizer, recipe.seed)?;
        let monitor = monitor(&texts.join(&recipe.data.monitor), &tokenizer, recipe.data.sequence_length)?;
        let mut params = Params::init(&config, recipe.seed);
        let position = if resume { state::load(folder, &recipe, &mut params)? } else { Position::default() };
        let pools = (0..threads.max(1)).map(|_| ThreadPoolBuilder::new().num_threads(1).build());
        let pools = pools
            .collect::<Result<_, _>>()
            .map_err(|e| TrainError::Write { path: folder.into(), reason: e.to_string() })?;
        Ok(Self { recipe, config, tokenizer, data, monitor, params, position, folder: folder.into(), pools })
    }

    /// Returns the number of weights, and of training tokens of an epoch.
    pub fn size(&self) -> (usize, u64) {
        (self.params.count(), self.data.epoch_len() * self.recipe.data.sequence_length as u64)
    }

    /// Returns where the run stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns the weights with the optimiser's memory.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Runs until the recipe is done or `stop` is set, and saves in either case.
    ///
    /// Returns whether the recipe is done; then the checkpoint has been written, too.
    ///
    /// # Errors
    /// [`TrainError::NonFinite`] leaves the last saved state as it is.
    pub fn run(&mut self, stop: &AtomicBool, tell: &mut dyn FnMut(Event)) -> Result<bool, TrainError> {
        while let Some(stage) = self.recipe.stage.get(self.position.stage).cloned() {
            if self.position.step >= stage.steps {
                self.look(stage.kind, tell)?;
                self.position = Position { stage: self.position.stage + 1, step: 0, ..self.position };
                self.save(tell)?;
                continue;
            }
            if stop.load(Ordering::Relaxed) {
                self.save(tell)?;
                return Ok(false);
            }
            let report = self.step()?;
            tell(Event::Step(report));
            if self.position.step.is_multiple_of(MONITOR_EVERY) && stage.kind != Stage::Warmup {
                self.look(stage.kind, tell)?;
            }
            if self.position.step.is_multiple_of(SAVE_EVERY) {
                self.save(tell)?;
            }
        }
        export(&self.folder, &self.recipe, &self.params)?;
        tell(Event::Exported(self.folder.clone()));
        Ok(true)
    }

    /// Does one step of the current stage.
    ///
    /// # Errors
    /// [`TrainError::NonFinite`] before any weight has changed.
    pub fn step(&mut self) -> Result<StepReport, TrainError> {
        let began = Instant::now();
        let Position { stage: number, step, sequences, .. } = self.position;
        let stage = self.recipe.stage[number].clone();
        let o = &self.recipe.optimizer;
        let batch = self.data.sequences(sequences, o.batch);
        let (measured, grads) = self.batch_gradients(stage.kind, &batch)?;
        let finite = |what, value: f64| {
            let error = TrainError::NonFinite { what, value, step, stage: stage.kind.name() };
            if value.is_finite() { Ok(()) } else { Err(error) }
        };
        finite("loss", measured.lm.unwrap_or(0.0) + measured.kl.unwrap_or(0.0))?;
        let norm = [false, true].map(|indexers| optimizer::norm(&self.params, &grads, indexers));
        finite("gradient norm", norm[0] + norm[1])?;
        let rate = stage.rate(step);
        optimizer::update(&mut self.params, grads, o, rate)?;
        if stage.kind != Stage::Warmup {
            self.params.balance(&measured.load, o.balance * rate.min(1.0));
        }
        let seconds = began.elapsed().as_secs_f64();
        self.position.step += 1;
        self.position.sequences += o.batch as u64;
        self.position.seconds += seconds;
        let tokens = (o.batch * self.recipe.data.sequence_length) as f64;
        let steps_left = self.recipe.stage[number..].iter().map(|s| s.steps).sum::<u64>() - step - 1;
        Ok(StepReport {
            stage: stage.kind,
            step: (step + 1, stage.steps),
            measured,
            rate,
            tokens_per_second: tokens / seconds,
            steps_left,
        })
    }

    /// Works on micro-batches in parallel and sums their gradients in the order of the data.
    fn batch_gradients(
        &self,
        stage: Stage,
        batch: &[Sequence],
    ) -> Result<(Measured, optimizer::Gradients), TrainError> {
        let parts: Vec<&[Sequence]> = batch.chunks(self.recipe.optimizer.micro_batch).collect();
        let share = 1.0 / parts.len() as f64;
        let results =
            self.in_parallel(&parts, |part| loss::gradients(&self.params, &self.config, stage, part, share))?;
        let mut sum = vec![None; self.params.0.len()];
        let mut measured = Vec::new();
        for (found, grads) in results {
            measured.push(found);
            loss::add(&mut sum, grads);
        }
        Ok((Measured::mean(&measured), sum))
    }

    /// Applies `work` to every item, one thread per pool; results come in the order of the items.
    fn in_parallel<I: Copy + Send + Sync, O: Send>(
        &self,
        items: &[I],
        work: impl Fn(I) -> Result<O, TrainError> + Sync,
    ) -> Result<Vec<O>, TrainError> {
        let threads = self.pools.len();
        let mut refused = None;
        let mut results: Vec<Option<Result<O, TrainError>>> = items.iter().map(|_| None).collect();
        std::thread::scope(|scope| {
            let mut lanes: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
            for (index, (item, slot)) in items.iter().zip(&mut results).enumerate() {
                lanes[index % threads].push((*item, slot));
            }
            for (pool, lane) in self.pools.iter().zip(lanes) {
                let work = &work;
                let run = move || pool.install(|| lane.into_iter().for_each(|(item, slot)| *slot = Some(work(item))));
                if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, run) {
                    refused = Some(error);
                    break;
                }
            }
        });
        if let Some(error) = refused {
            let (path, reason) = (self.folder.clone(), format!("a thread cannot be started ({error})"));
            return Err(TrainError::Write { path, reason });
        }
        results.into_iter().map(|r| r.expect("every lane fills its slots before the scope ends")).collect()
    }

    /// Measures the monitor text under the stage's attention.
    fn look(&self, stage: Stage, tell: &mut dyn FnMut(Event)) -> Result<(), TrainError> {
        let leaves = self.params.leaves(None)?;
        let model = Model::new(self.config.clone(), &leaves, &Device::Cpu, DType::F32)?;
        let (sequences, bytes) = &self.monitor;
        let parts: Vec<&[Sequence]> = sequences.chunks(sequences.len().div_ceil(self.pools.len())).collect();
        let results = self.in_parallel(&parts, |part| loss::evaluate(&model, stage, part))?;
        let (sum, targets) = results.iter().fold((0.0, 0), |(s, t), (sum, targets)| (s + sum, t + targets));
        let bits_per_byte = sum / std::f64::consts::LN_2 / *bytes as f64;
        tell(Event::Monitor { stage, loss: sum / targets as f64, bits_per_byte });
        Ok(())
    }

    fn save(&self, tell: &mut dyn FnMut(Event)) -> Result<(), TrainError> {
        state::save(&self.folder, &self.recipe, &self.position, &self.params)?;
        tell(Event::Saved(self.folder.join(STATE_FILE)));
        Ok(())
    }

    /// Returns the run's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}

/// Cuts the monitor text into sequences; also returns the bytes that their targets stand for.
fn monitor(path: &Path, tokenizer: &Tokenizer, length: usize) -> Result<(Vec<Sequence>, usize), TrainError> {
    let ids = tokenizer.encode(&read_text(path)?)?;
    if ids.len() < length {
        return Err(TrainError::Short { path: path.into(), tokens: ids.len(), needed: length });
    }
    let pieces = ids.chunks_exact(length);
    let sequences = pieces.map(|p| Sequence { ids: p[..length - 1].to_vec(), targets: p[1..].to_vec() });
    let sequences: Vec<_> = sequences.collect();
    let bytes = sequences.iter().map(|s| tokenizer.byte_len(&s.targets)).sum::<Result<usize, _>>()?;
    Ok((sequences, bytes))
}
