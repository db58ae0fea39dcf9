//! FP8 weights as DeepSeek and GLM publish them: e4m3 codes with one f32 scale per block of the matrix.
//!
//! `X.weight` `[out, in]` F8_E4M3 comes with `X.weight_scale_inv` `[⌈out/rows⌉, ⌈in/columns⌉]`; the weight is code ·
//! scale. Blocks are of `quantization_config.weight_block_size` of config.json, 128 × 128 where it says nothing.

use serde::Deserialize;

use super::{CheckpointError, Demand, Dtype, TensorInfo};

/// What is appended to the name of an FP8 tensor to get that of its scales.
const SCALE_SUFFIX: &str = "_scale_inv";

/// The blocks of FP4 weights: 32 numbers of a row.
pub const FP4: Blocks = Blocks { rows: 1, columns: 32, powers: true };

/// The value of every e2m1 code: a sign, two bits of exponent, one of mantissa.
const E2M1: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// Writes the values of packed FP4 rows of `width` numbers: the even column of a byte is its low half.
pub fn dequantise_fp4(packed: &[u8], width: usize, scales: &[f32], values: &mut [f32]) {
    let per_row = width.div_ceil(FP4.columns);
    let rows = packed.chunks_exact((width / 2).max(1)).zip(values.chunks_exact_mut(width.max(1)));
    for ((packed, values), scales) in rows.zip(scales.chunks(per_row.max(1))) {
        for (pair, (values, byte)) in values.chunks_mut(2).zip(packed).enumerate() {
            let scale = scales[2 * pair / FP4.columns];
            for (value, code) in values.iter_mut().zip([byte & 15, byte >> 4]) {
                *value = E2M1[code as usize] * scale;
            }
        }
    }
}

/// Returns the value of an e8m0 scale: a power of two, NaN for the highest code.
pub fn e8m0(code: u8) -> f32 {
    match code {
        255 => f32::NAN,
        // 2^−127 is no normal number.
        0 => f32::from_bits(1 << 22),
        exponent => f32::from_bits(u32::from(exponent) << 23),
    }
}

/// The value of every e4m3 code.
pub const E4M3: [f32; 256] = e4m3();

/// Computes the table: sign, 4 bits of exponent (bias 7), 3 bits of mantissa; no infinities, NaN where all are set.
const fn e4m3() -> [f32; 256] {
    let mut table = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        let (exponent, mantissa) = ((code >> 3) & 15, (code & 7) as f32);
        let magnitude = match (exponent, code & 7) {
            (15, 7) => f32::NAN,
            // Subnormal: mantissa / 8 · 2^−6.
            (0, _) => mantissa / 512.0,
            // A power of two by its bits: 127 is the bias of f32.
            _ => (1.0 + mantissa / 8.0) * f32::from_bits((exponent as u32 + 120) << 23),
        };
        table[code] = if code < 128 { magnitude } else { -magnitude };
        code += 1;
    }
    table
}

/// The size of the blocks that share one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Outputs per block.
    pub rows: usize,
    /// Inputs per block.
    pub columns: usize,
    /// Whether scales are powers of two (`scale_fmt` `ue8m0`).
    pub powers: bool,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { rows: 128, columns: 128, powers: false }
    }
}

impl Blocks {
    /// Reads `weight_block_size` and `scale_fmt` of config.json's `quantization_config`.
    ///
    /// # Errors
    /// [`CheckpointError::Config`] where it is no pair of whole numbers, [`CheckpointError::Value`] where one is 0.
    pub(super) fn parse(json: &str) -> Result<Self, CheckpointError> {
        #[derive(Deserialize)]
        struct Raw {
            quantization_config: Option<Quantization>,
        }
        #[derive(Deserialize)]
        struct Quantization {
            weight_block_size: Option<[usize; 2]>,
            scale_fmt: Option<String>,
        }
        let raw: Raw = serde_json::from_str(json)?;
        let Some(config) = raw.quantization_config else { return Ok(Self::default()) };
        let powers = config.scale_fmt.is_some_and(|format| format == "ue8m0");
        match config.weight_block_size {
            None => Ok(Self { powers, ..Self::default() }),
            Some([rows, columns]) if rows > 0 && columns > 0 => Ok(Self { rows, columns, powers }),
            Some(size) => Err(CheckpointError::Value {
                key: "weight_block_size",
                value: format!("{size:?}"),
                reason: "a block has at least one row and one column".to_owned(),
            }),
        }
    }

    /// Returns the scales that a stored tensor needs; `None` for a dtype or shape that has none.
    pub fn scales_of(self, name: &str, info: &TensorInfo) -> Option<Demand> {
        match info.dtype {
            Dtype::F8E4M3 => self.scales(name, &info.shape),
            Dtype::F4E2M1 => FP4.scales(name, &info.shape),
            _ => None,
        }
    }

    /// Returns the scales that an FP8 weight of this name and shape `[out, in]` needs; `None` for other shapes.
    pub fn scales(self, name: &str, shape: &[usize]) -> Option<Demand> {
        let &[out, input] = shape else { return None };
        let shape = vec![out.div_ceil(self.rows), input.div_ceil(self.columns)];
        Some(Demand { name: format!("{name}{SCALE_SUFFIX}"), shape, integers: false })
    }

    /// Returns codes and scales of a weight with rows of `width`: each block's largest value gets the largest code, or
    /// one as near as a power of two allows.
    pub fn quantise(self, values: &[f32], width: usize) -> (Vec<u8>, Vec<f32>) {
        let (width, largest) = (width.max(1), E4M3[0x7e]);
        let per_row = width.div_ceil(self.columns);
        let mut scales = vec![0.0f32; (values.len() / width).div_ceil(self.rows) * per_row];
        let block = |at: usize| at / width / self.rows * per_row + at % width / self.columns;
        for (at, value) in values.iter().enumerate() {
            let scale = &mut scales[block(at)];
            *scale = scale.max(value.abs() / largest);
        }
        for scale in &mut scales {
            // A block of zeros has any scale; the smallest normal number keeps all divisions finite.
            *scale = scale.max(f32::MIN_POSITIVE);
            if self.powers {
                *scale = scale.log2().ceil().exp2();
            }
        }
        let codes = values.iter().enumerate().map(|(at, value)| nearest(value / scales[block(at)]));
        (codes.collect(), scales)
    }

    /// Writes the rows of a weight from `row` on: `codes` and `values` hold whole rows of `width`, `scales` all scales.
    pub fn dequantise(self, codes: &[u8], row: usize, width: usize, scales: &[f32], values: &mut [f32]) {
        let per_row = width.div_ceil(self.columns);
        let rows = codes.chunks_exact(width.max(1)).zip(values.chunks_exact_mut(width.max(1)));
        for (i, (codes, values)) in rows.enumerate() {
            let scales = &scales[(row + i) / self.rows * per_row..];
            let blocks = codes.chunks(self.columns).zip(values.chunks_mut(self.columns));
            for ((codes, values), scale) in blocks.zip(scales) {
                for (value, &code) in values.iter_mut().zip(codes) {
                    *value = E4M3[code as usize] * scale;
                }
            }
        }
    }
}

/// Returns the code of the nearest value, of two as near the even one; beyond ±448 the largest.
fn nearest(value: f32) -> u8 {
    // 0x7e is the largest; 0x7f is NaN.
    let (magnitude, positive) = (value.abs(), &E4M3[..0x7f]);
    let above = positive.partition_point(|&v| v < magnitude).min(positive.len() - 1);
    let below = above.saturating_sub(1);
    let (up, down) = (positive[above] - magnitude, magnitude - positive[below]);
    let code = if down < up || (down == up && below % 2 == 0) { below } else { above };
    code as u8 | if value.is_sign_negative() { 0x80 } else { 0 }
}

/// Returns whether a tensor holds the scales of another.
pub fn is_scale(name: &str) -> bool {
    name.ends_with(".weight_scale_inv")
}

/// Returns the name of the weight that a tensor is, or holds the scales of.
pub(super) fn weight_of(name: &str) -> &str {
    if is_scale(name) { name.trim_end_matches(SCALE_SUFFIX) } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a code by the definition, in another way than the table.
    fn defined(code: u8) -> f64 {
        let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7));
        let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
        match (exponent, code & 7) {
            (15, 7) => f64::NAN,
            (0, _) => sign * mantissa * 2f64.powi(-9),
            _ => sign * (8.0 + mantissa) * 2f64.powi(exponent - 10),
        }
    }

    #[test]
    fn every_value_of_a_code_is_nearest_to_that_code() {
        for code in (0..=255u8).filter(|code| code & 0x7f != 0x7f) {
            assert_eq!(nearest(E4M3[code as usize]), code);
        }
        // Between 1 and 1.125, which are 0x38 and 0x39, and beyond the largest.
        let given = [1.06, 1.0625, 1.07, 1e9, -1e9, 1e-9];
        assert_eq!(given.map(nearest), [0x38, 0x38, 0x39, 0x7e, 0xfe, 0x00]);
    }

    #[test]
    fn what_is_quantised_comes_back_within_half_a_step() {
        let (width, rows) = (7, 5);
        let values: Vec<f32> = (0..width * rows).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.013).collect();
        for powers in [false, true] {
            let blocks = Blocks { rows: 2, columns: 3, powers };
            let (codes, scales) = blocks.quantise(&values, width);
            assert_eq!((codes.len(), scales.len()), (values.len(), 3 * 3));
            assert!(!powers || scales.iter().all(|s| s.log2().fract() == 0.0), "{scales:?}");
            let mut back = vec![0.0; values.len()];
            blocks.dequantise(&codes, 0, width, &scales, &mut back);
            for (at, (value, back)) in values.iter().zip(&back).enumerate() {
                // Three bits of mantissa: half a step is a sixteenth; below 2^-6 steps are 2^-9 of the scale.
                let scale = scales[at / width / 2 * 3 + at % width / 3];
                assert!((value - back).abs() <= (value.abs() / 16.0).max(scale / 1024.0), "{value} became {back}");
            }
            let again = blocks.quantise(&back, width);
            let mut twice = vec![0.0; values.len()];
            blocks.dequantise(&again.0, 0, width, &again.1, &mut twice);
            assert!(powers || back.iter().zip(&twice).all(|(a, b)| (a - b).abs() <= a.abs() * 1e-6));
        }
        let (codes, scales) = Blocks::default().quantise(&[0.0, -0.0], 2);
        assert!(codes.iter().all(|c| E4M3[*c as usize] == 0.0) && scales.iter().all(|s| *s > 0.0));
    }

    #[test]
    fn all_codes_have_their_defined_values() {
        for code in 0..=255u8 {
            let (got, want) = (f64::from(E4M3[code as usize]), defined(code));
            assert!(got == want || (got.is_nan() && want.is_nan()), "{code:#04x}: {got} instead of {want}");
        }
        for (code, value) in [
            (0x00, 0.0),
            (0x01, 0.001_953_125), // smallest subnormal, 2^−9
            (0x07, 0.013_671_875), // largest subnormal, 7/8 · 2^−6
            (0x08, 0.015_625),     // smallest normal, 2^−6
            (0x38, 1.0),
            (0x3c, 1.5),
            (0x40, 2.0),
            (0x7e, 448.0), // largest
            (0xb8, -1.0),
            (0xfe, -448.0),
        ] {
            assert_eq!(E4M3[code], value, "{code:#04x}");
        }
        assert!(E4M3[0x7f].is_nan() && E4M3[0xff].is_nan());
        assert!(E4M3[0x80] == 0.0 && E4M3[0x80].is_sign_negative());
        assert_eq!(E4M3.iter().filter(|v| !v.is_finite()).count(), 2);
    }

    #[test]
    fn ragged_blocks_take_the_scale_of_their_place() {
        // 3 × 5 in blocks of 2 × 2: six scales.
        let blocks = Blocks { rows: 2, columns: 2, powers: false };
        let scales = [1.0, 2.0, 3.0, 10.0, 20.0, 30.0];
        let want = [1.0, 1.0, 2.0, 2.0, 3.0, 1.0, 1.0, 2.0, 2.0, 3.0, 10.0, 10.0, 20.0, 20.0, 30.0];
        let mut values = [0.0; 15];
        blocks.dequantise(&[0x38; 15], 0, 5, &scales, &mut values);
        assert_eq!(values, want);
        let mut last = [0.0; 5];
        blocks.dequantise(&[0x38; 5], 2, 5, &scales, &mut last);
        assert_eq!(last, want[10..]);
        let demand = blocks.scales("a.weight", &[3, 5]).unwrap();
        assert_eq!((demand.name.as_str(), demand.shape), ("a.weight_scale_inv", vec![2, 3]));
        assert_eq!(blocks.scales("a.weight", &[3]), None);
    }

    #[test]
    fn fp4_rows_are_pairs_of_codes_with_a_scale_per_32() {
        let packed: Vec<u8> = (0..32u32).map(|i| (i * 37 % 251) as u8).collect();
        let scales = [e8m0(127), e8m0(130)];
        let mut values = [0.0; 64];
        dequantise_fp4(&packed, 64, &scales, &mut values);
        // Byte 5 is 185 = 0xb9: codes 9 and 11, −0.5 and −1.5; byte 20 is 238 = 0xee: twice code 14, −4 · 8.
        assert_eq!(values[10..12], [-0.5, -1.5]);
        assert_eq!(values[40..42], [-32.0, -32.0]);
        assert_eq!((e8m0(0), e8m0(1), e8m0(254)), (2f32.powi(-127), 2f32.powi(-126), 2f32.powi(127)));
        assert!(e8m0(255).is_nan());
        let info = |dtype, shape: &[usize]| TensorInfo { dtype, shape: shape.to_vec(), shard: 0, start: 0, end: 0 };
        let blocks = Blocks::default();
        assert_eq!(blocks.scales_of("a.weight", &info(Dtype::F4E2M1, &[3, 64])).unwrap().shape, [3, 2]);
        assert_eq!(blocks.scales_of("a.weight", &info(Dtype::F8E4M3, &[3, 64])).unwrap().shape, [1, 1]);
        assert_eq!(blocks.scales_of("a.weight", &info(Dtype::F32, &[3, 64])), None);
    }

    #[test]
    fn the_size_of_blocks_is_read_or_defaulted() {
        let parse = |json| Blocks::parse(json).map_err(|e| e.to_string());
        assert_eq!(parse("{}"), Ok(Blocks { rows: 128, columns: 128, powers: false }));
        assert_eq!(parse(r#"{"quantization_config": {"quant_method": "fp8"}}"#), Ok(Blocks::default()));
        let json = r#"{"quantization_config": {"weight_block_size": [64, 32], "scale_fmt": "ue8m0"}}"#;
        assert_eq!(parse(json), Ok(Blocks { rows: 64, columns: 32, powers: true }));
        let json = r#"{"quantization_config": {"weight_block_size": [0, 32]}}"#;
        assert!(parse(json).unwrap_err().contains("weight_block_size is [0, 32]"));
    }

    #[test]
    fn scales_are_told_by_their_name() {
        assert!(is_scale("a.weight_scale_inv") && !is_scale("a.weight"));
        assert_eq!(weight_of("a.weight_scale_inv"), "a.weight");
        assert_eq!(weight_of("a.weight"), "a.weight");
    }
}
