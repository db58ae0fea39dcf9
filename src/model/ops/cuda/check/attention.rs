//! Attention over selected keys, of a latent and of grouped heads.

use candle_core::{DType, Device, Result, Tensor};

use super::{Ceilings, Checks, On, draw};
use crate::model::ops::attention::MlaShape;
use crate::model::ops::cuda::device::Form;
use crate::model::ops::cuda::sparse::{self, Sets};
use crate::model::ops::gpu_check::{Ceiling, GpuCheck, KernelTime};
use crate::model::ops::{Indices, Picked, Stop, select, sparse_grouped, sparse_latent};

/// What is kept of a key.
#[derive(Clone, Copy)]
enum Kept {
    /// Widths of a latent and of the rotated part.
    Latent(usize, usize),
    /// Heads of keys and values, and their width.
    Groups(usize, usize),
}

/// Query heads, what is kept of a key, queries, keys and k.
type Sizes = (usize, Kept, usize, usize, usize);

const SIZES: [Sizes; 8] = [
    (8, Kept::Latent(128, 16), 50, 50, 20),
    (20, Kept::Latent(512, 64), 200, 3000, 500),
    (64, Kept::Latent(512, 64), 100, 4000, 2048),
    (64, Kept::Latent(512, 64), 1, 4000, 2048),
    (72, Kept::Latent(448, 32), 70, 300, 200),
    (9, Kept::Groups(3, 64), 70, 90, 16),
    (32, Kept::Groups(8, 128), 100, 4000, 2048),
    (32, Kept::Groups(2, 128), 1, 4000, 2048),
];

/// Those whose speed the project has a figure for, and which.
const TIMED: [(Sizes, Option<(Ceiling, f64)>); 3] = [
    ((64, Kept::Latent(512, 64), 1024, 65_536, 2048), Some((Ceiling::Bf16, 0.40))),
    ((20, Kept::Latent(512, 64), 1024, 65_536, 2048), Some((Ceiling::Copy, 0.60))),
    ((32, Kept::Groups(8, 128), 1024, 65_536, 2048), None),
];

const SCALE: f64 = 0.1;
/// Widths of keys before they are absorbed, and of values after the latent.
const WIDTHS: (usize, usize) = (64, 64);

fn kernel(kept: Kept) -> &'static str {
    if matches!(kept, Kept::Latent(..)) { "sparse_mla bf16" } else { "sparse_gqa bf16" }
}

/// Whether this form of the kernels is another than those before it for such sizes.
fn differs(on: On, &(heads, kept, ..): &Sizes) -> bool {
    on.form != Form::MmaSync || heads > 32 && matches!(kept, Kept::Latent(..))
}

fn shown((heads, kept, queries, keys, topk): Sizes) -> String {
    let kept = match kept {
        Kept::Latent(latent, rope) => format!("{latent}+{rope}"),
        Kept::Groups(groups, width) => format!("{groups} of keys x {width}"),
    };
    format!("{heads} heads, {kept}, {queries} queries, {keys} keys, k {topk}")
}

/// Queries, what is kept of the keys (latents, rotated parts and weights; or keys and values), and random sets.
struct Operands {
    q: Tensor,
    kept: Vec<Tensor>,
    shape: MlaShape,
    indices: Indices,
}

impl Operands {
    fn draw((heads, kept, queries, keys, topk): Sizes) -> Result<Self> {
        let one = Tensor::ones((1, queries, 1), DType::F32, &Device::Cpu)?;
        let (indices, ..) = select(&one, &draw(&[1, keys, 1], 5, false)?, &one, 1.0, topk, Stop::NEVER, false)?;
        let (shape, kept) = match kept {
            Kept::Latent(latent, rope) => {
                let w = (draw(&[heads * (WIDTHS.0 + WIDTHS.1), latent], 4, false)? * (latent as f64).powf(-0.5))?;
                let shape = MlaShape { heads, nope: WIDTHS.0, rope, value: WIDTHS.1 };
                (shape, vec![draw(&[1, keys, latent], 2, false)?, draw(&[1, keys, rope], 3, false)?, w])
            }
            Kept::Groups(groups, width) => {
                let shape = MlaShape { heads, nope: width, rope: 0, value: width };
                (shape, vec![draw(&[1, keys, groups * 2 * width], 2, false)?])
            }
        };
        Ok(Self { q: draw(&[1, queries, heads * (shape.nope + shape.rope)], 1, false)?, kept, shape, indices })
    }

    /// Returns what the CPU computes of operands rounded to bf16.
    fn here(&self) -> Result<Tensor> {
        let wide = |x: &Tensor| x.to_dtype(DType::BF16)?.to_dtype(DType::F32);
        let (q, kept) = (wide(&self.q)?, self.kept.iter().map(wide).collect::<Result<Vec<_>>>()?);
        let picked = Picked { indices: &self.indices, stop: Stop::NEVER };
        match &kept[..] {
            [c_kv, k_rope, w] => sparse_latent(&q, c_kv, k_rope, w, self.shape, SCALE, picked),
            _ => sparse_grouped(&q, &kept[0], self.shape, SCALE, picked),
        }
    }

    /// Calls `f` with what runs the kernel on operands that are there already.
    fn there<R>(&self, on: On, f: impl FnOnce(&dyn Fn() -> Result<Tensor>) -> Result<R>) -> Result<R> {
        // Weights have no sequence.
        let one = |x: &Tensor| on.there(&if x.rank() == 3 { x.squeeze(0)? } else { x.clone() }, DType::BF16);
        let (q, kept) = (one(&self.q)?, self.kept.iter().map(one).collect::<Result<Vec<_>>>()?);
        let rows = self.indices.on(&on.device(), kept[0].dim(0)?)?.squeeze(0)?;
        let sets = Sets { rows: &rows, start: 0 };
        f(&|| match &kept[..] {
            [c_kv, k_rope, w] => sparse::latent(on.cuda, on.form, (&q, c_kv, k_rope, w), self.shape, SCALE, sets),
            _ => sparse::heads(on.cuda, on.form, (&q, &kept[0]), self.shape, SCALE, sets),
        })
    }
}

/// Compares on real operands.
pub(super) fn compare(on: On, checks: &mut Checks) -> Result<()> {
    for sizes in SIZES.into_iter().filter(|sizes| differs(on, sizes)) {
        let operands = Operands::draw(sizes)?;
        let want = operands.here()?.squeeze(0)?;
        let got = operands.there(on, |run| run()?.to_device(&Device::Cpu)?.to_dtype(DType::F32))?;
        let largest = |x: &Tensor| x.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>();
        let (off, most) = (largest(&(&got - &want)?)?, largest(&want)?);
        let (rule, found) = ("within 2e-2 of the largest value", format!("{:.1e}", off / most));
        checks.push(on.compared(kernel(sizes.1), shown(sizes), rule, off <= 2e-2 * most, found));
    }
    Ok(())
}

/// Times what a prefill at 64K asks of one block of queries.
pub(super) fn timed(on: On, ceilings: &Ceilings, checks: &mut Checks) -> Result<()> {
    for (sizes, goal) in TIMED.into_iter().filter(|(sizes, _)| differs(on, sizes)) {
        let (heads, kept, queries, _, topk) = sizes;
        let millis = Operands::draw(sizes)?.there(on, |run| on.median(&mut || run().map(drop)))?;
        // Per query: multiplications and additions, and bytes of the keys that it gathers.
        let (operations, bytes) = match kept {
            Kept::Latent(latent, rope) => {
                let absorbed = 2 * heads * latent * (WIDTHS.0 + WIDTHS.1);
                (topk * heads * 2 * (2 * latent + rope) + absorbed, topk * 2 * (latent + rope))
            }
            Kept::Groups(groups, width) => (topk * heads * 4 * width, topk * groups * 4 * width),
        };
        let (operations, bytes) = ((queries * operations) as f64, (queries * bytes) as f64);
        let work = ceilings.work(&[(Ceiling::Bf16, operations), (Ceiling::Copy, bytes)]);
        checks.push(GpuCheck {
            kernel: kernel(kept).to_owned(),
            form: "timed",
            sizes: shown(sizes),
            rule: if on.form == Form::MmaSync {
                "the same with mma.sync in place of wgmma; no goal"
            } else {
                "a latent's products with W_k and W_v included; the sets are on the device"
            },
            passed: true,
            found: format!("{:.0} TFLOP/s, {:.0} GB/s", operations / millis / 1e9, bytes / millis / 1e6),
            timing: Some(KernelTime::of(millis, &work, goal.filter(|_| on.form != Form::MmaSync))),
        });
    }
    Ok(())
}
