//! MODEL and `--pattern` of commands that describe a checkpoint and run nothing.

use std::path::Path;

use super::CliError;
use crate::checkpoint::{Checkpoint, CheckpointError, HubId, hub_cache};
use crate::domain::{Constraints, Pattern, PatternSpec};
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
/// # Errors
/// When there is no such checkpoint, or its config or headers are wrong.
pub fn open(model: &str) -> Result<Checkpoint, CliError> {
    if model == demo::NAME {
        return demo::checkpoint().map_err(told);
    }
    let path = Path::new(model);
    match HubId::parse(model) {
        Some(id) if !path.exists() => Checkpoint::open_cached(&id, &hub_cache()),
        _ => Checkpoint::open(path),
    }
    .map_err(told)
}

/// Returns the pattern that is meant for this model; `None` for dense attention.
///
/// # Errors
/// When the model cannot have the pattern, or a file that should hold one cannot be read.
pub fn resolve(spec: &PatternSpec, checkpoint: &Checkpoint) -> Result<Option<Pattern>, CliError> {
    bind(spec, checkpoint.native().map_err(told)?, &checkpoint.constraints())
}

/// Returns the pattern that is meant for a model with this native one and these constraints.
///
/// # Errors
/// As [`resolve`].
pub fn bind(spec: &PatternSpec, native: Pattern, constraints: &Constraints) -> Result<Option<Pattern>, CliError> {
    let pattern = pattern_of(spec, native)?;
    if let Some(pattern) = pattern {
        constraints.check(pattern)?;
    }
    Ok(pattern)
}

/// Returns the pattern of a model with this native pattern, reading the file that it names; `None` for dense attention.
///
/// # Errors
/// When the model cannot have the pattern, or a file that should hold one cannot be read.
pub fn pattern_of(spec: &PatternSpec, native: Pattern) -> Result<Option<Pattern>, CliError> {
    Ok(match spec {
        PatternSpec::File(path) => read(path)?.resolve(native)?,
        PatternSpec::Session(path) => Some(Session::read(path)?.pattern),
        other => other.resolve(native)?,
    })
}

/// Reads a pattern from the first line of a file.
fn read(path: &Path) -> Result<PatternSpec, CliError> {
    let text = std::fs::read_to_string(path).map_err(|e| CliError::file("cannot read the pattern file", path, e))?;
    let spec: PatternSpec = text.lines().next().unwrap_or_default().trim().parse()?;
    if matches!(spec, PatternSpec::File(_) | PatternSpec::Session(_)) {
        return Err(CliError::file("pattern file", path, format!("'{spec}' names yet another file")));
    }
    Ok(spec)
}
