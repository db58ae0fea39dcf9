//! Launches of `rows_choose` of `kernels/rows.cu` and of `kernels/experts.cu`.

use candle_core::{CudaStorage, DType, Device, Result, Tensor};
use half::bf16;

use super::device::{self, File, Form, address, tensor, view};
use crate::model::ops::arguments::{Choose, Down, Gate};
use crate::model::ops::plan;

/// Chooses experts; as [`crate::model::ops::choose_experts`] says.
pub(in crate::model::ops) fn choose(p: &Tensor, bias: &Tensor, k: usize) -> Result<Option<Tensor>> {
    let Device::Cuda(device) = p.device() else { return Ok(None) };
    let (rows, experts) = p.dims2()?;
    let right = |x: &Tensor| x.dtype() == DType::F32 && x.is_contiguous() && x.device().is_cuda();
    if !right(p) || !right(bias) || bias.dims() != [experts] || rows == 0 {
        return Ok(None);
    }
    if k == 0 || k > experts || experts > plan::CHOSEN_OF {
        return Ok(None);
    }
    let ((p, p_layout), (bias, bias_layout)) = (p.storage_and_layout(), bias.storage_and_layout());
    // SAFETY: the kernel writes every id; p and bias are as large as the sizes say.
    #[allow(unsafe_code)]
    let ids = unsafe {
        let ids = device.alloc::<u32>(rows * k)?;
        let arguments = Choose {
            p: address(&view::<f32>(&p, p_layout)?),
            bias: address(&view::<f32>(&bias, bias_layout)?),
            ids: address(&ids),
            rows: rows as i32,
            experts: experts as i32,
            k: k as i32,
        };
        device::launch(device, Form::asked(), File::Rows, &plan::warps("rows_choose", rows), &arguments)?;
        ids
    };
    Ok(Some(tensor(CudaStorage::wrap_cuda_slice(ids, device.clone()), (rows, k))))
}

/// Makes the table of where experts lie; as [`crate::model::ops::expert_table`] says.
pub(in crate::model::ops) fn table(weights: &[[&Tensor; 3]]) -> Result<Option<Tensor>> {
    let Some([first, ..]) = weights.first() else { return Ok(None) };
    let mut begins = Vec::with_capacity(3 * weights.len());
    for kind in 0..3 {
        for weight in weights.iter().map(|expert| expert[kind]) {
            let (storage, layout) = weight.storage_and_layout();
            let even = layout.start_offset().is_multiple_of(8) && layout.dims().iter().all(|n| n.is_multiple_of(8));
            let right = weight.dtype() == DType::BF16 && weight.device().is_cuda() && weight.is_contiguous();
            if !right || !even || weight.track_op() {
                return Ok(None);
            }
            begins.push(address(&view::<bf16>(&storage, layout)?) as i64);
        }
    }
    Tensor::from_vec(begins, (3, weights.len()), first.device()).map(Some)
}

/// Applies chosen experts; as [`crate::model::ops::few_experts`] says.
pub(in crate::model::ops) fn few(
    x: &Tensor,
    ids: &Tensor,
    weights: &Tensor,
    table: &Tensor,
    width: usize,
) -> Result<Option<Tensor>> {
    let Device::Cuda(device) = x.device() else { return Ok(None) };
    let ((tokens, hidden), (_, k), (_, experts)) = (x.dims2()?, ids.dims2()?, table.dims2()?);
    let bf16s = |x: &Tensor| x.dtype() == DType::BF16 && x.is_contiguous() && !x.track_op();
    let even = x.layout().start_offset().is_multiple_of(8) && hidden.is_multiple_of(8) && width.is_multiple_of(8);
    if !bf16s(x) || !bf16s(weights) || weights.dims() != ids.dims() || !even || tokens * k > experts || tokens == 0 {
        return Ok(None);
    }
    let ((x, x_layout), (ids, ids_layout)) = (x.storage_and_layout(), ids.storage_and_layout());
    let ((w, w_layout), (table, table_layout)) = (weights.storage_and_layout(), table.storage_and_layout());
    let (ids, table) = (address(&view::<u32>(&ids, ids_layout)?), address(&view::<i64>(&table, table_layout)?));
    let [k, experts, hidden_, width_] = [k, experts, hidden, width].map(|n| n as i32);
    // SAFETY: ids are of experts in the table, whose weights the caller holds and are of these sizes; both kernels write
    // every value.
    #[allow(unsafe_code)]
    let y = unsafe {
        let (h, y) = (device.alloc::<bf16>(tokens * k as usize * width)?, device.alloc::<bf16>(tokens * hidden)?);
        let (x, h, y_at) = (address(&view::<bf16>(&x, x_layout)?), address(&h), address(&y));
        let gate = Gate { x, ids, table, h, k, experts, hidden: hidden_, width: width_ };
        let launch = plan::experts("experts_gate", width, tokens * k as usize);
        device::launch(device, Form::asked(), File::Experts, &launch, &gate)?;
        let w = address(&view::<bf16>(&w, w_layout)?);
        let down = Down { h, ids, w, table, y: y_at, k, experts, hidden: hidden_, width: width_ };
        let launch = plan::experts("experts_down", hidden, tokens);
        device::launch(device, Form::asked(), File::Experts, &launch, &down)?;
        y
    };
    Ok(Some(tensor(CudaStorage::wrap_cuda_slice(y, device.clone()), (tokens, hidden))))
}
