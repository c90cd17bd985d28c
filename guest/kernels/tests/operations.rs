//! Every operation but the matrix product: right on the reference, and the same bits on every instruction set.

mod support;

use kernels::{Activation, Format, Kernels};
use proptest::prelude::*;
use support::{Random, bits};

/// The operations, each over `n` random elements, one after the other.
fn run_all(kernels: &Kernels, n: usize, seed: u64) -> Vec<(&'static str, Vec<u32>)> {
    let mut random = Random(seed);
    let x: Vec<f32> = random.floats(n).iter().map(|x| x * 9.0).collect();
    let y = random.floats(n);
    let mut results = Vec::new();

    let mut out = vec![0.0; n];
    kernels.rms_norm(&x, &y, 1e-6, &mut out);
    results.push(("rms_norm", bits(&out)));
    let mut out = x.clone();
    kernels.rms_norm_in_place(&mut out, &y, 1e-6);
    results.push(("rms_norm in place", bits(&out)));
    let mut out = x.clone();
    kernels.softmax(&mut out, 0.7);
    results.push(("softmax", bits(&out)));
    let mut out = x.clone();
    kernels.swiglu(&mut out, &y);
    results.push(("swiglu", bits(&out)));
    let mut out = x.clone();
    kernels.add(&mut out, &y);
    results.push(("add", bits(&out)));
    let mut out = [x.clone(), y.clone()].concat();
    kernels.rope(&mut out, &x, &y);
    results.push(("rope", bits(&out)));
    results.push(("argmax", vec![kernels.argmax(&x) as u32]));

    let mut halves = vec![0; 2 * n];
    kernels.f32_to_f16(&x, &mut halves);
    let mut out = vec![0.0; n];
    kernels.dequantize(Format::F16, &halves, &mut out);
    results.push(("f16", bits(&out)));
    for activation in [
        Activation::F32,
        Activation::Q8_0,
        Activation::Q8_1,
        Activation::Q8K,
    ] {
        let n = n / activation.block_len() * activation.block_len();
        let mut packed = vec![0; activation.row_bytes(n).unwrap_or(0)];
        kernels.quantize(activation, &x[..n], &mut packed);
        results.push(("quantize", packed.into_iter().map(u32::from).collect()));
    }
    results
}

proptest! {
    #[test]
    fn every_instruction_set_has_the_same_bits(n in 1usize..1200, seed: u64) {
        let reference = run_all(support::scalar(), n, seed);
        for kernels in support::supported() {
            for (ours, reference) in run_all(kernels, n, seed).into_iter().zip(&reference) {
                prop_assert_eq!(&ours, reference, "{}", kernels.isa());
            }
        }
    }

    #[test]
    fn a_weighted_sum_can_be_split_anywhere(
        format in prop::sample::select(Format::ALL.to_vec()),
        size in 1usize..300,
        count in 1usize..30,
        split in 0usize..30,
        seed: u64,
    ) {
        let n = match format.block_len() {
            1 => size,
            block => block * (1 + size % 5),
        };
        let split = split.min(count);
        let mut random = Random(seed);
        let rows = random.weights(format, n * count);
        let factors = random.floats(count);
        let start = random.floats(n);

        let mut truth: Vec<f64> = start.iter().map(|x| f64::from(*x)).collect();
        for (factor, row) in factors.iter().zip(rows.chunks(rows.len() / count)) {
            let mut values = vec![0.0; n];
            support::scalar().dequantize(format, row, &mut values);
            for (sum, value) in truth.iter_mut().zip(values) {
                *sum += f64::from(*factor) * f64::from(value);
            }
        }
        let mut vector_bits = Vec::new();
        for kernels in support::supported() {
            let mut whole = start.clone();
            kernels.weighted_sum(format, &factors, &rows, &mut whole);
            let mut parts = start.clone();
            let (first, second) = rows.split_at(rows.len() / count * split);
            kernels.weighted_sum(format, &factors[..split], first, &mut parts);
            kernels.weighted_sum(format, &factors[split..], second, &mut parts);
            prop_assert_eq!(bits(&whole), bits(&parts));
            prop_assert!(support::relative_rms(&whole, &truth) < 1e-5, "{format}");
            if kernels.isa() != kernels::Isa::Scalar {
                vector_bits.push(bits(&whole));
            }
        }
        for pair in vector_bits.windows(2) {
            prop_assert_eq!(&pair[0], &pair[1]);
        }
    }
}

#[test]
fn operations_follow_their_definitions() {
    let mut random = Random(7);
    let n = 777;
    let x: Vec<f32> = random.floats(n).iter().map(|x| x * 9.0).collect();
    let y = random.floats(n);
    let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|x| f64::from(*x)).collect() };
    let (x64, y64) = (wide(&x), wide(&y));
    for kernels in support::supported() {
        let rms = (x64.iter().map(|x| x * x).sum::<f64>() / n as f64 + 1e-6).sqrt();
        let truth: Vec<f64> = x64.iter().zip(&y64).map(|(x, y)| x / rms * y).collect();
        let mut out = vec![0.0; n];
        kernels.rms_norm(&x, &y, 1e-6, &mut out);
        assert!(support::relative_rms(&out, &truth) < 1e-6);

        let powers: Vec<f64> = x64.iter().map(|x| (0.5 * x).exp()).collect();
        let total: f64 = powers.iter().sum();
        let truth: Vec<f64> = powers.iter().map(|power| power / total).collect();
        let mut out = x.clone();
        kernels.softmax(&mut out, 0.5);
        assert!(support::relative_rms(&out, &truth) < 1e-6);

        let silu = |x: &f64| x / (1.0 + (-x).exp());
        let truth: Vec<f64> = x64.iter().zip(&y64).map(|(x, y)| silu(x) * y).collect();
        let mut out = x.clone();
        kernels.swiglu(&mut out, &y);
        assert!(support::relative_rms(&out, &truth) < 1e-6);

        // A quarter turn of the first pair, none of the second.
        let mut head = [1.0, 2.0, 3.0, 4.0];
        kernels.rope(&mut head, &[0.0, 1.0], &[1.0, 0.0]);
        assert_eq!(head, [-3.0, 2.0, 1.0, 4.0]);

        assert_eq!(kernels.argmax(&[]), 0);
        assert_eq!(kernels.argmax(&[f32::NAN, -3.0, 2.0, 2.0, f32::NAN]), 2);
        assert_eq!(kernels.argmax(&[f32::NAN; 40]), 0);
        assert_eq!(kernels.argmax(&[f32::NEG_INFINITY, f32::INFINITY]), 1);
    }
}

#[test]
fn undefined_and_extreme_values_do_no_harm() {
    for kernels in support::supported() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-40] {
            let mut x = [value; 33];
            kernels.softmax(&mut x, 1.0);
            let mut x = [value; 33];
            kernels.swiglu(&mut x, &[value; 33]);
            let mut x = [value; 33];
            kernels.rms_norm_in_place(&mut x, &[1.0; 33], 1e-6);
            let mut halves = [0; 66];
            kernels.f32_to_f16(&[value; 33], &mut halves);
        }
        kernels.softmax(&mut [], 1.0);
        kernels.rms_norm_in_place(&mut [], &[], 1e-6);
    }
}
