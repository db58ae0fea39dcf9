//! Launches of `kernels/overlap.cu`.

use candle_core::{CudaDevice, Result, Tensor, bail};

use super::device::{self, File, Form, address, gpu, view};
use crate::model::ops::{arguments, plan};

/// Sums and sums of squares over queries of |set(i) ∩ set(j)|, one per pair of layers in the order (0,0), (0,1), …, (1,1), …
pub(super) struct Pairs {
    pub(super) sums: Vec<u64>,
    pub(super) squares: Vec<u64>,
}

/// Counts what every two layers share at the `chosen` queries; `sets` is padded, `[layers, queries, k]`, of keys below
/// `keys`.
pub(super) fn pairs(device: &CudaDevice, form: Form, sets: &Tensor, chosen: &[u32], keys: usize) -> Result<Pairs> {
    let (layers, queries, topk) = sets.dims3()?;
    if let Some(query) = chosen.iter().find(|&&query| query as usize >= queries) {
        bail!("query {query} is none of {queries}")
    }
    let count = layers * (layers + 1) / 2;
    let Some(launch) = plan::overlap(layers, chosen.len(), gpu(device, form)?) else {
        bail!("no kernel compares {layers} layers at {} queries", chosen.len())
    };
    let blocks = launch.grid.0 as usize;
    let (sums, squares) = (device.alloc_zeros::<u64>(blocks * count)?, device.alloc_zeros::<u64>(blocks * count)?);
    let chosen_there = device.clone_htod(chosen)?;
    let sets = sets.contiguous()?;
    let (storage, layout) = sets.storage_and_layout();
    let arguments = arguments::Pairs {
        sets: address(&view::<u32>(&storage, layout)?),
        chosen: address(&chosen_there),
        count: chosen.len() as i32,
        layers: layers as i32,
        queries: queries as i32,
        k: topk as i32,
        keys: keys as u32,
        sums: address(&sums),
        squares: address(&squares),
    };
    // SAFETY: `sets` holds what the sizes say, chosen queries are below `queries`, each block has its slice of the sums.
    #[allow(unsafe_code)]
    unsafe { device::launch(device, form, File::Overlap, &launch, &arguments) }?;
    let total = |parts: Vec<u64>| (0..count).map(|pair| parts.iter().skip(pair).step_by(count).sum()).collect();
    Ok(Pairs { sums: total(device.clone_dtoh(&sums)?), squares: total(device.clone_dtoh(&squares)?) })
}
