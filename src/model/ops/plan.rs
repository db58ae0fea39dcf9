//! Which kernel of `kernels/*.cu` runs, in how many blocks: sizes only, so that it is tested without a GPU.

mod attention;
mod indexer;
#[cfg(test)]
mod tests;

pub(super) use attention::{Sparse, sparse, takes_grouped, takes_latent};
pub(super) use indexer::{Block, Format, SCORES, blocks, scores, select};

/// Shared memory that every supported GPU gives to a block: 99 KiB.
pub(super) const PORTABLE_SHARED: usize = 99 * 1024;

/// What a launch depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gpu {
    /// Bytes of shared memory that a block may ask for.
    pub shared: usize,
    /// Streaming multiprocessors.
    pub processors: usize,
    /// Whether its code has products of warpgroups (`wgmma`).
    pub wgmma: bool,
}

/// A launch of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    /// Name of the kernel.
    pub name: String,
    /// Blocks.
    pub grid: (u32, u32, u32),
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

/// The most blocks in the second direction of a grid.
const GRID_Y: usize = 65_535;

/// Keys whose bits kernels/overlap.cu holds at once.
const OVERLAP_RANGE: usize = 1 << 19;

/// Plans the dequantisation of a weight to bf16, or to f32.
pub(super) fn dequantise(rows: usize, columns: usize, to_bf16: bool) -> Launch {
    let name = if to_bf16 { "fp8_dequantise_bf16" } else { "fp8_dequantise_f32" }.to_owned();
    // Four columns per thread; a block goes on to the row that is as many rows further down as there are blocks.
    let grid = (columns.div_ceil(4 * 256) as u32, rows.min(GRID_Y) as u32, 1);
    Launch { name, grid, threads: 256, shared: 0 }
}

/// Plans the quantisation of rows, a warp for each.
pub(super) fn quantise(rows: usize) -> Launch {
    Launch { name: "fp8_quantise_rows".to_owned(), grid: (rows.div_ceil(8) as u32, 1, 1), threads: 256, shared: 0 }
}

/// Experts of which `rows_choose` can choose.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
pub(super) const CHOSEN_OF: usize = 512;

/// Plans a kernel of `rows.cu` that has a warp for each row.
pub(super) fn warps(name: &str, rows: usize) -> Launch {
    Launch { name: name.to_owned(), grid: (rows.div_ceil(8) as u32, 1, 1), threads: 256, shared: 0 }
}

/// Plans a kernel of `experts.cu`: a warp for each column of each of `times` slots or tokens.
pub(super) fn experts(name: &str, columns: usize, times: usize) -> Launch {
    let grid = (columns.div_ceil(8) as u32, times.min(GRID_Y) as u32, 1);
    Launch { name: name.to_owned(), grid, threads: 256, shared: 0 }
}

/// Plans a kernel of `rows.cu` that gives each thread 8 elements.
pub(super) fn eights(name: &str, elements: usize) -> Launch {
    let grid = (elements.div_ceil(8 * 256) as u32, 1, 1);
    Launch { name: name.to_owned(), grid, threads: 256, shared: 0 }
}

/// Plans the comparison of every two layers' sets at so many queries; `None` for more layers than counts have room for.
pub(super) fn overlap(layers: usize, queries: usize, gpu: Gpu) -> Option<Launch> {
    let shared = OVERLAP_RANGE / 8 + 4 * (layers * (layers + 1) / 2);
    if layers == 0 || queries == 0 || shared > gpu.shared {
        return None;
    }
    // As many blocks as run at once, each with all that it may ask for.
    let grid = (queries.min(gpu.processors * (gpu.shared / shared).min(4)) as u32, 1, 1);
    Some(Launch { name: "overlap_pairs".to_owned(), grid, threads: 512, shared: shared as u32 })
}
