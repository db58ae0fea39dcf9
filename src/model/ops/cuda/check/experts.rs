//! Experts chosen and applied to few tokens.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::{Ceilings, Checks, On, draw};
use crate::model::ops::cuda::experts;
use crate::model::ops::gpu_check::{Ceiling, GpuCheck, KernelTime};
use crate::model::ops::swiglu;

/// Tokens, experts, k, hidden and width.
type Sizes = (usize, usize, usize, usize, usize);

const SIZES: [Sizes; 3] = [(1, 8, 2, 64, 24), (3, 16, 4, 1032, 776), (8, 64, 4, 256, 192)];
/// One token of the 30B model.
const TIMED: Sizes = (1, 64, 4, 2048, 1536);

fn shown((tokens, experts, k, hidden, width): Sizes) -> String {
    format!("{tokens} tokens, {k} of {experts} experts of {hidden} x {width}")
}

/// Weights of gate, up and down of every expert.
fn weights(on: On, (_, experts, _, hidden, width): Sizes) -> Result<Vec<[Tensor; 3]>> {
    let scale = (hidden as f64).powf(-0.5);
    let one = |seed: usize, shape: &[usize]| on.there(&(draw(shape, seed as u64, false)? * scale)?, DType::BF16);
    (0..experts)
        .map(|e| {
            Ok([one(3 * e, &[width, hidden])?, one(3 * e + 1, &[width, hidden])?, one(3 * e + 2, &[hidden, width])?])
        })
        .collect()
}

/// Compares ids with a stable sort, and sums with plain products of the same bf16 operands.
pub(super) fn compare(on: On, checks: &mut Checks) -> Result<()> {
    for sizes in SIZES {
        let (tokens, count, k, hidden, width) = sizes;
        let (p, bias) = (draw(&[tokens, count], 1, true)?, draw(&[count], 2, true)?);
        let Some(ids) = experts::choose(&on.there(&p, DType::F32)?, &on.there(&bias, DType::F32)?, k)? else {
            bail!("no kernel chooses {k} of {count} experts")
        };
        let (got, bias) = (ids.to_device(&Device::Cpu)?.to_vec2::<u32>()?, bias.to_vec1::<f32>()?);
        let mut wrong = 0;
        for (p, got) in p.to_vec2::<f32>()?.iter().zip(&got) {
            let worth = |&e: &u32| p[e as usize] + bias[e as usize];
            let mut all: Vec<u32> = (0..count as u32).collect();
            all.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
            wrong += usize::from(all[..k] != got[..]);
        }
        let found = format!("{wrong} of {tokens} rows differ");
        checks.push(on.compared("rows_choose", shown(sizes), "identical ids, ties included", wrong == 0, found));

        let there = weights(on, sizes)?;
        let table = experts::table(&there.iter().map(<[Tensor; 3]>::each_ref).collect::<Vec<_>>())?;
        let x = draw(&[tokens, hidden], 4, false)?.to_dtype(DType::BF16)?;
        let shares = draw(&[tokens, k], 5, false)?.to_dtype(DType::BF16)?;
        let operands = (on.there(&x, DType::BF16)?, on.there(&shares, DType::BF16)?);
        let y = table.map(|table| experts::few(&operands.0, &ids, &operands.1, &table, width)).transpose()?;
        let Some(y) = y.flatten() else { bail!("no kernel applies experts: {}", shown(sizes)) };
        let y = y.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let (x, shares) = (x.to_dtype(DType::F32)?, shares.to_dtype(DType::F32)?.to_vec2::<f32>()?);
        let here = |w: &Tensor| w.to_device(&Device::Cpu)?.to_dtype(DType::F32);
        let mut rows = Vec::with_capacity(tokens);
        for (t, (ids, shares)) in got.iter().zip(&shares).enumerate() {
            let x = x.narrow(0, t, 1)?;
            let mut sum = Tensor::zeros((1, hidden), DType::F32, &Device::Cpu)?;
            for (&e, &share) in ids.iter().zip(shares) {
                let [gate, up, down] = &there[e as usize];
                let h = swiglu(&x.matmul(&here(gate)?.t()?)?, &x.matmul(&here(up)?.t()?)?)?;
                sum = (sum + (h.matmul(&here(down)?.t()?)? * f64::from(share))?)?;
            }
            rows.push(sum);
        }
        let want = Tensor::cat(&rows, 0)?;
        let largest = |x: &Tensor| x.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>();
        let (off, most) = (largest(&(&y - &want)?)?, largest(&want)?);
        let (rule, found) = ("within 1e-2 of the largest value", format!("{:.1e}", off / most));
        checks.push(on.compared("experts bf16", shown(sizes), rule, off <= 1e-2 * most, found));
    }
    Ok(())
}

/// Times the experts of one token.
pub(super) fn timed(on: On, ceilings: &Ceilings, checks: &mut Checks) -> Result<()> {
    let (tokens, count, k, hidden, width) = TIMED;
    let there = weights(on, TIMED)?;
    let Some(table) = experts::table(&there.iter().map(<[Tensor; 3]>::each_ref).collect::<Vec<_>>())? else {
        bail!("no kernel applies experts: {}", shown(TIMED))
    };
    let x = on.there(&draw(&[tokens, hidden], 4, false)?, DType::BF16)?;
    let shares = on.there(&draw(&[tokens, k], 5, false)?, DType::BF16)?;
    // Others every time, so that they do not come from the L2 cache.
    let mut next = 0u32;
    let mut run = || {
        let ids = (0..k as u32).map(|i| (next + i) % count as u32).collect::<Vec<_>>();
        next += k as u32;
        experts::few(&x, &Tensor::from_vec(ids, (tokens, k), &on.device())?, &shares, &table, width).map(drop)
    };
    let millis = on.median(&mut run)?;
    let bytes = (k * 3 * hidden * width * 2) as f64;
    checks.push(GpuCheck {
        kernel: "experts bf16".to_owned(),
        form: "timed",
        sizes: shown(TIMED),
        rule: "two launches, and the upload of the ids; bytes of the weights",
        passed: true,
        found: format!("{:.0} GB/s", bytes / millis / 1e6),
        timing: Some(KernelTime::of(millis, &ceilings.work(&[(Ceiling::Copy, bytes)]), None)),
    });
    Ok(())
}
