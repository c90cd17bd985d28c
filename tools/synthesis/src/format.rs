//! ggml's block formats, as far as these models use them: sizes and simple quantisers.
//!
//! A quantiser takes the scale from a block's extremes instead of searching for a better one: random weights have nothing to
//! lose, and the result is the same everywhere. Layouts are ggml's (`block_q8_0`, `block_q4_K`, `block_q6_K`).

use half::f16;

/// How a tensor is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    F32,
    F16,
    Q8_0,
    Q4K,
    Q6K,
}

impl Format {
    /// The number in a GGUF file.
    pub fn ggml_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q6K => 14,
        }
    }

    /// Elements of a block; a row is a whole number of blocks.
    pub fn block_length(self) -> u64 {
        match self {
            Self::F32 | Self::F16 => 1,
            Self::Q8_0 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// Appends `values`, a whole number of blocks, to `out`.
    pub fn encode(self, values: &[f32], out: &mut Vec<u8>) {
        match self {
            Self::F32 => out.extend(values.iter().flat_map(|x| x.to_le_bytes())),
            Self::F16 => out.extend(values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes())),
            Self::Q8_0 => values
                .as_chunks()
                .0
                .iter()
                .for_each(|block| q8_0(block, out)),
            Self::Q4K => values
                .as_chunks()
                .0
                .iter()
                .for_each(|block| q4_k(block, out)),
            Self::Q6K => values
                .as_chunks()
                .0
                .iter()
                .for_each(|block| q6_k(block, out)),
        }
    }
}

/// A scale as stored, and the value a reader of the file will use.
fn store_scale(scale: f32) -> ([u8; 2], f32) {
    let stored = f16::from_f32(scale);
    (stored.to_le_bytes(), stored.to_f32())
}

/// 1 / x, and 0 for a block of zeros.
fn reciprocal(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// To the nearest integer, ties to even, by the mantissa's own rounding; |x| < 2^22.
fn round(x: f32) -> i32 {
    const SHIFT: f32 = 12_582_912.0;
    ((x + SHIFT) - SHIFT) as i32
}

fn largest_magnitude(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, x| x.abs().max(most))
}

/// Scale (f16), then 32 signed bytes.
fn q8_0(block: &[f32; 32], out: &mut Vec<u8>) {
    let (bytes, scale) = store_scale(largest_magnitude(block) / 127.0);
    let inverse = reciprocal(scale);
    out.extend(bytes);
    out.extend(
        block
            .iter()
            .map(|x| round(x * inverse).clamp(-127, 127) as i8 as u8),
    );
}

/// Scale and minimum scale (f16), eight 6-bit scales and minima in 12 bytes, then 4-bit codes: x = scale * code - minimum.
fn q4_k(block: &[f32; 256], out: &mut Vec<u8>) {
    let groups = block.as_chunks::<32>().0;
    let mut spans = [0.0; 8];
    let mut minima = [0.0; 8];
    for ((group, span), minimum) in groups.iter().zip(&mut spans).zip(&mut minima) {
        let low = group.iter().fold(0.0, |low: f32, x| low.min(*x));
        let high = group.iter().fold(low, |high, x| high.max(*x));
        *span = (high - low) / 15.0;
        *minimum = -low;
    }
    let (scale_bytes, scale) = store_scale(largest_magnitude(&spans) / 63.0);
    let (minimum_bytes, minimum) = store_scale(largest_magnitude(&minima) / 63.0);
    let six_bits = |x: f32, unit: f32| round(x * reciprocal(unit)).clamp(0, 63) as u8;
    let spans = spans.map(|span| six_bits(span, scale));
    let minima = minima.map(|low| six_bits(low, minimum));

    out.extend(scale_bytes);
    out.extend(minimum_bytes);
    // Groups 0-3 whole, with the top bits of groups 4-7 above them; then the low nibbles of groups 4-7.
    for six in [&spans, &minima] {
        out.extend((0..4).map(|i| six[i] | (six[i + 4] >> 4) << 6));
    }
    out.extend((4..8).map(|i| (spans[i] & 15) | (minima[i] & 15) << 4));

    let mut codes = [[0_u8; 32]; 8];
    for (i, (group, codes)) in groups.iter().zip(&mut codes).enumerate() {
        let inverse = reciprocal(scale * f32::from(spans[i]));
        let low = minimum * f32::from(minima[i]);
        for (x, code) in group.iter().zip(codes) {
            *code = round((x + low) * inverse).clamp(0, 15) as u8;
        }
    }
    for pair in codes.as_chunks::<2>().0 {
        out.extend(
            pair[0]
                .iter()
                .zip(&pair[1])
                .map(|(low, high)| low | high << 4),
        );
    }
}

/// Low nibbles, high bit pairs, sixteen signed byte scales, scale (f16): x = scale * byte scale * (code - 32).
fn q6_k(block: &[f32; 256], out: &mut Vec<u8>) {
    let groups = block.as_chunks::<16>().0;
    let mut spans = [0.0; 16];
    for (group, span) in groups.iter().zip(&mut spans) {
        *span = largest_magnitude(group) / 31.0;
    }
    let (scale_bytes, scale) = store_scale(largest_magnitude(&spans) / 127.0);
    let spans = spans.map(|span| round(span * reciprocal(scale)).clamp(0, 127) as i8);

    let mut codes = [0_u8; 256];
    for (i, (group, codes)) in groups.iter().zip(codes.as_chunks_mut::<16>().0).enumerate() {
        let inverse = reciprocal(scale * f32::from(spans[i]));
        for (x, code) in group.iter().zip(codes) {
            *code = (round(x * inverse).clamp(-32, 31) + 32) as u8;
        }
    }
    // Each half of the block is four runs of 32 codes: runs 0 and 2, and 1 and 3, share bytes of nibbles.
    for half in codes.as_chunks::<128>().0 {
        out.extend((0..64).map(|i| (half[i] & 15) | (half[i + 64] & 15) << 4));
    }
    for half in codes.as_chunks::<128>().0 {
        out.extend((0..32).map(|i| {
            let pair = |run: usize| (half[i + 32 * run] >> 4) << (2 * run);
            pair(0) | pair(1) | pair(2) | pair(3)
        }));
    }
    out.extend(spans.map(|span| span as u8));
    out.extend(scale_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Values;

    /// Quantises, reads back with the engine's kernels, and gives the error relative to the values.
    fn relative_error(format: Format, theirs: kernels::Format, values: &[f32]) -> f64 {
        let mut row = Vec::new();
        format.encode(values, &mut row);
        let blocks = values.len() as u64 / format.block_length();
        assert_eq!(row.len() as u64, blocks * format.block_bytes());
        let mut read = vec![0.0; values.len()];
        let kernels = kernels::Kernels::for_isa(kernels::Isa::Scalar).unwrap();
        kernels.dequantize(theirs, &row, &mut read);
        let power = |x: f64| x * x;
        let error: f64 = values
            .iter()
            .zip(&read)
            .map(|(x, y)| power(f64::from(x - y)))
            .sum();
        let total: f64 = values.iter().map(|x| power(f64::from(*x))).sum();
        (error / total.max(f64::MIN_POSITIVE)).sqrt()
    }

    #[test]
    fn what_is_written_reads_back() {
        let random = Values::new(7, "x", 0.05);
        let values: Vec<f32> = (0..2048).map(|i| random.at(i)).collect();
        let bounds = [
            (Format::F32, kernels::Format::F32, 0.0),
            (Format::F16, kernels::Format::F16, 5e-4),
            (Format::Q8_0, kernels::Format::Q8_0, 0.01),
            (Format::Q6K, kernels::Format::Q6K, 0.04),
            (Format::Q4K, kernels::Format::Q4K, 0.12),
        ];
        for (format, theirs, bound) in bounds {
            let error = relative_error(format, theirs, &values);
            assert!(error <= bound, "{format:?}: {error}");
            assert_eq!(relative_error(format, theirs, &[0.0; 256]), 0.0);
        }
    }

    #[test]
    fn one_sided_blocks_survive() {
        for sign in [1.0, -1.0] {
            let values: Vec<f32> = (0..256).map(|i| sign * (1.0 + i as f32 / 256.0)).collect();
            assert!(relative_error(Format::Q4K, kernels::Format::Q4K, &values) < 0.08);
            assert!(relative_error(Format::Q6K, kernels::Format::Q6K, &values) < 0.03);
        }
    }
}
