//! The indexer's scores and selection.

use std::time::Duration;

use candle_core::{DType, Result, Tensor};

use super::{Ceilings, Checks, On, draw};
use crate::domain::Selection;
use crate::model::ops::cuda::device::Form;
use crate::model::ops::cuda::indexer;
use crate::model::ops::gpu_check::{Ceiling, GpuCheck, KernelTime};
use crate::model::ops::plan::Format;
use crate::model::ops::{Stop, indexer_scores, select};

/// Heads, their width, queries, keys and k.
type Sizes = (usize, usize, usize, usize, usize);

const SIZES: [Sizes; 4] =
    [(4, 32, 77, 77, 16), (32, 128, 300, 300, 64), (64, 128, 130, 5000, 2048), (32, 128, 1, 9000, 2048)];

/// Compares by both rules: exact operands, and real ones.
pub(super) fn compare(on: On, checks: &mut Checks) -> Result<()> {
    for sizes in SIZES {
        for format in [Format::Bf16, Format::Fp8] {
            checks.push(exact(on, format, sizes)?);
        }
        checks.push(near(on, sizes)?);
    }
    Ok(())
}

fn kernel(format: Format) -> String {
    format!("indexer_topk {format:?}").to_lowercase()
}

fn shown((heads, dim, queries, keys, topk): Sizes) -> String {
    format!("{heads}x{dim}, {queries} queries, {keys} keys, k {topk}")
}

fn operands((heads, dim, queries, keys, _): Sizes, dyadic: bool) -> Result<[Tensor; 3]> {
    let bf16 = |x: Tensor| x.to_dtype(DType::BF16)?.to_dtype(DType::F32);
    let (q, k) = (draw(&[1, queries, heads * dim], 1, dyadic)?, draw(&[1, keys, dim], 2, dyadic)?);
    Ok([bf16(q)?, bf16(k)?, draw(&[1, queries, heads], 3, dyadic)?])
}

fn chosen(on: On, format: Format, x: &[Tensor; 3], topk: usize) -> Result<Vec<u32>> {
    let there = |x: &Tensor, dtype| on.there(&x.squeeze(0)?, dtype);
    let (q, k, w) = (there(&x[0], DType::BF16)?, there(&x[1], DType::BF16)?, there(&x[2], DType::F32)?);
    indexer::run(on.cuda, on.form, format, (&q, &k, &w), 0.5, topk)
}

/// Rule (a): on operands on which every partial sum is exact, sets are identical, ties included.
fn exact(on: On, format: Format, sizes: Sizes) -> Result<GpuCheck> {
    let (_, dim, queries, _, topk) = sizes;
    let mut x = operands(sizes, true)?;
    if format == Format::Fp8 {
        // A first element of 1.75 gives every row the scale 1/256: dyadic, and the other values are codes.
        for x in x.iter_mut().take(2) {
            let shape = x.shape().clone();
            let mut values: Vec<f32> = x.flatten_all()?.to_vec1()?;
            values.chunks_mut(dim).for_each(|row| row[0] = 1.75);
            *x = Tensor::from_vec(values, shape, x.device())?;
        }
    }
    let (want, ..) = select(&x[0], &x[1], &x[2], 0.5, topk, Stop::NEVER, false)?;
    let wrong = differing(&chosen(on, format, &x, topk)?, &want.sets()?[0], topk);
    let found = format!("{wrong} of {queries} rows differ");
    Ok(on.compared(&kernel(format), shown(sizes), "exact operands: identical sets", wrong == 0, found))
}

fn differing(got: &[u32], want: &Selection, topk: usize) -> usize {
    got.chunks(topk).enumerate().filter(|(i, row)| row[..want.row(*i).len()] != *want.row(*i)).count()
}

/// Rule (b): on real operands, members that differ have scores within 1e-2 of the largest of the k-th.
fn near(on: On, sizes: Sizes) -> Result<GpuCheck> {
    let (_, _, queries, keys, topk) = sizes;
    let x = operands(sizes, false)?;
    let scores = indexer_scores(&x[0], &x[1], &x[2], 0.5)?.squeeze(0)?.to_vec2::<f32>()?;
    let (want, ..) = select(&x[0], &x[1], &x[2], 0.5, topk, Stop::NEVER, false)?;
    let (want, got) = (&want.sets()?[0], chosen(on, Format::Bf16, &x, topk)?);
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
    let found = format!("{far:.1e}, {} of {queries} rows differ", differing(&got, want, topk));
    let rule = "real operands: within 1e-2 max|s| of the k-th";
    Ok(on.compared(&kernel(Format::Bf16), shown(sizes), rule, far <= 1e-2, found))
}

/// Times scores and selection of a whole prefill, with so many bytes of scores at once where not with the usual ones.
pub(super) fn timed(on: On, format: Format, workspace: Option<usize>, ceilings: &Ceilings) -> Result<GpuCheck> {
    let (heads, dim, t, topk) = (32, 128, 65_536, 2048);
    let device = on.device();
    let q = Tensor::randn(0f32, 1.0, (t, heads * dim), &device)?.to_dtype(DType::BF16)?;
    let k = Tensor::randn(0f32, 1.0, (t, dim), &device)?.to_dtype(DType::BF16)?;
    let w = Tensor::randn(0f32, 1.0, (t, heads), &device)?;
    let launch = |timed| {
        let how = indexer::How { stop: Stop::NEVER, timed, workspace };
        indexer::launch(on.cuda, on.form, format, (&q, &k, &w), 0.1, topk, how)
    };
    let millis = on.median(&mut || launch(false).map(drop))?;
    let selecting: Duration = launch(true)?.selecting()?;
    let operations = (t as f64 * (t as f64 + 1.0) / 2.0) * (heads * dim * 2) as f64;
    let (of, share) = if format == Format::Bf16 { (Ceiling::Bf16, 0.60) } else { (Ceiling::Fp8, 0.45) };
    let usual = on.form != Form::MmaSync && workspace.is_none();
    let at_once = workspace.map(|bytes| format!(", {} MiB of scores at once", bytes >> 20)).unwrap_or_default();
    Ok(GpuCheck {
        kernel: kernel(format),
        form: "timed",
        sizes: format!("{heads}x{dim}, T {t}, k {topk}{at_once}"),
        rule: match (on.form, workspace) {
            (Form::MmaSync, _) => "the same with mma.sync in place of wgmma; no goal",
            (_, Some(_)) => "the same with fewer scores at once (INDEXSCOPE_SCORES_MIB); no goal",
            _ => "scores and selection of a whole prefill; the sets stay on the device",
        },
        passed: true,
        found: format!("{:.0} TFLOP/s, selection {:.1} ms", operations / millis / 1e9, selecting.as_secs_f64() * 1e3),
        timing: Some(KernelTime::of(millis, &ceilings.work(&[(of, operations)]), usual.then_some((of, share)))),
    })
}
