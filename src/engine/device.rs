//! Where a model runs, and in which dtype.

use std::str::FromStr;

use candle_core::{DType, Device};

use super::BackendError;
use super::devices::cuda_count;
use crate::domain::Diagnostic;

/// A device as asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device if this build can use one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by its number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':').map_or((text, None), |(name, number)| (name, Some(number))) {
            ("auto", None) => Ok(Self::Auto),
            ("cpu", None) => Ok(Self::Cpu),
            ("cuda", None) => Ok(Self::Cuda(0)),
            ("cuda", Some(number)) if number.parse::<usize>().is_ok() => Ok(Self::Cuda(number.parse().unwrap_or(0))),
            _ => Err("devices are auto, cpu, cuda and cuda:N".to_owned()),
        }
    }
}

/// A dtype as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtypeChoice {
    /// 32-bit float, the default on the CPU.
    F32,
    /// bfloat16, the default on CUDA.
    Bf16,
    /// 16-bit float.
    F16,
}

impl FromStr for DtypeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            _ => Err("dtypes are f32, bf16 and f16".to_owned()),
        }
    }
}

/// A device that is there, and the dtype in which to compute.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The device.
    pub device: Device,
    /// The dtype.
    pub dtype: DType,
    number: usize,
}

impl Placement {
    /// Opens the device.
    ///
    /// # Errors
    /// [`BackendError::Failed`] where it is not there, or this build cannot use it.
    pub fn open(device: DeviceChoice, dtype: Option<DtypeChoice>) -> Result<Self, BackendError> {
        let number = match device {
            DeviceChoice::Cpu => None,
            // A build with CUDA runs everywhere: without a device on the CPU.
            DeviceChoice::Auto => (cuda_count() > 0).then_some(0),
            DeviceChoice::Cuda(number) => Some(number),
        };
        let device = number.map_or(Ok(Device::Cpu), open_cuda)?;
        let number = number.unwrap_or_default();
        let usual = if device.is_cpu() { DtypeChoice::F32 } else { DtypeChoice::Bf16 };
        let dtype = match dtype.unwrap_or(usual) {
            DtypeChoice::F32 => DType::F32,
            DtypeChoice::Bf16 => DType::BF16,
            DtypeChoice::F16 => DType::F16,
        };
        Ok(Self { device, dtype, number })
    }

    /// Returns `cpu` or `cuda:N`.
    pub fn device_name(&self) -> String {
        if self.device.is_cpu() { "cpu".to_owned() } else { format!("cuda:{}", self.number) }
    }

    /// Returns `f32`, `bf16` or `f16`.
    pub fn dtype_name(&self) -> &'static str {
        self.dtype.as_str()
    }
}

/// Opens a CUDA device.
fn open_cuda(number: usize) -> Result<Device, BackendError> {
    let failed =
        |message: String, hint: &str| BackendError::Failed(Diagnostic { message, hint: Some(hint.to_owned()) });
    if !candle_core::utils::cuda_is_available() {
        let hint = "build with '--features cuda', or use --device cpu";
        return Err(failed("this build cannot use --device cuda".to_owned(), hint));
    }
    let hint = "'indexscope devices' says what is there; or use --device cpu";
    match cuda_count() {
        0 => Err(failed(format!("cannot open cuda:{number}: the driver finds no CUDA device"), hint)),
        _ => crate::model::ops::open_cuda(number).map_err(|error| {
            let line = error.to_string().lines().next().unwrap_or_default().to_owned();
            // The driver is there; the libraries come with the toolkit.
            let library = ["CUBLAS", "CURAND"].iter().any(|name| line.to_uppercase().contains(name));
            let hint = if library {
                "libcublas and libcurand of CUDA 13 are needed: set LD_LIBRARY_PATH to the folder that has them"
            } else {
                hint
            };
            failed(format!("cannot open cuda:{number}: {line}"), hint)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_on_the_command_line() {
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        for wrong in ["gpu", "cuda:x", "cpu:1", ""] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }
}
