//! Which parts of the fast form of attention run on a device, so that outputs name what ran.

use candle_core::{DType, Device};

use super::attention::MlaShape;
#[cfg(any(test, feature = "cuda"))]
use super::plan::{self, Format, Gpu};
use crate::checkpoint::{Attention, Config};

/// The sizes of a model by which a kernel takes it or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Heads of the indexer and their width; `None` where the model's own attention selects.
    pub indexer: Option<(usize, usize)>,
    /// Sizes of an attention head.
    pub shape: MlaShape,
    /// Width of the latent, or heads of keys.
    pub kept: Kept,
}

impl Sizes {
    /// Returns the sizes that a config gives.
    pub fn of(config: &Config) -> Self {
        let kept = match config.attention {
            Attention::Mla => Kept::Latent(config.kv_lora_rank),
            Attention::Gqa { num_key_value_heads, .. } => Kept::Heads(num_key_value_heads),
            Attention::MiniMaxM3(_) | Attention::SharedRows => Kept::Blocks,
        };
        let indexer = (!config.index.is_oracle()).then_some((config.index_n_heads, config.index_head_dim));
        Self { indexer, shape: MlaShape::of(config), kept }
    }
}

/// What is kept of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Latents of this width.
    Latent(usize),
    /// Keys and values of so many heads.
    Heads(usize),
    /// Keys and values of which each group selects blocks: no kernel takes them.
    Blocks,
}

/// Which parts of [`super::super::Ops::Fast`] run; the others are candle's stock ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastParts {
    /// The indexer's selection; also where there is no indexer.
    pub indexer: bool,
    /// Attention over the selected keys.
    pub attention: bool,
}

/// Returns what of the fast form runs on a device: everything on the CPU, elsewhere what has a kernel.
pub fn fast_parts(device: &Device, dtype: DType, sizes: Sizes) -> FastParts {
    if device.is_cpu() {
        return FastParts { indexer: true, attention: true };
    }
    #[cfg(feature = "cuda")]
    if let Some(gpu) = super::cuda::limits(device) {
        return with_kernels(gpu, dtype, sizes);
    }
    let _ = (dtype, sizes);
    FastParts { indexer: false, attention: false }
}

#[cfg(any(test, feature = "cuda"))]
fn with_kernels(gpu: Gpu, dtype: DType, Sizes { indexer, shape, kept }: Sizes) -> FastParts {
    let in_bf16 = dtype == DType::BF16;
    let selects = |(heads, dim)| plan::scores(Format::Bf16, heads, dim, 1, 1, gpu).is_some();
    let attends = match kept {
        Kept::Latent(latent) => plan::takes_latent(shape, latent, gpu),
        Kept::Heads(heads) => plan::takes_grouped(shape, shape.heads / heads.max(1), gpu),
        Kept::Blocks => return FastParts { indexer: false, attention: false },
    };
    FastParts { indexer: in_bf16 && indexer.is_none_or(selects), attention: in_bf16 && attends }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOPPER: Gpu = Gpu { shared: 227 * 1024, processors: 132, wgmma: true };
    /// GLM-5.
    const GLM: Sizes = Sizes {
        indexer: Some((32, 128)),
        shape: MlaShape { heads: 64, nope: 192, rope: 64, value: 256 },
        kept: Kept::Latent(512),
    };

    #[test]
    fn on_a_gpu_only_what_has_a_kernel_is_fast() {
        let of = |dtype, sizes| {
            let FastParts { indexer, attention } = with_kernels(HOPPER, dtype, sizes);
            (indexer, attention)
        };
        assert_eq!(of(DType::BF16, GLM), (true, true));
        assert_eq!(of(DType::F32, GLM), (false, false));
        assert_eq!(of(DType::BF16, Sizes { kept: Kept::Latent(520), ..GLM }), (true, false));
        assert_eq!(of(DType::BF16, Sizes { indexer: Some((32, 129)), ..GLM }), (false, true));
        let llama = MlaShape { heads: 32, nope: 128, rope: 0, value: 128 };
        let dense = Sizes { indexer: None, shape: llama, kept: Kept::Heads(8) };
        assert_eq!(of(DType::BF16, dense), (true, true));
        assert_eq!(
            of(DType::BF16, Sizes { shape: MlaShape { nope: 256, value: 256, ..llama }, ..dense }),
            (true, false)
        );
    }

    #[test]
    fn on_a_cpu_everything_is() {
        let parts = fast_parts(&Device::Cpu, DType::BF16, Sizes { kept: Kept::Latent(520), ..GLM });
        assert_eq!(parts, FastParts { indexer: true, attention: true });
    }
}
