//! Launches of `kernels/indexer_topk.cu`: scores of a block of query rows, then the selection from them.

use std::time::{Duration, Instant};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaSlice};
use candle_core::{CudaDevice, CudaStorage, DType, Device, Result, Tensor, bail};
use half::bf16;

use super::device::{self, File, Form, address, gpu, tensor, view};
use super::fp8;
use crate::domain::Selection;
use crate::model::ops::arguments::{Scoring, Select};
use crate::model::ops::plan::{self, Block, Format};
use crate::model::ops::{Indices, Stop, selects_in_fp8};

/// The indexer's operands of one sequence, in the format in which they are multiplied.
struct Operands {
    q: Codes,
    k: Codes,
    w: Tensor,
    scale: f32,
    queries: usize,
    keys: usize,
    heads: usize,
    dim: usize,
}

impl Operands {
    /// Returns how many keys a query sees.
    fn first(&self, query: usize) -> usize {
        self.keys - self.queries + query + 1
    }
}

/// Rows as they are, or as codes with one scale per row.
enum Codes {
    Bf16(Tensor),
    Fp8 { codes: CudaSlice<u8>, scales: CudaSlice<f32> },
}

/// Selects on the device; `None` for operands that no kernel takes. Operands and times as in [`super::super::select`].
pub(in crate::model::ops) fn select(
    q: &Tensor,
    k: &Tensor,
    w: &Tensor,
    scale: f64,
    topk: usize,
    stop: Stop,
    timed: bool,
) -> Result<Option<(Indices, Duration, Duration)>> {
    let (Device::Cuda(device), DType::BF16, DType::BF16) = (q.device(), q.dtype(), k.dtype()) else { return Ok(None) };
    let (b, t, heads) = w.dims3()?;
    let (_, keys, dim) = k.dims3()?;
    let form = Form::asked();
    let format = if selects_in_fp8(q.device(), q.dtype()) { Format::Fp8 } else { Format::Bf16 };
    let planned = plan::scores(format, heads, dim, t, keys, gpu(device, form)?);
    if planned.is_none() && format == Format::Fp8 {
        bail!("no kernel takes {heads} indexer heads of {dim} in fp8, which INDEXSCOPE_INDEXER asks for")
    }
    if topk == 0 || planned.is_none() {
        return Ok(None);
    }
    let (begin, mut rows, mut selecting) = (Instant::now(), Vec::with_capacity(b), Duration::ZERO);
    let topk = topk.min(keys);
    for n in 0..b {
        let one = |x: &Tensor| x.narrow(0, n, 1)?.squeeze(0)?.contiguous();
        let (q, k, w) = (one(q)?, one(k)?, one(&w.to_dtype(DType::F32)?)?);
        let chosen = launch(device, form, format, (&q, &k, &w), scale, topk, How { stop, timed, workspace: None })?;
        if stop.asked() {
            // What was not chosen any more must not be read.
            let mut nothing = Selection::default();
            (0..t).for_each(|_| nothing.push(&[]));
            return Ok(Some((vec![nothing; b].into(), Duration::ZERO, Duration::ZERO)));
        }
        selecting += chosen.selecting()?;
        rows.push(tensor(CudaStorage::wrap_cuda_slice(chosen.keys, device.clone()), (t, topk)));
    }
    let rows = if let [one] = &rows[..] { one.unsqueeze(0)? } else { Tensor::stack(&rows, 0)? };
    if timed {
        q.device().synchronize()?;
    }
    Ok(Some((Indices::padded(rows)?, begin.elapsed().saturating_sub(selecting), selecting)))
}

/// How a launch is watched.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    /// Asked between blocks of rows; what comes after is left unwritten.
    pub(super) stop: Stop<'a>,
    /// Whether selections are timed apart.
    pub(super) timed: bool,
    /// Bytes of scores held at once; `None` for what the environment asks for.
    pub(super) workspace: Option<usize>,
}

/// What one sequence's queries chose, on the device: `[T, topk]`.
pub(super) struct Chosen {
    pub(super) keys: CudaSlice<u32>,
    /// Beginning and end of each selection, where they were timed.
    marks: Vec<(CudaEvent, CudaEvent)>,
}

impl Chosen {
    /// Waits for the device, and returns the time spent in selecting, where that was timed.
    pub(super) fn selecting(&self) -> Result<Duration> {
        let mut millis = 0.0;
        for (from, to) in &self.marks {
            to.synchronize().w()?;
            millis += f64::from(from.elapsed_ms(to).w()?);
        }
        Ok(Duration::from_secs_f64(millis / 1e3))
    }
}

/// As [`launch`], with the result on the host.
pub(super) fn run(
    device: &CudaDevice,
    form: Form,
    format: Format,
    operands: (&Tensor, &Tensor, &Tensor),
    scale: f64,
    topk: usize,
) -> Result<Vec<u32>> {
    let how = How { stop: Stop::NEVER, timed: false, workspace: None };
    device.clone_dtoh(&launch(device, form, format, operands, scale, topk, how)?.keys)
}

/// Selects for one sequence: `q` `[T, heads · dim]` and `k` `[keys, dim]` in bf16, `w` `[T, heads]` in f32.
pub(super) fn launch(
    device: &CudaDevice,
    form: Form,
    format: Format,
    (q, k, w): (&Tensor, &Tensor, &Tensor),
    scale: f64,
    topk: usize,
    How { stop, timed, workspace }: How,
) -> Result<Chosen> {
    let ((queries, heads), (keys, dim)) = (w.dims2()?, k.dims2()?);
    let codes = |x: &Tensor| -> Result<Codes> {
        match format {
            Format::Bf16 => Ok(Codes::Bf16(x.contiguous()?)),
            Format::Fp8 => {
                let (codes, scales) = fp8::quantise(device, form, &x.reshape(((), dim))?)?;
                Ok(Codes::Fp8 { codes, scales })
            }
        }
    };
    let (q, k) = (codes(q)?, codes(k)?);
    let operands = Operands { q, k, w: w.contiguous()?, scale: scale as f32, queries, keys, heads, dim };
    let (gpu, workspace) = (gpu(device, form)?, workspace.map_or_else(asked_workspace, Ok)?);
    let blocks = plan::blocks(keys - queries, queries, heads, gpu, workspace);
    let largest = blocks.iter().map(|block| block.rows * block.width).max().unwrap_or_default();
    let stream = device.cuda_stream();
    // SAFETY: every entry that is read was written before: scores of visible keys, all of a row of the selection.
    #[allow(unsafe_code)]
    let (scores, chosen) = unsafe { (device.alloc::<f32>(largest)?, device.alloc::<u32>(queries * topk)?) };
    let mut marks = Vec::new();
    for block in blocks {
        if stop.asked() {
            break;
        }
        score(device, form, format, &operands, block, &scores)?;
        let mark = || timed.then(|| stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).w()).transpose();
        let from = mark()?;
        let Block { start, rows, width } = block;
        let arguments = Select {
            scores: address(&scores),
            width: width as u32,
            first: operands.first(start) as i32,
            keys: keys as i32,
            k: topk as i32,
            topk: address(&chosen.slice(start * topk..(start + rows) * topk)),
        };
        // SAFETY: one block per row; `scores` holds `rows` rows of `width`, `chosen` from there on `rows` rows of `k`.
        #[allow(unsafe_code)]
        unsafe { device::launch(device, form, File::Indexer, &plan::select(rows), &arguments) }?;
        marks.extend(from.zip(mark()?));
    }
    Ok(Chosen { keys: chosen, marks })
}

/// Returns the bytes of scores that the environment asks for (`INDEXSCOPE_SCORES_MIB`), or what is usual.
fn asked_workspace() -> Result<usize> {
    let Some(asked) = std::env::var_os("INDEXSCOPE_SCORES_MIB") else { return Ok(plan::SCORES) };
    match asked.to_str().and_then(|mib| mib.parse().ok()) {
        Some(mib @ 1..=8192) => Ok(mib << 20),
        _ => bail!("INDEXSCOPE_SCORES_MIB is {asked:?}, not a number of MiB from 1 to 8192"),
    }
}

/// Scores a block of queries.
fn score(
    device: &CudaDevice,
    form: Form,
    format: Format,
    o: &Operands,
    Block { start, rows, width }: Block,
    scores: &CudaSlice<f32>,
) -> Result<()> {
    let first = o.first(start);
    let Some(planned) = plan::scores(format, o.heads, o.dim, rows, first + rows - 1, gpu(device, form)?) else {
        bail!("no kernel takes {} indexer heads of {}", o.heads, o.dim)
    };
    let (w, w_layout) = o.w.storage_and_layout();
    let common = Scoring {
        w: address(&view::<f32>(&w, w_layout)?.slice(start * o.heads..)),
        scores: address(scores),
        scale: o.scale,
        heads: o.heads as i32,
        rows: rows as i32,
        first: first as i32,
        keys: o.keys as i32,
        width: width as u32,
        ..Scoring::default()
    };
    let query = start * o.heads * o.dim;
    let arguments = match (&o.q, &o.k) {
        (Codes::Bf16(q), Codes::Bf16(k)) => {
            let ((q, q_layout), (k, k_layout)) = (q.storage_and_layout(), k.storage_and_layout());
            let (q, k) = (view::<bf16>(&q, q_layout)?, view::<bf16>(&k, k_layout)?);
            Scoring { q: address(&q.slice(query..)), k: address(&k), dim_bytes: 2 * o.dim as i32, ..common }
        }
        (Codes::Fp8 { codes: q, scales: q_scales }, Codes::Fp8 { codes: k, scales: k_scales }) => Scoring {
            q: address(&q.slice(query..)),
            k: address(k),
            q_scale: address(&q_scales.slice(start * o.heads..)),
            k_scale: address(k_scales),
            dim_bytes: o.dim as i32,
            ..common
        },
        _ => bail!("queries and keys are in different formats"),
    };
    // SAFETY: the operands hold `rows` queries from `start`, all keys and the weights, scales one per (query, head) and
    // one per key; `scores` holds `rows` rows of `width`.
    #[allow(unsafe_code)]
    unsafe {
        device::launch(device, form, File::Indexer, &planned, &arguments)
    }
}
