//! Sidecars: lightning indexers in a file of their own, beside a checkpoint that lacks them or has others.
//!
//! One safetensors file. The string metadata [`METADATA_KEY`] holds a [`SidecarHeader`] as JSON, with the checksum of the
//! file ([`crate::seal`]; files of version 0.1 have none); the tensors are named and shaped as in DSA checkpoints, five per layer of `header.layers`:
//!
//! ```text
//! model.layers.<l>.self_attn.indexer.wq_b.weight          [heads · dim, width]   width = the query latent under MLA,
//! model.layers.<l>.self_attn.indexer.wk.weight            [dim, hidden]                  the layer's normed input else
//! model.layers.<l>.self_attn.indexer.k_norm.weight, .bias [dim]
//! model.layers.<l>.self_attn.indexer.weights_proj.weight  [heads, hidden]
//! ```
//!
//! Their meaning is that of a DSA checkpoint's: I[i,j] = Σ_h w[i,h] · relu(dim^−½ · q[i,h]·k[j]) with w scaled by
//! heads^−½, LayerNorm on the keys, and the first `rope.dims` dimensions of q and k rotated, by every n-th frequency
//! of the model's attention where they are fewer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype as Stored, TensorView};
use serde::{Deserialize, Serialize};

use super::dtype::Tensors;
use super::safetensors::{read_header, read_metadata};
use super::weights::map;
use super::{Checkpoint, CheckpointError, Config, Dtype, IndexerShape, TensorInfo, indexer_tensors, layer_of};
use crate::mapped::Bytes;
use crate::seal;

/// Key of the header in the file's metadata.
const METADATA_KEY: &str = "indexscope";
/// What `kind` says in the header of a sidecar of indexers.
const KIND: &str = "indexers";
/// Version of the format.
const SCHEMA: u32 = 1;

/// Why a sidecar cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// The file cannot be read, is cut off, or is no safetensors.
    #[error("the sidecar '{}' cannot be read: {reason}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file is something else, such as a checkpoint or a recording.
    #[error("'{}' is not a sidecar of indexers: {reason}", .path.display())]
    NotASidecar {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The indexers were trained for another model.
    #[error("the sidecar '{}' belongs to the model {base}, but this one is {got}", .path.display())]
    Base {
        /// The file.
        path: PathBuf,
        /// Lineage and type of the model that it was trained for.
        base: String,
        /// Those of the model at hand.
        got: String,
    },
    /// The header promises a layer that the file does not hold, or the model does not have.
    #[error("the sidecar '{}' has no indexer for layer {layer}: {reason}", .path.display())]
    Layer {
        /// The file.
        path: PathBuf,
        /// The layer.
        layer: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl SidecarError {
    /// Returns what to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Unreadable { .. } => "the file is probably cut off or damaged: copy or train it again",
            Self::Layer { .. } => "train indexers for this model; these are damaged or shaped for another one",
            Self::NotASidecar { .. } => "'indexscope train indexers MODEL --out FILE' writes one",
            Self::Base { .. } => {
                "train indexers for this model, or name the model that they were trained for; beside --index, --foreign-index tries these all the same"
            }
        }
        .to_owned()
    }
}

/// Rotation of the indexers' queries and keys; base, stretching and pairing are the model's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SidecarRope {
    /// Rotated dimensions, the first ones of each head.
    pub dims: usize,
}

/// What the indexers were trained on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trained {
    /// Tokens of all steps.
    pub tokens: u64,
    /// Steps of the warm-up and of the sparse stage.
    pub steps: (u64, u64),
    /// Tokens per step.
    pub seq_len: usize,
    /// k of the sparse stage.
    pub index_topk: usize,
    /// The pattern that the base ran under in the sparse stage.
    pub pattern: String,
    /// Which layers' attention each indexer was trained towards: `own` or `served`.
    pub targets: String,
    /// The model's name; empty in older files.
    pub model: String,
    /// Dtypes that its weights were stored in, as [`Checkpoint::stored`] tells; empty in older files.
    pub weights: String,
    /// Seconds of training.
    pub seconds: f64,
    /// The texts' names.
    pub texts: Vec<String>,
    /// KL of each layer of `layers` at the end, nats per row, averaged over the last steps.
    pub kl: Vec<f64>,
    /// The part of it that no indexer could lower; 0 where an indexer serves one layer.
    pub floor: Vec<f64>,
}

/// What the metadata says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SidecarHeader {
    /// Version of the format, 1.
    pub schema: u32,
    /// `indexers`.
    pub kind: String,
    /// The model that they belong to, as [`Checkpoint::lineage`] tells.
    pub base: String,
    /// `model_type` of that model.
    pub family: String,
    /// Heads of each indexer.
    pub heads: usize,
    /// Width of a head.
    pub dim: usize,
    /// Rotation.
    pub rope: SidecarRope,
    /// Factor on dot products, dim^−½.
    pub scale: f64,
    /// The layers that have an indexer here, ascending.
    pub layers: Vec<usize>,
    /// Where they come from.
    pub trained: Trained,
}

impl SidecarHeader {
    /// Describes indexers of `layers` as `config` shapes them.
    pub fn new(base: &str, config: &Config, layers: Vec<usize>, trained: Trained) -> Self {
        Self {
            schema: SCHEMA,
            kind: KIND.to_owned(),
            base: base.to_owned(),
            family: config.family.model_type().to_owned(),
            heads: config.index_n_heads,
            dim: config.index_head_dim,
            rope: SidecarRope { dims: config.index_rope_head_dim },
            scale: (config.index_head_dim as f64).powf(-0.5),
            layers,
            trained,
        }
    }
}

/// A sidecar, opened without reading its weights.
#[derive(Debug)]
pub struct Sidecar {
    path: PathBuf,
    header: SidecarHeader,
    bytes: Bytes,
    tensors: Tensors,
}

impl Sidecar {
    /// Opens a file.
    ///
    /// # Errors
    /// [`SidecarError::Unreadable`] or [`SidecarError::NotASidecar`].
    pub fn open(path: &Path) -> Result<Self, SidecarError> {
        let bytes = map(path).map_err(|e| SidecarError::Unreadable { path: path.into(), reason: e.to_string() })?;
        Self::from_bytes(path, bytes)
    }

    /// Opens the bytes of the file `path`.
    pub(crate) fn from_bytes(path: &Path, bytes: Bytes) -> Result<Self, SidecarError> {
        let unreadable = |e: CheckpointError| SidecarError::Unreadable { path: path.into(), reason: e.to_string() };
        let foreign = |reason: String| SidecarError::NotASidecar { path: path.into(), reason };
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let tensors = read_header(&name, &bytes, 0).map_err(unreadable)?;
        let metadata = read_metadata(&name, &bytes).map_err(unreadable)?;
        let json =
            metadata.get(METADATA_KEY).ok_or_else(|| foreign(format!("its metadata has no '{METADATA_KEY}'")))?;
        let kind: serde_json::Value = serde_json::from_str(json).map_err(|e| foreign(e.to_string()))?;
        if kind["kind"] != KIND {
            return Err(foreign(format!("its kind is {}", kind["kind"])));
        }
        let header: SidecarHeader = serde_json::from_value(kind).map_err(|e| foreign(e.to_string()))?;
        if header.schema != SCHEMA {
            return Err(foreign(format!("its schema is {}, and only {SCHEMA} is known", header.schema)));
        }
        if seal::is_damaged(&bytes) {
            let reason = "it does not match its checksum".to_owned();
            return Err(SidecarError::Unreadable { path: path.into(), reason });
        }
        Ok(Self { path: path.into(), header, bytes, tensors })
    }

    /// Returns what the metadata says.
    pub fn header(&self) -> &SidecarHeader {
        &self.header
    }

    /// Returns the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the sizes of the indexers.
    pub fn shape(&self) -> IndexerShape {
        IndexerShape { heads: self.header.heads, dim: self.header.dim, rope_dims: self.header.rope.dims }
    }

    /// Checks that the indexers belong to `base` and are all there.
    ///
    /// # Errors
    /// [`SidecarError::Base`] or as [`Sidecar::check_layers`].
    pub fn check(&self, base: &Checkpoint) -> Result<(), SidecarError> {
        let lineage =
            base.lineage().map_err(|e| SidecarError::Unreadable { path: self.path.clone(), reason: e.to_string() })?;
        if self.header.base != lineage {
            let name = Some(&self.header.trained.model).filter(|name| !name.is_empty());
            let name = name.map(|name| format!("'{name}', ")).unwrap_or_default();
            return Err(SidecarError::Base {
                path: self.path.clone(),
                base: format!("{name}{} ({})", self.header.base, self.header.family),
                got: format!("'{}', {lineage} ({})", base.name(), base.config().family.model_type()),
            });
        }
        self.check_layers(base)
    }

    /// Returns what to know before the indexers are used with `base`: that they were trained for another model, or on
    /// weights in another form.
    pub fn caveat(&self, base: &Checkpoint) -> Option<String> {
        let Trained { model, weights, .. } = &self.header.trained;
        let (path, name) = (self.path.display(), base.name());
        match self.check(base) {
            Err(SidecarError::Base { base, .. }) => {
                Some(format!("the indexers of '{path}' were trained for another model, {base}, not for '{name}'"))
            }
            Ok(()) if !weights.is_empty() && *weights != base.stored() => Some(format!(
                "the indexers of '{path}' were trained on '{model}', whose weights are {weights}; those of '{name}' are {}",
                base.stored()
            )),
            _ => None,
        }
    }

    /// Checks that the indexers are all there and fit the layers of `base`, whichever model they were trained for.
    ///
    /// # Errors
    /// [`SidecarError::Layer`].
    pub fn check_layers(&self, base: &Checkpoint) -> Result<(), SidecarError> {
        let config = self.shape().of(base.config());
        for &layer in &self.header.layers {
            let failed = |reason| SidecarError::Layer { path: self.path.clone(), layer, reason };
            if layer >= config.num_hidden_layers {
                return Err(failed(format!("the model has {} layers", config.num_hidden_layers)));
            }
            for demand in indexer_tensors(&config, layer) {
                let name = &demand.name;
                match self.tensors.get(name) {
                    None => return Err(failed(format!("tensor '{name}' is missing"))),
                    Some(info) if info.shape != demand.shape => {
                        return Err(failed(format!(
                            "tensor '{name}' has shape {:?}, not {:?}",
                            info.shape, demand.shape
                        )));
                    }
                    Some(info) if !info.dtype.is_supported() => {
                        return Err(failed(format!("tensor '{name}' has dtype {}", info.dtype)));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Returns the bytes of a sidecar with these indexers, and those of `under` in layers that have none here.
    ///
    /// # Errors
    /// One sentence where the two differ in model or sizes.
    pub fn over(&self, under: &Self) -> Result<Vec<u8>, String> {
        let of = |s: &Self| (s.header.base.clone(), s.header.heads, s.header.dim, s.header.rope);
        if of(self) != of(under) {
            return Err(format!(
                "the sidecars '{}' and '{}' are not of one model and size",
                self.path.display(),
                under.path.display()
            ));
        }
        let mut layers: Vec<usize> = self.header.layers.iter().chain(&under.header.layers).copied().collect();
        layers.sort_unstable();
        layers.dedup();
        let number = |of: fn(&Trained) -> &Vec<f64>, layer: usize| {
            let found =
                |s: &Self| of(&s.header.trained).get(s.header.layers.iter().position(|&l| l == layer)?).copied();
            found(self).or_else(|| found(under)).unwrap_or_default()
        };
        let numbers = |of| layers.iter().map(|&layer| number(of, layer)).collect();
        let trained = Trained { kl: numbers(|t| &t.kl), floor: numbers(|t| &t.floor), ..self.header.trained.clone() };
        let has = |name: &str| {
            self.tensors.contains_key(name) || layer_of(name).is_some_and(|l| self.header.layers.contains(&l))
        };
        let views = self.tensors().chain(under.tensors().filter(|(name, ..)| !has(name))).map(|(name, info, bytes)| {
            let stored = match info.dtype {
                Dtype::F32 => Stored::F32,
                Dtype::F16 => Stored::F16,
                Dtype::BF16 => Stored::BF16,
                ref other => return Err(format!("'{name}' is stored as {other}")),
            };
            Ok((name, TensorView::new(stored, info.shape.clone(), bytes).map_err(|e| e.to_string())?))
        });
        let views = views.collect::<Result<Vec<_>, _>>()?;
        sealed(&SidecarHeader { layers, trained, ..self.header.clone() }, views)
    }

    /// Iterates over the tensors, by name, with their bytes.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo, &[u8])> {
        self.tensors.iter().map(|(name, info)| (name.as_str(), info, &self.bytes[info.start..info.end]))
    }
}

/// Returns the bytes of a sidecar: `tensors` are (name, shape, values), stored as f16.
///
/// # Errors
/// What the serialiser says, where a shape and its values disagree.
pub fn sidecar_bytes(header: &SidecarHeader, tensors: &[(&str, &[usize], &[f32])]) -> Result<Vec<u8>, String> {
    let stored: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect())
        .collect();
    let views = tensors
        .iter()
        .zip(&stored)
        .map(|((name, shape, _), bytes)| Ok((*name, TensorView::new(Stored::F16, shape.to_vec(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|e| e.to_string())?;
    sealed(header, views)
}

/// Returns the bytes of a sidecar with its checksum.
fn sealed(header: &SidecarHeader, views: Vec<(&str, TensorView)>) -> Result<Vec<u8>, String> {
    let mut json = serde_json::to_value(header).map_err(|e| e.to_string())?;
    json[seal::KEY] = seal::BLANK.into();
    let metadata = HashMap::from([(METADATA_KEY.to_owned(), json.to_string())]);
    let mut bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| e.to_string())?;
    seal::seal(&mut bytes);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
