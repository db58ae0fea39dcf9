//! How the numbers of a tensor are stored.

use std::collections::BTreeMap;
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
    /// Powers of two in 8 bits, the scales of blocks.
    F8E8M0,
    /// 4-bit floats, two of a row in a byte; packed as `I8` in the files that have them.
    F4E2M1,
    /// Blocks of few bits with common scales, of GGUF files.
    Quantised(Quantisation),
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
            "F8_E8M0" => Self::F8E8M0,
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
            Self::F8E8M0 => "F8_E8M0",
            Self::F4E2M1 => "F4_E2M1",
            Self::Quantised(kind) => kind.name(),
            Self::Other(name) => name,
        }
    }

    /// Returns the bytes of one element; `None` for dtypes of unknown or fractional size.
    pub fn size(&self) -> Option<usize> {
        match self {
            Self::F64 => Some(8),
            Self::F32 => Some(4),
            Self::F16 | Self::BF16 => Some(2),
            Self::F8E4M3 | Self::F8E5M2 | Self::F8E8M0 => Some(1),
            Self::Quantised(_) | Self::F4E2M1 => None,
            Self::Other(name) => match name.as_str() {
                "I64" | "U64" | "C64" => Some(8),
                "I32" | "U32" => Some(4),
                "I16" | "U16" => Some(2),
                "I8" | "U8" | "BOOL" => Some(1),
                _ => None,
            },
        }
    }

    /// Returns whether numbers of this dtype can be read as they are; FP8 and FP4 need scales.
    pub fn is_supported(&self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16 | Self::F8E8M0 | Self::Quantised(_))
    }

    /// Returns whether token or expert ids can be read from this dtype.
    pub fn is_integer(&self) -> bool {
        matches!(self.name(), "I64" | "I32")
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

/// Kinds of blocks in GGUF files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[allow(missing_docs, non_camel_case_types)]
pub enum Quantisation {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl Quantisation {
    /// Returns the kind of a ggml type number.
    pub(super) fn from_ggml(number: u32) -> Option<Self> {
        Some(match number {
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            _ => return None,
        })
    }

    /// Returns elements and bytes of one block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2K => (256, 84),
            Self::Q3K => (256, 110),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
        }
    }

    /// Returns the name that GGUF files use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }
}

/// Tensors by name.
pub(super) type Tensors = BTreeMap<String, TensorInfo>;

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
