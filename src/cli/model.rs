//! MODEL and `--pattern` as given on the command line.

use std::path::Path;

use super::CliError;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::domain::{Pattern, PatternSpec};

impl From<CheckpointError> for CliError {
    fn from(error: CheckpointError) -> Self {
        let hint = error.hint().unwrap_or_default();
        Self::run(error).hint(hint)
    }
}

/// Opens MODEL: a folder.
///
/// # Errors
/// When there is no such checkpoint, or its config or headers are wrong.
pub fn open(model: &str) -> Result<Checkpoint, CliError> {
    Ok(Checkpoint::open(Path::new(model))?)
}

/// Returns the pattern that is meant for this model; `None` for dense attention.
///
/// # Errors
/// When the model cannot have the pattern, or a file that should hold one cannot be read.
pub fn resolve(spec: &PatternSpec, checkpoint: &Checkpoint) -> Result<Option<Pattern>, CliError> {
    let native = checkpoint.native()?;
    let pattern = match spec {
        PatternSpec::File(path) => read(path)?.resolve(native)?,
        other => other.resolve(native)?,
    };
    if let Some(pattern) = pattern {
        checkpoint.constraints().check(pattern)?;
    }
    Ok(pattern)
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
