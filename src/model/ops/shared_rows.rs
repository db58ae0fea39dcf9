//! One query's attention when all its heads read the same rows: the inner loop of the latent form.
//!
//! out[n] = Σ_j p[n,j] v[j],  p[n] = softmax_j(scale · q[n] · k[j])  over the selected rows j; a head's sink, if there is
//! one, takes part in the softmax and has no value.
//!
//! Rows are read where they lie. Scores put heads and pairs of adjacent dimensions into the lanes of a vector, so that
//! a pair of a key's numbers is broadcast to all heads and nothing is transposed; a sum over the two halves of each
//! pair ends it. Sums over rows put dimensions into the lanes.

use pulp::bytemuck::{cast_slice, try_cast};
use pulp::{Scalar256b, Simd, WithSimd, c32};

use super::simd;

/// Keys that are scored together: enough independent sums to hide the latency of a multiply-add.
const KEYS: usize = 8;
/// Vectors of a row that are summed together.
const WIDE: usize = 4;
/// The most heads that one vector holds.
const MOST: usize = 8;

/// Rows of a matrix that are picked by index.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    data: &'a [f32],
    width: usize,
    stride: usize,
}

impl<'a> Rows<'a> {
    /// Views `data` as rows of `width` adjacent values.
    pub(super) fn new(data: &'a [f32], width: usize) -> Self {
        Self { data, width, stride: width }
    }

    /// Views `width` adjacent values of `data` every `stride` values, from `at` on.
    pub(super) fn of(data: &'a [f32], at: usize, width: usize, stride: usize) -> Self {
        Self { data: &data[at.min(data.len())..], width, stride }
    }

    #[inline(always)]
    fn row(self, j: u32) -> &'a [f32] {
        &self.data[j as usize * self.stride..][..self.width]
    }
}

/// Working memory that callers reuse from query to query.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Queries as `[groups, pairs, lanes]`.
    queries: Vec<f32>,
    /// Scores, then unnormalised probabilities of one group of heads, `[selected, slots]`.
    scores: Vec<f32>,
}

/// The operands of one query.
pub(super) struct Query<'a> {
    /// `[heads, widths of the keys' parts]`.
    pub q: &'a [f32],
    /// The keys' parts, such as latent and rotary part.
    pub keys: [Rows<'a>; 2],
    /// What is summed.
    pub values: Rows<'a>,
    /// The rows that are read.
    pub selected: &'a [u32],
    /// One logit per head, or nothing.
    pub sinks: &'a [f32],
    /// Factor on the dot products.
    pub scale: f32,
    /// Working memory.
    pub scratch: &'a mut Scratch,
    /// `[heads, width of the values]`.
    pub out: &'a mut [f32],
}

impl WithSimd for Query<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::F32_LANES < 2 {
            return self.with_simd(Scalar256b);
        }
        if self.selected.is_empty() {
            self.out.fill(0.0);
            return;
        }
        let slots = S::F32_LANES / 2;
        let (wide, width) = (self.keys[0].width + self.keys[1].width, self.values.width);
        let pairs: usize = self.keys.iter().map(|part| part.width.div_ceil(2)).sum();
        let Scratch { queries, scores } = self.scratch;
        queries.resize(pairs * S::F32_LANES, 0.0);
        scores.resize(self.selected.len() * slots, 0.0);
        for (group, (q, out)) in self.q.chunks(slots * wide).zip(self.out.chunks_mut(slots * width)).enumerate() {
            let sinks = self.sinks.chunks(slots).nth(group).unwrap_or_default();
            arrange::<S>(q, self.keys, queries);
            score(simd, queries, self.keys, self.selected, self.scale, scores);
            let totals = exponentials::<S>(scores, sinks);
            // Four heads by four vectors of sums need more registers than AVX2 has.
            if S::REGISTER_COUNT < 32 {
                mix::<S, 2>(simd, scores, self.values, self.selected, &totals, out);
            } else {
                mix::<S, 4>(simd, scores, self.values, self.selected, &totals, out);
            }
        }
    }
}

/// Lays the queries of a group of heads out as `[pairs, slots, 2]`; slots without a head hold zeros.
#[inline(always)]
fn arrange<S: Simd>(q: &[f32], keys: [Rows; 2], queries: &mut [f32]) {
    queries.fill(0.0);
    let wide = keys[0].width + keys[1].width;
    for (slot, q) in q.chunks(wide).enumerate() {
        let mut rest = &mut *queries;
        let (first, second) = q.split_at(keys[0].width);
        for part in [first, second] {
            let (these, later) = rest.split_at_mut(part.len().div_ceil(2) * S::F32_LANES);
            for (to, from) in these.chunks_exact_mut(S::F32_LANES).zip(part.chunks(2)) {
                to[2 * slot..][..from.len()].copy_from_slice(from);
            }
            rest = later;
        }
    }
}

/// Fills the lanes with two numbers in turn.
#[inline(always)]
fn pair<S: Simd>(simd: S, re: f32, im: f32) -> S::f32s {
    // Only a vector of one lane differs in size, and none comes here.
    try_cast(simd.splat_c32s(c32 { re, im })).unwrap_or(simd.splat_f32s(re))
}

/// Writes the scaled dot products, `[selected, slots]`.
#[inline(always)]
fn score<S: Simd>(simd: S, queries: &[f32], keys: [Rows; 2], selected: &[u32], scale: f32, scores: &mut [f32]) {
    let slots = S::F32_LANES / 2;
    let (queries, _) = S::as_simd_f32s(queries);
    for (js, scores) in selected.chunks(KEYS).zip(scores.chunks_mut(KEYS * slots)) {
        let mut sums = [simd.splat_f32s(0.0); KEYS];
        let mut rest = queries;
        for part in keys {
            // A last block that is not full scores its first key again.
            let rows: [&[f32]; KEYS] = std::array::from_fn(|r| part.row(js.get(r).copied().unwrap_or(js[0])));
            let (these, later) = rest.split_at(part.width.div_ceil(2));
            let (whole, odd) = these.split_at(part.width / 2);
            let pairs = rows.map(|row| &pulp::as_arrays::<2, f32>(row).0[..whole.len()]);
            for (p, &q) in whole.iter().enumerate() {
                for r in 0..KEYS {
                    let [re, im] = pairs[r][p];
                    sums[r] = simd.mul_add_f32s(q, pair(simd, re, im), sums[r]);
                }
            }
            if let [q] = odd {
                for r in 0..KEYS {
                    sums[r] = simd.mul_add_f32s(*q, pair(simd, rows[r][part.width - 1], 0.0), sums[r]);
                }
            }
            rest = later;
        }
        for (to, sum) in scores.chunks_exact_mut(slots).zip(&sums) {
            let halves = pulp::as_arrays::<2, f32>(cast_slice(std::slice::from_ref(sum))).0;
            for (to, [even, odd]) in to.iter_mut().zip(halves) {
                *to = (even + odd) * scale;
            }
        }
    }
}

/// Replaces scores by e^(score − largest) and returns each slot's sum of them, its sink included.
#[inline(always)]
fn exponentials<S: Simd>(scores: &mut [f32], sinks: &[f32]) -> [f32; MOST] {
    let slots = S::F32_LANES / 2;
    let (mut top, mut total) = ([f32::NEG_INFINITY; MOST], [0.0; MOST]);
    top.iter_mut().zip(sinks).for_each(|(top, sink)| *top = *sink);
    for row in scores.chunks_exact(slots) {
        for s in 0..slots {
            top[s] = if row[s] > top[s] { row[s] } else { top[s] };
        }
    }
    total.iter_mut().zip(sinks.iter().zip(&top)).for_each(|(total, (sink, top))| *total = simd::exp(sink - top));
    for row in scores.chunks_exact_mut(slots) {
        for s in 0..slots {
            row[s] = simd::exp(row[s] - top[s]);
            total[s] += row[s];
        }
    }
    total
}

/// Writes the weighted means of the values, `HEADS` heads at a time.
#[inline(always)]
fn mix<S: Simd, const HEADS: usize>(
    simd: S,
    weights: &[f32],
    values: Rows,
    selected: &[u32],
    totals: &[f32; MOST],
    out: &mut [f32],
) {
    let slots = S::F32_LANES / 2;
    let at = |start: usize| Part { weights, slots, values, selected, start };
    for (tile, out) in out.chunks_mut(HEADS * values.width).enumerate() {
        let head = tile * HEADS;
        let mut start = 0;
        while start + WIDE * S::F32_LANES <= values.width {
            at(start).sum::<S, HEADS, WIDE>(simd, head, totals, out);
            start += WIDE * S::F32_LANES;
        }
        while start < values.width {
            at(start).sum::<S, HEADS, 1>(simd, head, totals, out);
            start += S::F32_LANES;
        }
    }
}

/// Dimensions from `start` on of the sums over rows.
#[derive(Clone, Copy)]
struct Part<'a> {
    weights: &'a [f32],
    slots: usize,
    values: Rows<'a>,
    selected: &'a [u32],
    start: usize,
}

impl Part<'_> {
    #[inline(always)]
    fn sum<S: Simd, const HEADS: usize, const VECTORS: usize>(
        self,
        simd: S,
        head: usize,
        totals: &[f32; MOST],
        out: &mut [f32],
    ) {
        let end = (self.start + VECTORS * S::F32_LANES).min(self.values.width);
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; HEADS];
        for (&j, weights) in self.selected.iter().zip(self.weights.chunks_exact(self.slots)) {
            let row = &self.values.row(j)[self.start..end];
            let (whole, tail) = S::as_simd_f32s(row);
            let row: [S::f32s; VECTORS] =
                std::array::from_fn(|v| if v < whole.len() { whole[v] } else { simd.partial_load_f32s(tail) });
            let weights = &weights[head..head + HEADS];
            for h in 0..HEADS {
                let w = simd.splat_f32s(weights[h]);
                for v in 0..VECTORS {
                    sums[h][v] = simd.mul_add_f32s(w, row[v], sums[h][v]);
                }
            }
        }
        for (h, out) in out.chunks_mut(self.values.width).enumerate() {
            let share = simd.splat_f32s(1.0 / totals[head + h]);
            for (v, to) in out[self.start..end].chunks_mut(S::F32_LANES).enumerate() {
                simd.partial_store_f32s(to, simd.mul_f32s(sums[h][v], share));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ops::testing::{random, values};

    #[test]
    fn any_sizes_agree_with_the_plain_sums() {
        for (heads, latent, rope, width, n) in [
            (1, 1, 1, 1, 1),
            (3, 5, 4, 6, 7),
            (8, 64, 16, 64, 8),
            (9, 130, 3, 200, 31),
            (20, 16, 8, 79, 65),
            (4, 7, 0, 9, 0),
        ] {
            let rows = 90;
            let (q, c) = (values(&random(&[heads, latent + rope], 1)), values(&random(&[rows, latent], 2)));
            let (k, v) = (values(&random(&[rows, rope.max(1)], 3)), values(&random(&[rows, width], 4)));
            let sinks = if heads % 2 == 1 { values(&random(&[heads], 5)) } else { Vec::new() };
            let selected: Vec<u32> = (0..n as u32).map(|j| (j * 37 + 5) % rows as u32).collect();
            let mut out = vec![f32::NAN; heads * width];
            pulp::Arch::new().dispatch(Query {
                q: &q,
                keys: [Rows::new(&c, latent), Rows::new(&k, rope)],
                values: Rows::new(&v, width),
                selected: &selected,
                sinks: &sinks,
                scale: 0.3,
                scratch: &mut Scratch::default(),
                out: &mut out,
            });
            for (h, out) in out.chunks(width).enumerate() {
                let q = &q[h * (latent + rope)..][..latent + rope];
                let dot =
                    |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                let score =
                    |j: usize| 0.3 * (dot(q, &c[j * latent..][..latent]) + dot(&q[latent..], &k[j * rope..][..rope]));
                let p: Vec<f64> = selected.iter().map(|&j| score(j as usize).exp()).collect();
                let total: f64 = p.iter().sum::<f64>() + sinks.get(h).map_or(0.0, |sink| f64::from(*sink).exp());
                for (d, &got) in out.iter().enumerate() {
                    let sum: f64 =
                        p.iter().zip(&selected).map(|(p, &j)| p * f64::from(v[j as usize * width + d])).sum();
                    let want = if n == 0 { 0.0 } else { sum / total };
                    assert!((f64::from(got) - want).abs() < 2e-6, "head {h}, dimension {d}: {got}, not {want}");
                }
            }
        }
    }
}
