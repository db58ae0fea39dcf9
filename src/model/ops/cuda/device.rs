//! Modules of compiled kernels, their launches, and access to tensors on the device.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::sys::{self, CUdevice_attribute, CUfunction_attribute_enum};
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaView, DevicePtr, LaunchConfig, PushKernelArg, result,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDType, DeviceId, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Device, Layout, Result, Shape, Storage, Tensor, bail};

use crate::model::ops::arguments::{Address, Argument, Arguments};
use crate::model::ops::plan::{Gpu, Launch, PORTABLE_SHARED};

/// A file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum File {
    Experts,
    Fp8,
    Indexer,
    Overlap,
    Rows,
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
            Self::Experts => code!("experts"),
            Self::Fp8 => code!("fp8_dequant"),
            Self::Indexer => code!("indexer_topk"),
            Self::Overlap => code!("overlap"),
            Self::Rows => code!("rows"),
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
    /// Returns its name in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::MmaSync => "mma.sync",
            Self::Portable => "portable",
        }
    }

    /// Returns the form that the environment asks for (`INDEXSCOPE_KERNELS=portable`).
    pub(super) fn asked() -> Self {
        if std::env::var_os("INDEXSCOPE_KERNELS").is_some_and(|form| form == "portable") {
            Self::Portable
        } else {
            Self::Native
        }
    }
}

/// Opens a CUDA device with one stream for everything.
///
/// With one stream, its order is all the order there is: no buffer needs events of its own. Freed memory stays with the
/// device's pool: by default the driver would give it back whenever somebody waits, and fetch it again.
pub(in crate::model::ops) fn open(number: usize) -> Result<Device> {
    let device = CudaDevice::new_with_stream(number)?;
    let keep = u64::MAX;
    // SAFETY: nothing has been allocated yet, and all that will be belongs to this one stream; the device is there, and
    // the attribute is read from a u64.
    #[allow(unsafe_code)]
    unsafe {
        device.disable_event_tracking();
        if let Some(pool) = pool(device.cuda_stream().context()) {
            let which = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            result::mem_pool::set_attribute(pool, which, (&raw const keep).cast_mut().cast()).w()?;
        }
    }
    Ok(Device::Cuda(device))
}

/// Gives back what the device's pool keeps and nobody uses.
pub(in crate::model::ops) fn give_back(device: &CudaDevice) -> Result<()> {
    let stream = device.cuda_stream();
    stream.synchronize().w()?;
    // SAFETY: the pool is the device's; what is in use stays.
    #[allow(unsafe_code)]
    pool(stream.context()).map_or(Ok(()), |pool| unsafe { result::mem_pool::trim_to(pool, 0) }).w()
}

/// Returns the bytes that the device's pool keeps and nobody uses: free to this program, though the driver counts them.
pub(in crate::model::ops) fn kept(context: &CudaContext) -> u64 {
    let Some(pool) = pool(context) else { return 0 };
    let bytes = |which| {
        let mut bytes = 0u64;
        // SAFETY: the pool is the device's, and the attribute is a u64.
        #[allow(unsafe_code)]
        let got = unsafe { result::mem_pool::get_attribute(pool, which, (&raw mut bytes).cast()) };
        got.map_or(0, |()| bytes)
    };
    let reserved = bytes(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT);
    reserved.saturating_sub(bytes(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT))
}

/// Returns the pool that memory comes from; `None` where the device has none.
fn pool(context: &CudaContext) -> Option<sys::CUmemoryPool> {
    // SAFETY: the device is there.
    #[allow(unsafe_code)]
    unsafe { result::device::get_default_mem_pool(context.cu_device()) }.ok()
}

/// What has been found out and loaded for one form on one device.
struct Loaded {
    gpu: Gpu,
    modules: HashMap<File, Arc<CudaModule>>,
    kernels: HashMap<String, Kernel>,
}

/// A kernel, and how much dynamic shared memory its launches may have so far.
struct Kernel {
    function: CudaFunction,
    shared: u32,
}

impl Loaded {
    fn new(device: &CudaDevice, form: Form) -> Result<Self> {
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
        let shared = if form == Form::Portable { shared.min(PORTABLE_SHARED) } else { shared };
        Ok(Self { gpu: Gpu { shared, processors, wgmma }, modules: HashMap::new(), kernels: HashMap::new() })
    }

    /// Returns a kernel that may have the shared memory of the launch.
    fn kernel(&mut self, device: &CudaDevice, form: Form, file: File, launch: &Launch) -> Result<CudaFunction> {
        if !self.kernels.contains_key(&launch.name) {
            let module = match self.modules.entry(file) {
                Entry::Occupied(module) => module.into_mut(),
                Entry::Vacant(place) => {
                    let (binary, ptx) = file.code();
                    let portable = form == Form::Portable;
                    let code = if portable { Ptx::from_src(ptx) } else { Ptx::from_binary(binary.to_vec()) };
                    place.insert(device.cuda_stream().context().load_module(code).w()?)
                }
            };
            let function = module.load_function(&launch.name).w()?;
            self.kernels.insert(launch.name.clone(), Kernel { function, shared: ORDINARY_SHARED });
        }
        let Some(kernel) = self.kernels.get_mut(&launch.name) else { bail!("{} is not loaded", launch.name) };
        if launch.shared > kernel.shared {
            let which = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            kernel.function.set_attribute(which, launch.shared as i32).w()?;
            kernel.shared = launch.shared;
        }
        Ok(kernel.function.clone())
    }
}

/// Calls `f` with what has been loaded for a form on a device.
fn with_loaded<R>(device: &CudaDevice, form: Form, f: impl FnOnce(&mut Loaded) -> Result<R>) -> Result<R> {
    static LOADED: Mutex<Option<HashMap<(DeviceId, Form), Loaded>>> = Mutex::new(None);
    let mut all = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    match all.get_or_insert_default().entry((device.id(), form)) {
        Entry::Occupied(loaded) => f(loaded.into_mut()),
        Entry::Vacant(place) => f(place.insert(Loaded::new(device, form)?)),
    }
}

/// Returns what launches depend on.
pub(super) fn gpu(device: &CudaDevice, form: Form) -> Result<Gpu> {
    with_loaded(device, form, |loaded| Ok(loaded.gpu))
}

/// The same of a device; `None` for one that is no CUDA device, or where kernels cannot be loaded.
pub(in crate::model::ops) fn limits(on: &Device) -> Option<Gpu> {
    let Device::Cuda(device) = on else { return None };
    gpu(device, Form::asked()).ok()
}

/// Starts a kernel on candle's stream.
///
/// # Safety
/// Addresses must be of memory on the device that holds what the kernel reads and has room for what it writes, and that
/// is freed on the same stream.
#[allow(unsafe_code)]
pub(super) unsafe fn launch(
    device: &CudaDevice,
    form: Form,
    file: File,
    planned: &Launch,
    arguments: &impl Arguments,
) -> Result<()> {
    let function = with_loaded(device, form, |loaded| loaded.kernel(device, form, file, planned))?;
    let config =
        LaunchConfig { grid_dim: planned.grid, block_dim: (planned.threads, 1, 1), shared_mem_bytes: planned.shared };
    let stream = device.cuda_stream();
    let mut builder = stream.launch_builder(&function);
    for (_, argument) in arguments.list() {
        match argument {
            Argument::Address(value) => builder.arg(value),
            Argument::Int(value) => builder.arg(value),
            Argument::Long(value) => builder.arg(value),
            Argument::Unsigned(value) => builder.arg(value),
            Argument::Float(value) => builder.arg(value),
        };
    }
    // SAFETY: the arguments are those that the kernel declares (a test of `arguments` compares them); what they point to
    // is the caller's word.
    unsafe { builder.launch(config) }.w().map(drop)
}

/// Returns where a buffer or a part of one begins.
pub(super) fn address<T>(of: &impl DevicePtr<T>) -> Address {
    of.device_ptr(of.stream()).0
}

/// Views the elements of a contiguous tensor on a CUDA device.
pub(super) fn view<'a, T: CudaDType>(storage: &'a Storage, layout: &Layout) -> Result<CudaView<'a, T>> {
    match (storage, layout.contiguous_offsets()) {
        (Storage::Cuda(cuda), Some((start, end))) => Ok(cuda.as_cuda_slice::<T>()?.slice(start..end)),
        (Storage::Cuda(_), None) => bail!("the operand is not contiguous"),
        _ => bail!("the operand is not on a CUDA device"),
    }
}

/// Returns all of what a tensor is a view of, on a CUDA device.
pub(super) fn all<T: CudaDType>(storage: &Storage) -> Result<&CudaSlice<T>> {
    match storage {
        Storage::Cuda(cuda) => cuda.as_cuda_slice::<T>(),
        _ => bail!("the operand is not on a CUDA device"),
    }
}

/// Makes a tensor of what a kernel wrote.
pub(super) fn tensor(storage: CudaStorage, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}
