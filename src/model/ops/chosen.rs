//! Experts chosen, and applied to few tokens, where the tokens are: `None` where no kernel of our own does it.

use candle_core::{Result, Tensor};

/// Chooses for every row of scores `p` `[N, E]` the k experts of highest p + bias, best first, ties to the lowest:
/// `[N, k]` u32 on a CUDA device.
///
/// # Errors
/// Where the device fails.
pub fn choose_experts(p: &Tensor, bias: &Tensor, k: usize) -> Result<Option<Tensor>> {
    #[cfg(feature = "cuda")]
    return super::cuda::choose(p, bias, k);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = (p, bias, k);
        Ok(None)
    }
}

/// Notes where the weights of experts (gate, up, down) begin, for [`few_experts`]: good as long as they are held.
///
/// # Errors
/// Where the device fails.
pub fn expert_table(weights: &[[&Tensor; 3]]) -> Result<Option<Tensor>> {
    #[cfg(feature = "cuda")]
    return super::cuda::table(weights);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = weights;
        Ok(None)
    }
}

/// Applies to each row of `x` `[N, hidden]` the experts `ids` `[N, k]` of the table, whose gates are `width` wide, and sums
/// what they give by `weights` `[N, k]`; no gradient. Only for no more slots than there are experts: beyond, products of
/// matrices share weights.
///
/// # Errors
/// Where the device fails.
pub fn few_experts(x: &Tensor, ids: &Tensor, weights: &Tensor, table: &Tensor, width: usize) -> Result<Option<Tensor>> {
    #[cfg(feature = "cuda")]
    return super::cuda::few(x, ids, weights, table, width);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = (x, ids, weights, table, width);
        Ok(None)
    }
}
