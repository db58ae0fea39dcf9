//! Norms, rotation and gates.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::{Ceilings, Checks, On, draw};
use crate::model::ops::cuda::rows;
use crate::model::ops::gpu_check::{Ceiling, GpuCheck, KernelTime};
use crate::model::ops::{Pairing, Rotary, layer_norm, rms_norm, rope, swiglu};

/// Tokens and widths of what is normalised.
const NORMS: [(usize, usize); 3] = [(1, 128), (70, 2048), (9, 7168)];
/// Heads, their width, where the rotated part begins and half of its width.
const HEADS: [(usize, usize, usize, usize); 3] = [(20, 256, 192, 32), (32, 128, 0, 32), (1, 64, 0, 32)];
const TOKENS: usize = 37;

type Sort = (&'static str, Tensor, Result<Option<Tensor>>, String);

/// Compares with the CPU on operands that bf16 holds; the kernels of the form that the environment asks for.
pub(super) fn compare(on: On, checks: &mut Checks) -> Result<()> {
    let drawn = |shape: &[usize], seed| draw(shape, seed, false)?.to_dtype(DType::BF16)?.to_dtype(DType::F32);
    let there = |x: &Tensor| on.there(x, DType::BF16);
    let mut all: Vec<Sort> = Vec::new();
    for (tokens, width) in NORMS {
        let (x, w, b) = (drawn(&[1, tokens, width + 8], 1)?, drawn(&[width], 2)?, drawn(&[width], 3)?);
        let part = |x: &Tensor| x.narrow(2, 8, width);
        let (x_there, w_there, b_there) = (part(&there(&x)?)?, there(&w)?, there(&b)?);
        let (x, shown) = (part(&x)?, format!("{tokens} x {width}"));
        all.push(("rms_norm", rms_norm(&x, &w, 1e-6)?, rows::norm(&x_there, &w_there, None, 1e-6), shown.clone()));
        let got = rows::norm(&x_there, &w_there, Some(&b_there), 1e-6);
        all.push(("layer_norm", layer_norm(&x, &w, &b, 1e-6)?, got, shown));
    }
    for (heads, dim, offset, half) in HEADS {
        let angles = (drawn(&[TOKENS, half], 4)? * 3.0)?;
        let rotary = Rotary { cos: angles.cos()?, sin: angles.sin()? };
        let tables = |table: &Tensor| on.there(table, DType::F32);
        let rotary_there = Rotary { cos: tables(&rotary.cos)?, sin: tables(&rotary.sin)? };
        let x = drawn(&[2, TOKENS, heads * dim], 5)?;
        for (name, pairing) in [("rope, adjacent pairs", Pairing::Interleaved), ("rope, halves", Pairing::Half)] {
            let got = rows::rotate(&there(&x)?, &rotary_there, dim, offset, pairing);
            let shown = format!("{heads} heads of {dim}, {} from {offset}", 2 * half);
            all.push((name, rope(&x, &rotary, dim, offset, pairing)?, got, shown));
        }
    }
    let (gate, up) = ((drawn(&[33, 1536], 6)? * 8.0)?, drawn(&[33, 1536], 7)?);
    all.push(("swiglu", swiglu(&gate, &up)?, rows::swiglu(&there(&gate)?, &there(&up)?), "33 x 1536".to_owned()));
    for (kernel, want, got, sizes) in all {
        let Some(got) = got? else { bail!("no kernel takes {kernel} of {sizes}") };
        let got = got.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let largest = |x: &Tensor| x.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>();
        let (off, most) = (largest(&(&got - &want)?)?, largest(&want)?);
        let (rule, found) = ("within 1e-2 of the largest value", format!("{:.1e}", off / most));
        checks.push(on.compared(kernel, sizes, rule, off <= 1e-2 * most, found));
    }
    Ok(())
}

/// Times what one layer asks for at 64K tokens.
pub(super) fn timed(on: On, ceilings: &Ceilings, checks: &mut Checks) -> Result<()> {
    let (tokens, device) = (65_536, on.device());
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &device);
    let (x, w) = (zeros(&[1, tokens, 2048], DType::BF16)?, zeros(&[2048], DType::BF16)?);
    let q = zeros(&[1, tokens, 20 * 256], DType::BF16)?;
    let table = zeros(&[tokens, 32], DType::F32)?;
    let rotary = Rotary { cos: table.clone(), sin: table };
    let mut time = |kernel: &str, sizes: &str, bytes: f64, run: &mut dyn FnMut() -> Result<Option<Tensor>>| {
        let millis = on.median(&mut || run().map(drop))?;
        checks.push(GpuCheck {
            kernel: kernel.to_owned(),
            form: "timed",
            sizes: format!("{tokens} x {sizes}"),
            rule: "bytes read and written once",
            passed: true,
            found: format!("{:.0} GB/s", bytes / millis / 1e6),
            timing: Some(KernelTime::of(millis, &ceilings.work(&[(Ceiling::Copy, bytes)]), None)),
        });
        Ok::<_, candle_core::Error>(())
    };
    let bytes = |width: usize, times: usize| (2 * tokens * width * times) as f64;
    time("rms_norm", "2048", bytes(2048, 2), &mut || rows::norm(&x, &w, None, 1e-6))?;
    time("rope, adjacent pairs", "20 heads of 256", bytes(20 * 256, 2), &mut || {
        rows::rotate(&q, &rotary, 256, 192, Pairing::Interleaved)
    })?;
    time("swiglu", "2048", bytes(2048, 3), &mut || rows::swiglu(&x, &x))
}
