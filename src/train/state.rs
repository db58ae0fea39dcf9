//! The state of a run in one file: weights, moments, position. Written whole or not at all.

use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::params::{Param, Params};
use super::{Recipe, TrainError};
use crate::atomic;
use crate::{input, seal};

/// Name of the state file in the folder of a run.
pub const STATE_FILE: &str = "state.safetensors";
/// Key of the metadata in the file's header.
const KEY: &str = "indexscope.train";

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Number of the stage.
    pub stage: usize,
    /// Steps done within it.
    pub step: u64,
    /// Training sequences used since the start of the run: the position in the data.
    pub sequences: u64,
    /// Seconds of work so far, all sessions together.
    pub seconds: f64,
}

/// What the header holds beside the tensors.
#[derive(Serialize, Deserialize)]
struct Header {
    schema: u32,
    position: Position,
    recipe: Recipe,
    updates: Vec<u64>,
}

/// Replaces a file whole or not at all ([`crate::atomic`]).
///
/// # Errors
/// [`TrainError::Write`].
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    atomic::write(path, bytes).map_err(|e| TrainError::Write { path: path.into(), reason: e.to_string() })
}

/// Returns the bytes of f32 numbers, little-endian.
pub fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Saves a run.
///
/// # Errors
/// [`TrainError::Write`].
pub fn save(folder: &Path, recipe: &Recipe, position: &Position, params: &Params) -> Result<(), TrainError> {
    let path = folder.join(STATE_FILE);
    let updates = params.0.iter().map(|p| p.updates).collect();
    let header = Header { schema: 1, position: *position, recipe: recipe.clone(), updates };
    write(&path, KEY, &header, params.0.iter())
}

/// Reads a saved run into freshly initialised `params`; returns where it stands.
///
/// # Errors
/// [`TrainError::Resume`] where the file is missing or damaged, or belongs to another recipe.
pub fn load(folder: &Path, recipe: &Recipe, params: &mut Params) -> Result<Position, TrainError> {
    let path = folder.join(STATE_FILE);
    let bytes = read_bytes(&path)?;
    let header: Header = read_header(&path, KEY, &bytes)?;
    let position = header.position;
    if let Some(reason) = recipe.differs(&header.recipe, position.stage, position.step) {
        return Err(TrainError::Resume { path, reason: format!("the recipe's {reason}") });
    }
    read_params(&path, &bytes, params.0.iter_mut())?;
    params.0.iter_mut().zip(header.updates).for_each(|(param, updates)| param.updates = updates);
    Ok(position)
}

/// Writes a header and, of each parameter, value and moments.
///
/// # Errors
/// [`TrainError::Write`].
pub fn write<'a>(
    path: &Path,
    key: &str,
    header: &impl Serialize,
    params: impl Iterator<Item = &'a Param>,
) -> Result<(), TrainError> {
    let failed = |reason: String| TrainError::Write { path: path.into(), reason };
    let header = serde_json::to_string(header).map_err(|e| failed(e.to_string()))?;
    let parts = params.flat_map(|p| {
        [("value", &p.value), ("first", &p.first), ("second", &p.second)]
            .map(|(part, values)| (format!("{part}.{}", p.name), values.len(), bytes_of(values)))
    });
    let parts: Vec<_> = parts.collect();
    let views = parts
        .iter()
        .map(|(name, len, bytes)| Ok((name, TensorView::new(Dtype::F32, vec![*len], bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|e| failed(e.to_string()))?;
    let metadata = HashMap::from([(key.to_owned(), header), (seal::KEY.to_owned(), seal::BLANK.to_owned())]);
    let mut bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| failed(e.to_string()))?;
    seal::seal(&mut bytes);
    write_atomic(path, &bytes)
}

/// Reads a state file.
///
/// # Errors
/// [`TrainError::Resume`] where it is missing, or does not match its checksum.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, TrainError> {
    let failed = |reason: String| TrainError::Resume { path: path.into(), reason };
    let bytes = input::bytes(path, u64::MAX - 1).map_err(|e| failed(e.to_string()))?;
    if seal::is_damaged(&bytes) { Err(failed("it does not match its checksum".to_owned())) } else { Ok(bytes) }
}

/// Reads the header of a state file's bytes.
///
/// # Errors
/// [`TrainError::Resume`] where the file is damaged or another kind of state.
pub fn read_header<H: DeserializeOwned>(path: &Path, key: &str, bytes: &[u8]) -> Result<H, TrainError> {
    let failed = |reason: String| TrainError::Resume { path: path.into(), reason };
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| failed(e.to_string()))?;
    let header = metadata.metadata().as_ref().and_then(|m| m.get(key));
    let header = header.ok_or_else(|| failed(format!("its header has no '{key}'")))?;
    serde_json::from_str(header).map_err(|e| failed(e.to_string()))
}

/// Reads value and moments of each parameter.
///
/// # Errors
/// [`TrainError::Resume`] naming what is missing or of another size.
pub fn read_params<'a>(
    path: &Path,
    bytes: &[u8],
    params: impl Iterator<Item = &'a mut Param>,
) -> Result<(), TrainError> {
    let failed = |reason: String| TrainError::Resume { path: path.into(), reason };
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| failed(e.to_string()))?;
    for param in params {
        for (part, values) in [("value", &mut param.value), ("first", &mut param.first), ("second", &mut param.second)]
        {
            let name = format!("{part}.{}", param.name);
            let tensor = tensors.tensor(&name).map_err(|e| failed(format!("{name}: {e}")))?;
            let (floats, _) = tensor.data().as_chunks::<4>();
            if floats.len() != values.len() {
                return Err(failed(format!("{name} has {} numbers, not {}", floats.len(), values.len())));
            }
            values.iter_mut().zip(floats).for_each(|(v, b)| *v = f32::from_le_bytes(*b));
            if values.iter().any(|v| !v.is_finite()) {
                return Err(failed(format!("{name} has numbers that are not finite")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::params::Kind;
    use super::super::recipe::tests::RECIPE;
    use super::*;

    fn params(fill: f32) -> Params {
        let mut matrix = Param::new("a.weight".into(), vec![2, 2], Kind::Matrix, vec![fill; 4]);
        matrix.first = vec![fill * 0.1; 4];
        matrix.updates = fill as u64;
        let mut norm = Param::new("b.norm.weight".into(), vec![3], Kind::Norm, vec![-fill; 3]);
        norm.second = vec![fill / 3.0; 3];
        Params(vec![matrix, norm])
    }

    #[test]
    fn what_was_saved_comes_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe::parse(RECIPE).unwrap();
        let position = Position { stage: 1, step: 2, sequences: 32, seconds: 1.5 };
        save(folder.path(), &recipe, &position, &params(7.0)).unwrap();
        let mut loaded = params(0.0);
        assert_eq!(load(folder.path(), &recipe, &mut loaded).unwrap(), position);
        assert_eq!(loaded, params(7.0));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn missing_damaged_and_foreign_states_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe::parse(RECIPE).unwrap();
        let error = |recipe: &Recipe| load(folder.path(), recipe, &mut params(0.0)).unwrap_err().to_string();
        assert!(error(&recipe).contains(STATE_FILE));
        save(folder.path(), &recipe, &Position::default(), &params(1.0)).unwrap();
        let other = Recipe::parse(&RECIPE.replace("seed = 1", "seed = 2")).unwrap();
        assert!(error(&other).contains("seed is not what the run began with"));
        let path = folder.path().join(STATE_FILE);
        let bytes = std::fs::read(&path).unwrap();
        let mut flipped = bytes.clone();
        *flipped.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        assert!(error(&recipe).contains("checksum"));
        std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        assert!(error(&recipe).contains("cannot be resumed"));
    }
}
