//! Launches of `kernels/fp8_dequant.cu`.

use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaDevice, CudaStorage, DType, Result, Tensor};
use half::bf16;

use super::device::{self, File, Form, address, tensor, view};
use crate::model::ops::arguments::{Dequantise, Quantise};
use crate::model::ops::fp8::Fp8Weight;
use crate::model::ops::plan;

/// Copies codes and scales to the device and multiplies them there: `[out, in]` in bf16 or f32.
pub(in crate::model::ops) fn dequantise(device: &CudaDevice, weight: Fp8Weight, dtype: DType) -> Result<Tensor> {
    let (codes, scales) = (device.clone_htod(weight.codes)?, device.clone_htod(weight.scales)?);
    multiply(device, Form::asked(), weight, (&codes, &scales), dtype)
}

/// As [`dequantise`], of codes and scales that are there; what `weight` says of them but its sizes is not looked at.
pub(super) fn multiply(
    device: &CudaDevice,
    form: Form,
    weight: Fp8Weight,
    (codes, scales): (&CudaSlice<u8>, &CudaSlice<f32>),
    dtype: DType,
) -> Result<Tensor> {
    let (rows, columns) = weight.shape;
    let launch = plan::dequantise(rows, columns, dtype == DType::BF16);
    let arguments = |values| Dequantise {
        codes: address(codes),
        scales: address(scales),
        values,
        rows: rows as i64,
        columns: columns as i32,
        block_rows: weight.blocks.rows as i32,
        block_columns: weight.blocks.columns as i32,
    };
    macro_rules! run {
        ($type:ty) => {{
            // SAFETY: the kernel writes every value; codes and scales are as many as the sizes say.
            #[allow(unsafe_code)]
            let values = unsafe {
                let values = device.alloc::<$type>(rows * columns)?;
                device::launch(device, form, File::Fp8, &launch, &arguments(address(&values)))?;
                values
            };
            CudaStorage::wrap_cuda_slice(values, device.clone())
        }};
    }
    let values = if dtype == DType::BF16 { run!(bf16) } else { run!(f32) };
    Ok(tensor(values, weight.shape))
}

/// Makes e4m3 codes of bf16 rows `[rows, columns]`, and one scale per row: its largest magnitude / 448, 1 where that is 0.
pub(super) fn quantise(device: &CudaDevice, form: Form, x: &Tensor) -> Result<(CudaSlice<u8>, CudaSlice<f32>)> {
    let (rows, columns) = x.dims2()?;
    // SAFETY: the kernel writes every code and every scale.
    #[allow(unsafe_code)]
    let (codes, scales) = unsafe { (device.alloc::<u8>(rows * columns)?, device.alloc::<f32>(rows)?) };
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let arguments = Quantise {
        x: address(&view::<bf16>(&storage, layout)?),
        codes: address(&codes),
        scales: address(&scales),
        rows: rows as i32,
        columns: columns as i32,
    };
    // SAFETY: one warp per row; all three hold `rows` rows.
    #[allow(unsafe_code)]
    unsafe { device::launch(device, form, File::Fp8, &plan::quantise(rows), &arguments) }?;
    Ok((codes, scales))
}
