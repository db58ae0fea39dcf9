//! MODEL and `--pattern` of commands that describe a checkpoint and run nothing.

use std::path::{Path, PathBuf};

use super::CliError;
use crate::checkpoint::{CONFIG_FILE, Checkpoint, CheckpointError, HubId, hub_cache};
use crate::domain::{Constraints, Pattern, PatternSource, PatternSpec, Sites, SpecError};
use crate::input;
use crate::session::Session;
use crate::train::demo;

/// Returns what a person is told about a checkpoint.
pub fn told(error: CheckpointError) -> CliError {
    let hint = error.hint().unwrap_or_default();
    CliError::run(error).hint(hint)
}

/// Opens MODEL: a folder, a .gguf file, a Hub name whose files are in the local cache, or `demo` (a folder of that name
/// is `./demo`).
///
/// With the feature `hub`, what the cache lacks of a Hub name is downloaded; `quiet` keeps that from being shown.
///
/// # Errors
/// When there is no such checkpoint, or its config or headers are wrong.
pub fn open(model: &str, quiet: bool) -> Result<Checkpoint, CliError> {
    if model == demo::NAME {
        return demo::checkpoint().map_err(told);
    }
    let path = Path::new(model);
    match HubId::parse(model) {
        Some(id) if !path.exists() => open_named(&id, quiet),
        _ => Checkpoint::open(path),
    }
    .map_err(told)
}

/// Opens a checkpoint of the Hub's local cache.
#[cfg(not(feature = "hub"))]
fn open_named(id: &HubId, _quiet: bool) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::open_cached(id, &hub_cache())
}

/// Opens a checkpoint of the Hub's local cache, downloading what that lacks.
#[cfg(feature = "hub")]
fn open_named(id: &HubId, quiet: bool) -> Result<Checkpoint, CheckpointError> {
    use super::{bytes, progress::Progress};
    use crate::checkpoint::Hub;

    let cache = hub_cache();
    let found = Checkpoint::open_cached(id, &cache);
    let is_absent = matches!(found, Err(CheckpointError::NotCached { .. } | CheckpointError::PartlyCached { .. }));
    let Some(hub) = Hub::from_env().filter(|_| is_absent) else { return found };
    let mut progress = Progress::of(!quiet);
    hub.download(id, &cache, &mut |have, all| {
        let what = format!("downloading {}, {} of {}", id.repo, bytes::show(have), bytes::show(all));
        progress.tell(&what, have as f64 / all.max(1) as f64);
    })?;
    Checkpoint::open_cached(id, &cache)
}

/// Returns the pattern that is meant for this model; `None` for dense attention.
///
/// # Errors
/// When the model cannot have the pattern, or a file that should hold one cannot be read.
pub fn resolve(source: &PatternSource, checkpoint: &Checkpoint) -> Result<Option<Pattern>, CliError> {
    bind(source, checkpoint.native().map_err(told)?, &checkpoint.constraints())
}

/// Returns the pattern that is meant for a model with this native one and these constraints.
///
/// # Errors
/// As [`resolve`].
pub fn bind(source: &PatternSource, native: Pattern, constraints: &Constraints) -> Result<Option<Pattern>, CliError> {
    let pattern = pattern_of(source, native, constraints.sites)?;
    if let Some(pattern) = pattern {
        constraints.check(pattern)?;
    }
    Ok(pattern)
}

/// Returns the pattern of a model with this native pattern, reading the file that it names; `None` for dense attention.
///
/// # Errors
/// When the model cannot have the pattern, or a file that should hold one cannot be read.
pub fn pattern_of(source: &PatternSource, native: Pattern, sites: Sites) -> Result<Option<Pattern>, CliError> {
    Ok(match source {
        PatternSource::Spec(spec) => spec.resolve(native, sites)?,
        PatternSource::File(path) => read(path)?.resolve(native, sites)?,
        PatternSource::Session(path) => Some(Session::read(path)?.pattern),
    })
}

/// Returns the config.json that MODEL is, or the one of a folder that holds no weights.
pub fn bare_config(model: &Path) -> Option<PathBuf> {
    let is = |path: &Path, ending: &str| path.extension().is_some_and(|ext| ext == ending);
    if model.is_file() && is(model, "json") {
        return Some(model.to_owned());
    }
    let config = model.join(CONFIG_FILE);
    let files = std::fs::read_dir(model).ok().filter(|_| config.is_file())?;
    let has_weights = files.flatten().any(|file| {
        let name = file.path();
        ["safetensors", "gguf", "bin", "pt"].iter().any(|ending| is(&name, ending))
            || name.to_string_lossy().ends_with(".index.json")
    });
    (!has_weights).then_some(config)
}

/// Bytes up to which the text of a pattern file is repeated in an error.
const LONGEST: usize = 80;

/// Reads a pattern from a file: from its first line where that holds one alone, else from all of it, such as JSON.
fn read(path: &Path) -> Result<PatternSpec, CliError> {
    let text =
        input::named_text(path, input::TEXT).map_err(|e| CliError::file("cannot read the pattern file", path, e))?;
    let text = text.trim_start_matches('\u{feff}').trim();
    let first = text.lines().next().unwrap_or_default().trim_end();
    // A list may go on over lines; letters and names do not.
    let is_word = !first.contains(|c: char| c.is_whitespace() || ",[{".contains(c));
    let source: PatternSource = if is_word { first } else { text }.parse().map_err(|e: SpecError| {
        // A whole config is not repeated.
        let told = if e.text.len() > LONGEST { e.reason } else { e.to_string() };
        CliError::usage(format!("pattern file '{}': {told}", path.display()))
            .hint("'session:FILE' takes the pattern of a session")
    })?;
    match source {
        PatternSource::Spec(spec) => Ok(spec),
        other => Err(CliError::file("pattern file", path, format!("'{other}' names yet another file"))),
    }
}
