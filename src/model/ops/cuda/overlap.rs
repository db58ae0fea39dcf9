//! Launches of `kernels/overlap.cu`.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
use candle_core::{CudaDevice, Result, Tensor, bail};

use super::device::{File, Form, gpu, kernel, view};
use crate::model::ops::plan;

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
    let (function, config) = kernel(device, form, File::Overlap, &launch)?;
    let blocks = launch.grid.0 as usize;
    let (mut sums, mut squares) =
        (device.alloc_zeros::<u64>(blocks * count)?, device.alloc_zeros::<u64>(blocks * count)?);
    let chosen_there = device.clone_htod(chosen)?;
    let sets = sets.contiguous()?;
    let (storage, layout) = sets.storage_and_layout();
    let sets = view::<u32>(&storage, layout)?;
    let [chosen, layers, queries, topk] = [chosen.len(), layers, queries, topk].map(|n| n as i32);
    let (keys, stream) = (keys as u32, device.cuda_stream());
    let mut builder = stream.launch_builder(&function);
    builder.arg(&sets).arg(&chosen_there).arg(&chosen).arg(&layers).arg(&queries).arg(&topk).arg(&keys);
    builder.arg(&mut sums).arg(&mut squares);
    // SAFETY: `sets` holds what the sizes say, chosen queries are below `queries`, each block has its slice of the sums.
    #[allow(unsafe_code)]
    unsafe { builder.launch(config) }.w()?;
    let total = |parts: Vec<u64>| (0..count).map(|pair| parts.iter().skip(pair).step_by(count).sum()).collect();
    Ok(Pairs { sums: total(device.clone_dtoh(&sums)?), squares: total(device.clone_dtoh(&squares)?) })
}
