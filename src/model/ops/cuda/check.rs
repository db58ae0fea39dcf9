//! Every launched kernel against its CPU twin, and its time beside what the device is measured to do.

use std::time::Duration;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
use candle_core::{CudaDevice, DType, Device, Result, Tensor, bail};

use super::device::Form;
use super::{indexer, sparse};
use crate::domain::Selection;
use crate::model::ops::attention::MlaShape;
use crate::model::ops::gpu_check::GpuCheck;
use crate::model::ops::plan::Format;
use crate::model::ops::{Indices, Picked, Stop, select, sparse_latent};

/// Timed runs of which the median is taken.
const RUNS: usize = 11;

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

/// Runs all comparisons, as [`crate::model::ops::gpu_check`] says.
pub(in crate::model::ops) fn gpu_check(device: &Device) -> Result<Vec<GpuCheck>> {
    let Device::Cuda(cuda) = device else { bail!("the device is not a CUDA device") };
    let mut checks = Vec::new();
    for (form, name) in [(Form::Native, "native"), (Form::Portable, "portable")] {
        for (heads, dim, queries, keys, topk) in
            [(4, 32, 77, 77, 16), (32, 128, 300, 300, 64), (64, 128, 130, 5000, 2048), (32, 128, 1, 9000, 2048)]
        {
            for format in [Format::Bf16, Format::Fp8] {
                checks.push(exact_selection(cuda, (form, name), format, (heads, dim, queries, keys, topk))?);
            }
            checks.push(near_selection(cuda, (form, name), (heads, dim, queries, keys, topk))?);
        }
        for (heads, latent, rope, queries, keys, topk) in [
            (8, 128, 16, 50, 50, 20),
            (20, 512, 64, 200, 3000, 500),
            (64, 512, 64, 100, 4000, 2048),
            (64, 512, 64, 1, 4000, 2048),
        ] {
            checks.push(attention(cuda, (form, name), (heads, latent, rope, queries, keys, topk))?);
        }
    }
    let ceilings = Ceilings::measure(cuda)?;
    checks.extend(ceilings.rows());
    for format in [Format::Bf16, Format::Fp8] {
        checks.push(timed_indexer(cuda, format, &ceilings)?);
    }
    for heads in [64, 20] {
        checks.push(timed_attention(cuda, heads, &ceilings)?);
    }
    Ok(checks)
}

type Sizes = (usize, usize, usize, usize, usize);

fn operands((heads, dim, queries, keys, _): Sizes, dyadic: bool) -> Result<[Tensor; 3]> {
    let bf16 = |x: Tensor| x.to_dtype(DType::BF16)?.to_dtype(DType::F32);
    let (q, k) = (draw(&[1, queries, heads * dim], 1, dyadic)?, draw(&[1, keys, dim], 2, dyadic)?);
    Ok([bf16(q)?, bf16(k)?, draw(&[1, queries, heads], 3, dyadic)?])
}

fn on_device(cuda: &CudaDevice, x: &Tensor, dtype: DType) -> Result<Tensor> {
    x.squeeze(0)?.to_dtype(dtype)?.to_device(&Device::Cuda(cuda.clone()))
}

fn chosen(cuda: &CudaDevice, form: Form, format: Format, x: &[Tensor; 3], topk: usize) -> Result<Vec<u32>> {
    let (q, k, w) = (
        on_device(cuda, &x[0], DType::BF16)?,
        on_device(cuda, &x[1], DType::BF16)?,
        on_device(cuda, &x[2], DType::F32)?,
    );
    indexer::run(cuda, form, format, (&q, &k, &w), 0.5, topk)
}

/// Rule (a): on operands on which every partial sum is exact, sets are identical, ties included.
fn exact_selection(
    cuda: &CudaDevice,
    (form, name): (Form, &'static str),
    format: Format,
    sizes: Sizes,
) -> Result<GpuCheck> {
    let (heads, dim, queries, keys, topk) = sizes;
    let mut x = operands(sizes, true)?;
    if format == Format::Fp8 {
        // A first element of 1.75 gives every row the scale 1/256: dyadic, and the other values are codes.
        for x in x.iter_mut().take(2) {
            let shape = x.shape().clone();
            let mut values: Vec<f32> = x.flatten_all()?.to_vec1()?;
            values.chunks_mut(dim).for_each(|row| row[0] = 1.75);
            *x = Tensor::from_vec(values, shape, &Device::Cpu)?;
        }
    }
    let (want, ..) = select(&x[0], &x[1], &x[2], 0.5, topk, Stop::NEVER, false)?;
    let got = chosen(cuda, form, format, &x, topk)?;
    let wrong = differing(&got, &want.sets()?[0], topk);
    Ok(GpuCheck {
        kernel: format!("indexer_topk {format:?}").to_lowercase(),
        form: name,
        sizes: format!("{heads}x{dim}, {queries} queries, {keys} keys, k {topk}"),
        rule: "exact operands: identical sets",
        passed: wrong == 0,
        found: format!("{wrong} of {queries} rows differ"),
        millis: None,
        of_ceiling: None,
    })
}

fn differing(got: &[u32], want: &Selection, topk: usize) -> usize {
    got.chunks(topk).enumerate().filter(|(i, row)| row[..want.row(*i).len()] != *want.row(*i)).count()
}

/// Rule (b): on real operands, members that differ have scores within 1e-2 of the largest of the k-th.
fn near_selection(cuda: &CudaDevice, (form, name): (Form, &'static str), sizes: Sizes) -> Result<GpuCheck> {
    let (heads, dim, queries, keys, topk) = sizes;
    let x = operands(sizes, false)?;
    let scores = crate::model::ops::indexer_scores(&x[0], &x[1], &x[2], 0.5)?.squeeze(0)?.to_vec2::<f32>()?;
    let (want, ..) = select(&x[0], &x[1], &x[2], 0.5, topk, Stop::NEVER, false)?;
    let (want, got) = (&want.sets()?[0], chosen(cuda, form, Format::Bf16, &x, topk)?);
    let mut far: f32 = 0.0;
    for (i, row) in got.chunks(topk).enumerate() {
        let right = want.row(i);
        let visible = &scores[i][..=keys - queries + i];
        let largest = visible.iter().fold(0f32, |a, s| a.max(s.abs())).max(f32::MIN_POSITIVE);
        let limit = right.iter().map(|&j| visible[j as usize]).fold(f32::INFINITY, f32::min);
        let members = &row[..right.len()];
        let only = |a: &[u32], b: &[u32]| a.iter().filter(|j| !b.contains(j)).copied().collect::<Vec<_>>();
        for j in only(members, right).into_iter().chain(only(right, members)) {
            let score = visible.get(j as usize).copied().unwrap_or(f32::INFINITY);
            far = far.max((score - limit).abs() / largest);
        }
    }
    let wrong = differing(&got, want, topk);
    Ok(GpuCheck {
        kernel: "indexer_topk bf16".to_owned(),
        form: name,
        sizes: format!("{heads}x{dim}, {queries} queries, {keys} keys, k {topk}"),
        rule: "real operands: within 1e-2 max|s| of the k-th",
        passed: far <= 1e-2,
        found: format!("{far:.1e}, {wrong} of {queries} rows differ"),
        millis: None,
        of_ceiling: None,
    })
}

type AttentionSizes = (usize, usize, usize, usize, usize, usize);

/// q, c_kv, k_rope, W and a random selection.
fn attention_operands(
    (heads, latent, rope, queries, keys, topk): AttentionSizes,
) -> Result<([Tensor; 4], Indices, MlaShape)> {
    let shape = MlaShape { heads, nope: 64, rope, value: 64 };
    let q = draw(&[1, queries, heads * (64 + rope)], 1, false)?;
    let (c_kv, k_rope) = (draw(&[1, keys, latent], 2, false)?, draw(&[1, keys, rope], 3, false)?);
    let w = (draw(&[heads * 128, latent], 4, false)? * (latent as f64).powf(-0.5))?;
    let one = Tensor::ones((1, queries, 1), DType::F32, &Device::Cpu)?;
    let (random, ..) = select(&one, &draw(&[1, keys, 1], 5, false)?, &one, 1.0, topk, Stop::NEVER, false)?;
    Ok(([q, c_kv, k_rope, w], random, shape))
}

fn attention(cuda: &CudaDevice, (form, name): (Form, &'static str), sizes: AttentionSizes) -> Result<GpuCheck> {
    let (heads, latent, rope, queries, keys, topk) = sizes;
    let (x, indices, shape) = attention_operands(sizes)?;
    let narrow = |x: &Tensor| x.to_dtype(DType::BF16);
    let wide = |x: &Tensor| narrow(x)?.to_dtype(DType::F32);
    let picked = Picked { indices: &indices, stop: Stop::NEVER };
    let want = sparse_latent(&wide(&x[0])?, &wide(&x[1])?, &wide(&x[2])?, &wide(&x[3])?, shape, 0.1, picked)?;
    let there = |x: &Tensor| narrow(x)?.to_device(&Device::Cuda(cuda.clone()));
    let device = Device::Cuda(cuda.clone());
    let rows = indices.on(&device, keys)?.squeeze(0)?;
    let sets = sparse::Sets { rows: &rows, start: 0 };
    let (q, c_kv, k_rope) = (there(&x[0].squeeze(0)?)?, there(&x[1].squeeze(0)?)?, there(&x[2].squeeze(0)?)?);
    let got = sparse::launch(cuda, form, (&q, &c_kv, &k_rope, &there(&x[3])?), shape, 0.1, sets)?;
    let got = got.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let want = want.squeeze(0)?;
    let off = (&got - &want)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
    let largest = want.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
    Ok(GpuCheck {
        kernel: "sparse_mla bf16".to_owned(),
        form: name,
        sizes: format!("{heads} heads, {latent}+{rope}, {queries} queries, {keys} keys, k {topk}"),
        rule: "within 2e-2 of the largest value",
        passed: off <= 2e-2 * largest,
        found: format!("{:.1e}", off / largest),
        millis: None,
        of_ceiling: None,
    })
}

/// What the device is measured to do.
struct Ceilings {
    /// Operations per second of candle's bf16 matrix product.
    bf16: f64,
    /// Bytes per second that a copy reads and writes.
    bandwidth: f64,
    millis: [f64; 2],
}

const SQUARE: usize = 8192;
const COPIED: usize = 1 << 30;

impl Ceilings {
    fn measure(cuda: &CudaDevice) -> Result<Self> {
        let device = Device::Cuda(cuda.clone());
        let a = Tensor::randn(0f32, 1.0, (SQUARE, SQUARE), &device)?.to_dtype(DType::BF16)?;
        let product = median(cuda, &mut || a.matmul(&a).map(drop))?;
        let x = Tensor::zeros(COPIED, DType::U8, &device)?;
        let copy = median(cuda, &mut || x.copy().map(drop))?;
        Ok(Self {
            bf16: 2.0 * (SQUARE as f64).powi(3) / product * 1e3,
            bandwidth: 2.0 * COPIED as f64 / copy * 1e3,
            millis: [product, copy],
        })
    }

    fn rows(&self) -> Vec<GpuCheck> {
        let row = |kernel: &str, sizes: String, found: String, millis: f64| GpuCheck {
            kernel: kernel.to_owned(),
            form: "ceiling",
            sizes,
            rule: "measured",
            passed: true,
            found,
            millis: Some(millis),
            of_ceiling: None,
        };
        let tera = format!("{:.0} TFLOP/s", self.bf16 / 1e12);
        let giga = format!("{:.0} GB/s", self.bandwidth / 1e9);
        vec![
            row("bf16 matrix product", format!("{SQUARE}^3"), tera, self.millis[0]),
            row("copy", format!("{} MiB", COPIED >> 20), giga, self.millis[1]),
        ]
    }
}

/// Returns the median time of a run in milliseconds, by the device's events, after one run to warm up.
fn median(cuda: &CudaDevice, run: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
    let stream = cuda.cuda_stream();
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

fn timed_indexer(cuda: &CudaDevice, format: Format, ceilings: &Ceilings) -> Result<GpuCheck> {
    let (heads, dim, t, topk) = (32, 128, 65_536, 2048);
    let device = Device::Cuda(cuda.clone());
    let q = Tensor::randn(0f32, 1.0, (t, heads * dim), &device)?.to_dtype(DType::BF16)?;
    let k = Tensor::randn(0f32, 1.0, (t, dim), &device)?.to_dtype(DType::BF16)?;
    let w = Tensor::randn(0f32, 1.0, (t, heads), &device)?;
    let how = indexer::How { stop: Stop::NEVER, timed: true };
    let mut selecting = Duration::ZERO;
    let mut run = || -> Result<()> {
        let chosen = indexer::launch(cuda, Form::asked(), format, (&q, &k, &w), 0.1, topk, how)?;
        selecting = chosen.selecting()?;
        Ok(())
    };
    let millis = median(cuda, &mut run)?;
    let operations = (t as f64 * (t as f64 + 1.0) / 2.0) * (heads * dim * 2) as f64;
    Ok(GpuCheck {
        kernel: format!("indexer_topk {format:?}").to_lowercase(),
        form: "timed",
        sizes: format!("{heads}x{dim}, T {t}, k {topk}"),
        rule: "scores and selection; the sets stay on the device",
        passed: true,
        found: format!("{:.0} TFLOP/s, selection {:.1} ms", operations / millis / 1e9, selecting.as_secs_f64() * 1e3),
        millis: Some(millis),
        of_ceiling: Some(operations / (millis / 1e3) / ceilings.bf16),
    })
}

fn timed_attention(cuda: &CudaDevice, heads: usize, ceilings: &Ceilings) -> Result<GpuCheck> {
    let (latent, rope, queries, keys, topk) = (512, 64, 1024, 65_536, 2048);
    let (x, indices, shape) = attention_operands((heads, latent, rope, queries, keys, topk))?;
    let there = |x: &Tensor| x.to_dtype(DType::BF16)?.to_device(&Device::Cuda(cuda.clone()));
    let (q, c_kv, k_rope) = (there(&x[0].squeeze(0)?)?, there(&x[1].squeeze(0)?)?, there(&x[2].squeeze(0)?)?);
    let w = there(&x[3])?;
    let rows = indices.on(&Device::Cuda(cuda.clone()), keys)?.squeeze(0)?;
    let sets = sparse::Sets { rows: &rows, start: 0 };
    let operands = (&q, &c_kv, &k_rope, &w);
    let millis = median(cuda, &mut || sparse::launch(cuda, Form::asked(), operands, shape, 0.1, sets).map(drop))?;
    let operations = (queries * topk * heads) as f64 * 2.0 * (2 * latent + rope) as f64;
    let bytes = (queries * topk) as f64 * 2.0 * (latent + rope) as f64;
    let least = (operations / ceilings.bf16).max(bytes / ceilings.bandwidth);
    Ok(GpuCheck {
        kernel: "sparse_mla bf16".to_owned(),
        form: "timed",
        sizes: format!("{heads} heads, {latent}+{rope}, {queries} queries, {keys} keys, k {topk}"),
        rule: "products with W_k and W_v included; the sets are on the device",
        passed: true,
        found: format!("{:.0} TFLOP/s", operations / millis / 1e9),
        millis: Some(millis),
        of_ceiling: Some(least / (millis / 1e3)),
    })
}
