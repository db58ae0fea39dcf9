//! Launches of `kernels/indexer_topk.cu` and of the selection.

use super::{Gpu, Launch};

/// In which format the indexer's queries and keys are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model::ops) enum Format {
    Bf16,
    Fp8,
}

// The constants of kernels/indexer_topk.cu.
pub(super) const TILE: usize = 128;
pub(super) const COLUMNS: usize = 64;
pub(super) const WARPS: usize = 8;

/// Bytes of scores held at once, unless the environment asks for others (`INDEXSCOPE_SCORES_MIB`).
///
/// Counted for 132 multiprocessors, 32 heads of 128 and T = 200K; no figure is measured. A block of `indexer_scores_*`
/// has 16 queries, one runs on a multiprocessor at a time; one of `indexer_select` has one query, two run at a time.
///
/// | MiB | rows | blocks x shares of keys | rows of 264 that are selected at a time |
/// | ---: | ---: | --- | --- |
/// | 32 | 32 | 2 x 66 = 132 | 32: an eighth of the device |
/// | 128 | 160 | 10 x 13 = 130 | 160 |
/// | 512 | 528 | 33 x 4 = 132 | 264, twice |
/// | 2048 | 2112 | 132 x 1 = 132 | 264, 8 times |
///
/// The scores' grid is full with any; the selection's only from 264 rows on. What speaks against many rows is that
/// scores leave the L2 cache (50 MB): 4 bytes written beside 8,192 operations, and 8 read by the selection, which at
/// 3 TB/s are due 2.7 ps, where operations at 700 T/s are due 11.7 ps; from the L2 cache they would be about half of
/// that. What speaks against few is, besides, that each pair of launches fills and drains the device, some microseconds,
/// and that each block loads its 128 KiB of queries: at 32 MiB once for 24 tiles of keys. Blocks earlier in a sequence
/// see fewer keys and get more rows.
pub(in crate::model::ops) const SCORES: usize = 512 << 20;

/// A block of query rows whose scores are held at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model::ops) struct Block {
    /// The first row.
    pub start: usize,
    /// Rows.
    pub rows: usize,
    /// Elements from row to row of the scores.
    pub width: usize,
}

/// Cuts `queries` rows, before the first of which there are `before` keys, into blocks of at most `bytes` of scores each
/// that fill the device; a block has one row at least.
pub(in crate::model::ops) fn blocks(before: usize, queries: usize, heads: usize, gpu: Gpu, bytes: usize) -> Vec<Block> {
    let per_block = COLUMNS / padded(heads).unwrap_or(COLUMNS) * WARPS;
    // Offsets within the scores of a block are 32 bits wide.
    let elements = (bytes / size_of::<f32>()).min(u32::MAX as usize);
    let (mut blocks, mut start) = (Vec::new(), 0);
    while start < queries {
        let width = |rows: usize| (before + start + rows).next_multiple_of(4);
        let fits = |&rows: &usize| rows * width(rows) <= elements;
        // For every number of shares as many blocks as run at once.
        let full = (1..=gpu.processors).map(|shares| gpu.processors / shares * per_block).find(fits);
        let rows = full.or_else(|| (1..per_block).rev().find(fits)).unwrap_or(1).min(queries - start);
        blocks.push(Block { start, rows, width: width(rows) });
        start += rows;
    }
    blocks
}

/// Returns for how many heads the kernel of so many is made.
pub(super) fn padded(heads: usize) -> Option<usize> {
    [16, 32, 64].into_iter().find(|&padded| heads <= padded)
}

/// Plans the scores of `rows` queries, the last of which sees `visible` keys; `None` for sizes that no kernel takes.
pub(in crate::model::ops) fn scores(
    format: Format,
    heads: usize,
    dim: usize,
    rows: usize,
    visible: usize,
    gpu: Gpu,
) -> Option<Launch> {
    let padded = padded(heads)?;
    let bytes = dim * if format == Format::Bf16 { 2 } else { 1 };
    let (kind, row, stages) = match (format, dim) {
        (Format::Bf16, 1..=64) => ("bf16_d64", 128, 4),
        (Format::Bf16, 65..=128) => ("bf16_d128", 256, 3),
        (Format::Fp8, 1..=128) => ("fp8_d128", 128, 4),
        _ => return None,
    };
    let per_warp = COLUMNS / padded;
    let split = rows <= per_warp;
    let columns = WARPS * COLUMNS;
    let shared = |rows| row * (stages * TILE + rows) + columns * size_of::<f32>();
    // Products of warpgroups have the queries in shared memory too.
    let wgmma = gpu.wgmma && !split && shared(columns) <= gpu.shared;
    let shared = shared(if wgmma { columns } else { 0 });
    if !bytes.is_multiple_of(16) || heads == 0 || rows == 0 || shared > gpu.shared {
        return None;
    }
    let blocks = rows.div_ceil(if split { per_warp } else { per_warp * WARPS });
    let shares = (gpu.processors / blocks).clamp(1, visible.div_ceil(TILE).max(1));
    let how = if split {
        "_split"
    } else if wgmma {
        "_wgmma"
    } else {
        ""
    };
    let name = format!("indexer_scores_{kind}{how}_h{padded}");
    Some(Launch { name, grid: (blocks as u32, shares as u32, 1), threads: 32 * WARPS as u32, shared: shared as u32 })
}

/// Plans the selection of `rows` queries.
pub(in crate::model::ops) fn select(rows: usize) -> Launch {
    // Bins, kept keys, one sum per warp, the counter and what was found.
    let words = 2048 + 8192 + 16 + 4;
    Launch { name: "indexer_select".to_owned(), grid: (rows as u32, 1, 1), threads: 512, shared: 4 * words }
}
