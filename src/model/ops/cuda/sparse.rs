//! Launches of `kernels/sparse_mla.cu`: of a latent, whose queries absorb W_k and whose mixed values go through W_v, and
//! of grouped heads, whose keys and values are read as they are.

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{CudaDevice, CudaStorage, DType, Device, Result, Tensor, bail};
use half::bf16;

use super::device::{self, File, Form, address, gpu, tensor, view};
use super::product;
use crate::model::ops::Picked;
use crate::model::ops::allowed::check;
use crate::model::ops::arguments::{Attend, Merge};
use crate::model::ops::attention::MlaShape;
use crate::model::ops::plan::{self, Gpu, Launch, Sparse};
use crate::model::ops::product::Product;
use crate::model::ops::side_by_side::side_by_side;

/// Query rows at once: what bounds the absorbed queries and the mixed latents, `[rows, heads, latent]`.
const ROWS: usize = 4096;

/// Returns whether [`sparse_latent`] runs for these operands.
pub(in crate::model::ops) fn takes_latent(q: &Tensor, shape: MlaShape, latent: usize) -> bool {
    takes(q, |gpu| plan::takes_latent(shape, latent, gpu))
}

/// Returns whether [`sparse_grouped`] runs for these operands.
pub(in crate::model::ops) fn takes_grouped(q: &Tensor, kv: &Tensor, shape: MlaShape) -> bool {
    let Ok(group) = shape.group(kv) else { return false };
    kv.dtype() == DType::BF16 && takes(q, |gpu| plan::takes_grouped(shape, group, gpu))
}

fn takes(q: &Tensor, fits: impl Fn(Gpu) -> bool) -> bool {
    q.dtype() == DType::BF16 && device::limits(q.device()).is_some_and(fits)
}

/// Attends in the latent form; operands as in [`super::super::sparse_latent`], in bf16 on a CUDA device.
pub(in crate::model::ops) fn sparse_latent(
    q: &Tensor,
    c_kv: &Tensor,
    k_rope: &Tensor,
    w: &Tensor,
    shape: MlaShape,
    scale: f64,
    picked: Picked,
) -> Result<Tensor> {
    each_block(q, [c_kv, k_rope], shape, picked, |device, q, [c_kv, k_rope], sets| {
        latent(device, Form::asked(), (q, c_kv, k_rope, w), shape, scale, sets)
    })
}

/// Attends with grouped heads; operands as in [`super::super::sparse_grouped`], in bf16 on a CUDA device.
pub(in crate::model::ops) fn sparse_grouped(
    q: &Tensor,
    kv: &Tensor,
    shape: MlaShape,
    scale: f64,
    picked: Picked,
) -> Result<Tensor> {
    each_block(q, [kv], shape, picked, |device, q, [kv], sets| {
        heads(device, Form::asked(), (q, kv), shape, scale, sets)
    })
}

/// Calls `f` for blocks of query rows of one sequence after the other, with what is kept of the sequence, and joins what
/// it returns; sequences that can lie side by side are one. Rows after a stop are left unfinished.
fn each_block<const N: usize>(
    q: &Tensor,
    kept: [&Tensor; N],
    shape: MlaShape,
    Picked { indices, stop }: Picked,
    f: impl Fn(&CudaDevice, &Tensor, &[Tensor; N], Sets) -> Result<Tensor>,
) -> Result<Tensor> {
    let Device::Cuda(device) = q.device() else { bail!("the queries are not on a CUDA device") };
    let (sequences, queries, _) = q.dims3()?;
    let rows = indices.on(q.device(), kept.first().map_or(Ok(0), |kept| kept.dim(1))?)?;
    check(rows.dims()[..2] == [sequences, queries], "the selection")?;
    let laid = side_by_side(q, kept, &rows)?;
    let (q, kept, rows) = match &laid {
        Some(laid) => (&laid.q, laid.kept.each_ref(), &laid.rows),
        None => (q, kept, &rows),
    };
    let (b, t, _) = q.dims3()?;
    let mut attended = Vec::with_capacity(b);
    for n in 0..b {
        let one = |x: &Tensor| x.get(n)?.contiguous();
        let (q, rows) = (one(q)?, rows.get(n)?);
        let mut of_sequence = Vec::with_capacity(N);
        for kept in kept {
            of_sequence.push(one(kept)?);
        }
        let Ok(of_sequence) = <[Tensor; N]>::try_from(of_sequence) else { bail!("a part of what is kept is lost") };
        let mut blocks = Vec::with_capacity(t.div_ceil(ROWS));
        for start in (0..t).step_by(ROWS) {
            let q = q.narrow(0, start, ROWS.min(t - start))?;
            blocks.push(if stop.asked() {
                Tensor::zeros((q.dim(0)?, shape.heads * shape.value), q.dtype(), q.device())?
            } else {
                f(device, &q, &of_sequence, Sets { rows: &rows, start })?
            });
        }
        attended.push(Tensor::cat(&blocks, 0)?);
    }
    Tensor::stack(&attended, 0)?.reshape((sequences, queries, shape.heads * shape.value))
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
    check(w.dims() == [heads * (nope + value), latent] && q.dim(1)? == heads * (nope + rope), "q or kv_b")?;
    let (q, w) = (q.contiguous()?, w.contiguous()?);
    let sizes = Sparse { rows, heads, groups: 1, latent, rope, topk, grouped: false };
    let out = {
        let ((q, q_layout), (w, w_layout)) = (q.storage_and_layout(), w.storage_and_layout());
        let ((c_kv, c_layout), (k_rope, r_layout)) = (c_kv.storage_and_layout(), k_rope.storage_and_layout());
        let (q, w) = (view::<bf16>(&q, q_layout)?, view::<bf16>(&w, w_layout)?);
        let c_kv = view::<bf16>(&c_kv, c_layout)?;
        let q_latent = product::multiply(device, Product::absorb(rows, shape, latent), &q, &w)?;
        let operands = Operands {
            q: q_latent.slice(..),
            q_rope: q.slice(nope..),
            k: c_kv.slice(..),
            k_rope: view::<bf16>(&k_rope, r_layout)?,
            v: c_kv,
            keys,
            key_head: latent,
            apart: (heads * latent, latent),
            rope_apart: (heads * (nope + rope), nope + rope),
        };
        let mixed = launch(device, form, sizes, &operands, scale, sets)?;
        product::multiply(device, Product::expand(rows, shape, latent), &mixed, &w.slice(nope * latent..))?
    };
    Ok(tensor(CudaStorage::wrap_cuda_slice(out, device.clone()), (rows, heads * value)))
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
    let sizes = Sparse { rows, topk, ..Sparse::grouped(shape, shape.group(kv)?) };
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
    let parts = if splits > 1 { splits * rows * heads } else { 0 };
    // SAFETY: the kernels write every entry that is read: all of `mixed`, and all parts where there are splits.
    #[allow(unsafe_code)]
    let (mixed, part, sums) = unsafe {
        (
            device.alloc::<bf16>(heads * rows * latent)?,
            device.alloc::<f32>((parts * latent).max(1))?,
            device.alloc::<f32>((parts * 2).max(1))?,
        )
    };
    let (chosen, layout) = sets.rows.storage_and_layout();
    let chosen = view::<u32>(&chosen, layout)?.slice(sets.start * topk..(sets.start + rows) * topk);
    let before = o.keys - sets.rows.dim(0)? + sets.start;
    let attend = Attend {
        q: address(&o.q),
        q_rope: address(&o.q_rope),
        k: address(&o.k),
        k_rope: address(&o.k_rope),
        v: address(&o.v),
        topk: address(&chosen),
        mixed: address(&mixed),
        parts: if splits > 1 { address(&part) } else { 0 },
        sums: address(&sums),
        scale: (scale * std::f64::consts::LOG2_E) as f32,
        rows: rows as i32,
        heads: heads as i32,
        groups: groups as i32,
        latent: latent as i32,
        rope: rope as i32,
        key_head: o.key_head as i32,
        topk_width: topk as i32,
        first: before as i32 + 1,
        keys: o.keys as i32,
        q_token: o.apart.0 as i64,
        q_head: o.apart.1 as i64,
        q_rope_token: o.rope_apart.0 as i64,
        q_rope_head: o.rope_apart.1 as i64,
        out_token: o.apart.0 as i64,
        out_head: o.apart.1 as i64,
    };
    // SAFETY: views hold what the sizes say; every index of `chosen` below a row's count is a key: `Indices::on` looks at
    // the rows that did not come from a kernel.
    #[allow(unsafe_code)]
    unsafe { device::launch(device, form, File::Sparse, &planned, &attend) }?;
    if splits > 1 {
        let grid = (rows as u32, heads as u32, 1);
        let planned = Launch { name: "sparse_merge".to_owned(), grid, threads: 128, shared: 0 };
        let Attend { parts, sums, mixed, rows, heads, latent, out_token, out_head, .. } = attend;
        let merge = Merge { parts, sums, mixed, splits: splits as i32, rows, heads, latent, out_token, out_head };
        // SAFETY: the parts are those of the launch before, on the same stream.
        #[allow(unsafe_code)]
        unsafe { device::launch(device, form, File::Sparse, &planned, &merge) }?;
    }
    Ok(mixed)
}
