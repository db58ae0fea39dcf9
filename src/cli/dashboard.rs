//! `indexscope [MODEL | TRACE | SESSION]`: the dashboard.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use super::CliError;
use super::data::DataArgs;
use super::files::{SessionFiles, elsewhere, work_of};
use super::interrupt::leave_to_dashboard;
use super::model::{self, RunArgs};
use crate::checkpoint::Checkpoint;
use crate::domain::{Group, Pattern, Targets};
use crate::engine::{Calibration, Cancel, Command, Handle, Runtime, Settings, Source, TrainingText, spawn};
use crate::session::{Session, SessionModel, is_trace, read_trace, saved_path, sessions_folder, write_atomic};
use crate::train::{demo, read_text};
use crate::tui::{self, ColorChoice, EngineHandle, Floor, Options, Setup, Texts, ThemeChoice};

/// Tokens that are drawn where nothing was named to evaluate on.
const RANDOM_TOKENS: usize = 8192;

/// Arguments of the dashboard.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A checkpoint's folder, a trace, or a session; what it is, is told by its content.
    #[arg(default_value = "demo", value_name = "MODEL | TRACE | SESSION")]
    target: String,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    run: RunArgs,
    /// A text to train indexers on, UTF-8 or compressed as .xz, on which nothing is judged; may be repeated. The demo has
    /// one of its own.
    #[arg(long = "train-text", value_name = "FILE")]
    train_texts: Vec<PathBuf>,
    /// Tokens in context where speed is measured; the longest sequence by default.
    #[arg(long, value_name = "N")]
    speed_context: Option<std::num::NonZeroUsize>,
    /// Folder of sessions; ./sessions where there is one, else the user's data folder.
    #[arg(long, value_name = "DIR")]
    sessions: Option<PathBuf>,
    /// When colours are used.
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    color: Color,
    /// The background that the colours are for.
    #[arg(long, value_enum, default_value = "dark", value_name = "BACKGROUND")]
    theme: Theme,
    /// Draw with ASCII only.
    #[arg(long)]
    ascii: bool,
    /// Write the screen as an SVG picture once everything is measured, instead of opening it.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Columns and rows of the picture.
    #[arg(long, value_name = "COLUMNSxROWS", default_value = "120x40", value_parser = size, requires = "picture")]
    size: (u16, u16),
    /// Keys to type before the picture is taken; a line break is Enter.
    #[arg(long, value_name = "KEYS", default_value = "", requires = "picture")]
    keys: String,
}

/// Reads a size such as `120x40`.
fn size(text: &str) -> Result<(u16, u16), String> {
    let parts = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    match parts {
        Some((w, h)) if (1..=1000).contains(&w) && (1..=1000).contains(&h) => Ok((w, h)),
        _ => Err("it must be COLUMNSxROWS, such as 120x40".to_owned()),
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Theme {
    Dark,
    Light,
}

impl EngineHandle for Handle {
    fn post(&self, command: Command) {
        Handle::post(self, command);
    }
}

/// Opens the dashboard on whatever the target is.
///
/// # Errors
/// When the target cannot be read, or there is no terminal.
pub fn run(args: Args) -> Result<(), CliError> {
    let path = Path::new(&args.target);
    let setup = if !path.is_file() || path.extension().is_some_and(|e| e == "gguf") {
        open_model(&args)?
    } else if is_trace(path) {
        open_trace(path, &args)?
    } else {
        open_session(path, &args)?
    };
    let told = |e: anyhow::Error| CliError::run(format!("{e:#}"));
    match &args.picture {
        None => {
            leave_to_dashboard();
            tui::run(setup).map_err(told)
        }
        Some(file) => {
            let svg = tui::picture(setup, args.size, &args.keys).map_err(told)?;
            write_atomic(file, svg.as_bytes()).map_err(CliError::from)
        }
    }
}

fn open_model(args: &Args) -> Result<Setup, CliError> {
    let checkpoint = args.run.open(&args.target, false)?;
    let config = checkpoint.config();
    // Without --sequences all that was given is measured on, as by eval, and nothing is left to judge a search on.
    let (calibration, unseen) = if args.data.is_given() && !args.data.leaves_some() {
        (args.data.load(&checkpoint)?, None)
    } else if args.data.is_given() || checkpoint.is_embedded() {
        args.data.load_pair(&checkpoint, None)?
    } else {
        let piece = (4 * config.index_topk).max(512).min(config.max_position_embeddings);
        (args.data.with_random(RANDOM_TOKENS.max(piece), piece).load(&checkpoint)?, None)
    };
    let runtime = match args.run.runtime(&args.target)? {
        Runtime::Process(settings) => {
            let speed_context = args.speed_context.map(Into::into);
            Runtime::Process(Settings { speed_context, keep_selections: true, ..settings })
        }
        workers @ Runtime::Workers(_) => workers,
    };
    let texts = Arc::new(texts(&checkpoint, &calibration));
    let mut files = SessionFiles::of_model(&checkpoint, calibration.hash(), sessions_folder(args.sessions.as_deref()));
    let title = checkpoint.name().to_owned();
    // Refusals come before the screen is taken over; what is left for the engine's thread is reading the weights.
    if let Runtime::Process(settings) = &runtime {
        model::check_room(&checkpoint, settings)?;
    }
    let training = training_text(args, &checkpoint)?;
    let source = Source { checkpoint, calibration, unseen, training, runtime };
    let (handle, updates) = spawn(move || source.open(&Cancel::never()));
    // A picture leaves nothing behind.
    let (usual, notice) = args.picture.is_none().then(|| files.settle()).unzip();
    Ok(Setup {
        title,
        engine: Some(Box::new(handle)),
        updates,
        trace: None,
        texts,
        work: None,
        floors: floors(args)?,
        target: files.target(),
        usual,
        notice: notice.flatten(),
        files: Box::new(files),
        options: options(args),
    })
}

/// Returns the text of every token of the calibration set; none where the model comes without a tokenizer.
fn texts(checkpoint: &Checkpoint, calibration: &Calibration) -> Texts {
    let Ok(tokenizer) = model::tokenizer(checkpoint) else { return Texts::new() };
    let ids: HashSet<u32> = calibration.sequences().iter().flat_map(|s| s.ids.iter().copied()).collect();
    ids.into_iter().filter_map(|id| Some((id, tokenizer.piece(id).ok()?))).collect()
}

/// Returns the floors that training the sidecar in use has measured, one per group of its pattern.
fn floors(args: &Args) -> Result<Vec<Floor>, CliError> {
    let Some(sidecar) = args.run.sidecar()? else { return Ok(Vec::new()) };
    let header = sidecar.header();
    let Ok(pattern) = header.trained.pattern.parse::<Pattern>() else { return Ok(Vec::new()) };
    let floor = |group: Group| {
        let at = header.layers.iter().position(|&l| l == group.source)?;
        let value = *header.trained.floor.get(at)?;
        Some(Floor { source: group.source, end: group.end, value })
    };
    let served = header.trained.targets == Targets::Served.name();
    Ok(pattern.groups().into_iter().filter(|_| served).filter_map(floor).collect())
}

/// Reads what indexers may be trained on; a part of what the demo was trained on where none is named.
fn training_text(args: &Args, checkpoint: &Checkpoint) -> Result<Option<TrainingText>, CliError> {
    let mut texts = Vec::new();
    if args.train_texts.is_empty() && checkpoint.is_embedded() {
        texts.push(("demo text, training".to_owned(), demo::training_text()?));
    }
    for path in &args.train_texts {
        texts.push((path.display().to_string(), read_text(path)?));
    }
    if texts.is_empty() {
        return Ok(None);
    }
    let tokenizer = model::tokenizer(checkpoint)?;
    let texts = texts.into_iter().map(|(name, text)| Ok((name, tokenizer.encode_long(&text)?)));
    Ok(Some(TrainingText { checkpoint: checkpoint.clone(), texts: texts.collect::<Result<_, CliError>>()? }))
}

fn open_trace(path: &Path, args: &Args) -> Result<Setup, CliError> {
    let trace = read_trace(path)?;
    let model = SessionModel {
        name: trace.meta.model.clone(),
        fingerprint: trace.meta.fingerprint.clone(),
        ..SessionModel::default()
    };
    let files = SessionFiles::without_model(model, sessions_folder(args.sessions.as_deref()));
    let title = path.display().to_string();
    Ok(Setup { trace: Some(Arc::new(trace)), ..without_engine(title, files, args) })
}

fn open_session(path: &Path, args: &Args) -> Result<Setup, CliError> {
    let session = Session::read(path)?;
    let work = work_of(&session);
    let mut files = SessionFiles::without_model(session.model.clone(), sessions_folder(args.sessions.as_deref()));
    let file = files.hold(path, session);
    let notice = (file != saved_path(path)).then(|| elsewhere(path, &file));
    let title = path.display().to_string();
    Ok(Setup { work: Some(work), notice, ..without_engine(title, files, args) })
}

/// Returns what a file is shown with, which needs no forward.
fn without_engine(title: String, files: SessionFiles, args: &Args) -> Setup {
    let (_, updates) = channel();
    let options = options(args);
    Setup {
        title,
        engine: None,
        updates,
        trace: None,
        texts: Arc::default(),
        work: None,
        target: None,
        usual: None,
        notice: None,
        floors: Vec::new(),
        files: Box::new(files),
        options,
    }
}

fn options(args: &Args) -> Options {
    Options {
        color: match args.color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        },
        ascii: args.ascii,
        theme: match args.theme {
            Theme::Dark => ThemeChoice::Dark,
            Theme::Light => ThemeChoice::Light,
        },
    }
}
