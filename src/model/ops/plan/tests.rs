//! What is planned, against the kernels' sources.

use super::attention::{VARIANTS, Variant};
use super::indexer::{COLUMNS, TILE, WARPS};
use super::*;
use proptest::prelude::*;

const HOPPER: Gpu = Gpu { shared: 227 * 1024, processors: 132, wgmma: true };
const SMALL: Gpu = Gpu { shared: PORTABLE_SHARED, processors: 128, wgmma: false };

const INDEXER: &str = include_str!("../../../../kernels/indexer_topk.cu");
const FP8: &str = include_str!("../../../../kernels/fp8_dequant.cu");
const OVERLAP: &str = include_str!("../../../../kernels/overlap.cu");
const EXPERTS: &str = include_str!("../../../../kernels/experts.cu");
const ROWS: &str = include_str!("../../../../kernels/rows.cu");
const SELECT: &str = include_str!("../../../../kernels/indexer_select.cuh");
const SPARSE: &str = include_str!("../../../../kernels/sparse_mla.cu");
const SPARSE_WGMMA: &str = include_str!("../../../../kernels/sparse_wgmma.cuh");

/// Whether the source instantiates the kernel of this name.
fn instantiated(name: &str) -> bool {
    let (kind, heads) = name.rsplit_once('_').unwrap();
    let (list, scores) =
        if kind.ends_with("_wgmma") { ("INDEXER_WGMMA", "scores_wgmma<") } else { ("INDEXER_HEADS", "scores<") };
    INDEXER.contains(&format!("{list}({kind}, ")) && INDEXER.contains(&format!("(NAME##_{heads}, {scores}"))
}

fn constant(source: &str, name: &str) -> usize {
    let text = source.split(&format!("{name} = ")).nth(1).expect("the constant is in the source");
    text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[test]
fn constants_and_variants_are_those_of_the_kernels() {
    assert_eq!(["TILE", "COLUMNS", "WARPS"].map(|name| constant(INDEXER, name)), [TILE, COLUMNS, WARPS]);
    assert_eq!(["BINS", "KEPT", "SELECT_THREADS"].map(|name| constant(SELECT, name)), [2048, 8192, 512]);
    let launch = select(3);
    assert_eq!((launch.grid.0, launch.threads), (3, 512));
    assert!(launch.shared as usize >= 4 * (2048 + 8192 + 512 / 32 + 4));
    let starts = ["SPARSE(sparse_", "SPARSE_KERNEL(sparse_"];
    let lines: Vec<&str> = SPARSE.lines().filter(|line| starts.iter().any(|start| line.starts_with(start))).collect();
    assert_eq!(lines.len(), VARIANTS.len());
    for Variant { name, mg, ng, nk, latent, rope, grouped, wgmma } in VARIANTS {
        let line = if wgmma {
            assert_eq!(
                ["BLOCK", "LATENT_PANELS", "WGMMA_THREADS"].map(|name| constant(SPARSE_WGMMA, name)),
                [16 * mg, latent / nk, 32 * mg * ng]
            );
            assert_eq!((16 * mg, rope, grouped), (nk, nk, false));
            format!("SPARSE_KERNEL({name}, sparse::WGMMA_THREADS, attend_wgmma)")
        } else {
            format!("SPARSE({name}, {mg}, {ng}, {nk}, {latent}, {rope}, {grouped})")
        };
        assert!(lines.contains(&line.as_str()), "{line}");
    }
}

#[test]
fn planned_kernels_of_the_indexer_exist() {
    for (format, dims) in [(Format::Bf16, [32, 64, 128]), (Format::Fp8, [32, 64, 128])] {
        for dim in dims {
            for heads in [1, 4, 16, 20, 32, 64] {
                for rows in [1, 4, 5, 1000] {
                    let launch = scores(format, heads, dim, rows, 70_000, SMALL).unwrap();
                    assert!(instantiated(&launch.name), "{}", launch.name);
                    assert!(launch.shared as usize <= PORTABLE_SHARED && launch.grid.1 >= 1);
                    let launch = scores(format, heads, dim, rows, 70_000, HOPPER).unwrap();
                    assert!(instantiated(&launch.name), "{}", launch.name);
                    assert!(launch.name.contains("_wgmma_") != launch.name.contains("_split_"), "{}", launch.name);
                    assert!(launch.shared as usize <= HOPPER.shared);
                }
            }
        }
    }
    assert_eq!(scores(Format::Bf16, 65, 128, 1, 1, HOPPER), None);
    assert_eq!(scores(Format::Bf16, 32, 129, 1, 1, HOPPER), None);
    assert_eq!(scores(Format::Bf16, 32, 12, 1, 1, HOPPER), None);
}

#[test]
fn where_queries_do_not_fit_beside_keys_products_are_those_of_a_warp() {
    // 231,424 bytes are what bf16 heads of 128 need with wgmma.
    let plan = |shared| scores(Format::Bf16, 32, 128, 1000, 70_000, Gpu { shared, ..HOPPER }).unwrap();
    assert_eq!(plan(231_424).name, "indexer_scores_bf16_d128_wgmma_h32");
    let less = plan(231_423);
    assert_eq!((less.name.as_str(), less.shared), ("indexer_scores_bf16_d128_h32", 100_352));
    assert_eq!(less.grid, plan(231_424).grid);
}

#[test]
fn blocks_of_rows_fill_the_device() {
    for (before, rows, shares) in [(65_535, 1056, 2), (200_000, 528, 4), (1 << 20, 112, 18)] {
        let block = blocks(before, 1 << 16, 32, HOPPER, SCORES)[0];
        assert_eq!(block.rows, rows, "{before}");
        let grid = scores(Format::Bf16, 32, 128, rows, before + rows, HOPPER).unwrap().grid;
        assert_eq!(grid, (rows as u32 / 16, shares, 1));
        assert!(grid.0 * grid.1 > 120, "{before}");
    }
    // Earlier rows see less, and more of them fit; a block is not cut for nothing.
    let all = blocks(0, 65_536, 32, HOPPER, SCORES);
    assert_eq!((all[0].rows, all[0].width), (2112, 2112));
    assert!(all.len() < 65_536 / 1056 && all.windows(2).all(|pair| pair[0].rows >= pair[1].rows));
    assert_eq!(blocks(70_000, 4, 32, HOPPER, SCORES), [Block { start: 0, rows: 4, width: 70_004 }]);
    assert_eq!(blocks(200_000, 1000, 32, HOPPER, 32 << 20)[0].rows, 32);
    assert_eq!(blocks(1 << 20, 1000, 32, HOPPER, 1 << 20)[0].rows, 1);
}

#[test]
fn large_tiles_need_large_shared_memory() {
    let glm = Sparse { rows: 4096, heads: 64, groups: 1, latent: 512, rope: 64, topk: 2048, grouped: false };
    let plan = |s, gpu| sparse(s, gpu).unwrap();
    let mma_sync = Gpu { wgmma: false, ..HOPPER };
    assert_eq!(plan(glm, mma_sync).name, "sparse_mla_l512_m4");
    assert_eq!(plan(Sparse { heads: 20, ..glm }, HOPPER).name, "sparse_mla_l512_m2");
    assert_eq!((plan(glm, SMALL).name.as_str(), plan(glm, SMALL).grid), ("sparse_mla_l512_m1", (4096, 1, 4)));
    assert_eq!(plan(Sparse { latent: 64, rope: 16, ..glm }, HOPPER).name, "sparse_mla_l128_m1");
    // One token: its keys are split so that every multiprocessor has some.
    assert_eq!(plan(Sparse { rows: 1, ..glm }, HOPPER).grid, (1, 32, 1));
    assert_eq!(sparse(Sparse { latent: 520, ..glm }, HOPPER), None);
    assert!(VARIANTS.iter().all(|v| v.shared() <= HOPPER.shared));
}

#[test]
fn more_than_32_heads_of_a_latent_have_products_of_warpgroups() {
    let plan = |heads, latent, gpu| {
        let s = Sparse { rows: 4096, heads, groups: 1, latent, rope: 64, topk: 2048, grouped: false };
        let launch = sparse(s, gpu).unwrap();
        assert!(launch.shared as usize <= gpu.shared && launch.threads <= 256);
        (launch.name, launch.grid.2)
    };
    for (heads, blocks) in [(33, 1), (40, 1), (64, 1), (65, 2), (96, 2), (128, 2)] {
        assert_eq!(plan(heads, 512, HOPPER), ("sparse_mla_l512_wgmma".to_owned(), blocks));
        assert_eq!(plan(heads, 448, HOPPER), ("sparse_mla_l512_wgmma".to_owned(), blocks));
        assert!(!plan(heads, 512, Gpu { wgmma: false, ..HOPPER }).0.contains("wgmma"));
        assert!(!plan(heads, 512, SMALL).0.contains("wgmma"));
    }
    assert_eq!(plan(32, 512, HOPPER), ("sparse_mla_l512_m2".to_owned(), 1));
    assert_eq!(plan(64, 128, HOPPER), ("sparse_mla_l128_m1".to_owned(), 4));
    // What kernels/sparse_wgmma.cuh says that it needs.
    let panel = 64 * 128;
    assert_eq!(VARIANTS.iter().find(|v| v.wgmma).map(|v| v.shared()), Some(3 * 9 * panel + panel + 2 * 64 * 4));
    assert!(SPARSE_WGMMA.contains("3 * PANELS * PANEL + PANEL + 2 * BLOCK * 4 bytes"));
}

#[test]
fn every_value_of_a_weight_has_a_thread() {
    for (rows, columns) in [(1, 1), (3, 1024), (70_000, 1025), (576, 7168)] {
        let launch = dequantise(rows, columns, true);
        let threads = launch.grid.0 as usize * launch.threads as usize;
        assert!(4 * threads >= columns && 4 * (threads - launch.threads as usize) < columns);
        assert!((1..=65_535).contains(&launch.grid.1) && FP8.contains(&launch.name));
        assert!(FP8.contains(&dequantise(rows, columns, false).name));
    }
    assert_eq!(constant(ROWS, "THREADS"), 256);
    assert_eq!((constant(ROWS, "MOST"), constant(EXPERTS, "THREADS")), (CHOSEN_OF, 256));
    assert_eq!((warps("", 17).grid, warps("", 17).threads), ((3, 1, 1), 256));
    assert_eq!((experts("", 17, 5).grid, experts("", 17, 5).threads), ((3, 5, 1), 256));
    assert_eq!((eights("", 2048).grid.0, eights("", 2056).grid.0, eights("", 8).threads), (1, 2, 256));
    let launch = quantise(17);
    assert_eq!((launch.grid.0 * launch.threads / 32, FP8.contains(&launch.name)), (24, true));
}

#[test]
fn as_many_layers_as_a_pattern_has_can_be_compared_on_any_gpu() {
    let launch = overlap(128, 10_000, SMALL).unwrap();
    assert_eq!((launch.grid.0, launch.shared), (128, (64 << 10) + 4 * 8256));
    assert_eq!(overlap(47, 10_000, HOPPER).unwrap().grid.0, 132 * 3);
    assert_eq!(overlap(47, 5, HOPPER).unwrap().grid.0, 5);
    assert_eq!((overlap(0, 5, HOPPER), overlap(5, 0, HOPPER), overlap(200, 5, SMALL)), (None, None, None));
    assert!(OVERLAP.contains(&launch.name) && OVERLAP.contains("RANGE = 1u << 19"));
    assert_eq!(constant(OVERLAP, "THREADS"), launch.threads as usize);
}

#[test]
fn grouped_heads_have_kernels_of_their_own_in_any_shared_memory() {
    let sizes =
        |heads, groups, width| Sparse { rows: 4096, heads, groups, latent: width, rope: 0, topk: 512, grouped: true };
    let plan = |sizes, gpu| sparse(sizes, gpu).map(|launch| (launch.name, launch.grid));
    for gpu in [HOPPER, SMALL] {
        // SmolLM2's heads, Llama's; one block per head of keys.
        assert_eq!(plan(sizes(9, 3, 64), gpu), Some(("sparse_gqa_d64_m1".to_owned(), (4096, 1, 3))));
        assert_eq!(plan(sizes(32, 8, 128), gpu), Some(("sparse_gqa_d128_m1".to_owned(), (4096, 1, 8))));
        // 24 query heads of one head of keys take two blocks of 16.
        assert_eq!(plan(sizes(48, 2, 80), gpu), Some(("sparse_gqa_d128_m1".to_owned(), (4096, 1, 4))));
        assert_eq!(plan(sizes(16, 16, 256), gpu), None);
    }
    // Decode: no share of the keys is without a tile of them.
    assert_eq!(plan(Sparse { rows: 1, ..sizes(32, 8, 128) }, HOPPER).unwrap().1, (1, 16, 8));
}

proptest! {
    /// The kernels' rule: share y of the tiles is `y·s .. min(tiles, (y + 1)·s)` with `s = ⌈tiles / shares⌉`.
    #[test]
    fn shares_cover_every_visible_tile_once(rows in 1usize..3000, before in 0usize..200_000, heads in 1usize..=64) {
        let visible = before + rows;
        let launch = scores(Format::Bf16, heads, 128, rows, visible, HOPPER).unwrap();
        let tiles = visible.div_ceil(TILE);
        let share = tiles.div_ceil(launch.grid.1 as usize);
        let covered: usize = (0..launch.grid.1 as usize).map(|y| tiles.min((y + 1) * share).saturating_sub(y * share)).sum();
        prop_assert_eq!(covered, tiles);
        let per_block = COLUMNS / [16, 32, 64].into_iter().find(|&p| heads <= p).unwrap() * if launch.name.contains("split") { 1 } else { WARPS };
        prop_assert!(launch.grid.0 as usize * per_block >= rows && (launch.grid.0 as usize - 1) * per_block < rows);
    }

    #[test]
    fn blocks_of_rows_stay_within_the_workspace(
        before in 0usize..(1 << 20),
        queries in 1usize..9000,
        heads in 1usize..=64,
        mib in 1usize..9000,
    ) {
        let mut next = 0;
        for Block { start, rows, width } in blocks(before, queries, heads, HOPPER, mib << 20) {
            prop_assert_eq!(start, next);
            prop_assert!(rows >= 1 && width >= before + start + rows && width.is_multiple_of(4));
            prop_assert!(rows == 1 || rows * width * 4 <= mib << 20);
            prop_assert!(u32::try_from(rows * width).is_ok());
            next += rows;
        }
        prop_assert_eq!(next, queries);
    }
}
