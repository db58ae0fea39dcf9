//! Files of a running server: its config, its responses.

use std::path::Path;

use super::CliError;
use crate::checkpoint::CONFIG_FILE;
use crate::input;
use crate::interop::Served;
use crate::interop::import::ImportError;

/// Reads the config that was served: config.json, or a folder that has one.
pub fn read_config(path: &Path) -> Result<Served, CliError> {
    let path = if path.is_dir() { path.join(CONFIG_FILE) } else { path.to_owned() };
    let text = input::named_text(&path, input::CORPUS).map_err(|e| CliError::file("cannot read", &path, e))?;
    Ok(Served::parse(&text)?)
}

/// Returns k as the config says, or as it is given.
pub fn topk(given: Option<usize>, config: Option<&Served>) -> Result<usize, CliError> {
    let told = given.or(config.and_then(|c| c.index_topk).map(|k| k as usize));
    told.filter(|&k| k > 0).ok_or_else(|| {
        CliError::usage("it is not known how many keys a query keeps").hint("give --index-topk N, as it was served")
    })
}

/// Reads a file of responses.
pub fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    input::named(path, input::CORPUS).map_err(|e| CliError::file("cannot read", path, e))
}

/// Returns an error about the responses of a file.
pub fn told(path: &Path, error: ImportError) -> CliError {
    let hint = error.hint();
    CliError::run(format!("'{}': {error}", path.display())).hint(hint)
}
