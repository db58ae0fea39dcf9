//! Launches of `kernels/fp8_dequant.cu`.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, PushKernelArg};
use candle_core::{CudaDevice, Result, Tensor};
use half::bf16;

use super::device::{File, Form, kernel, view};
use crate::model::ops::plan::Launch;

/// Makes e4m3 codes of bf16 rows `[rows, columns]`, and one scale per row: its largest magnitude / 448, 1 where that is 0.
pub(super) fn quantise(device: &CudaDevice, form: Form, x: &Tensor) -> Result<(CudaSlice<u8>, CudaSlice<f32>)> {
    let (rows, columns) = x.dims2()?;
    // SAFETY: the kernel writes every code and every scale.
    #[allow(unsafe_code)]
    let (mut codes, mut scales) = unsafe { (device.alloc::<u8>(rows * columns)?, device.alloc::<f32>(rows)?) };
    let grid = (rows.div_ceil(8) as u32, 1, 1);
    let launch = Launch { name: "fp8_quantise_rows".to_owned(), grid, threads: 256, shared: 0 };
    let (function, config) = kernel(device, form, File::Fp8, &launch)?;
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
