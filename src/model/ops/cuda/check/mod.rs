//! Every launched kernel against its CPU twin, and its time beside what the device is measured to do.

mod attention;
mod ceilings;
mod experts;
mod fp8;
mod indexer;
mod overlap;
mod rows;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
use candle_core::{CudaDevice, DType, Device, Result, Tensor, bail};

use self::ceilings::Ceilings;
use super::device::{Form, gpu};
use crate::domain::Rng;
use crate::model::ops::gpu_check::GpuCheck;
use crate::model::ops::plan::Format;

/// Timed runs of which the median is taken.
const RUNS: usize = 11;

/// Bytes of scores with which the indexer is timed beside the usual ones.
const WORKSPACES: [usize; 2] = [32 << 20, 128 << 20];

/// Runs all comparisons, as [`crate::model::ops::gpu_check`] says.
pub(in crate::model::ops) fn gpu_check(device: &Device, tell: &mut dyn FnMut(&GpuCheck)) -> Result<Vec<GpuCheck>> {
    let Device::Cuda(cuda) = device else { bail!("the device is not a CUDA device") };
    let mut checks = Checks { all: Vec::new(), tell };
    let wgmma = gpu(cuda, Form::asked())?.wgmma;
    for form in [Form::Native, Form::Portable] {
        let on = On { cuda, form };
        checks.part("indexer_topk", form.name(), |checks| indexer::compare(on, checks));
        checks.part("sparse_mla, sparse_gqa", form.name(), |checks| attention::compare(on, checks));
        checks.part("fp8", form.name(), |checks| fp8::compare(on, checks));
        checks.part("overlap_pairs", form.name(), |checks| overlap::compare(on, checks));
    }
    let asked = On { cuda, form: Form::asked() };
    checks.part("rows", asked.form.name(), |checks| rows::compare(asked, checks));
    checks.part("experts", asked.form.name(), |checks| experts::compare(asked, checks));
    if wgmma {
        let on = On { cuda, form: Form::MmaSync };
        checks.part("indexer_topk", on.form.name(), |checks| indexer::compare(on, checks));
        checks.part("sparse_mla", on.form.name(), |checks| attention::compare(on, checks));
    }
    let mut ceilings = Ceilings::default();
    checks.part("ceilings", "ceiling", |checks| ceilings.measure(cuda, checks));
    let on = On { cuda, form: Form::asked() };
    for format in [Format::Bf16, Format::Fp8] {
        let mut timed = |on, workspace| {
            checks.part("indexer_topk", "timed", |checks| {
                checks.push(indexer::timed(on, format, workspace, &ceilings)?);
                Ok(())
            });
        };
        timed(on, None);
        WORKSPACES.into_iter().for_each(|bytes| timed(on, Some(bytes)));
        if wgmma {
            timed(On { cuda, form: Form::MmaSync }, None);
        }
    }
    checks.part("sparse_mla, sparse_gqa", "timed", |checks| attention::timed(on, &ceilings, checks));
    if wgmma {
        let on = On { cuda, form: Form::MmaSync };
        checks.part("sparse_mla", "timed", |checks| attention::timed(on, &ceilings, checks));
    }
    checks.part("fp8", "timed", |checks| fp8::timed(on, &ceilings).map(|check| checks.push(check)));
    checks.part("experts", "timed", |checks| experts::timed(on, &ceilings, checks));
    checks.part("rows", "timed", |checks| rows::timed(on, &ceilings, checks));
    checks.part("overlap_pairs", "timed", |checks| overlap::timed(on, &ceilings).map(|check| checks.push(check)));
    Ok(checks.all)
}

/// What has been found so far.
struct Checks<'a> {
    all: Vec<GpuCheck>,
    tell: &'a mut dyn FnMut(&GpuCheck),
}

impl Checks<'_> {
    fn push(&mut self, check: GpuCheck) {
        (self.tell)(&check);
        self.all.push(check);
    }

    /// Runs one part; where it fails, that is what was found.
    fn part(&mut self, kernel: &str, form: &'static str, run: impl FnOnce(&mut Self) -> Result<()>) {
        if let Err(error) = run(self) {
            let found = error.to_string().lines().next().unwrap_or_default().to_owned();
            let (kernel, sizes) = (kernel.to_owned(), "after the check before".to_owned());
            self.push(GpuCheck { kernel, form, sizes, rule: "runs", passed: false, found, timing: None });
        }
    }
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
        GpuCheck { kernel: kernel.to_owned(), form: self.form.name(), sizes, rule, passed, found, timing: None }
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
    let mut rng = Rng::from_state(seed);
    let mut next = || {
        let z = rng.next_u64();
        if dyadic { (z % 9) as f32 / 4.0 - 1.0 } else { (z >> 40) as f32 / 8_388_608.0 - 1.0 }
    };
    Tensor::from_vec((0..shape.iter().product()).map(|_| next()).collect::<Vec<f32>>(), shape, &Device::Cpu)
}
