//! What the state file of a run holds beside the numbers, and where it lies.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::history::History;
use super::recipe::IndexerRecipe;
use crate::train::TrainError;
use crate::train::state;

/// Key of the header in the state file.
pub(super) const KEY: &str = "indexscope.train.indexers";
/// Version of the header: 2 has the history, 1 had none.
const SCHEMA: u32 = 2;

/// What the state file holds beside the numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Header {
    schema: u32,
    pub(super) recipe: IndexerRecipe,
    heads: usize,
    dim: usize,
    pub(super) step: u64,
    pub(super) seconds: f64,
    pub(super) kl: Vec<f64>,
    pub(super) floor: Vec<f64>,
    #[serde(default)]
    pub(super) lm: Option<f64>,
    #[serde(default)]
    pub(super) history: History,
}

impl Header {
    /// Returns the header of a run of which no step is done, for indexers of `heads` × `dim`.
    pub(super) fn begin(recipe: &IndexerRecipe, heads: usize, dim: usize) -> Self {
        let none = vec![0.0; recipe.layers.len()];
        Self {
            schema: SCHEMA,
            recipe: recipe.clone(),
            heads,
            dim,
            step: 0,
            seconds: 0.0,
            kl: none.clone(),
            floor: none,
            lm: None,
            history: History::default(),
        }
    }

    /// Reads the header of a state file's bytes; what is saved next is of this version.
    ///
    /// # Errors
    /// [`TrainError::Resume`] where the file is damaged, another kind of state, or of a later version.
    pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Self, TrainError> {
        let header: Self = state::read_header(path, KEY, bytes)?;
        if header.schema > SCHEMA {
            let reason = format!("it is of version {}, and this program reads versions 1 to {SCHEMA}", header.schema);
            return Err(TrainError::Resume { path: path.into(), reason });
        }
        Ok(Self { schema: SCHEMA, ..header })
    }

    /// Returns why a run that was `begun` cannot go on as this one.
    pub(super) fn differs(&self, begun: &Self) -> Option<String> {
        let (now, then) = (&self.recipe, &begun.recipe);
        let same = (now, self.heads, self.dim) == (then, begun.heads, begun.dim);
        let what = match () {
            () if same => return None,
            () if now.base != then.base => "for another model".to_owned(),
            () if now.tokens != then.tokens => "on other tokens".to_owned(),
            () if now.pattern != then.pattern => format!("for the pattern {}, not {}", then.pattern, now.pattern),
            () if now.sparse_target != then.sparse_target => {
                format!("with --sparse-target {}, not {}", then.sparse_target.name(), now.sparse_target.name())
            }
            () => "with other options".to_owned(),
        };
        Some(format!("it was begun {what}"))
    }
}

/// Returns recipe and steps of the run whose state lies beside `out`; `None` where there is no state.
///
/// # Errors
/// [`TrainError::Resume`] where the file cannot be read or is no such state.
pub fn saved(out: &Path) -> Result<Option<(IndexerRecipe, u64)>, TrainError> {
    let path = state_path(out);
    if !path.exists() {
        return Ok(None);
    }
    let header = Header::read(&path, &state::read_bytes(&path)?)?;
    Ok(Some((header.recipe, header.step)))
}

/// Returns where the state of a run lies that will write `out`.
pub fn state_path(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".state");
    out.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::super::event::IndexerStep;
    use super::super::recipe::tests::recipe;
    use super::super::step::Divergence;
    use super::*;

    #[test]
    fn states_of_all_versions_so_far_are_read_and_later_ones_refused() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("s");
        let path = state_path(&out);
        let recipe = recipe("FSFS");
        let mut header = Header { step: 7, kl: vec![0.1 + 0.2, 1.0 / 3.0], ..Header::begin(&recipe, 2, 4) };
        header.history.push(
            IndexerStep {
                sparse: false,
                step: (7, recipe.all_steps()),
                layers: vec![(0, Divergence { kl: 0.1 + 0.2, floor: 2e-17 })],
                lm: None,
                rate: 1e-3 / 3.0,
                tokens: 7,
                tokens_per_second: 812.345_678_901_234_5,
            },
            &recipe,
        );
        let mut json = serde_json::to_value(&header).unwrap();
        let write = |json: &serde_json::Value| state::write(&path, KEY, json, std::iter::empty()).unwrap();
        write(&json);
        let read = Header::read(&path, &state::read_bytes(&path).unwrap()).unwrap();
        assert_eq!((read.kl, read.history), (header.kl, header.history), "every bit");

        json["schema"] = 1.into();
        json.as_object_mut().unwrap().remove("history");
        write(&json);
        assert_eq!(saved(&out).unwrap(), Some((recipe, 7)));
        let read = Header::read(&path, &state::read_bytes(&path).unwrap()).unwrap();
        assert_eq!((read.schema, read.history.steps().len()), (SCHEMA, 0));

        json["schema"] = 3.into();
        write(&json);
        let refused = saved(&out).unwrap_err().to_string();
        assert!(refused.contains("of version 3, and this program reads versions 1 to 2"), "{refused}");
    }
}
