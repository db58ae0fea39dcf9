//! MODEL of commands that run it: opening, binding patterns, loading.

use super::index::{IndexArgs, oracle_note};
use super::output::OutputArgs;
use super::worker::WorkerArgs;
use super::{CliError, bytes, target};
use crate::checkpoint::{Checkpoint, MlpKind, ModelFolder, Sidecar};
use crate::domain::{PatternSource, Subject};
use crate::engine::{
    Backend, Calibration, Cancel, DeviceChoice, DtypeChoice, Placement, RandomModel, Runtime, Settings, Source,
    WorkerAddress, devices,
};
use crate::mapped;
use crate::model::Ops;
use crate::model::tokenizer::Tokenizer;
use crate::train::demo;

/// Where and how the model is run.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: DeviceChoice,
    /// f32, bf16 or f16; f32 on the CPU and bf16 on CUDA by default.
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<DtypeChoice>,
    /// reference scores every key, fast reads only the selected ones; fast by default on the CPU. On CUDA fast runs
    /// kernels of our own (bf16), which 'bench --gpu-check' compares with the CPU.
    #[arg(long, value_enum, value_name = "FORM")]
    attention: Option<Attention>,
    /// Bytes of intermediate results kept between evaluations, such as 512MiB or 4GiB; 1GiB by default.
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse)]
    cache_bytes: Option<usize>,
    /// Read files whole instead of mapping them: more memory, but no error where another program cuts one short.
    #[arg(long)]
    no_mmap: bool,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    worker: WorkerArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Attention {
    Reference,
    Fast,
}

/// Returns the tokenizer that belongs to the checkpoint.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn tokenizer(checkpoint: &Checkpoint) -> Result<Tokenizer, CliError> {
    if let Some(vocabulary) = checkpoint.vocabulary() {
        return Ok(Tokenizer::from_vocabulary(vocabulary)?);
    }
    let Some(folder) = checkpoint.dir() else { return Ok(demo::tokenizer()?) };
    let hint = "give token ids with --tokens FILE, or put the checkpoint's tokenizer.json there";
    let path = folder.join("tokenizer.json");
    match ModelFolder::new(folder).file("tokenizer.json") {
        Ok(Some(path)) => Ok(Tokenizer::open(&path)?),
        Ok(None) => {
            Err(CliError::run(format!("'{}' does not exist, and text needs a tokenizer", path.display())).hint(hint))
        }
        Err(e) => Err(CliError::file("cannot read", &path, e).hint(hint)),
    }
}

/// Binds a pattern as asked for to the model.
///
/// # Errors
/// Wrong usage where the model cannot have that pattern.
pub fn resolve(checkpoint: &Checkpoint, spec: &PatternSource) -> Result<Subject, CliError> {
    Ok(target::resolve(spec, checkpoint)?.map_or(Subject::Dense, Subject::Pattern))
}

impl RunArgs {
    /// Opens MODEL with the index source asked for, and checks that everything is there that its config demands;
    /// `quiet` as in [`target::open`].
    ///
    /// # Errors
    /// When it is not a checkpoint that can be run.
    pub fn open(&self, name: &str, quiet: bool) -> Result<Checkpoint, CliError> {
        if self.no_mmap {
            mapped::read_all();
        }
        let checkpoint = self.index.open(name, quiet)?;
        checkpoint.check().map_err(target::told)?;
        Ok(checkpoint)
    }

    /// The same with another index source.
    ///
    /// # Errors
    /// As [`RunArgs::open`].
    pub fn open_with(&self, name: &str, index: &str, quiet: bool) -> Result<Checkpoint, CliError> {
        let checkpoint = self.index.open_with(name, index, quiet)?;
        checkpoint.check().map_err(target::told)?;
        Ok(checkpoint)
    }

    /// Returns the sidecar that `--index` names.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn sidecar(&self) -> Result<Option<Sidecar>, CliError> {
        self.index.sidecar()
    }

    /// Refuses options that are not there for a model in a worker: whether each is given, and its name.
    ///
    /// # Errors
    /// Wrong usage naming the option.
    pub fn without_worker(&self, options: &[(bool, &str)]) -> Result<(), CliError> {
        match options.iter().find(|(given, _)| *given && self.worker.is_given()) {
            None => Ok(()),
            Some((_, option)) => {
                Err(CliError::usage(format!("{option} runs the model in this process, --worker elsewhere"))
                    .hint("leave one of them out"))
            }
        }
    }

    /// Returns what is to run the model: the worker that was asked for, else this process.
    ///
    /// # Errors
    /// A device that is not there, or a worker whose address cannot be made out.
    pub fn runtime(&self, model: &str) -> Result<Runtime, CliError> {
        let workers = self.worker.addresses(model)?;
        Ok(if workers.is_empty() { Runtime::Process(self.settings()?) } else { Runtime::Workers(workers) })
    }

    /// Returns the device asked for.
    pub fn device(&self) -> DeviceChoice {
        self.device
    }

    /// Returns the engine's settings, after opening the device.
    ///
    /// # Errors
    /// When the device is not there, or cannot run what was asked for.
    pub fn settings(&self) -> Result<Settings, CliError> {
        let mut settings = Settings::new(Placement::open(self.device, self.dtype)?);
        settings.cache_bytes = self.cache_bytes.unwrap_or(settings.cache_bytes);
        let ops = match self.attention {
            None => return Ok(settings),
            Some(Attention::Reference) => Ops::Reference,
            Some(Attention::Fast) => Ops::Fast,
        };
        Ok(Settings { ops, ..settings })
    }
}

/// Loads a model where it is to run, unless it cannot fit; warns where no pattern can differ.
///
/// # Errors
/// When there is too little memory, or the checkpoint or the worker is at fault.
pub fn load(source: &Source, output: &OutputArgs, cancel: &Cancel) -> Result<Box<dyn Backend>, CliError> {
    if let Runtime::Process(settings) = &source.runtime {
        check_room(&source.checkpoint, settings)?;
    }
    warn(&source.checkpoint, &source.calibration, output);
    if let Runtime::Workers(workers) = &source.runtime {
        for worker in workers {
            output.note(&match worker {
                WorkerAddress::Command(command) => format!("starting the worker: {}", command.join(" ")),
                WorkerAddress::Socket(path) => format!("connecting with the worker at '{path}'"),
            });
        }
    }
    let mut backend = source.open(cancel)?;
    let warnings = output.clone();
    backend.on_loss(Box::new(move |what| warnings.warn(what)));
    Ok(backend)
}

/// Warns of sequences on which no pattern can differ, and of those that are too long for the model.
pub fn warn(checkpoint: &Checkpoint, calibration: &Calibration, output: &OutputArgs) {
    let config = checkpoint.config();
    if let Some(note) = oracle_note(checkpoint) {
        output.note(&note);
    }
    if calibration.eligible(config.topk()) == 0 {
        output.warn(&format!(
            "no query sees more than index_topk = {} keys (the longest sequence has {} tokens), so no pattern can differ from another",
            config.index_topk,
            calibration.longest()
        ));
    }
    if calibration.longest() > config.max_position_embeddings {
        output.warn(&format!(
            "sequences of {} tokens are longer than the model's {} positions",
            calibration.longest(),
            config.max_position_embeddings
        ));
    }
}

/// Refuses a model whose weights cannot fit into this machine's memory.
///
/// # Errors
/// One that names needed and free bytes.
pub fn check_room(checkpoint: &Checkpoint, settings: &Settings) -> Result<(), CliError> {
    let needed = checkpoint.needed_bytes(settings.placement.dtype.size_in_bytes());
    check_weights(needed, settings, "use 'eval --stream', --dtype bf16, or a machine with more memory")
}

/// Refuses random weights that cannot fit into this machine's memory.
///
/// # Errors
/// One that names needed and free bytes.
pub fn check_random_room(model: &RandomModel, settings: &Settings) -> Result<(), CliError> {
    let needed = model.needed_bytes(settings.placement.dtype.size_in_bytes());
    let config = &model.config;
    let mut smaller = vec![format!("--set num_hidden_layers={}", (config.num_hidden_layers / 2).max(1))];
    if config.n_routed_experts > 16 && config.mlp.contains(&MlpKind::Sparse) {
        smaller.push("--set n_routed_experts=16".to_owned());
    }
    if settings.placement.dtype.size_in_bytes() > 2 {
        smaller.push("--dtype bf16".to_owned());
    }
    check_weights(needed, settings, &format!("use smaller sizes: {}", smaller.join(", ")))
}

fn check_weights(needed: u64, settings: &Settings, hint: &str) -> Result<(), CliError> {
    let name = settings.placement.device_name();
    let free = match devices().0.into_iter().find(|device| device.name == name).and_then(|device| device.memory) {
        Some((free, _)) => free,
        None => free_bytes(),
    };
    check_memory("the weights need", needed, free).map_err(|e| e.hint(hint))
}

/// Refuses a model of which not even one layer fits beside the states of all sequences under `subjects` patterns.
///
/// # Errors
/// One that names needed and free bytes.
pub fn check_streaming_room(
    checkpoint: &Checkpoint,
    calibration: &Calibration,
    settings: &Settings,
    subjects: usize,
) -> Result<(), CliError> {
    if !settings.placement.device.is_cpu() {
        return Ok(());
    }
    let size = settings.placement.dtype.size_in_bytes();
    let tokens: usize = calibration.sequences().iter().map(|s| s.ids.len()).sum();
    // While a group of patterns passes a layer, its state before and those after it are held.
    let states = tokens * checkpoint.config().residual_width() * size * (subjects + 1);
    let needed = checkpoint.largest_piece_bytes(size) + states as u64;
    check_memory("the largest layer and the residual states need", needed, free_bytes())
        .map_err(|e| e.hint("use fewer tokens or patterns, --dtype bf16, or a machine with more memory"))
}

fn check_memory(what: &str, needed: u64, free: u64) -> Result<(), CliError> {
    if needed <= free {
        return Ok(());
    }
    Err(CliError::run(format!("{what} {}, but only {} of memory are free", bytes::show(needed), bytes::show(free))))
}

fn free_bytes() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let limit = system.cgroup_limits().map_or(u64::MAX, |limits| limits.free_memory);
    system.available_memory().min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_fit_is_refused_with_both_figures() {
        let check_memory = |needed, free| check_memory("the weights need", needed, free);
        assert!(check_memory(1 << 30, 1 << 30).is_ok());
        let Err(CliError::Told { diagnostic, code }) = check_memory(5 << 30, 3 << 29) else { panic!("refused") };
        assert_eq!(
            (diagnostic.message.as_str(), code),
            ("the weights need 5.0 GiB, but only 1.5 GiB of memory are free", 1)
        );
        assert!(free_bytes() > 0);
    }
}
