//! What the device is measured to do at most.

use candle_core::cuda_backend::cudarc::cublaslt::result::{self, CublasError};
use candle_core::cuda_backend::cudarc::cublaslt::sys;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr, DevicePtrMut};
use candle_core::{CudaDevice, DType, Error, Result, Tensor};
use half::bf16;

use super::{Checks, On};
use crate::model::ops::cuda::device::Form;
use crate::model::ops::cuda::fp8;
use crate::model::ops::gpu_check::{Ceiling, GpuCheck, KernelTime};

/// Rows and columns of the matrices.
const SQUARE: usize = 8192;
/// Bytes of the copy.
const COPIED: usize = 1 << 30;
/// Bytes that cuBLASLt may use beside the matrices, as NVIDIA advises for Hopper.
const WORKSPACE: usize = 32 << 20;

/// Rates per second, of those that the device has.
#[derive(Default)]
pub(super) struct Ceilings(Vec<(Ceiling, f64)>);

impl Ceilings {
    /// Measures all, and says what was found.
    pub(super) fn measure(&mut self, cuda: &CudaDevice, checks: &mut Checks) -> Result<()> {
        let on = On { cuda, form: Form::asked() };
        let a = Tensor::randn(0f32, 1.0, (SQUARE, SQUARE), &on.device())?.to_dtype(DType::BF16)?;
        let bf16 = on.median(&mut || a.matmul(&a).map(drop))?;
        let fp8 = Fp8Product::new(on, &a)?.map(|mut product| on.median(&mut || product.run())).transpose()?;
        let x = Tensor::zeros(COPIED, DType::U8, &on.device())?;
        let copy = on.median(&mut || x.copy().map(drop))?;
        let (operations, bytes) = (2.0 * (SQUARE as f64).powi(3), 2.0 * COPIED as f64);
        let measured = [
            (Ceiling::Bf16, "candle's product of bf16 matrices", operations, Some(bf16)),
            (Ceiling::Fp8, "cuBLASLt's product of e4m3 matrices, to bf16", operations, fp8),
            (Ceiling::Copy, "a copy on the device, bytes read and written", bytes, Some(copy)),
        ];
        for (ceiling, rule, work, millis) in measured {
            let rate = millis.map(|millis| work / millis * 1e3);
            let (sizes, unit) = match ceiling {
                Ceiling::Copy => (format!("{} MiB", COPIED >> 20), (1e9, "GB/s")),
                Ceiling::Bf16 | Ceiling::Fp8 => (format!("{SQUARE}^3"), (1e12, "TFLOP/s")),
            };
            checks.push(GpuCheck {
                kernel: ceiling.name().to_owned(),
                form: "ceiling",
                sizes,
                rule,
                passed: true,
                found: rate.map_or("the device has none".to_owned(), |rate| format!("{:.0} {}", rate / unit.0, unit.1)),
                timing: millis.map(|millis| KernelTime { millis, ..KernelTime::default() }),
            });
            self.0.extend(rate.map(|rate| (ceiling, rate)));
        }
        Ok(())
    }

    /// Puts beside each part of a kernel's work the rate that the device has for it.
    pub(super) fn work(&self, parts: &[(Ceiling, f64)]) -> Vec<(Ceiling, f64, f64)> {
        let rate = |of: Ceiling| self.0.iter().find(|(ceiling, _)| *ceiling == of).map(|(_, rate)| *rate);
        parts.iter().filter_map(|&(of, work)| Some((of, work, rate(of)?))).collect()
    }
}

/// Destroys a handle.
type Destroy<T> = unsafe fn(T) -> std::result::Result<(), CublasError>;

/// A handle of cuBLASLt with what destroys it.
struct Owned<T: Copy>(T, Destroy<T>);

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the handle was made by the function's counterpart, and is destroyed once.
        #[allow(unsafe_code)]
        let _ = unsafe { (self.1)(self.0) };
    }
}

/// A product of square e4m3 matrices, which candle has not.
struct Fp8Product<'a> {
    on: On<'a>,
    handle: Owned<sys::cublasLtHandle_t>,
    product: Owned<sys::cublasLtMatmulDesc_t>,
    codes: Owned<sys::cublasLtMatrixLayout_t>,
    result: Owned<sys::cublasLtMatrixLayout_t>,
    algorithm: sys::cublasLtMatmulAlgo_t,
    a: CudaSlice<u8>,
    out: CudaSlice<bf16>,
    workspace: CudaSlice<u8>,
}

impl<'a> Fp8Product<'a> {
    /// Prepares the product of the codes of `x` with themselves; `None` where the device has none.
    fn new(on: On<'a>, x: &Tensor) -> Result<Option<Self>> {
        let lt = |error: CublasError| Error::msg(format!("cuBLASLt: {error}"));
        let n = SQUARE as u64;
        let handle = Owned(result::create_handle().map_err(lt)?, result::destroy_handle);
        let (compute, real) = (sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType_t::CUDA_R_32F);
        let product = Owned(result::create_matmul_desc(compute, real).map_err(lt)?, result::destroy_matmul_desc);
        let layout = |kind| -> Result<_> {
            let made = result::create_matrix_layout(kind, n, n, n as i64).map_err(lt)?;
            Ok(Owned(made, result::destroy_matrix_layout as Destroy<_>))
        };
        let codes = layout(sys::cudaDataType_t::CUDA_R_8F_E4M3)?;
        let result_ = layout(sys::cudaDataType_t::CUDA_R_16BF)?;
        let preference = Owned(result::create_matmul_pref().map_err(lt)?, result::destroy_matmul_pref);
        // e4m3 products exist with the first matrix transposed only.
        let (transposed, workspace) = (1i32, WORKSPACE);
        // Sums as `wgmma` makes them, which is the faster way, and that of our kernels.
        let fast = 1i8;
        // SAFETY: the handles are alive, and each attribute is read from a value of its size.
        #[allow(unsafe_code)]
        let found = unsafe {
            result::set_matmul_desc_attribute(
                product.0,
                sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
                (&raw const transposed).cast(),
                size_of::<i32>(),
            )
            .map_err(lt)?;
            result::set_matmul_desc_attribute(
                product.0,
                sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_FAST_ACCUM,
                (&raw const fast).cast(),
                size_of::<i8>(),
            )
            .map_err(lt)?;
            result::set_matmul_pref_attribute(
                preference.0,
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace).cast(),
                size_of::<usize>(),
            )
            .map_err(lt)?;
            result::get_matmul_algo_heuristic(handle.0, product.0, codes.0, codes.0, result_.0, result_.0, preference.0)
        };
        let Ok(found) = found else { return Ok(None) };
        let (a, _) = fp8::quantise(on.cuda, on.form, x)?;
        // SAFETY: the result is written before it is read, the workspace is the product's own.
        #[allow(unsafe_code)]
        let (out, workspace) = unsafe { (on.cuda.alloc::<bf16>(SQUARE * SQUARE)?, on.cuda.alloc::<u8>(WORKSPACE)?) };
        Ok(Some(Self { on, handle, product, codes, result: result_, algorithm: found.algo, a, out, workspace }))
    }

    fn run(&mut self) -> Result<()> {
        let stream = self.on.cuda.cuda_stream();
        let (one, zero) = (1f32, 0f32);
        let (a, _a) = self.a.device_ptr(&stream);
        let (out, _out) = self.out.device_ptr_mut(&stream);
        let (workspace, _workspace) = self.workspace.device_ptr_mut(&stream);
        // SAFETY: the layouts say the sizes of the three matrices; all pointers stay valid on the stream.
        #[allow(unsafe_code)]
        let done = unsafe {
            result::matmul(
                self.handle.0,
                self.product.0,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                a as *const _,
                self.codes.0,
                a as *const _,
                self.codes.0,
                out as *const _,
                self.result.0,
                out as *mut _,
                self.result.0,
                &raw const self.algorithm,
                workspace as *mut _,
                WORKSPACE,
                stream.cu_stream().cast(),
            )
        };
        done.map_err(|error| Error::msg(format!("cuBLASLt: {error}")))
    }
}
