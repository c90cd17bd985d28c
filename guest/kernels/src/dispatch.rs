//! The table of routines for one instruction set, and the checks that make its methods safe.

use crate::formats::{Activation, Format};
use crate::isa::Isa;
use crate::product::Product;
use crate::simd;

/// The kernels of one instruction set; see the crate's documentation for what their results may depend on.
pub struct Kernels {
    pub(crate) isa: Isa,
    // Each routine relies on lengths that fit, and on a processor that supports `isa`.
    pub(crate) quantize: unsafe fn(Activation, &[f32], &mut [u8]),
    pub(crate) rows: unsafe fn(Format, Product<'_>),
    pub(crate) dequantize: unsafe fn(Format, &[u8], &mut [f32]),
    pub(crate) weighted_sum: unsafe fn(Format, &[f32], &[u8], &mut [f32]),
    pub(crate) f32_to_f16: unsafe fn(&[f32], &mut [u8]),
    pub(crate) rms_norm: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    pub(crate) rms_norm_in_place: unsafe fn(&mut [f32], &[f32], f32),
    pub(crate) softmax: unsafe fn(&mut [f32], f32),
    pub(crate) swiglu: unsafe fn(&mut [f32], &[f32]),
    pub(crate) rope: unsafe fn(&mut [f32], &[f32], &[f32]),
    pub(crate) add: unsafe fn(&mut [f32], &[f32]),
    pub(crate) argmax: unsafe fn(&[f32]) -> usize,
}

impl Kernels {
    /// The kernels of `isa`, or `None` if this processor or its operating system lacks it.
    pub fn for_isa(isa: Isa) -> Option<&'static Kernels> {
        if !isa.is_supported() {
            return None;
        }
        Some(match isa {
            Isa::Scalar => &simd::scalar::KERNELS,
            Isa::Avx2 => &simd::avx2::KERNELS,
            Isa::Avx512 => &simd::avx512::KERNELS,
        })
    }

    /// The instruction set these kernels use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Stores `x` as `activation`. Also how a row of keys or values becomes [`Format::Q8_0`]: the layouts are equal.
    ///
    /// # Panics
    /// If `x` is not a whole number of blocks or `out` not exactly `activation.row_bytes(x.len())` bytes.
    pub fn quantize(&self, activation: Activation, x: &[f32], out: &mut [u8]) {
        assert_eq!(
            Some(out.len()),
            activation.row_bytes(x.len()),
            "quantised length"
        );
        // SAFETY: lengths were checked, the processor by `for_isa`.
        unsafe { (self.quantize)(activation, x, out) }
    }

    /// Dot products of every row of `weights` with every token of `x`: `out[t * out_stride + r]`, other elements of `out`
    /// untouched.
    ///
    /// `weights` is contiguous rows of `n` elements in `format`; `x` is `tokens` contiguous vectors of `n` elements in
    /// `format.activation()`. Neither need be aligned. Keys of one attention head are such rows too.
    ///
    /// # Panics
    /// If `n` is not a whole number of blocks or above `i32::MAX`, `weights` not whole rows, `x` not `tokens` tokens,
    /// `out_stride` less than the number of rows, or `out` too short.
    #[allow(clippy::too_many_arguments)] // A matrix product has two matrices, their shapes and a destination.
    pub fn rows(
        &self,
        format: Format,
        weights: &[u8],
        n: usize,
        x: &[u8],
        tokens: usize,
        out: &mut [f32],
        out_stride: usize,
    ) {
        let (row_bytes, token_bytes) = match (format.row_bytes(n), format.activation().row_bytes(n))
        {
            (Some(row), Some(token)) if n <= i32::MAX as usize => (row, token),
            _ => panic!("a row of {n} elements is not whole blocks of {format}"),
        };
        assert_eq!(
            Some(x.len()),
            token_bytes.checked_mul(tokens),
            "length of the tokens"
        );
        if tokens == 0 || weights.is_empty() {
            return;
        }
        assert!(
            row_bytes > 0 && weights.len().is_multiple_of(row_bytes),
            "weights must be whole rows"
        );
        let rows = weights.len() / row_bytes;
        let needed = (tokens - 1)
            .checked_mul(out_stride)
            .and_then(|before| before.checked_add(rows));
        assert!(
            rows <= out_stride && needed.is_some_and(|needed| needed <= out.len()),
            "output too small"
        );
        let product = Product {
            weights,
            row_bytes,
            n,
            x,
            token_bytes,
            out,
            out_stride,
        };
        // SAFETY: lengths were checked, the processor by `for_isa`.
        unsafe { (self.rows)(format, product) }
    }

    /// Unpacks a row, exactly as the format defines its values.
    ///
    /// # Panics
    /// If `out.len()` is not a whole number of blocks or `row` not exactly `format.row_bytes(out.len())` bytes.
    pub fn dequantize(&self, format: Format, row: &[u8], out: &mut [f32]) {
        assert_eq!(Some(row.len()), format.row_bytes(out.len()), "row length");
        // SAFETY: lengths were checked, the processor by `for_isa`.
        unsafe { (self.dequantize)(format, row, out) }
    }

    /// `out += factors[i] * rows[i]`, summed over `i` in ascending order for each element: the values of one attention head
    /// under their weights. Splitting a sum into several calls does not change it.
    ///
    /// # Panics
    /// If `out.len()` is not a whole number of blocks or `rows` not exactly `factors.len()` rows of that many elements.
    pub fn weighted_sum(&self, format: Format, factors: &[f32], rows: &[u8], out: &mut [f32]) {
        let needed = format
            .row_bytes(out.len())
            .and_then(|bytes| bytes.checked_mul(factors.len()));
        assert_eq!(Some(rows.len()), needed, "length of the rows");
        if out.is_empty() || factors.is_empty() {
            return;
        }
        // SAFETY: lengths were checked, the processor by `for_isa`.
        unsafe { (self.weighted_sum)(format, factors, rows, out) }
    }

    /// Rounds to [`Format::F16`], ties to even.
    ///
    /// # Panics
    /// If `out` is not two bytes an element.
    pub fn f32_to_f16(&self, x: &[f32], out: &mut [u8]) {
        assert_eq!(Some(out.len()), x.len().checked_mul(2), "f16 length");
        // SAFETY: lengths were checked, the processor by `for_isa`.
        unsafe { (self.f32_to_f16)(x, out) }
    }

    /// `out = x / sqrt(mean(x^2) + epsilon) * weight`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        assert!(
            x.len() == weight.len() && x.len() == out.len(),
            "norm lengths"
        );
        // SAFETY: lengths were checked, the processor by `for_isa`.
        unsafe { (self.rms_norm)(x, weight, epsilon, out) }
    }

    /// [`Kernels::rms_norm`] over its own input.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rms_norm_in_place(&self, x: &mut [f32], weight: &[f32], epsilon: f32) {
        assert_eq!(x.len(), weight.len(), "norm lengths");
        // SAFETY: lengths were checked, the processor by `for_isa`.
        unsafe { (self.rms_norm_in_place)(x, weight, epsilon) }
    }

    /// `x[i] = e^(scale * x[i]) / sum of the same`, for a positive `scale`.
    pub fn softmax(&self, x: &mut [f32], scale: f32) {
        // SAFETY: the processor was checked by `for_isa`.
        unsafe { (self.softmax)(x, scale) }
    }

    /// `gate = silu(gate) * up`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn swiglu(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "gate lengths");
        // SAFETY: lengths were checked, the processor by `for_isa`.
        unsafe { (self.swiglu)(gate, up) }
    }

    /// Rotates the pairs `(x[i], x[i + n/2])` of one head by the angles whose cosines and sines are given (the NEOX
    /// arrangement).
    ///
    /// # Panics
    /// If `cos` and `sin` are not each half as long as `x`.
    pub fn rope(&self, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        assert!(
            cos.len() == sin.len() && Some(x.len()) == cos.len().checked_mul(2),
            "rope lengths"
        );
        // SAFETY: lengths were checked, the processor by `for_isa`.
        unsafe { (self.rope)(x, cos, sin) }
    }

    /// `x += y`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "added lengths");
        // SAFETY: lengths were checked, the processor by `for_isa`.
        unsafe { (self.add)(x, y) }
    }

    /// Index of the first largest element, NaN passed over; 0 if there is none.
    pub fn argmax(&self, x: &[f32]) -> usize {
        // SAFETY: the processor was checked by `for_isa`.
        unsafe { (self.argmax)(x) }
    }
}
