//! Files of a running server: its config, its responses.

use std::path::Path;

use super::{CliError, target};
use crate::checkpoint::{CONFIG_FILE, Checkpoint, CheckpointError, is_lfs_pointer};
use crate::input;
use crate::interop::Served;
use crate::interop::import::ImportError;

/// Reads a config: config.json, a folder that has one, or what a GGUF file's metadata says in its words.
pub fn config_text(path: &Path) -> Result<String, CliError> {
    if path.is_file() && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
        let checkpoint = Checkpoint::open(path).map_err(target::told)?;
        return checkpoint.config_json().map(str::to_owned).ok_or_else(|| {
            let kind = checkpoint.config().family.model_type();
            CliError::run(format!("'{}' is of type {kind}, which has no indexers to share", path.display()))
                .hint("give a DSA model, such as DeepSeek-V3.2 or GLM-5")
        });
    }
    let path = if path.is_dir() { path.join(CONFIG_FILE) } else { path.to_owned() };
    let text = input::named_text(&path, input::CORPUS).map_err(|e| {
        CliError::file("cannot read", &path, e).hint("give a config.json, the folder that has one, or a .gguf file")
    })?;
    if is_lfs_pointer(text.as_bytes()) { Err(target::told(CheckpointError::LfsPointer(path))) } else { Ok(text) }
}

/// Reads the config that was served, as [`config_text`] finds it.
pub fn read_config(path: &Path) -> Result<Served, CliError> {
    Ok(Served::parse(&config_text(path)?)?)
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
