//! `--index` and `--index-topk`: where the indices of Full layers come from.

use std::num::NonZeroUsize;

use super::{CliError, target};
use crate::checkpoint::Checkpoint;

/// Where the indices of Full layers come from, and how many keys they choose.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct IndexArgs {
    /// oracle lets each layer's own attention choose, without indexers and without saving time; dense models do so by
    /// default.
    #[arg(long, value_name = "oracle")]
    index: Option<String>,
    /// Keys that a query attends to; as in config.json by default, 128 for dense models.
    #[arg(long, value_name = "K")]
    index_topk: Option<NonZeroUsize>,
}

impl IndexArgs {
    /// Opens MODEL with the index source asked for.
    ///
    /// # Errors
    /// When there is no such checkpoint, or it cannot be run so.
    pub fn open(&self, model: &str) -> Result<Checkpoint, CliError> {
        let mut checkpoint = target::open(model)?;
        match self.index.as_deref() {
            None => {}
            Some("oracle") => checkpoint = checkpoint.with_oracle(),
            Some(other) => {
                return Err(CliError::usage(format!("--index {other} is no index source")).hint("give oracle"));
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
