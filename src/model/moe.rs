//! Mixture of experts: a router with a bias for choosing, group-limited top-k, or a table over token ids; shared experts.

use std::sync::Arc;

use candle_core::{D, DType, Tensor};
use rayon::prelude::*;

use super::dispatch::dispatch;
use super::experts::Experts;
use super::mlp::{Activation, Mlp};
use super::ops::choose_experts;
use super::pass::Pass;
use super::weights::{Linear, Scope};
use super::{ModelError, Result};
use crate::checkpoint::{Config, Scoring};

/// Tokens that one thread chooses for at least: below that, waking it costs more.
const TOGETHER: usize = 128;

/// Weights of one sparse layer.
#[derive(Clone, Debug)]
pub(super) struct Moe {
    router: Linear,
    /// Added to the scores for choosing only, never to the weights.
    bias: Vec<f32>,
    /// The same, where the router is.
    bias_there: Tensor,
    experts: Experts,
    shared: Option<Mlp>,
    scoring: Scoring,
    /// Each token id's experts, where they are not chosen by the scores.
    table: Option<Arc<[u32]>>,
    routing: Routing,
}

/// How experts are chosen.
#[derive(Clone, Copy, Debug)]
struct Routing {
    per_token: usize,
    groups: usize,
    groups_kept: usize,
    normalise: bool,
    factor: f64,
}

impl Moe {
    /// Loads experts that are chosen by their scores.
    pub(super) fn load(scope: &Scope, config: &Config) -> Result<Self> {
        let bias = scope.get_f32("gate.e_score_correction_bias", &[config.n_routed_experts])?.detach();
        Self::build(scope, config, bias, None)
    }

    /// Loads experts that a table chooses by token id.
    pub(super) fn load_hashed(scope: &Scope, config: &Config) -> Result<Self> {
        let experts = config.n_routed_experts;
        let table = scope.get_ids("gate.tid2eid", &[config.vocab_size, config.num_experts_per_tok])?;
        if let Some(&expert) = table.iter().find(|&&expert| expert as usize >= experts) {
            return Err(ModelError::NoExpert { table: format!("{}.gate.tid2eid", scope.path()), expert, experts });
        }
        let device = scope.get_f32("gate.weight", &[experts, config.hidden_size])?.device().clone();
        Self::build(scope, config, Tensor::zeros(experts, DType::F32, &device)?, Some(table.into()))
    }

    fn build(scope: &Scope, config: &Config, bias_there: Tensor, table: Option<Arc<[u32]>>) -> Result<Self> {
        let (hidden, experts, shared_width) = (config.hidden_size, config.n_routed_experts, config.shared_width());
        Ok(Self {
            router: Linear::of(scope.get_f32("gate.weight", &[experts, hidden])?),
            bias: bias_there.to_vec1()?,
            bias_there,
            experts: Experts::load(&scope.at("experts"), config)?,
            shared: if shared_width == 0 {
                None
            } else {
                Some(Mlp::load(&scope.at("shared_experts"), (hidden, shared_width), Activation::of(config))?)
            },
            scoring: config.deepseek_v4.as_ref().map_or(Scoring::Sigmoid, |v4| v4.scoring),
            table,
            routing: Routing {
                per_token: config.num_experts_per_tok,
                groups: config.n_group,
                groups_kept: config.topk_group,
                normalise: config.norm_topk_prob,
                factor: config.routed_scaling_factor,
            },
        })
    }

    /// Applies the experts to `x` `[B, T, hidden]` of tokens `ids`, B·T of them; also returns how many tokens each expert
    /// got, where the host knows.
    pub(super) fn forward(&self, x: &Tensor, tokens: &[u32], pass: &Pass) -> Result<(Tensor, Option<Vec<u32>>)> {
        let hidden = x.dim(D::Minus1)?;
        let flat = x.reshape((x.elem_count() / hidden, hidden))?; // N H
        let n = flat.dim(0)?;
        let p = self.scores(&self.router.forward(&flat.to_dtype(DType::F32)?)?)?; // N E
        let k = self.routing.per_token;
        let whole = self.routing.groups_kept >= self.routing.groups;
        let there =
            if whole && self.table.is_none() { choose_experts(&p.detach(), &self.bias_there, k)? } else { None };
        // Scores of all experts are much to bring to the host, and ids in between are something to wait for.
        let (ids, here) = if let Some(ids) = there {
            (ids, None)
        } else {
            let chosen = match &self.table {
                Some(table) => tokens.iter().flat_map(|&id| &table[id as usize * k..][..k]).copied().collect(),
                None => self.choose(&p.detach().flatten_all()?.to_vec1()?),
            }; // N·K expert ids
            (Tensor::from_slice(&chosen, (n, k), x.device())?, Some(chosen))
        };
        let mut weights = p.gather(&ids, 1)?; // N K
        if self.routing.normalise {
            weights = weights.broadcast_div(&(weights.sum_keepdim(1)? + 1e-20)?)?;
        }
        let weights = (weights * self.routing.factor)?.to_dtype(x.dtype())?;
        let y = match &self.shared {
            Some(shared) => shared.forward(&flat)?,
            None => flat.zeros_like()?,
        };
        if let (None, Some(routed)) = (&here, self.experts.few(&flat, &ids, &weights)?) {
            return Ok(((y + routed)?.reshape(x.shape())?, None));
        }
        let chosen = match here {
            Some(chosen) => chosen,
            None => ids.flatten_all()?.to_vec1()?,
        };
        let mut load = vec![0; self.experts.len()];
        chosen.iter().for_each(|&expert| load[expert as usize] += 1);
        let y = if x.device().is_cpu() {
            self.one_by_one(&flat, &chosen, &weights, y, pass)?
        } else {
            (y + dispatch(&self.experts, &flat, &chosen, &weights, pass)?)?
        };
        Ok((y.reshape(x.shape())?, Some(load)))
    }

    /// Returns the experts' scores from the router's logits.
    fn scores(&self, logits: &Tensor) -> Result<Tensor> {
        Ok(match self.scoring {
            Scoring::Sigmoid => candle_nn::ops::sigmoid(logits)?,
            Scoring::Softmax => candle_nn::ops::softmax(logits, D::Minus1)?,
            // ln(1 + e^x) from the side on which the exponential does not overflow.
            Scoring::SqrtSoftplus => (logits.relu()? + (logits.abs()?.neg()?.exp()? + 1.0)?.log()?)?.sqrt()?,
        })
    }

    /// Adds to `y` what each expert gives to its tokens; operands as in [`dispatch`].
    fn one_by_one(&self, x: &Tensor, chosen: &[u32], weights: &Tensor, mut y: Tensor, pass: &Pass) -> Result<Tensor> {
        let (k, weights) = (weights.dim(1)?, weights.flatten_all()?);
        let mut slots: Vec<Vec<u32>> = vec![Vec::new(); self.experts.len()];
        for (slot, &expert) in chosen.iter().enumerate() {
            slots[expert as usize].push(slot as u32);
        }
        for (expert, slots) in slots.iter().enumerate() {
            if slots.is_empty() {
                continue;
            }
            pass.check()?;
            let tokens: Vec<u32> = slots.iter().map(|s| s / k as u32).collect();
            let tokens = Tensor::new(tokens.as_slice(), x.device())?;
            let share = weights.index_select(&Tensor::new(slots.as_slice(), x.device())?, 0)?.unsqueeze(1)?;
            let out = self.experts.get(expert)?.forward(&x.index_select(&tokens, 0)?)?.broadcast_mul(&share)?;
            y = y.index_add(&tokens, &out, 0)?;
        }
        Ok(y)
    }

    /// Returns each token's experts, flattened, best first, from all tokens' scores of all experts.
    fn choose(&self, p: &[f32]) -> Vec<u32> {
        let Routing { per_token, groups, groups_kept, .. } = self.routing;
        let experts = self.experts.len().max(1);
        let size = (experts / groups.max(1)).max(1);
        let mut chosen = vec![0; p.len() / experts * per_token];
        let tokens = p.par_chunks(experts).zip(chosen.par_chunks_mut(per_token.max(1))).with_min_len(TOGETHER);
        tokens.for_each(|(row, chosen)| {
            let mut score: Vec<f32> = row.iter().zip(&self.bias).map(|(p, b)| p + b).collect();
            if groups_kept < groups {
                // A group is as good as its two best members.
                let worth: Vec<f32> = score.chunks(size).map(|g| best(g, 2).iter().map(|&e| g[e]).sum()).collect();
                let kept = best(&worth, groups_kept);
                for (e, s) in score.iter_mut().enumerate() {
                    if !kept.contains(&(e / size)) {
                        *s = f32::NEG_INFINITY;
                    }
                }
            }
            chosen.iter_mut().zip(best(&score, per_token)).for_each(|(to, expert)| *to = expert as u32);
        });
        chosen
    }
}

/// Returns the positions of the `k` highest values, best first; ties go to the lowest position.
///
/// k is small: each value is compared with the worst that is kept, few are let in.
fn best(values: &[f32], k: usize) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::with_capacity(k + 1);
    for (at, value) in values.iter().enumerate() {
        let worse = |&&other: &&usize| values[other].total_cmp(value).is_lt();
        if kept.len() == k && kept.last().is_none_or(|last| !worse(&last)) {
            continue;
        }
        kept.insert(kept.len() - kept.iter().rev().take_while(worse).count(), at);
        kept.truncate(k);
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::model::ops::testing::{assert_close, random};
    use crate::model::{Attend, CheckpointSource};

    #[test]
    fn tokens_sent_all_at_once_come_back_as_one_expert_after_another_gives_them() {
        for (name, n) in [("glm_dsa_tiny", 1), ("glm_dsa_tiny", 50), ("deepseek_groups_yarn", 33)] {
            let checkpoint = Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name));
            let checkpoint = checkpoint.unwrap();
            let config = checkpoint.config().clone();
            let layer = config.mlp.iter().position(|kind| *kind == crate::checkpoint::MlpKind::Sparse).unwrap();
            let source = CheckpointSource { checkpoint, device: Device::Cpu, defer_experts: false };
            let scope = Scope::root(&source, DType::F32).at("model.layers").at(layer).at("mlp");
            let moe = Moe::load(&scope, &config).unwrap();
            let (pass, k) = (Pass::new(Attend::Dense), config.num_experts_per_tok);
            let x = random(&[n, config.hidden_size], 1);
            let scores: Vec<f32> = random(&[n * config.n_routed_experts], 2).to_vec1().unwrap();
            let (chosen, weights) = (moe.choose(&scores), random(&[n, k], 3));
            let nothing = x.zeros_like().unwrap();
            let want = moe.one_by_one(&x, &chosen, &weights, nothing, &pass).unwrap();
            assert_close(&dispatch(&moe.experts, &x, &chosen, &weights, &pass).unwrap(), &want, 1e-5);
        }
    }

    proptest! {
        #[test]
        fn the_best_are_those_of_a_stable_sort(values in prop::collection::vec((-4i8..4).prop_map(f32::from), 0..40), k in 0usize..12) {
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
            order.truncate(k);
            prop_assert_eq!(best(&values, k), order);
        }
    }
}
