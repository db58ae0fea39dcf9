//! FP8 weights, dequantised where they are wanted.

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use super::allowed::check;
use crate::checkpoint::Blocks;

/// A weight as it is stored: e4m3 codes with one scale per block.
#[derive(Clone, Copy, Debug)]
pub struct Fp8Weight<'a> {
    /// Codes, `[out, in]`.
    pub codes: &'a [u8],
    /// Outputs and inputs.
    pub shape: (usize, usize),
    /// One per block, `[⌈out / rows⌉, ⌈in / columns⌉]`.
    pub scales: &'a [f32],
    /// Sizes of a block.
    pub blocks: Blocks,
}

impl Fp8Weight<'_> {
    /// Multiplies codes by scales: a tensor `[out, in]` of `dtype` on `device`.
    ///
    /// For bf16 and f32 on a CUDA device the codes are copied there and a kernel of our own does it.
    ///
    /// # Errors
    /// Where there are too few codes or scales, or the device fails.
    pub fn dequantise(self, dtype: DType, device: &Device) -> Result<Tensor> {
        let (rows, columns) = self.shape;
        let scales = rows.div_ceil(self.blocks.rows) * columns.div_ceil(self.blocks.columns);
        check(self.codes.len() == rows * columns && self.scales.len() == scales, "an FP8 weight or its scales")?;
        #[cfg(feature = "cuda")]
        if let (Device::Cuda(cuda), DType::BF16 | DType::F32, 1..) = (device, dtype, self.codes.len()) {
            return super::cuda::dequantise(cuda, self, dtype);
        }
        let at_once = self.blocks.rows * columns.max(1);
        let mut values = vec![0.0; self.codes.len()];
        let blocks = self.codes.par_chunks(at_once).zip(values.par_chunks_mut(at_once));
        blocks.enumerate().for_each(|(i, (codes, values))| {
            self.blocks.dequantise(codes, i * self.blocks.rows, columns, self.scales, values);
        });
        Tensor::from_vec(values, self.shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_any_place_have_their_scale_in_any_dtype() {
        // 5 × 3 codes of 1 in blocks of 2 × 2: six scales, exact in bf16.
        let scales = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let blocks = Blocks { rows: 2, columns: 2, powers: false };
        let weight = Fp8Weight { codes: &[0x38; 15], shape: (5, 3), scales: &scales, blocks };
        let want = [1.0, 1.0, 2.0, 1.0, 1.0, 2.0, 3.0, 3.0, 4.0, 3.0, 3.0, 4.0, 5.0, 5.0, 6.0];
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let got = weight.dequantise(dtype, &Device::Cpu).unwrap();
            assert_eq!((got.dtype(), got.dims()), (dtype, &[5, 3][..]));
            assert_eq!(got.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(), want);
        }
    }

    #[test]
    fn missing_codes_and_scales_are_told() {
        let (blocks, codes, scales) = (Blocks::default(), [0x38; 12], [1.0; 2]);
        let fails = |codes, scales| {
            let weight = Fp8Weight { codes, shape: (3, 4), scales, blocks };
            weight.dequantise(DType::F32, &Device::Cpu).unwrap_err().to_string()
        };
        assert!(fails(&codes[..11], &scales[..1]).contains("an FP8 weight"));
        assert!(fails(&codes, &scales).contains("or its scales"));
    }
}
