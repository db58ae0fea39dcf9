//! Launches of `kernels/sparse_mla.cu`: of a latent, whose queries absorb W_k and whose mixed values go through W_v, and
//! of grouped heads, whose keys and values are read as they are.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, PushKernelArg};
use candle_core::{CudaDevice, CudaStorage, DType, Device, Result, Tensor, bail};
use half::bf16;

use super::device::{File, Form, gpu, kernel, tensor, view};
use crate::model::ops::Picked;
use crate::model::ops::allowed::check;
use crate::model::ops::attention::MlaShape;
use crate::model::ops::plan::{self, Launch, Sparse};

/// Query rows at once: what bounds the absorbed queries, `[heads, rows, latent]`.
const ROWS: usize = 4096;

/// Returns whether [`sparse_latent`] runs for these operands.
pub(in crate::model::ops) fn takes_latent(q: &Tensor, shape: MlaShape, latent: usize) -> bool {
    let sizes = Sparse { rows: 1, heads: shape.heads, groups: 1, latent, rope: shape.rope, topk: 1, grouped: false };
    shape.nope.is_multiple_of(8) && takes(q, sizes)
}

/// Returns whether [`sparse_grouped`] runs for these operands.
pub(in crate::model::ops) fn takes_grouped(q: &Tensor, kv: &Tensor, shape: MlaShape) -> bool {
    let Ok(group) = shape.group(kv) else { return false };
    shape.rope == 0 && shape.nope == shape.value && kv.dtype() == DType::BF16 && takes(q, grouped(shape, group))
}

fn takes(q: &Tensor, sizes: Sparse) -> bool {
    let Device::Cuda(device) = q.device() else { return false };
    q.dtype() == DType::BF16 && gpu(device, Form::asked()).is_ok_and(|gpu| plan::sparse(sizes, gpu).is_some())
}

/// Sizes of one row of grouped heads.
fn grouped(shape: MlaShape, group: usize) -> Sparse {
    let (heads, groups) = (shape.heads, shape.heads / group.max(1));
    Sparse { rows: 1, heads, groups, latent: shape.nope, rope: 0, topk: 1, grouped: true }
}

/// Attends in the latent form; operands as in [`super::super::sparse_latent`], in bf16 on a CUDA device.
pub(in crate::model::ops) fn sparse_latent(
    q: &Tensor,
    c_kv: &Tensor,
    k_rope: &Tensor,
    w: &Tensor,
    shape: MlaShape,
    scale: f64,
    Picked { indices, stop }: Picked,
) -> Result<Tensor> {
    let Device::Cuda(device) = q.device() else { bail!("the queries are not on a CUDA device") };
    let (b, t, _) = q.dims3()?;
    let rows = indices.on(q.device(), c_kv.dim(1)?)?;
    check(rows.dims()[..2] == [b, t], "the selection")?;
    let mut sequences = Vec::with_capacity(b);
    for n in 0..b {
        let one = |x: &Tensor| x.narrow(0, n, 1)?.squeeze(0)?.contiguous();
        let (q, c_kv, k_rope) = (one(q)?, one(c_kv)?, one(k_rope)?);
        let mut blocks = Vec::new();
        for start in (0..t).step_by(ROWS) {
            let q = q.narrow(0, start, ROWS.min(t - start))?;
            if stop.asked() {
                blocks.push(Tensor::zeros((q.dim(0)?, shape.heads * shape.value), q.dtype(), q.device())?);
                continue;
            }
            let sets = Sets { rows: &rows.get(n)?, start };
            blocks.push(latent(device, Form::asked(), (&q, &c_kv, &k_rope, w), shape, scale, sets)?);
        }
        sequences.push(Tensor::cat(&blocks, 0)?);
    }
    Tensor::stack(&sequences, 0)
}

/// Attends with grouped heads; operands as in [`super::super::sparse_grouped`], in bf16 on a CUDA device.
pub(in crate::model::ops) fn sparse_grouped(
    q: &Tensor,
    kv: &Tensor,
    shape: MlaShape,
    scale: f64,
    Picked { indices, stop }: Picked,
) -> Result<Tensor> {
    let Device::Cuda(device) = q.device() else { bail!("the queries are not on a CUDA device") };
    let (b, t, _) = q.dims3()?;
    let rows = indices.on(q.device(), kv.dim(1)?)?;
    check(rows.dims()[..2] == [b, t], "the selection")?;
    let mut sequences = Vec::with_capacity(b);
    for n in 0..b {
        if stop.asked() {
            sequences.push(Tensor::zeros((t, shape.heads * shape.value), q.dtype(), q.device())?);
            continue;
        }
        let one = |x: &Tensor| x.narrow(0, n, 1)?.squeeze(0)?.contiguous();
        let sets = Sets { rows: &rows.get(n)?, start: 0 };
        sequences.push(heads(device, Form::asked(), (&one(q)?, &one(kv)?), shape, scale, sets)?);
    }
    Tensor::stack(&sequences, 0)
}

/// Which rows of a selection are attended to.
#[derive(Clone, Copy)]
pub(super) struct Sets<'a> {
    /// Padded rows of all queries of a sequence, `[T, k]`, on the device; the queries are the last of the keys'.
    pub(super) rows: &'a Tensor,
    /// Row of the first query of the block.
    pub(super) start: usize,
}

/// Attends for a block of rows of one sequence: `q` `[rows, heads · (nope + rope)]` gives `[rows, heads · value]`.
pub(super) fn latent(
    device: &CudaDevice,
    form: Form,
    (q, c_kv, k_rope, w): (&Tensor, &Tensor, &Tensor, &Tensor),
    shape: MlaShape,
    scale: f64,
    sets: Sets,
) -> Result<Tensor> {
    let MlaShape { heads, nope, rope, value } = shape;
    let (rows, (keys, latent), topk) = (q.dim(0)?, c_kv.dims2()?, sets.rows.dim(1)?);
    let q = q.contiguous()?;
    let w = w.reshape((heads, nope + value, latent))?;
    let q_nope = q.reshape((rows, heads, nope + rope))?.narrow(2, 0, nope)?.transpose(0, 1)?.contiguous()?;
    let q_latent = q_nope.matmul(&w.narrow(1, 0, nope)?.contiguous()?)?; // heads, rows, latent
    let sizes = Sparse { rows, heads, groups: 1, latent, rope, topk, grouped: false };
    let mixed = {
        let ((q, q_layout), (q_latent, latent_layout)) = (q.storage_and_layout(), q_latent.storage_and_layout());
        let ((c_kv, c_layout), (k_rope, r_layout)) = (c_kv.storage_and_layout(), k_rope.storage_and_layout());
        let c_kv = view::<bf16>(&c_kv, c_layout)?;
        let operands = Operands {
            q: view::<bf16>(&q_latent, latent_layout)?,
            q_rope: view::<bf16>(&q, q_layout)?.slice(nope..),
            k: c_kv.slice(..),
            k_rope: view::<bf16>(&k_rope, r_layout)?,
            v: c_kv,
            keys,
            key_head: latent,
            apart: (latent, rows * latent),
            rope_apart: (heads * (nope + rope), nope + rope),
        };
        launch(device, form, sizes, &operands, scale, sets)?
    };
    let mixed = tensor(CudaStorage::wrap_cuda_slice(mixed, device.clone()), (heads, rows, latent));
    let w_v = w.narrow(1, nope, value)?.transpose(1, 2)?.contiguous()?; // heads, latent, value
    mixed.matmul(&w_v)?.transpose(0, 1)?.contiguous()?.reshape((rows, heads * value))
}

/// Attends for a block of rows of one sequence: `q` `[rows, heads · d]` and `kv` `[keys, groups · 2 d]` give the shape of
/// `q`.
pub(super) fn heads(
    device: &CudaDevice,
    form: Form,
    (q, kv): (&Tensor, &Tensor),
    shape: MlaShape,
    scale: f64,
    sets: Sets,
) -> Result<Tensor> {
    let (rows, keys, topk, d) = (q.dim(0)?, kv.dim(0)?, sets.rows.dim(1)?, shape.nope);
    check(shape.rope == 0 && shape.value == d && q.dim(1)? == shape.heads * d, "q")?;
    let sizes = Sparse { rows, topk, ..grouped(shape, shape.group(kv)?) };
    let (q, kv) = (q.contiguous()?, kv.contiguous()?);
    let mixed = {
        let ((q, q_layout), (kv, kv_layout)) = (q.storage_and_layout(), kv.storage_and_layout());
        let (q, kv) = (view::<bf16>(&q, q_layout)?, view::<bf16>(&kv, kv_layout)?);
        let apart = (shape.heads * d, d);
        let operands = Operands {
            q_rope: q.slice(..),
            q,
            k: kv.slice(..),
            k_rope: kv.slice(..),
            v: kv.slice(d..),
            keys,
            key_head: 2 * d,
            apart,
            rope_apart: apart,
        };
        launch(device, form, sizes, &operands, scale, sets)?
    };
    Ok(tensor(CudaStorage::wrap_cuda_slice(mixed, device.clone()), (rows, shape.heads * d)))
}

/// What a launch reads; distances in elements.
struct Operands<'a> {
    q: CudaView<'a, bf16>,
    /// Anything where nothing is rotated apart.
    q_rope: CudaView<'a, bf16>,
    k: CudaView<'a, bf16>,
    k_rope: CudaView<'a, bf16>,
    v: CudaView<'a, bf16>,
    keys: usize,
    /// From one head of keys to the next.
    key_head: usize,
    /// From token to token and from head to head, of `q` and of the result.
    apart: (usize, usize),
    rope_apart: (usize, usize),
}

/// Runs the kernel, and the one that joins the parts where keys are split; returns what `apart` says the shape of.
fn launch(
    device: &CudaDevice,
    form: Form,
    sizes: Sparse,
    o: &Operands,
    scale: f64,
    sets: Sets,
) -> Result<CudaSlice<bf16>> {
    let Sparse { rows, heads, groups, latent, rope, topk, .. } = sizes;
    let Some(planned) = plan::sparse(sizes, gpu(device, form)?) else {
        bail!("no kernel takes {heads} heads, {groups} of keys, of {latent} and {rope}")
    };
    let splits = planned.grid.1 as usize;
    let (function, config) = kernel(device, form, File::Sparse, &planned)?;
    let parts = if splits > 1 { splits * rows * heads } else { 0 };
    // SAFETY: the kernels write every entry that is read: all of `mixed`, and all parts where there are splits.
    #[allow(unsafe_code)]
    let (mut mixed, mut part, mut sums) = unsafe {
        (
            device.alloc::<bf16>(heads * rows * latent)?,
            device.alloc::<f32>((parts * latent).max(1))?,
            device.alloc::<f32>((parts * 2).max(1))?,
        )
    };
    let (chosen, layout) = sets.rows.storage_and_layout();
    let chosen = view::<u32>(&chosen, layout)?.slice(sets.start * topk..(sets.start + rows) * topk);
    let before = o.keys - sets.rows.dim(0)? + sets.start;
    let scale = (scale * std::f64::consts::LOG2_E) as f32;
    let [count, heads_, groups, width, rotated, key_head] =
        [rows, heads, groups, latent, rope, o.key_head].map(|n| n as i32);
    let [topk, first, keys] = [topk, before + 1, o.keys].map(|n| n as i32);
    let [token, head, rope_token, rope_head] = [o.apart.0, o.apart.1, o.rope_apart.0, o.rope_apart.1].map(|n| n as i64);
    let (stream, nothing) = (device.cuda_stream(), 0u64);
    let mut builder = stream.launch_builder(&function);
    builder.arg(&o.q).arg(&o.q_rope).arg(&o.k).arg(&o.k_rope).arg(&o.v).arg(&chosen).arg(&mut mixed);
    if splits > 1 {
        builder.arg(&mut part);
    } else {
        builder.arg(&nothing);
    }
    builder.arg(&mut sums).arg(&scale).arg(&count).arg(&heads_).arg(&groups).arg(&width).arg(&rotated).arg(&key_head);
    builder.arg(&topk).arg(&first).arg(&keys);
    builder.arg(&token).arg(&head).arg(&rope_token).arg(&rope_head).arg(&token).arg(&head);
    // SAFETY: views hold what the sizes say; every index of `chosen` below a row's count is a key: `Indices::on` looks at
    // the rows that did not come from a kernel.
    #[allow(unsafe_code)]
    unsafe { builder.launch(config) }.w()?;
    if splits > 1 {
        let grid = (rows as u32, heads as u32, 1);
        let merge = Launch { name: "sparse_merge".to_owned(), grid, threads: 128, shared: 0 };
        let (function, config) = kernel(device, form, File::Sparse, &merge)?;
        let splits = splits as i32;
        let mut builder = stream.launch_builder(&function);
        builder.arg(&part).arg(&sums).arg(&mut mixed).arg(&splits).arg(&count).arg(&heads_).arg(&width);
        builder.arg(&token).arg(&head);
        // SAFETY: the parts are those of the launch before, on the same stream.
        #[allow(unsafe_code)]
        unsafe { builder.launch(config) }.w()?;
    }
    Ok(mixed)
}
