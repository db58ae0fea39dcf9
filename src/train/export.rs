//! The trained model as a Hugging Face checkpoint in bf16.

use std::path::Path;

use half::bf16;
use safetensors::tensor::{Dtype, TensorView};

use super::params::{Kind, Params};
use super::state::{bytes_of, write_atomic};
use super::{Recipe, TrainError};
use crate::checkpoint::{CONFIG_FILE, SINGLE_FILE};

/// Writes `config.json` and `model.safetensors` into a folder.
///
/// Weights are rounded to bf16; the routers' balancing biases stay f32, as in published checkpoints.
///
/// # Errors
/// [`TrainError::Write`].
pub fn export(folder: &Path, recipe: &Recipe, params: &Params) -> Result<(), TrainError> {
    write_atomic(&folder.join(CONFIG_FILE), recipe.config_json().as_bytes())?;
    let path = folder.join(SINGLE_FILE);
    let failed = |e: safetensors::SafeTensorError| TrainError::Write { path: path.clone(), reason: e.to_string() };
    let stored: Vec<(Dtype, Vec<u8>)> = params
        .0
        .iter()
        .map(|p| match p.kind {
            Kind::Balance => (Dtype::F32, bytes_of(&p.value)),
            _ => (Dtype::BF16, p.value.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()),
        })
        .collect();
    let views = params
        .0
        .iter()
        .zip(&stored)
        .map(|(p, (dtype, bytes))| Ok((p.name.as_str(), TensorView::new(*dtype, p.shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    let metadata = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    write_atomic(&path, &safetensors::serialize(views, Some(metadata)).map_err(failed)?)
}
