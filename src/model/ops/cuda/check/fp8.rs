//! FP8, both ways.

use candle_core::{DType, Device, Result, Tensor};

use super::{Ceilings, Checks, On, draw};
use crate::checkpoint::{Blocks, E4M3};
use crate::model::ops::cuda::fp8;
use crate::model::ops::fp8::Fp8Weight;
use crate::model::ops::gpu_check::{Ceiling, GpuCheck, KernelTime};

/// Outputs and inputs; blocks are of 128 × 128.
const SHAPES: [(usize, usize); 3] = [(1, 1), (300, 700), (257, 2050)];
/// Rows and columns of what is quantised.
const ROWS: (usize, usize) = (77, 130);
/// Sizes of the weight that is timed.
const TIMED: (usize, usize) = (8192, 8192);

fn scales(shape: (usize, usize)) -> Result<Vec<f32>> {
    let blocks = Blocks::default();
    draw(&[shape.0.div_ceil(blocks.rows) * shape.1.div_ceil(blocks.columns)], 7, false)?.to_vec1()
}

/// Compares on all codes, and on rows of reals.
pub(super) fn compare(on: On, checks: &mut Checks) -> Result<()> {
    for shape in SHAPES {
        // 167 is odd: every code stands in every column of a block.
        let codes: Vec<u8> = (0..shape.0 * shape.1).map(|i| (i * 167 % 256) as u8).collect();
        let scales = scales(shape)?;
        let weight = Fp8Weight { codes: &codes, shape, scales: &scales, blocks: Blocks::default() };
        let there = (on.cuda.clone_htod(&codes)?, on.cuda.clone_htod(&scales)?);
        for dtype in [DType::BF16, DType::F32] {
            let numbers = |x: Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
            let want = numbers(weight.dequantise(dtype, &Device::Cpu)?)?;
            let got = numbers(fp8::multiply(on.cuda, on.form, weight, (&there.0, &there.1), dtype)?)?;
            let same = |(a, b): &(&f32, &f32)| a == b || (a.is_nan() && b.is_nan());
            let wrong = want.iter().zip(&got).filter(|pair| !same(pair)).count();
            let (sizes, found) = (format!("{} x {}", shape.0, shape.1), format!("{wrong} of {} differ", want.len()));
            let name = format!("fp8_dequantise {}", dtype.as_str());
            checks.push(on.compared(&name, sizes, "every code: identical values", wrong == 0, found));
        }
    }
    checks.push(quantised(on)?);
    Ok(())
}

/// Compares codes and scales with their definition.
fn quantised(on: On) -> Result<GpuCheck> {
    let (rows, columns) = ROWS;
    let x = draw(&[rows, columns], 8, false)?.to_dtype(DType::BF16)?;
    let (codes, scales) = fp8::quantise(on.cuda, on.form, &on.there(&x, DType::BF16)?)?;
    let (codes, scales) = (on.cuda.clone_dtoh(&codes)?, on.cuda.clone_dtoh(&scales)?);
    let mut wrong = 0;
    for ((row, codes), scale) in x.to_dtype(DType::F32)?.to_vec2::<f32>()?.iter().zip(codes.chunks(columns)).zip(scales)
    {
        let want = row.iter().fold(0f32, |a, x| a.max(x.abs())) / 448.0;
        let right = row.iter().zip(codes).filter(|&(x, &code)| nearest(x / want).contains(&code)).count();
        wrong += columns - right + usize::from(scale != want);
    }
    let (sizes, found) = (format!("{rows} x {columns}"), format!("{wrong} of {} differ", rows * (columns + 1)));
    Ok(on.compared("fp8_quantise_rows", sizes, "the nearest codes, and scales", wrong == 0, found))
}

/// Returns the codes nearest to a value: two where it lies half-way, or is 0.
fn nearest(value: f32) -> Vec<u8> {
    let off = |code: u8| (E4M3[code as usize] - value).abs();
    let least = (0..=255).map(off).filter(|off| !off.is_nan()).fold(f32::INFINITY, f32::min);
    (0..=255).filter(|&code| off(code) == least).collect()
}

/// Times a large weight whose codes are on the device.
pub(super) fn timed(on: On, ceilings: &Ceilings) -> Result<GpuCheck> {
    let (codes, scales) = (vec![0x38; TIMED.0 * TIMED.1], scales(TIMED)?);
    let weight = Fp8Weight { codes: &codes, shape: TIMED, scales: &scales, blocks: Blocks::default() };
    let there = (on.cuda.clone_htod(&codes)?, on.cuda.clone_htod(&scales)?);
    let run = &mut || fp8::multiply(on.cuda, on.form, weight, (&there.0, &there.1), DType::BF16).map(drop);
    let (millis, bytes) = (on.median(run)?, 3.0 * codes.len() as f64);
    Ok(GpuCheck {
        kernel: "fp8_dequantise bf16".to_owned(),
        form: "timed",
        sizes: format!("{} x {}", TIMED.0, TIMED.1),
        rule: "codes that are on the device, to bf16",
        passed: true,
        found: format!("{:.0} GB/s", bytes / millis / 1e6),
        timing: Some(KernelTime::of(millis, &ceilings.work(&[(Ceiling::Copy, bytes)]), None)),
    })
}
