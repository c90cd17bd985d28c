//! Operations on float vectors, written once for every instruction set.
//!
//! Sums run in sixteen fixed lanes, element `i` in lane `i % 16`, and the lanes are added as a tree. That is the shape of
//! a vector register, so the compiler may use one without changing a bit of the result.

use crate::math::{exp, sqrt};

const LANES: usize = 16;

/// Sum of `term(x[i])` in sixteen lanes.
#[inline(always)]
fn sum(x: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let (groups, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for group in groups {
        for (lane, value) in lanes.iter_mut().zip(group) {
            *lane += term(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += term(*value);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Largest element; negative infinity for none. NaN is passed over.
#[inline(always)]
fn max(x: &[f32]) -> f32 {
    let (groups, rest) = x.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    for group in groups {
        for (lane, value) in lanes.iter_mut().zip(group) {
            *lane = larger(*lane, *value);
        }
    }
    let max = lanes.iter().fold(f32::NEG_INFINITY, |a, b| larger(a, *b));
    rest.iter().fold(max, |a, b| larger(a, *b))
}

/// `x * weight / rms(x)`.
#[inline(always)]
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let factor = rms_factor(x, epsilon);
    for ((y, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *y = x * factor * weight;
    }
}

/// As [`rms_norm`], over its own input.
#[inline(always)]
pub(crate) fn rms_norm_in_place(x: &mut [f32], weight: &[f32], epsilon: f32) {
    let factor = rms_factor(x, epsilon);
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * factor * weight;
    }
}

#[inline(always)]
fn rms_factor(x: &[f32], epsilon: f32) -> f32 {
    let mean_square = sum(x, |value| value * value) / x.len() as f32;
    1.0 / sqrt(mean_square + epsilon)
}

/// `x[i] = e^(scale * (x[i] - max x))`, normalised to sum one.
#[inline(always)]
pub(crate) fn softmax(x: &mut [f32], scale: f32) {
    let max = max(x);
    for value in x.iter_mut() {
        *value = exp(scale * (*value - max));
    }
    let inverse = 1.0 / sum(x, |value| value);
    for value in x.iter_mut() {
        *value *= inverse;
    }
}

/// `gate = gate / (1 + e^-gate) * up`.
#[inline(always)]
pub(crate) fn swiglu(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

/// Rotates the pair `(x[i], x[i + n/2])` by the angle with the given cosine and sine.
#[inline(always)]
pub(crate) fn rope(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = x.split_at_mut(x.len() / 2);
    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

/// `x += y`.
#[inline(always)]
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// Index of the first largest element, NaN passed over; 0 if there is none.
#[inline(always)]
pub(crate) fn argmax(x: &[f32]) -> usize {
    let max = max(x);
    x.iter().position(|&value| value == max).unwrap_or(0)
}
