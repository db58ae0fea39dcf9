//! Tables of the rotary position embedding, plain and stretched.

use std::ops::Range;

use candle_core::{Device, Tensor};

use super::Result;
use super::ops::Rotary;
use crate::checkpoint::{Config, Rope, RopeScaling};

/// Computes cos and sin `[positions, width/2]`.
///
/// Frequencies and angles are f32, as in the reference implementation.
///
/// # Errors
/// Where the device has no room.
pub(super) fn tables(rope: &Rope, width: usize, positions: Range<usize>, device: &Device) -> Result<Rotary> {
    let frequencies = frequencies(rope, width);
    let factor = attention_factor(&rope.scaling);
    let t = positions.len();
    let angles: Vec<f32> = positions.flat_map(|i| frequencies.iter().map(move |f| i as f32 * f)).collect();
    let table = |f: fn(f32) -> f32| {
        let values: Vec<f32> = angles.iter().map(|&a| f(a) * factor).collect();
        Tensor::from_vec(values, (t, frequencies.len()), device)
    };
    Ok(Rotary { cos: table(f32::cos)?, sin: table(f32::sin)? })
}

/// Returns the factor on attention scores: (nope + rope)^−½ times the squared `YaRN` scale.
pub(super) fn softmax_scale(config: &Config) -> f64 {
    let base = ((config.qk_nope_head_dim + config.qk_rope_head_dim) as f64).powf(-0.5);
    match config.rope.scaling {
        RopeScaling::Yarn { factor, mscale_all_dim, .. } if mscale_all_dim != 0.0 => {
            base * magnitude(mscale_all_dim, factor).powi(2)
        }
        _ => base,
    }
}

fn magnitude(scale: f64, factor: f64) -> f64 {
    if factor > 1.0 { 0.1 * scale * factor.ln() + 1.0 } else { 1.0 }
}

fn attention_factor(scaling: &RopeScaling) -> f32 {
    match *scaling {
        RopeScaling::Default | RopeScaling::Llama3 { .. } | RopeScaling::Divided(_) => 1.0,
        RopeScaling::Yarn { attention_factor: Some(factor), .. } => factor as f32,
        RopeScaling::Yarn { factor, mscale, mscale_all_dim, .. } if mscale != 0.0 && mscale_all_dim != 0.0 => {
            (magnitude(mscale, factor) / magnitude(mscale_all_dim, factor)) as f32
        }
        RopeScaling::Yarn { factor, .. } => magnitude(1.0, factor) as f32,
    }
}

pub(super) fn frequencies(rope: &Rope, width: usize) -> Vec<f32> {
    let theta = rope.theta;
    let plain = (0..width / 2).map(|j| 1.0 / (theta as f32).powf((2 * j) as f32 / width as f32));
    let (factor, beta_fast, beta_slow, original_max_position_embeddings, truncate) = match rope.scaling {
        RopeScaling::Default => return plain.collect(),
        RopeScaling::Divided(ref factors) => return plain.zip(factors).map(|(f, factor)| f / factor).collect(),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            let turns = move |f: f32| original_max_position_embeddings as f32 * f / std::f32::consts::TAU;
            let (low, high) = (low_freq_factor as f32, high_freq_factor as f32);
            let stretch = |f: f32| {
                let kept = ((turns(f) - low) / (high - low)).clamp(0.0, 1.0);
                f / factor as f32 * (1.0 - kept) + f * kept
            };
            return plain.map(stretch).collect();
        }
        RopeScaling::Yarn { factor, beta_fast, beta_slow, original_max_position_embeddings, truncate, .. } => {
            (factor, beta_fast, beta_slow, original_max_position_embeddings, truncate)
        }
    };
    // The dimension whose wavelength makes `rotations` turns within the original context.
    let dimension = |rotations: f64| {
        let turns = original_max_position_embeddings as f64 / (rotations * 2.0 * std::f64::consts::PI);
        width as f64 * turns.ln() / (2.0 * theta.ln())
    };
    let (low, high) = (dimension(beta_fast), dimension(beta_slow));
    let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, mut high) = (low.max(0.0), high.min(width as f64 - 1.0));
    if low == high {
        high += 0.001;
    }
    plain
        .enumerate()
        .map(|(j, f)| {
            let ramp = ((j as f64 - low) / (high - low)).clamp(0.0, 1.0) as f32;
            f / factor as f32 * ramp + f * (1.0 - ramp)
        })
        .collect()
}
