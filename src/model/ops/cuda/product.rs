//! Products of bf16 matrices through cuBLAS, where candle's own would have to copy them first.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::{CudaDevice, Result, bail};
use half::bf16;

use super::device::address;
use crate::model::ops::product::Product;

/// Multiplies; sums are in f32.
pub(super) fn multiply(
    device: &CudaDevice,
    p: Product,
    x: &impl DevicePtr<bf16>,
    w: &impl DevicePtr<bf16>,
) -> Result<CudaSlice<bf16>> {
    let [x_extent, w_extent, out_extent] = p.extents();
    if x.len() < x_extent || w.len() < w_extent {
        bail!("a product of {x_extent} and {w_extent} values was given {} and {}", x.len(), w.len())
    }
    // SAFETY: the product writes all that is read of it.
    #[allow(unsafe_code)]
    let out = unsafe { device.alloc::<bf16>(out_extent)? };
    let (one, zero, kind) = (1f32, 0f32, sys::cudaDataType_t::CUDA_R_16BF);
    // cuBLAS counts column after column: to it, every matrix here is its transpose, and out' = w' x'.
    let of_w = if p.transposed { sys::cublasOperation_t::CUBLAS_OP_T } else { sys::cublasOperation_t::CUBLAS_OP_N };
    // SAFETY: all three hold what the distances reach, as checked above; all is on the handle's stream.
    #[allow(unsafe_code)]
    unsafe {
        result::gemm_strided_batched_ex(
            *device.cublas_handle().handle(),
            of_w,
            sys::cublasOperation_t::CUBLAS_OP_N,
            p.columns as i32,
            p.rows as i32,
            p.inner as i32,
            (&raw const one).cast(),
            address(w) as *const _,
            kind,
            p.w.row as i32,
            p.w.batch as i64,
            address(x) as *const _,
            kind,
            p.x.row as i32,
            p.x.batch as i64,
            (&raw const zero).cast(),
            address(&out) as *mut _,
            kind,
            p.out.row as i32,
            p.out.batch as i64,
            p.batch as i32,
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
        )
    }
    .w()?;
    Ok(out)
}
