//! Sends tokens to their experts and back: one gather there, one product per expert, one gather back.
//!
//! What a device does well: its matrix products are as large as they can be, and no sum depends on an order of threads.
//! On the CPU [`super::moe`] goes from expert to expert instead, which holds less at once.

use std::ops::Range;

use candle_core::Tensor;

use super::Result;
use super::experts::Experts;
use super::pass::Pass;

/// Elements of the rows that are gathered at once, k per token. The more tokens, the larger each expert's products.
const GATHERED: usize = 1 << 28;

/// Slots in the order of their experts; slot s is the place s mod k of token s / k.
struct Order {
    /// The slots of expert 0, of expert 1, …, each ascending.
    slots: Vec<u32>,
    /// Where those of each expert end.
    ends: Vec<usize>,
}

impl Order {
    /// Orders the experts that were `chosen`, slot by slot.
    fn of(chosen: &[u32], experts: usize) -> Self {
        // Where the next slot of each expert goes: at first where its slots begin, in the end where they end.
        let mut next = vec![0; experts + 1];
        chosen.iter().for_each(|&expert| next[expert as usize + 1] += 1);
        (1..experts).for_each(|expert| next[expert] += next[expert - 1]);
        next.truncate(experts);
        let mut slots = vec![0; chosen.len()];
        for (slot, &expert) in chosen.iter().enumerate() {
            slots[next[expert as usize]] = slot as u32;
            next[expert as usize] += 1;
        }
        Self { slots, ends: next }
    }

    /// Iterates over the experts that got something, with where their slots stand.
    fn experts(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, &end)| begin..end).enumerate().filter(|(_, range)| !range.is_empty())
    }

    /// Returns where each slot stands in the order.
    fn places(&self) -> Vec<u32> {
        let mut places = vec![0; self.slots.len()];
        self.slots.iter().zip(0..).for_each(|(&slot, place)| places[slot as usize] = place);
        places
    }
}

/// Applies to each row of `x` `[N, hidden]` its `chosen` experts and sums what they give by `weights`, both `[N, k]`.
///
/// # Errors
/// Where an expert cannot be loaded, the device fails, or the pass is to stop.
pub(super) fn dispatch(experts: &Experts, x: &Tensor, chosen: &[u32], weights: &Tensor, pass: &Pass) -> Result<Tensor> {
    let (n, k) = weights.dims2()?;
    let most = (GATHERED / (k * x.dim(1)?).max(1)).max(1);
    let mut parts = Vec::with_capacity(n.div_ceil(most));
    for start in (0..n).step_by(most) {
        let rows = most.min(n - start);
        let (x, weights) = (x.narrow(0, start, rows)?, weights.narrow(0, start, rows)?);
        parts.push(at_once(experts, &x, &chosen[start * k..][..rows * k], &weights, pass)?);
    }
    Ok(Tensor::cat(&parts, 0)?)
}

fn at_once(experts: &Experts, x: &Tensor, chosen: &[u32], weights: &Tensor, pass: &Pass) -> Result<Tensor> {
    let ((n, hidden), k) = (x.dims2()?, weights.dim(1)?);
    let order = Order::of(chosen, experts.len());
    let tokens = Tensor::from_iter(order.slots.iter().map(|slot| slot / k as u32), x.device())?;
    let gathered = x.index_select(&tokens, 0)?; // N·k hidden, by expert
    let mut parts = Vec::new();
    for (expert, at) in order.experts() {
        pass.check()?;
        parts.push(experts.get(expert)?.forward(&gathered.narrow(0, at.start, at.len())?)?);
    }
    let places = Tensor::from_vec(order.places(), n * k, x.device())?;
    let back = Tensor::cat(&parts, 0)?.index_select(&places, 0)?.reshape((n, k, hidden))?;
    // A sum over k as a product: f32 inside, whatever the dtype.
    Ok(weights.contiguous()?.unsqueeze(1)?.matmul(&back)?.squeeze(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_stand_by_expert_and_each_has_its_place() {
        let order = Order::of(&[2, 0, 2, 3, 0, 2], 5);
        assert_eq!(order.slots, [1, 4, 0, 2, 5, 3]);
        assert_eq!(order.experts().collect::<Vec<_>>(), [(0, 0..2), (2, 2..5), (3, 5..6)]);
        assert_eq!(order.places(), [2, 0, 3, 5, 1, 4]);
    }

    proptest! {
        #[test]
        fn every_slot_goes_to_its_expert_and_comes_back(chosen in prop::collection::vec(0u32..7, 0..80)) {
            let order = Order::of(&chosen, 7);
            let mut seen = 0;
            for (expert, at) in order.experts() {
                prop_assert!(order.slots[at.clone()].iter().all(|&slot| chosen[slot as usize] == expert as u32));
                prop_assert!(order.slots[at.clone()].windows(2).all(|pair| pair[0] < pair[1]));
                seen += at.len();
            }
            prop_assert_eq!(seen, chosen.len());
            prop_assert!(order.places().iter().zip(0..).all(|(&place, slot)| order.slots[place as usize] == slot));
        }
    }
}
