//! What a comparison of a kernel with its CPU twin gives.

use candle_core::{Device, Result};

/// One kernel, compared or timed.
#[derive(Clone, Debug)]
pub struct GpuCheck {
    /// The kernel.
    pub kernel: String,
    /// `native`, `portable`, `timed` or `ceiling`.
    pub form: &'static str,
    /// Sizes of the operands.
    pub sizes: String,
    /// What was compared and how far apart it may be, or what was timed.
    pub rule: &'static str,
    /// Whether it held.
    pub passed: bool,
    /// What was found.
    pub found: String,
    /// Median time of one run, milliseconds; `None` where only the result counts.
    pub millis: Option<f64>,
    /// Share of the tighter measured ceiling that the median reaches.
    pub of_ceiling: Option<f64>,
}

/// Compares every launched kernel, native and portable, with its CPU twin, and times the native ones.
///
/// # Errors
/// Where the device is none of CUDA's or fails, or this build has no kernels.
pub fn gpu_check(device: &Device) -> Result<Vec<GpuCheck>> {
    #[cfg(feature = "cuda")]
    return super::cuda::gpu_check(device);
    #[cfg(not(feature = "cuda"))]
    candle_core::bail!("this build has no kernels for {device:?}")
}
