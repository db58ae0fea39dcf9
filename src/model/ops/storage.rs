//! Access to the f32 values of CPU tensors.

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, bail};

/// Returns whether the fused CPU form of an op can take the tensors.
pub(super) fn on_cpu(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|t| t.device().is_cpu() && t.dtype() == DType::F32)
}

/// Returns the values of a contiguous f32 storage.
pub(super) fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        (CpuStorage::F32(_), None) => bail!("the operand is not contiguous"),
        _ => bail!("the operand is not f32"),
    }
}

/// Calls `f` with the values of a CPU tensor, copying only if it is not contiguous.
///
/// # Errors
/// Where the tensor is not f32 or not on the CPU, and what `f` returns.
pub fn with_floats<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => f(floats(cpu, layout)?),
        _ => bail!("the operand is not on the CPU"),
    }
}
