//! How the numbers of a tensor are stored.

use std::fmt;

/// The dtype of a stored tensor, by its safetensors name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Dtype {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// 16-bit brain float.
    BF16,
    /// 8-bit float with 4 exponent bits.
    F8E4M3,
    /// 8-bit float with 5 exponent bits.
    F8E5M2,
    /// Anything else, such as integers of quantised checkpoints.
    Other(String),
}

impl Dtype {
    /// Returns the dtype of a safetensors name such as `BF16`.
    pub fn from_name(name: &str) -> Self {
        match name {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "F8_E4M3" => Self::F8E4M3,
            "F8_E5M2" => Self::F8E5M2,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Returns the safetensors name.
    pub fn name(&self) -> &str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::Other(name) => name,
        }
    }

    /// Returns the bytes of one element; `None` for dtypes of unknown or fractional size.
    pub fn size(&self) -> Option<usize> {
        match self {
            Self::F64 => Some(8),
            Self::F32 => Some(4),
            Self::F16 | Self::BF16 => Some(2),
            Self::F8E4M3 | Self::F8E5M2 => Some(1),
            Self::Other(name) => match name.as_str() {
                "I64" | "U64" | "C64" => Some(8),
                "I32" | "U32" => Some(4),
                "I16" | "U16" => Some(2),
                "I8" | "U8" | "BOOL" | "F8_E8M0" => Some(1),
                _ => None,
            },
        }
    }

    /// Returns whether numbers of this dtype can be computed with as they are; FP8 needs scales.
    pub fn is_supported(&self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }

    /// Returns whether this is an 8-bit float.
    pub fn is_float8(&self) -> bool {
        matches!(self, Self::F8E4M3 | Self::F8E5M2)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a tensor is stored, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// How its numbers are stored.
    pub dtype: Dtype,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Which shard holds it.
    pub(super) shard: usize,
    /// First byte within the shard's file.
    pub(super) start: usize,
    /// One past the last byte.
    pub(super) end: usize,
}

impl TensorInfo {
    /// Returns the number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns the number of stored bytes.
    pub fn byte_len(&self) -> usize {
        self.end - self.start
    }
}
