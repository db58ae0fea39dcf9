//! How long counted work takes on an accelerator, from peak rates and the stated share of them that kernels reach.

use serde::{Deserialize, Serialize};

use super::cost::{Count, Geometry, Step, Widths, Work};

/// An accelerator's peak rates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Dense bf16 rate, TFLOP/s.
    pub bf16_tflops: f64,
    /// Dense FP8 rate, TFLOP/s; `None` where there is no FP8.
    pub fp8_tflops: Option<f64>,
    /// Memory bandwidth, GB/s.
    pub bandwidth_gbs: f64,
    /// Where the figures come from.
    pub source: String,
}

/// Shares of the peak rates that kernels reach, and times outside the counted work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Efficiency {
    /// Products with weights, of the rate of their dtype.
    pub products: f64,
    /// Attention over selected latents, of the bf16 rate.
    pub attention: f64,
    /// Scores of the indexer, of the FP8 rate, or bf16 where there is none.
    pub index_scores: f64,
    /// Memory bandwidth, except of the indexer in decode.
    pub bandwidth: f64,
    /// Memory bandwidth of the indexer and its top-k in decode.
    pub index_bandwidth: f64,
    /// Prefill: time outside the counted work, as a multiple of the counted time outside the indexer.
    pub other: f64,
    /// Launches of one layer without its indexer, µs per step.
    pub layer_us: f64,
    /// Launches of one indexer with its top-k, µs per step.
    pub indexer_us: f64,
}

/// Known accelerators with one set of efficiencies: the form of `assets/hardware.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sheet {
    /// For all of them.
    pub efficiency: Efficiency,
    /// The accelerators.
    pub gpu: Vec<Gpu>,
}

/// The dtype of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// One byte each, multiplied at the FP8 rate where there is one.
    Fp8,
    /// Two bytes each.
    Bf16,
}

/// Bytes of the scale of one FP8 index key.
const SCALE_BYTES: f64 = 4.0;

/// A model on an accelerator.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The accelerator.
    pub gpu: Gpu,
    /// What kernels reach of it.
    pub efficiency: Efficiency,
    /// The dtype of the weights.
    pub weights: Weights,
    /// The model.
    pub geometry: Geometry,
}

/// Predicted seconds of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seconds {
    /// Indexers and their top-k.
    pub indexer: f64,
    /// Counted work elsewhere.
    pub rest: f64,
    /// Time outside the counted work.
    pub other: f64,
}

impl Seconds {
    /// Returns the whole time.
    pub fn total(&self) -> f64 {
        self.indexer + self.rest + self.other
    }

    /// Returns the indexers' share of the counted work.
    pub fn share(&self) -> f64 {
        self.indexer / (self.indexer + self.rest)
    }
}

impl Machine {
    /// Returns the bytes per stored number.
    pub fn widths(&self) -> Widths {
        let weight = if self.weights == Weights::Fp8 { 1.0 } else { 2.0 };
        let scaled = 1.0 + SCALE_BYTES / self.geometry.index.dim as f64;
        Widths { weight, latent: 2.0, index_key: if self.index_fp8().is_some() { scaled } else { 2.0 } }
    }

    /// Returns the FP8 rate where index keys are stored in FP8.
    fn index_fp8(&self) -> Option<f64> {
        self.gpu.fp8_tflops.filter(|_| self.geometry.index.is_fp8)
    }

    /// Predicts the prefill of one sequence with `full` Full layers.
    pub fn prefill(&self, context: usize, full: usize) -> Seconds {
        let work = self.geometry.work(Step::Prefill(context), self.widths());
        let seconds = self.seconds(work, full, self.efficiency.bandwidth);
        Seconds { other: seconds.rest * self.efficiency.other, ..seconds }
    }

    /// Predicts one decode step of `batch` sequences with `full` Full layers.
    pub fn decode(&self, context: usize, batch: usize, full: usize) -> Seconds {
        let work = self.geometry.work(Step::Decode { context, batch }, self.widths());
        self.seconds(work, full, self.efficiency.index_bandwidth)
    }

    fn seconds(&self, work: Work, full: usize, index_bandwidth: f64) -> Seconds {
        let Efficiency { products, attention, index_scores, bandwidth, layer_us, indexer_us, .. } = self.efficiency;
        let (bf16, fp8) = (self.gpu.bf16_tflops, self.gpu.fp8_tflops.unwrap_or(self.gpu.bf16_tflops));
        let weights = if self.weights == Weights::Fp8 { fp8 } else { bf16 };
        // Arithmetic and memory overlap within a kernel, but kernels do not overlap each other.
        let roof = |count: Count, tflops: f64, share: f64| {
            (count.flops / (tflops * 1e12)).max(count.bytes / (self.gpu.bandwidth_gbs * 1e9 * share))
        };
        let indexer = roof(work.index_projections, weights * products, bandwidth)
            + roof(work.index_scores, self.index_fp8().unwrap_or(bf16) * index_scores, index_bandwidth)
            + roof(work.topk, fp8, index_bandwidth)
            + indexer_us * 1e-6;
        let rest = roof(work.products, weights * products, bandwidth)
            + roof(work.attention, bf16 * attention, bandwidth)
            + self.geometry.layers() as f64 * layer_us * 1e-6;
        Seconds { indexer: full as f64 * indexer, rest, other: 0.0 }
    }
}

/// Returns the share of time that `less` saves against `more`.
pub fn saving(less: f64, more: f64) -> f64 {
    1.0 - less / more
}

/// Returns the shortest context, on a grid of quarter octaves up to `longest`, from which `saving` is at least
/// `least`; `None` where it is not even at the longest.
pub fn threshold(longest: usize, least: f64, saving: impl Fn(usize) -> f64) -> Option<usize> {
    let steps = (4.0 * (longest as f64).log2()).floor() as i32;
    let grid = (0..=steps).map(|i| 2f64.powf(f64::from(i) / 4.0).round() as usize);
    grid.rev().take_while(|&t| saving(t) >= least).last()
}
