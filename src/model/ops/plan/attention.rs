//! Launches of `kernels/sparse_mla.cu`.

use super::super::attention::MlaShape;
use super::{Gpu, Launch};

/// One instance of the kernel of kernels/sparse_mla.cu: the arguments of its `SPARSE` line, or what kernels/sparse_wgmma.cuh
/// has in their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) mg: usize,
    pub(super) ng: usize,
    pub(super) nk: usize,
    pub(super) latent: usize,
    pub(super) rope: usize,
    pub(super) grouped: bool,
    pub(super) wgmma: bool,
}

const fn variant(
    name: &'static str,
    mg: usize,
    ng: usize,
    nk: usize,
    latent: usize,
    rope: usize,
    grouped: bool,
) -> Variant {
    Variant { name, mg, ng, nk, latent, rope, grouped, wgmma: false }
}

/// Those with the most heads per block last.
pub(super) const VARIANTS: [Variant; 7] = [
    variant("sparse_mla_l128_m1", 1, 4, 32, 128, 64, false),
    variant("sparse_mla_l512_m1", 1, 4, 32, 512, 64, false),
    variant("sparse_mla_l512_m2", 2, 4, 64, 512, 64, false),
    variant("sparse_mla_l512_m4", 4, 2, 64, 512, 64, false),
    Variant { wgmma: true, ..variant("sparse_mla_l512_wgmma", 4, 2, 64, 512, 64, false) },
    variant("sparse_gqa_d64_m1", 1, 4, 32, 64, 0, true),
    variant("sparse_gqa_d128_m1", 1, 4, 32, 128, 0, true),
];

/// From how many heads on of a head of keys products of warpgroups are worth their empty rows.
pub(super) const WGMMA_HEADS: usize = 33;

impl Variant {
    pub(super) fn shared(self) -> usize {
        let (row, heads) = (2 * (self.latent + self.rope), 16 * self.mg);
        let values = if self.grouped { 2 * self.latent } else { 0 };
        // Probabilities are padded, and sums kept by part of a tile, where `wgmma` does not say how they lie.
        let (padding, parts) = if self.wgmma { (0, 1) } else { (8, self.ng) };
        heads * row
            + 2 * self.nk * (row + values)
            + heads * (self.nk + padding) * 2
            + 2 * heads * parts * size_of::<f32>()
    }

    /// Whether it runs there for so many heads of a head of keys of these sizes.
    fn fits(self, s: Sparse, per_group: usize, gpu: Gpu) -> bool {
        self.grouped == s.grouped
            && s.latent <= self.latent
            && s.rope <= self.rope
            && self.shared() <= gpu.shared
            && (!self.wgmma || gpu.wgmma && per_group >= WGMMA_HEADS)
    }
}

/// Sizes of attention over selected keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model::ops) struct Sparse {
    /// Query rows.
    pub rows: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys; 1 for a latent.
    pub groups: usize,
    /// Width of the latent, or of a head.
    pub latent: usize,
    /// Width of the rotated part.
    pub rope: usize,
    /// Keys per query, at most.
    pub topk: usize,
    /// Whether values are kept apart from keys.
    pub grouped: bool,
}

impl Sparse {
    /// Sizes of one row of grouped heads.
    pub(in crate::model::ops) fn grouped(shape: MlaShape, group: usize) -> Self {
        let (heads, groups) = (shape.heads, shape.heads / group.max(1));
        Self { rows: 1, heads, groups, latent: shape.nope, rope: 0, topk: 1, grouped: true }
    }
}

/// Returns whether a kernel takes a latent of these sizes.
pub(in crate::model::ops) fn takes_latent(shape: MlaShape, latent: usize, gpu: Gpu) -> bool {
    let sizes = Sparse { rows: 1, heads: shape.heads, groups: 1, latent, rope: shape.rope, topk: 1, grouped: false };
    shape.nope.is_multiple_of(8) && sparse(sizes, gpu).is_some()
}

/// Returns whether a kernel takes grouped heads of these sizes, `group` query heads for each head of keys.
pub(in crate::model::ops) fn takes_grouped(shape: MlaShape, group: usize, gpu: Gpu) -> bool {
    shape.rope == 0 && shape.nope == shape.value && sparse(Sparse::grouped(shape, group), gpu).is_some()
}

/// Plans attention over selected keys; the second part of the grid are splits over the keys, to be merged if above 1.
///
/// `None` for sizes that no kernel takes.
pub(in crate::model::ops) fn sparse(s: Sparse, gpu: Gpu) -> Option<Launch> {
    if ![s.latent, s.rope].iter().all(|width| width.is_multiple_of(8)) || s.latent == 0 || s.rows == 0 || s.topk == 0 {
        return None;
    }
    let per_group = s.heads / s.groups.max(1);
    let fitting = || VARIANTS.iter().filter(|v| v.fits(s, per_group, gpu));
    let narrow = fitting().map(|v| v.latent).min()?;
    // The narrowest rows; of these `wgmma`, else the one whose block leaves the fewest heads empty, then the largest.
    let empty = |v: &Variant| per_group.div_ceil(16 * v.mg) * 16 * v.mg - per_group;
    let best = fitting().filter(|v| v.latent == narrow).min_by_key(|v| (!v.wgmma, empty(v), usize::MAX - v.mg))?;
    let blocks = s.groups * per_group.div_ceil(16 * best.mg);
    let splits = (gpu.processors / (s.rows * blocks)).clamp(1, s.topk.div_ceil(best.nk));
    Some(Launch {
        name: best.name.to_owned(),
        grid: (s.rows as u32, splits as u32, blocks as u32),
        threads: (32 * best.mg * best.ng) as u32,
        shared: best.shared() as u32,
    })
}
