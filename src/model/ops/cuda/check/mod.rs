//! Every launched kernel against its CPU twin, and its time beside what the device is measured to do.

mod attention;
mod ceilings;
mod fp8;
mod indexer;
mod overlap;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
use candle_core::{CudaDevice, DType, Device, Result, Tensor, bail};

use self::ceilings::Ceilings;
use super::device::{Form, gpu};
use crate::model::ops::gpu_check::GpuCheck;
use crate::model::ops::plan::Format;

/// Timed runs of which the median is taken.
const RUNS: usize = 11;

/// Runs all comparisons, as [`crate::model::ops::gpu_check`] says.
pub(in crate::model::ops) fn gpu_check(device: &Device) -> Result<Vec<GpuCheck>> {
    let Device::Cuda(cuda) = device else { bail!("the device is not a CUDA device") };
    let mut checks = Vec::new();
    let wgmma = gpu(cuda, Form::asked())?.wgmma;
    for form in [Form::Native, Form::Portable] {
        let on = On { cuda, form };
        indexer::compare(on, &mut checks)?;
        attention::compare(on, &mut checks)?;
        fp8::compare(on, &mut checks)?;
        overlap::compare(on, &mut checks)?;
    }
    if wgmma {
        indexer::compare(On { cuda, form: Form::MmaSync }, &mut checks)?;
    }
    let ceilings = Ceilings::measure(cuda, &mut checks)?;
    let on = On { cuda, form: Form::asked() };
    for format in [Format::Bf16, Format::Fp8] {
        checks.push(indexer::timed(on, format, &ceilings)?);
        if wgmma {
            checks.push(indexer::timed(On { cuda, form: Form::MmaSync }, format, &ceilings)?);
        }
    }
    checks.extend(attention::timed(on, &ceilings)?);
    checks.push(fp8::timed(on, &ceilings)?);
    checks.push(overlap::timed(on, &ceilings)?);
    Ok(checks)
}

/// Where a kernel runs, and in which form.
#[derive(Clone, Copy)]
struct On<'a> {
    cuda: &'a CudaDevice,
    form: Form,
}

impl On<'_> {
    /// Returns a comparison of this form.
    fn compared(self, kernel: &str, sizes: String, rule: &'static str, passed: bool, found: String) -> GpuCheck {
        let form = match self.form {
            Form::Native => "native",
            Form::MmaSync => "mma.sync",
            Form::Portable => "portable",
        };
        GpuCheck { kernel: kernel.to_owned(), form, sizes, rule, passed, found, timing: None }
    }

    /// Copies a tensor to the device.
    fn there(self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        x.to_dtype(dtype)?.to_device(&self.device())
    }

    fn device(self) -> Device {
        Device::Cuda(self.cuda.clone())
    }

    /// Returns the median time of a run in milliseconds, by the device's events, after one run to warm up.
    fn median(self, run: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        let stream = self.cuda.cuda_stream();
        let mark = || stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).w();
        run()?;
        let mut times = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            let from = mark()?;
            run()?;
            let to = mark()?;
            to.synchronize().w()?;
            times.push(f64::from(from.elapsed_ms(&to).w()?));
        }
        times.sort_by(f64::total_cmp);
        Ok(times[RUNS / 2])
    }
}

/// Draws small multiples of 1/4 (exact in every order of summation), or uniform reals.
fn draw(shape: &[usize], seed: u64, dyadic: bool) -> Result<Tensor> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        let z = z ^ z >> 31;
        if dyadic { (z % 9) as f32 / 4.0 - 1.0 } else { (z >> 40) as f32 / 8_388_608.0 - 1.0 }
    };
    Tensor::from_vec((0..shape.iter().product()).map(|_| next()).collect::<Vec<f32>>(), shape, &Device::Cpu)
}
