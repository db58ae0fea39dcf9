//! Where a model's tensors come from: a checkpoint, or a map of trained variables.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::{DType, Device, Tensor};

use super::ops::Fp8Weight;
use super::{ModelError, Result};
use crate::checkpoint::{Checkpoint, CheckpointError, Dtype, FP4, Quantisation, dequantise_fp4, e8m0, layer_of};

/// Gives tensors by their name in the checkpoint.
pub trait TensorSource: Debug {
    /// Returns the tensor in `dtype`, after checking its shape.
    ///
    /// # Errors
    /// [`ModelError::Missing`] or [`ModelError::Shape`], naming the tensor.
    fn get(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor>;

    /// Returns whether the tensor exists.
    fn contains(&self, name: &str) -> bool;

    /// Hears that everything of a layer has been loaded (of embedding, norm and head for `None`).
    fn loaded(&self, _layer: Option<usize>) {}

    /// Returns where experts are to be loaded from when they are first needed; `None` to load them with their layer.
    fn deferred(&self) -> Option<Arc<dyn TensorSource + Send + Sync>> {
        None
    }
}

/// Reads tensors from a checkpoint onto a device.
#[derive(Clone, Debug)]
pub struct CheckpointSource {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Where the tensors go.
    pub device: Device,
    /// Whether experts are loaded only when tokens are routed to them.
    pub defer_experts: bool,
}

impl CheckpointSource {
    /// Reads an FP8 weight `[out, in]` and multiplies it by its scales.
    fn dequantise(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let unsupported = || CheckpointError::UnsupportedDtype { name: name.to_owned(), dtype: Dtype::F8E4M3 };
        let blocks = self.checkpoint.blocks();
        let (&[out, input], Some(scales)) = (shape, blocks.scales(name, shape)) else {
            return Err(unsupported().into());
        };
        let host = Self { device: Device::Cpu, ..self.clone() };
        let scales: Vec<f32> = host.get(&scales.name, &scales.shape, DType::F32)?.flatten_all()?.to_vec1()?;
        let weight = Fp8Weight { codes: self.checkpoint.bytes(name)?, shape: (out, input), scales: &scales, blocks };
        Ok(weight.dequantise(dtype, &self.device)?)
    }
}

impl CheckpointSource {
    /// Reads a packed FP4 weight `[out, in]` and multiplies it by its scales.
    fn dequantise_fp4(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let unsupported = || CheckpointError::UnsupportedDtype { name: name.to_owned(), dtype: Dtype::F4E2M1 };
        let (&[out, input], Some(scales)) = (shape, FP4.scales(name, shape)) else {
            return Err(unsupported().into());
        };
        let host = Self { device: Device::Cpu, ..self.clone() };
        let scales: Vec<f32> = host.get(&scales.name, &scales.shape, DType::F32)?.flatten_all()?.to_vec1()?;
        let mut values = vec![0.0; out * input];
        dequantise_fp4(self.checkpoint.bytes(name)?, input, &scales, &mut values);
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(&self.device)?)
    }
}

impl TensorSource for CheckpointSource {
    fn get(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let info = self.checkpoint.tensor(name).ok_or_else(|| ModelError::Missing(name.to_owned()))?;
        check_shape(name, &info.shape, shape)?;
        let stored = match info.dtype {
            Dtype::F64 => DType::F64,
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::Quantised(kind) => {
                let values = qtensor_from_ggml(ggml(kind), self.checkpoint.bytes(name)?, shape.to_vec(), &Device::Cpu)?;
                return Ok(values.dequantize(&Device::Cpu)?.to_dtype(dtype)?.to_device(&self.device)?);
            }
            Dtype::F8E4M3 => return self.dequantise(name, shape, dtype),
            Dtype::F4E2M1 => return self.dequantise_fp4(name, shape, dtype),
            Dtype::F8E8M0 => {
                let values = self.checkpoint.bytes(name)?.iter().map(|&code| e8m0(code));
                let values = Tensor::from_iter(values, &Device::Cpu)?.reshape(shape)?;
                return Ok(values.to_dtype(dtype)?.to_device(&self.device)?);
            }
            ref ids if ids.is_integer() && dtype == DType::U32 => {
                if ids.size() == Some(8) {
                    DType::I64
                } else {
                    DType::I32
                }
            }
            ref other => {
                return Err(CheckpointError::UnsupportedDtype { name: name.to_owned(), dtype: other.clone() }.into());
            }
        };
        let tensor = Tensor::from_raw_buffer(self.checkpoint.bytes(name)?, stored, shape, &Device::Cpu)?;
        Ok(tensor.to_dtype(dtype)?.to_device(&self.device)?)
    }

    fn contains(&self, name: &str) -> bool {
        self.checkpoint.tensor(name).is_some()
    }

    /// Gives the file's pages back: everything has been copied, and they would only count as memory in use.
    fn loaded(&self, layer: Option<usize>) {
        let of_layer = self.checkpoint.tensors().filter(|(name, _)| layer_of(name) == layer);
        of_layer.for_each(|(_, info)| self.checkpoint.release(info));
    }

    fn deferred(&self) -> Option<Arc<dyn TensorSource + Send + Sync>> {
        self.defer_experts.then(|| Arc::new(self.clone()) as Arc<dyn TensorSource + Send + Sync>)
    }
}

impl<S: std::hash::BuildHasher> TensorSource for HashMap<String, Tensor, S> {
    fn get(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let tensor = HashMap::get(self, name).ok_or_else(|| ModelError::Missing(name.to_owned()))?;
        check_shape(name, tensor.dims(), shape)?;
        Ok(tensor.to_dtype(dtype)?)
    }

    fn contains(&self, name: &str) -> bool {
        self.contains_key(name)
    }
}

/// Returns candle's name for a kind of blocks.
fn ggml(kind: Quantisation) -> GgmlDType {
    match kind {
        Quantisation::Q4_0 => GgmlDType::Q4_0,
        Quantisation::Q4_1 => GgmlDType::Q4_1,
        Quantisation::Q5_0 => GgmlDType::Q5_0,
        Quantisation::Q5_1 => GgmlDType::Q5_1,
        Quantisation::Q8_0 => GgmlDType::Q8_0,
        Quantisation::Q2K => GgmlDType::Q2K,
        Quantisation::Q3K => GgmlDType::Q3K,
        Quantisation::Q4K => GgmlDType::Q4K,
        Quantisation::Q5K => GgmlDType::Q5K,
        Quantisation::Q6K => GgmlDType::Q6K,
    }
}

fn check_shape(name: &str, got: &[usize], want: &[usize]) -> Result<()> {
    if got == want {
        return Ok(());
    }
    Err(ModelError::Shape { name: name.to_owned(), got: got.to_vec(), want: want.to_vec() })
}

/// A source seen from one place of the checkpoint's tree of names.
#[derive(Clone)]
pub(super) struct Scope<'a> {
    pub(super) source: &'a dyn TensorSource,
    prefix: String,
    pub(super) dtype: DType,
}

impl<'a> Scope<'a> {
    pub(super) fn root(source: &'a dyn TensorSource, dtype: DType) -> Self {
        Self { source, prefix: String::new(), dtype }
    }

    pub(super) fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { prefix: format!("{}{name}.", self.prefix), ..self.clone() }
    }

    /// Returns the place's name, without the last dot.
    pub(super) fn path(&self) -> &str {
        self.prefix.trim_end_matches('.')
    }

    pub(super) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.source.get(&format!("{}{name}", self.prefix), shape, self.dtype)
    }

    /// Returns a tensor that stays in f32 whatever the model's dtype (router, indexer weights).
    pub(super) fn get_f32(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.source.get(&format!("{}{name}", self.prefix), shape, DType::F32)
    }

    /// Returns a table of ids, row after row.
    pub(super) fn get_ids(&self, name: &str, shape: &[usize]) -> Result<Vec<u32>> {
        let ids = self.source.get(&format!("{}{name}", self.prefix), shape, DType::U32)?;
        Ok(ids.flatten_all()?.to_vec1()?)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.source.contains(&format!("{}{name}", self.prefix))
    }
}

/// y = x Wᵀ + b, with `Linear.weight` as `[out, in]`.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub(super) fn load(scope: &Scope, name: &str, (out, input): (usize, usize), bias: bool) -> Result<Self> {
        let weight = scope.get(&format!("{name}.weight"), &[out, input])?;
        let bias = if bias { Some(scope.get(&format!("{name}.bias"), &[out])?) } else { None };
        Ok(Self { weight, bias })
    }

    pub(super) fn of(weight: Tensor) -> Self {
        Self { weight, bias: None }
    }

    /// Returns the weight, `[out, in]`.
    pub(super) fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// Applies the layer to the last dimension of `x`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut dims = x.dims().to_vec();
        let input = dims.pop().unwrap_or(1);
        let rows = x.reshape((x.elem_count() / input.max(1), input))?;
        dims.push(self.weight.dim(0)?);
        let y = rows.matmul(&self.weight.t()?)?.reshape(dims)?;
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }
}
