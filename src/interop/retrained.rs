//! Indexers of a sidecar, in the form in which a checkpoint stores its own.

use std::collections::BTreeMap;

use half::{bf16, f16};

use super::ExportError;
use crate::checkpoint::{Checkpoint, CheckpointError, Dtype, Sidecar, layer_of};
use crate::domain::Pattern;

/// Bytes of tensors that replace a checkpoint's, by name.
pub(super) type Replaced = BTreeMap<String, Vec<u8>>;

/// Returns the bytes of the indexers of `pattern`'s Full layers, each in the dtype of the tensor that it replaces.
pub(super) fn retrained(checkpoint: &Checkpoint, pattern: Pattern, sidecar: &Sidecar) -> Result<Replaced, ExportError> {
    let base = checkpoint.base();
    sidecar.check(base).map_err(CheckpointError::from)?;
    let kept = sidecar.tensors().filter(|(name, ..)| layer_of(name).is_some_and(|l| pattern.is_full(l)));
    kept.map(|(name, info, bytes)| {
        let refuse = |reason: String| ExportError::Indexer { name: name.to_owned(), reason };
        let own = base.tensor(name).ok_or_else(|| refuse("the checkpoint has none of that name".to_owned()))?;
        if own.shape != info.shape {
            return Err(refuse(format!("it has shape {:?} there, and {:?} in the sidecar", own.shape, info.shape)));
        }
        let values = read(&info.dtype, bytes).ok_or_else(|| refuse(format!("the sidecar stores {}", info.dtype)))?;
        let bytes = stored(&own.dtype, &values)
            .ok_or_else(|| refuse(format!("the checkpoint stores {}, which is not written here", own.dtype)))?;
        Ok((name.to_owned(), bytes))
    })
    .collect()
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

fn stored(dtype: &Dtype, values: &[f32]) -> Option<Vec<u8>> {
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
            assert_eq!(read(&dtype, &stored(&dtype, &values).unwrap_or_default()), Some(values.to_vec()), "{dtype}");
        }
        assert_eq!((stored(&Dtype::F8E4M3, &values), read(&Dtype::F8E4M3, &[1])), (None, None));
    }
}
