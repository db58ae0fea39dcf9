//! CUDA devices: how they are opened, and what they have in store.

#[cfg(feature = "cuda")]
use candle_core::cuda_backend::cudarc::driver::CudaContext;
use candle_core::{Device, Result};

/// Opens a CUDA device with one stream for all work, whose freed memory stays with the program.
///
/// # Errors
/// Where there is no such device, a library is missing, or this build cannot use one.
pub fn open_cuda(number: usize) -> Result<Device> {
    #[cfg(feature = "cuda")]
    return super::cuda::open(number);
    #[cfg(not(feature = "cuda"))]
    candle_core::bail!("this build cannot use cuda:{number}")
}

/// Returns the bytes of a device that this program has freed and keeps: they count as in use, but are its to use.
#[cfg(feature = "cuda")]
pub fn spare_bytes(context: &CudaContext) -> u64 {
    super::cuda::kept(context)
}

/// Waits for the device, and gives back what this program has freed and keeps: before something large is asked for, which
/// pieces of it would not serve.
///
/// # Errors
/// Where the device fails.
pub fn give_back(device: &Device) -> Result<()> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = device {
        return super::cuda::give_back(cuda);
    }
    device.synchronize()
}
