//! Which devices this program can use, and whether its kernels are right there.

use super::{BackendError, DeviceChoice, Placement};
use crate::domain::Diagnostic;
use crate::model::ops::{GpuCheck, gpu_check};

/// A device that a model can run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// What `--device` takes: `cpu` or `cuda:N`.
    pub name: String,
    /// The maker's name, or the number of threads.
    pub description: String,
    /// Memory in bytes: free and in all; `None` where it is not the device's own.
    pub memory: Option<(u64, u64)>,
}

/// Lists the CPU and the CUDA devices; the second part says why there is none of those.
pub fn devices() -> (Vec<DeviceInfo>, Option<String>) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let description = format!("{threads} threads, {}", std::env::consts::ARCH);
    let mut found = vec![DeviceInfo { name: "cpu".to_owned(), description, memory: None }];
    match cuda() {
        Ok(devices) => {
            found.extend(devices);
            (found, None)
        }
        Err(reason) => (found, Some(reason)),
    }
}

/// Returns how many CUDA devices the driver finds; none without a driver, or without the feature `cuda`.
#[cfg(not(feature = "cuda"))]
pub(super) fn cuda_count() -> usize {
    0
}

/// Returns how many CUDA devices the driver finds; none without a driver, or without the feature `cuda`.
#[cfg(feature = "cuda")]
pub(super) fn cuda_count() -> usize {
    use candle_core::cuda_backend::cudarc::driver::CudaContext;

    CudaContext::device_count().map_or(0, |count| count as usize)
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Result<Vec<DeviceInfo>, String> {
    Err("no CUDA device: this build is without the feature 'cuda'".to_owned())
}

#[cfg(not(feature = "cuda"))]
fn cuda_device(_: usize) -> Result<DeviceInfo, String> {
    cuda().and_then(|mut none| none.pop().ok_or_else(String::new))
}

#[cfg(feature = "cuda")]
fn cuda() -> Result<Vec<DeviceInfo>, String> {
    use candle_core::cuda_backend::cudarc::driver::CudaContext;

    let count = CudaContext::device_count().map_err(|_| "no CUDA device: the driver finds none".to_owned())?;
    (0..count as usize).map(cuda_device).collect()
}

#[cfg(feature = "cuda")]
fn cuda_device(number: usize) -> Result<DeviceInfo, String> {
    use candle_core::cuda_backend::cudarc::driver::CudaContext;

    let failed = |e| format!("no CUDA device: device {number}: {e:?}");
    let context = CudaContext::new(number).map_err(failed)?;
    let (major, minor) = context.compute_capability().map_err(failed)?;
    let (free, total) = context.mem_get_info().map_err(failed)?;
    let free = free as u64 + crate::model::ops::spare_bytes(&context);
    let description = format!("{}, compute capability {major}.{minor}", context.name().map_err(failed)?);
    Ok(DeviceInfo { name: format!("cuda:{number}"), description, memory: Some((free, total as u64)) })
}

/// Returns free bytes and bytes in all of the device with this name; `None` for the CPU and for what is not there.
pub fn memory(name: &str) -> Option<(u64, u64)> {
    let number = name.strip_prefix("cuda:")?.parse().ok()?;
    cuda_device(number).ok()?.memory
}

/// Compares the kernels with their CPU twins on a device, and times them; `tell` hears of each check when it is done.
///
/// # Errors
/// [`BackendError::Failed`] where the device is none of CUDA's, or this build has no kernels.
pub fn check_kernels(device: DeviceChoice, tell: &mut dyn FnMut(&GpuCheck)) -> Result<Vec<GpuCheck>, BackendError> {
    let placement = Placement::open(device, None)?;
    if placement.device.is_cpu() {
        return Err(BackendError::Failed(Diagnostic {
            message: "the kernels cannot be checked without a CUDA device".to_owned(),
            hint: Some("'indexscope devices' says what is there; kernels/emulate/run.sh runs them on a CPU".to_owned()),
        }));
    }
    Ok(gpu_check(&placement.device, tell)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_always_there_and_has_no_kernels_to_check() {
        let (devices, _) = devices();
        assert_eq!(devices[0].name, "cpu");
        assert!(devices[0].description.contains("threads"));
        assert_eq!(memory("cpu"), None);
        let error = check_kernels(DeviceChoice::Cpu, &mut |_| ()).unwrap_err();
        assert_eq!(error.to_string(), "the kernels cannot be checked without a CUDA device");
    }
}
