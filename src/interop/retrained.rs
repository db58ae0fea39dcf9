//! Trained tensors, in the form in which a checkpoint stores its own.

use std::collections::BTreeMap;

use half::{bf16, f16};

use super::ExportError;
use crate::checkpoint::{
    Blocks, Checkpoint, CheckpointError, Dtype, Sidecar, demands, indexer_tensors, is_indexer_tensor, layer_of,
};
use crate::domain::Pattern;

/// Bytes of tensors that replace a checkpoint's, by name.
pub(super) type Replaced = BTreeMap<String, Vec<u8>>;

/// A tensor with other numbers than the checkpoint's: its name, its shape and its values.
pub type Retrained = (String, Vec<usize>, Vec<f32>);

/// Checks that a checkpoint can hold other numbers in the place of its own, before they are trained.
///
/// These are the indexers of `pattern`'s Full layers, and with `rest` all other weights.
///
/// # Errors
/// [`ExportError::Retrained`] naming a tensor that the checkpoint lacks or stores in a dtype that is not written here.
pub fn can_retrain(checkpoint: &Checkpoint, pattern: Pattern, rest: bool) -> Result<(), ExportError> {
    let base = checkpoint.base();
    let indexers = (0..pattern.len()).filter(|&l| pattern.is_full(l)).flat_map(|l| indexer_tensors(base.config(), l));
    let rest = rest.then(|| demands(base.config())).into_iter().flatten();
    indexers.chain(rest).try_for_each(|demand| Place::of(base, &demand.name, &demand.shape).map(|_| ()))
}

/// Returns the tensors of a sidecar.
///
/// # Errors
/// [`ExportError::Checkpoint`] for a sidecar of another model, [`ExportError::Retrained`] for one of a foreign dtype.
pub(super) fn of_sidecar(checkpoint: &Checkpoint, sidecar: &Sidecar) -> Result<Vec<Retrained>, ExportError> {
    sidecar.check(checkpoint.base()).map_err(CheckpointError::from)?;
    let tensors = sidecar.tensors().map(|(name, info, bytes)| {
        let values = read(&info.dtype, bytes).ok_or_else(|| refuse(name, format!("the sidecar stores {}", info.dtype)));
        Ok((name.to_owned(), info.shape.clone(), values?))
    });
    tensors.collect()
}

/// Returns their bytes, each in the dtype of the tensor that it replaces, without indexers of `pattern`'s Shared layers.
///
/// FP8 tensors get new scales, too.
pub(super) fn replaced(
    checkpoint: &Checkpoint,
    pattern: Pattern,
    tensors: &[Retrained],
) -> Result<Replaced, ExportError> {
    let is_used = |name: &str| !is_indexer_tensor(name) || layer_of(name).is_some_and(|l| pattern.is_full(l));
    let mut replaced = Replaced::new();
    for tensor in tensors.iter().filter(|(name, ..)| is_used(name)) {
        let place = Place::of(checkpoint.base(), &tensor.0, &tensor.1)?;
        replaced.extend(place.stored(tensor));
    }
    Ok(replaced)
}

/// How a checkpoint stores a tensor.
enum Place {
    /// As plain numbers.
    Plain(Dtype),
    /// As FP8 codes, and scales of that name.
    Fp8(Blocks, String),
}

impl Place {
    fn of(base: &Checkpoint, name: &str, shape: &[usize]) -> Result<Self, ExportError> {
        let own = base.tensor(name).ok_or_else(|| refuse(name, "the checkpoint has none of that name".to_owned()))?;
        if own.shape != shape {
            return Err(refuse(name, format!("it has shape {:?} there, and {shape:?} here", own.shape)));
        }
        if own.dtype == Dtype::F8E4M3 {
            let scales = base.blocks().scales(name, shape).filter(|scales| {
                base.tensor(&scales.name).is_some_and(|own| own.dtype == Dtype::F32 && own.shape == scales.shape)
            });
            let scales =
                scales.ok_or_else(|| refuse(name, "the checkpoint has no f32 scales for its FP8".to_owned()))?;
            return Ok(Self::Fp8(base.blocks(), scales.name));
        }
        if write(&own.dtype, &[]).is_none() {
            return Err(refuse(name, format!("the checkpoint stores {}, which is not written here", own.dtype)));
        }
        Ok(Self::Plain(own.dtype.clone()))
    }

    /// Returns the bytes of the tensor, and of its scales where it has any, by name.
    fn stored(&self, (name, shape, values): &Retrained) -> Vec<(String, Vec<u8>)> {
        match self {
            Self::Plain(dtype) => write(dtype, values).into_iter().map(|bytes| (name.clone(), bytes)).collect(),
            Self::Fp8(blocks, scales) => {
                let (codes, of_blocks) = blocks.quantise(values, shape.last().copied().unwrap_or(1));
                let bytes = of_blocks.iter().flat_map(|s| s.to_le_bytes()).collect();
                vec![(name.clone(), codes), (scales.clone(), bytes)]
            }
        }
    }
}

fn refuse(name: &str, reason: String) -> ExportError {
    ExportError::Retrained { name: name.to_owned(), reason }
}

fn read(dtype: &Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    Some(match dtype {
        Dtype::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        _ => return None,
    })
}

fn write(dtype: &Dtype, values: &[f32]) -> Option<Vec<u8>> {
    Some(match dtype {
        Dtype::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_dtypes_that_hold_them() {
        let values = [0.5f32, -3.0, 0.0];
        for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32] {
            assert_eq!(read(&dtype, &write(&dtype, &values).unwrap_or_default()), Some(values.to_vec()), "{dtype}");
        }
        assert_eq!((write(&Dtype::F8E4M3, &values), read(&Dtype::F8E4M3, &[1])), (None, None));
    }
}
