//! Launches of `kernels/rows.cu`: norms, rotation and gates of bf16 rows, where nothing asks for a gradient.

use candle_core::{CudaDevice, CudaStorage, DType, Device, Result, Tensor};
use half::bf16;

use super::device::{self, File, Form, address, tensor, view};
use crate::model::ops::arguments::{Norm, Rotate, Swiglu};
use crate::model::ops::plan;
use crate::model::ops::rope::{Pairing, Rotary};
use crate::model::ops::rows::Rows;

/// Returns the device of tensors that the kernels take as to dtype and gradient.
fn device_of<'a>(tensors: &[&'a Tensor]) -> Option<&'a CudaDevice> {
    let right = |x: &&Tensor| x.dtype() == DType::BF16 && x.device().is_cuda() && !x.track_op();
    match tensors.first()?.device() {
        Device::Cuda(device) if tensors.iter().all(right) => Some(device),
        _ => None,
    }
}

/// Normalises; `None` for operands that the kernel does not take. RMS without a bias, `LayerNorm` with one.
pub(in crate::model::ops) fn norm(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, eps: f64) -> Result<Option<Tensor>> {
    let vectors: Vec<&Tensor> = [Some(w), bias].into_iter().flatten().collect();
    let Some(device) = device_of(&[&[x], &vectors[..]].concat()) else { return Ok(None) };
    let Some(rows) = Rows::of(x.layout()) else { return Ok(None) };
    let whole = |v: &&Tensor| v.dims() == [rows.width] && Rows::of(v.layout()).is_some();
    if !vectors.iter().all(whole) {
        return Ok(None);
    }
    let (x_storage, w_storage) = (x.storage_and_layout().0, w.storage_and_layout().0);
    let bias = bias.map(Tensor::storage_and_layout);
    let at = |storage, from: usize| Ok::<_, candle_core::Error>(address(&device::all::<bf16>(storage)?.slice(from..)));
    // SAFETY: the kernel writes every value; `rows` says how x lies, w and the bias are as wide as it.
    #[allow(unsafe_code)]
    let y = unsafe {
        let y = device.alloc::<bf16>(rows.count * rows.width)?;
        let arguments = Norm {
            x: at(&x_storage, rows.start)?,
            w: at(&w_storage, w.layout().start_offset())?,
            bias: bias.as_ref().map_or(Ok(0), |(storage, layout)| at(storage, layout.start_offset()))?,
            y: address(&y),
            eps: eps as f32,
            rows: rows.count as i32,
            width: rows.width as i32,
            apart: rows.apart as i64,
        };
        let launch = plan::warps("rows_norm", rows.count);
        device::launch(device, Form::asked(), File::Rows, &launch, &arguments)?;
        y
    };
    Ok(Some(tensor(CudaStorage::wrap_cuda_slice(y, device.clone()), x.shape())))
}

/// Rotates as [`crate::model::ops::rope`] does; `None` for operands that the kernel does not take.
pub(in crate::model::ops) fn rotate(
    x: &Tensor,
    rotary: &Rotary,
    dim: usize,
    offset: usize,
    pairing: Pairing,
) -> Result<Option<Tensor>> {
    let Some(device) = device_of(&[x]) else { return Ok(None) };
    let (Some(rows), (_, t, _), (positions, half)) = (Rows::of(x.layout()), x.dims3()?, rotary.cos.dims2()?) else {
        return Ok(None);
    };
    let step = if pairing == Pairing::Half { 8 } else { 4 };
    let even = dim.is_multiple_of(8) && offset.is_multiple_of(8) && half.is_multiple_of(step);
    let tables = [&rotary.cos, &rotary.sin];
    let right = |table: &&Tensor| {
        table.dtype() == DType::F32 && table.dims() == [t, half] && table.is_contiguous() && !table.track_op()
    };
    if !even
        || positions != t
        || offset + 2 * half > dim
        || !rows.width.is_multiple_of(dim)
        || !tables.iter().all(right)
    {
        return Ok(None);
    }
    let (x_storage, cos, sin) =
        (x.storage_and_layout().0, rotary.cos.storage_and_layout(), rotary.sin.storage_and_layout());
    // SAFETY: the kernel writes every value; `rows` says how x lies, the tables have a row for each of t positions.
    #[allow(unsafe_code)]
    let y = unsafe {
        let y = device.alloc::<bf16>(rows.count * rows.width)?;
        let arguments = Rotate {
            x: address(&device::all::<bf16>(&x_storage)?.slice(rows.start..)),
            cos: address(&view::<f32>(&cos.0, cos.1)?),
            sin: address(&view::<f32>(&sin.0, sin.1)?),
            y: address(&y),
            rows: rows.count as i32,
            heads: (rows.width / dim) as i32,
            dim: dim as i32,
            offset: offset as i32,
            half: half as i32,
            interleaved: i32::from(pairing == Pairing::Interleaved),
            positions: t as i32,
            apart: rows.apart as i64,
        };
        let launch = plan::eights("rows_rotate", rows.count * rows.width);
        device::launch(device, Form::asked(), File::Rows, &launch, &arguments)?;
        y
    };
    Ok(Some(tensor(CudaStorage::wrap_cuda_slice(y, device.clone()), x.shape())))
}

/// Multiplies silu(gate) by up; `None` for operands that the kernel does not take.
pub(in crate::model::ops) fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Option<Tensor>> {
    let count = gate.elem_count();
    let Some(device) = device_of(&[gate, up]) else { return Ok(None) };
    let even = |x: &Tensor| x.is_contiguous() && x.layout().start_offset().is_multiple_of(8);
    if gate.dims() != up.dims() || count == 0 || !count.is_multiple_of(8) || !even(gate) || !even(up) {
        return Ok(None);
    }
    let ((gate, gate_layout), (up, up_layout)) = (gate.storage_and_layout(), up.storage_and_layout());
    // SAFETY: the kernel writes every value; gate and up have as many.
    #[allow(unsafe_code)]
    let y = unsafe {
        let y = device.alloc::<bf16>(count)?;
        let arguments = Swiglu {
            gate: address(&view::<bf16>(&gate, gate_layout)?),
            up: address(&view::<bf16>(&up, up_layout)?),
            y: address(&y),
            count: count as i64,
        };
        device::launch(device, Form::asked(), File::Rows, &plan::eights("rows_swiglu", count), &arguments)?;
        y
    };
    Ok(Some(tensor(CudaStorage::wrap_cuda_slice(y, device.clone()), gate_layout.shape())))
}
