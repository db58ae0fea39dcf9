//! Mixture of experts: sigmoid router with a bias for choosing, group-limited top-k, shared experts.

use candle_core::{D, DType, Tensor};

use super::Result;
use super::experts::Experts;
use super::mlp::Mlp;
use super::pass::Pass;
use super::weights::{Linear, Scope};
use crate::checkpoint::Config;

/// Weights of one sparse layer.
#[derive(Clone, Debug)]
pub(super) struct Moe {
    router: Linear,
    /// Added to the scores for choosing only, never to the weights.
    bias: Vec<f32>,
    experts: Experts,
    shared: Option<Mlp>,
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
    pub(super) fn load(scope: &Scope, config: &Config) -> Result<Self> {
        let (hidden, width, experts) = (config.hidden_size, config.moe_intermediate_size, config.n_routed_experts);
        let shared_width = width * config.n_shared_experts;
        Ok(Self {
            router: Linear::of(scope.get_f32("gate.weight", &[experts, hidden])?),
            bias: scope.get_f32("gate.e_score_correction_bias", &[experts])?.to_vec1()?,
            experts: Experts::load(&scope.at("experts"), config)?,
            shared: if shared_width == 0 {
                None
            } else {
                Some(Mlp::load(&scope.at("shared_experts"), hidden, shared_width)?)
            },
            routing: Routing {
                per_token: config.num_experts_per_tok,
                groups: config.n_group,
                groups_kept: config.topk_group,
                normalise: config.norm_topk_prob,
                factor: config.routed_scaling_factor,
            },
        })
    }

    /// Applies the experts to `x` `[B, T, hidden]`; also returns how many tokens each expert got.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<(Tensor, Vec<u32>)> {
        let hidden = x.dim(D::Minus1)?;
        let flat = x.reshape((x.elem_count() / hidden, hidden))?; // N H
        let n = flat.dim(0)?;
        let p = candle_nn::ops::sigmoid(&self.router.forward(&flat.to_dtype(DType::F32)?)?)?; // N E
        let chosen = self.choose(&p.detach().to_vec2()?); // N·K expert ids
        let k = self.routing.per_token;
        let ids = Tensor::from_slice(&chosen, (n, k), x.device())?;
        let mut weights = p.gather(&ids, 1)?; // N K
        if self.routing.normalise {
            weights = weights.broadcast_div(&(weights.sum_keepdim(1)? + 1e-20)?)?;
        }
        let weights = (weights * self.routing.factor)?.flatten_all()?.to_dtype(x.dtype())?;

        let mut slots: Vec<Vec<u32>> = vec![Vec::new(); self.experts.len()];
        for (slot, &expert) in chosen.iter().enumerate() {
            slots[expert as usize].push(slot as u32);
        }
        let mut y = match &self.shared {
            Some(shared) => shared.forward(&flat)?,
            None => flat.zeros_like()?,
        };
        for (expert, slots) in slots.iter().enumerate() {
            if slots.is_empty() {
                continue;
            }
            pass.check()?;
            let tokens: Vec<u32> = slots.iter().map(|s| s / k as u32).collect();
            let tokens = Tensor::new(tokens.as_slice(), x.device())?;
            let share = weights.index_select(&Tensor::new(slots.as_slice(), x.device())?, 0)?.unsqueeze(1)?;
            let out = self.experts.get(expert)?.forward(&flat.index_select(&tokens, 0)?)?.broadcast_mul(&share)?;
            y = y.index_add(&tokens, &out, 0)?;
        }
        Ok((y.reshape(x.shape())?, slots.iter().map(|s| s.len() as u32).collect()))
    }

    /// Returns each token's experts, flattened, best first.
    fn choose(&self, p: &[Vec<f32>]) -> Vec<u32> {
        let Routing { per_token, groups, groups_kept, .. } = self.routing;
        let size = (self.experts.len() / groups.max(1)).max(1);
        let mut chosen = Vec::with_capacity(p.len() * per_token);
        let mut score = Vec::new();
        for row in p {
            score.clear();
            score.extend(row.iter().zip(&self.bias).map(|(p, b)| p + b));
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
            chosen.extend(best(&score, per_token).iter().map(|&e| e as u32));
        }
        chosen
    }
}

/// Returns the positions of the `k` highest values, best first; ties go to the lowest position.
fn best(values: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order.truncate(k);
    order
}
