//! Launches of `kernels/fp8_dequant.cu`.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, PushKernelArg};
use candle_core::{CudaDevice, CudaStorage, DType, Result, Tensor};
use half::bf16;

use super::device::{File, Form, kernel, tensor, view};
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
    let (function, config) = kernel(device, form, File::Fp8, &launch)?;
    let [width, block_rows, block_columns] = [columns, weight.blocks.rows, weight.blocks.columns].map(|n| n as i32);
    let (count, stream) = (rows as i64, device.cuda_stream());
    let mut builder = stream.launch_builder(&function);
    macro_rules! run {
        ($type:ty) => {{
            // SAFETY: the kernel writes every value; codes and scales are as many as the sizes say.
            #[allow(unsafe_code)]
            let mut values = unsafe { device.alloc::<$type>(rows * columns)? };
            builder.arg(codes).arg(scales).arg(&mut values);
            builder.arg(&count).arg(&width).arg(&block_rows).arg(&block_columns);
            // SAFETY: as above.
            #[allow(unsafe_code)]
            unsafe { builder.launch(config) }.w()?;
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
    let (mut codes, mut scales) = unsafe { (device.alloc::<u8>(rows * columns)?, device.alloc::<f32>(rows)?) };
    let (function, config) = kernel(device, form, File::Fp8, &plan::quantise(rows))?;
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let values = view::<bf16>(&storage, layout)?;
    let (rows, columns) = (rows as i32, columns as i32);
    let stream = device.cuda_stream();
    let mut builder = stream.launch_builder(&function);
    builder.arg(&values).arg(&mut codes).arg(&mut scales).arg(&rows).arg(&columns);
    // SAFETY: one warp per row; all three hold `rows` rows.
    #[allow(unsafe_code)]
    unsafe { builder.launch(config) }.w()?;
    Ok((codes, scales))
}
