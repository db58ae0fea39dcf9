//! `--index` and `--index-topk`: where the indices of Full layers come from.

use std::num::NonZeroUsize;
use std::path::Path;

use super::say::say;
use super::{CliError, target};
use crate::checkpoint::{Checkpoint, Sidecar};
use crate::domain::SelectionUnit;

/// What stands for the model as it is.
const OWN: &str = "own";

/// Where the indices of Full layers come from, and how many keys they choose.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct IndexArgs {
    /// A sidecar of trained indexers; or oracle: each layer's own attention chooses, without indexers and without saving
    /// time, as dense models do by default.
    #[arg(long, value_name = "oracle|SIDECAR")]
    index: Option<String>,
    /// Take a SIDECAR that was trained for another model, if its shapes fit.
    #[arg(long, requires = "index")]
    foreign_index: bool,
    /// Keys that a query attends to; as in config.json by default, 128 for dense models.
    #[arg(long, value_name = "K")]
    index_topk: Option<NonZeroUsize>,
}

impl IndexArgs {
    /// Opens MODEL with the index source asked for; `quiet` as in [`target::open`].
    ///
    /// # Errors
    /// When there is no such checkpoint, or it cannot be run so.
    pub fn open(&self, model: &str, quiet: bool) -> Result<Checkpoint, CliError> {
        self.open_with(model, self.index.as_deref().unwrap_or(OWN), quiet)
    }

    /// Returns the sidecar that is named.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn sidecar(&self) -> Result<Option<Sidecar>, CliError> {
        let path = self.index.as_deref().filter(|index| !matches!(*index, OWN | "oracle"));
        Ok(path.map(|path| Sidecar::open(Path::new(path))).transpose()?)
    }

    /// Opens MODEL with another index source and the same number of keys; `own` is what it has without one.
    ///
    /// # Errors
    /// As [`IndexArgs::open`].
    pub fn open_with(&self, model: &str, index: &str, quiet: bool) -> Result<Checkpoint, CliError> {
        let mut checkpoint = target::open(model, quiet)?;
        let config = checkpoint.config();
        if index != OWN && config.unit() != SelectionUnit::Token {
            let (kind, units) = (config.family.model_type(), config.unit().plural());
            return Err(CliError::run(format!(
                "--index {index} selects single keys, but models of type {kind} attend to {units}"
            ))
            .hint("leave --index out: the checkpoint's own indexers select"));
        }
        match index {
            OWN => {}
            "oracle" => checkpoint = checkpoint.with_oracle(),
            path => {
                let sidecar = Sidecar::open(Path::new(path))?;
                let with = if self.foreign_index { Checkpoint::with_foreign_sidecar } else { Checkpoint::with_sidecar };
                let indexed = with(&checkpoint, &sidecar).map_err(target::told)?;
                if let Some(caveat) = sidecar.caveat(checkpoint.base()).filter(|_| !quiet) {
                    say(&format!("note: {caveat}"));
                }
                checkpoint = indexed;
            }
        }
        match self.index_topk {
            Some(k) => checkpoint.with_topk(k.get()).map_err(target::told),
            None => Ok(checkpoint),
        }
    }
}

/// Returns what a person is told before a model runs without indexers; `None` where it has some.
pub fn oracle_note(checkpoint: &Checkpoint) -> Option<String> {
    let config = checkpoint.config();
    config.index.is_oracle().then(|| {
        format!(
            "'{}' runs without indexers: each layer's own attention chooses {} keys per query (--index oracle), which saves no time",
            checkpoint.name(),
            config.index_topk
        )
    })
}
