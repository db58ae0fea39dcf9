//! Pairwise intersections of recorded sets.

use candle_core::{Device, Result, Tensor};

use super::{Ceilings, Checks, On};
use crate::domain::intersection_len;
use crate::model::ops::cuda::overlap;
use crate::model::ops::gpu_check::{Ceiling, GpuCheck, KernelTime};

/// Layers, queries, k and keys.
type Sizes = (usize, usize, usize, usize);

/// The last one's keys are more than the kernel holds bits of at once.
const SIZES: [Sizes; 3] = [(1, 5, 4, 40), (12, 90, 64, 1000), (47, 40, 2048, 1_200_000)];
const TIMED: Sizes = (47, 1024, 2048, 65_536);

fn shown((layers, queries, topk, keys): Sizes) -> String {
    format!("{layers} layers, {queries} queries, {keys} keys, k {topk}")
}

/// Draws ascending sets, one key of each of k equal stretches.
fn sets((layers, queries, topk, keys): Sizes) -> Vec<u32> {
    let (mut state, stretch) = (1u64, (keys / topk) as u64);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % stretch
    };
    (0..layers * queries * topk).map(|i| ((i % topk) as u64 * stretch + next()) as u32).collect()
}

/// Compares counts, which are whole numbers, at every other query.
pub(super) fn compare(on: On, checks: &mut Checks) -> Result<()> {
    for sizes in SIZES {
        let (layers, queries, topk, keys) = sizes;
        let all = sets(sizes);
        let there = Tensor::from_slice(&all, (layers, queries, topk), &Device::Cpu)?.to_device(&on.device())?;
        let chosen: Vec<u32> = (0..queries as u32).step_by(2).collect();
        let got = overlap::pairs(on.cuda, on.form, &there, &chosen, keys)?;
        let set = |layer: usize, query: u32| &all[(layer * queries + query as usize) * topk..][..topk];
        let mut wrong = 0;
        let pairs = (0..layers).flat_map(|i| (i..layers).map(move |j| (i, j)));
        for ((i, j), (sum, squares)) in pairs.zip(got.sums.iter().zip(&got.squares)) {
            let counts = chosen.iter().map(|&query| intersection_len(set(i, query), set(j, query)) as u64);
            let want = counts.fold((0, 0), |(sum, squares), n| (sum + n, squares + n * n));
            wrong += usize::from(want != (*sum, *squares));
        }
        let found = format!("{wrong} of {} pairs differ", got.sums.len());
        checks.push(on.compared("overlap_pairs", shown(sizes), "identical counts", wrong == 0, found));
    }
    Ok(())
}

/// Times the recording of a 47-layer model at 1,024 queries.
pub(super) fn timed(on: On, ceilings: &Ceilings) -> Result<GpuCheck> {
    let (layers, queries, topk, keys) = TIMED;
    let there = Tensor::from_vec(sets(TIMED), (layers, queries, topk), &Device::Cpu)?.to_device(&on.device())?;
    let chosen: Vec<u32> = (0..queries as u32).collect();
    let millis = on.median(&mut || overlap::pairs(on.cuda, on.form, &there, &chosen, keys).map(drop))?;
    let (bytes, pairs) = ((layers * queries * topk * size_of::<u32>()) as f64, layers * (layers + 1) / 2);
    Ok(GpuCheck {
        kernel: "overlap_pairs".to_owned(),
        form: "timed",
        sizes: shown(TIMED),
        rule: "every pair of layers; the sets are on the device and count once, the sums come back",
        passed: true,
        found: format!("{:.0} M pairs of sets/s", (pairs * queries) as f64 / millis / 1e3),
        timing: Some(KernelTime::of(millis, &ceilings.work(&[(Ceiling::Copy, bytes)]), None)),
    })
}
