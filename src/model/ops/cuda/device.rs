//! Modules of compiled kernels, and access to tensors on the device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::sys::{CUdevice_attribute, CUfunction_attribute_enum};
use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaModule, CudaView, LaunchConfig};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDType, DeviceId, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Layout, Result, Shape, Storage, Tensor, bail};

use crate::model::ops::plan::{Gpu, Launch, PORTABLE_SHARED};

/// A file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum File {
    Fp8,
    Indexer,
    Overlap,
    Sparse,
}

/// The largest dynamic shared memory that needs no permission.
const ORDINARY_SHARED: u32 = 48 * 1024;

impl File {
    /// Returns the fat binary and the portable PTX.
    fn code(self) -> (&'static [u8], &'static str) {
        macro_rules! code {
            ($name:literal) => {
                (
                    include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".fatbin")).as_slice(),
                    include_str!(concat!(env!("OUT_DIR"), "/", $name, ".ptx")),
                )
            };
        }
        match self {
            Self::Fp8 => code!("fp8_dequant"),
            Self::Indexer => code!("indexer_topk"),
            Self::Overlap => code!("overlap"),
            Self::Sparse => code!("sparse_mla"),
        }
    }
}

/// Which form of the kernels runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// The code for this GPU and all of its shared memory.
    Native,
    /// The same without `wgmma`, to compare with where there is a choice.
    MmaSync,
    /// The PTX for compute_80, within 99 KiB.
    Portable,
}

impl Form {
    /// Returns the form that the environment asks for (`INDEXSCOPE_KERNELS=portable`).
    pub(super) fn asked() -> Self {
        if std::env::var_os("INDEXSCOPE_KERNELS").is_some_and(|form| form == "portable") {
            Self::Portable
        } else {
            Self::Native
        }
    }
}

/// Returns what launches depend on.
pub(super) fn gpu(device: &CudaDevice, form: Form) -> Result<Gpu> {
    let stream = device.cuda_stream();
    let attribute = |which| stream.context().attribute(which).w().map(|value| value as usize);
    let shared = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
    let processors = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    let capability = [
        attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    ];
    // Other GPUs' code has no such kernels: kernels/wgmma.cuh.
    let wgmma = form == Form::Native && capability == [9, 0];
    Ok(Gpu { shared: if form == Form::Portable { shared.min(PORTABLE_SHARED) } else { shared }, processors, wgmma })
}

/// Returns a kernel that may use the shared memory of the launch, and the configuration of the launch.
pub(super) fn kernel(
    device: &CudaDevice,
    form: Form,
    file: File,
    launch: &Launch,
) -> Result<(CudaFunction, LaunchConfig)> {
    type Modules = HashMap<(DeviceId, Form, File), Arc<CudaModule>>;
    static MODULES: Mutex<Option<Modules>> = Mutex::new(None);
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    let modules = modules.get_or_insert_default();
    let key = (device.id(), form, file);
    let module = if let Some(module) = modules.get(&key) {
        module.clone()
    } else {
        let (binary, ptx) = file.code();
        let code = if form == Form::Portable { Ptx::from_src(ptx) } else { Ptx::from_binary(binary.to_vec()) };
        let module = device.cuda_stream().context().load_module(code).w()?;
        modules.insert(key, module.clone());
        module
    };
    let function = module.load_function(&launch.name).w()?;
    if launch.shared > ORDINARY_SHARED {
        let which = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(which, launch.shared as i32).w()?;
    }
    let config =
        LaunchConfig { grid_dim: launch.grid, block_dim: (launch.threads, 1, 1), shared_mem_bytes: launch.shared };
    Ok((function, config))
}

/// Views the elements of a contiguous tensor on a CUDA device.
pub(super) fn view<'a, T: CudaDType>(storage: &'a Storage, layout: &Layout) -> Result<CudaView<'a, T>> {
    match (storage, layout.contiguous_offsets()) {
        (Storage::Cuda(cuda), Some((start, end))) => Ok(cuda.as_cuda_slice::<T>()?.slice(start..end)),
        (Storage::Cuda(_), None) => bail!("the operand is not contiguous"),
        _ => bail!("the operand is not on a CUDA device"),
    }
}

/// Makes a tensor of what a kernel wrote.
pub(super) fn tensor(storage: CudaStorage, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}
