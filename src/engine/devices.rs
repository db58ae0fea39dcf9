//! Which devices this program can use, and whether its kernels are right there.

use super::{BackendError, DeviceChoice, Placement};
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

#[cfg(not(feature = "cuda"))]
fn cuda() -> Result<Vec<DeviceInfo>, String> {
    Err("no CUDA device: this build is without the feature 'cuda'".to_owned())
}

#[cfg(feature = "cuda")]
fn cuda() -> Result<Vec<DeviceInfo>, String> {
    use candle_core::cuda_backend::cudarc::driver::CudaContext;

    let none = |why: &dyn std::fmt::Display| format!("no CUDA device: {why}");
    let count = CudaContext::device_count().map_err(|_| none(&"the driver finds none"))?;
    (0..count as usize)
        .map(|number| {
            let failed = |e| none(&format!("device {number}: {e:?}"));
            let context = CudaContext::new(number).map_err(failed)?;
            let (major, minor) = context.compute_capability().map_err(failed)?;
            let (free, total) = context.mem_get_info().map_err(failed)?;
            let description = format!("{}, compute capability {major}.{minor}", context.name().map_err(failed)?);
            Ok(DeviceInfo { name: format!("cuda:{number}"), description, memory: Some((free as u64, total as u64)) })
        })
        .collect()
}

/// Compares the kernels with their CPU twins on a device, and times them.
///
/// # Errors
/// [`BackendError::Failed`] where the device is none of CUDA's, or this build has no kernels.
pub fn check_kernels(device: DeviceChoice) -> Result<Vec<GpuCheck>, BackendError> {
    let placement = Placement::open(device, None)?;
    if placement.device.is_cpu() {
        return Err(BackendError::Failed {
            message: "the kernels cannot be checked without a CUDA device".to_owned(),
            hint: Some("'indexscope devices' says what is there; kernels/emulate/run.sh runs them on a CPU".to_owned()),
        });
    }
    Ok(gpu_check(&placement.device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_always_there_and_has_no_kernels_to_check() {
        let (devices, _) = devices();
        assert_eq!(devices[0].name, "cpu");
        assert!(devices[0].description.contains("threads"));
        let error = check_kernels(DeviceChoice::Cpu).unwrap_err();
        assert_eq!(error.to_string(), "the kernels cannot be checked without a CUDA device");
    }
}
