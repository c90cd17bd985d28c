//! Properties of matrix products on random blocks, for every format and every instruction set this machine has.

mod support;

use kernels::{Format, Isa};
use proptest::prelude::*;
use support::{Random, bits, product, quantised};

fn any_format() -> impl Strategy<Value = Format> {
    prop::sample::select(Format::ALL.to_vec())
}

/// A length from one block up; formats without blocks get ragged ones.
fn length(format: Format, size: usize) -> usize {
    match format.block_len() {
        1 => 1 + size * 37 % 700,
        block => block * (1 + size % 9),
    }
}

/// Magnitude of the terms of each dot product, the yardstick of rounding when a sum cancels.
fn scale_of(values: &[f32], n: usize) -> f32 {
    let mean = values.iter().map(|value| value.abs()).sum::<f32>() / values.len() as f32;
    mean.max(1e-3) * (n as f32).sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_instruction_set_agrees_with_the_reference(
        format in any_format(),
        size in 0usize..100,
        rows in 1usize..40,
        tokens in 1usize..20,
        seed: u64,
    ) {
        let n = length(format, size);
        let mut random = Random(seed);
        let weights = random.weights(format, n * rows);
        let x = random.floats(n * tokens);
        let scalar = support::scalar();
        let packed: Vec<u8> = x.chunks(n).flat_map(|x| quantised(scalar, format, x)).collect();
        let reference = product(scalar, format, &weights, n, &packed, tokens);
        let allowed = 1e-5 * scale_of(&reference, n);
        for kernels in support::supported() {
            let values = product(kernels, format, &weights, n, &packed, tokens);
            for (value, reference) in values.iter().zip(&reference) {
                prop_assert!(
                    (value - reference).abs() <= allowed,
                    "{format} {} n={n}: {value} for {reference}", kernels.isa()
                );
            }
        }
    }

    #[test]
    fn a_result_depends_on_its_row_and_token_only(
        format in any_format(),
        size in 0usize..100,
        rows in 1usize..40,
        tokens in 1usize..20,
        seed: u64,
    ) {
        let n = length(format, size);
        let mut random = Random(seed);
        let weights = random.weights(format, n * rows);
        let x = random.floats(n * tokens);
        for kernels in support::supported() {
            let packed: Vec<Vec<u8>> =
                x.chunks(n).map(|x| quantised(kernels, format, x)).collect();
            let together = product(kernels, format, &weights, n, &packed.concat(), tokens);
            for (token, together) in packed.iter().zip(together.chunks(rows)) {
                let mut alone = Vec::new();
                for row in weights.chunks(weights.len() / rows) {
                    alone.extend(product(kernels, format, row, n, token, 1));
                }
                prop_assert_eq!(bits(together), bits(&alone));
            }
        }
    }

    #[test]
    fn alignment_does_not_matter(
        format in any_format(),
        size in 0usize..100,
        shift in 1usize..16,
        seed: u64,
    ) {
        let n = length(format, size);
        let mut random = Random(seed);
        let weights = random.weights(format, 3 * n);
        let x = random.floats(n);
        for kernels in support::supported() {
            let packed = quantised(kernels, format, &x);
            let expected = product(kernels, format, &weights, n, &packed, 1);
            let moved = |bytes: &[u8]| [vec![0xff; shift], bytes.to_vec()].concat();
            let (weights, packed) = (moved(&weights), moved(&packed));
            let values = product(kernels, format, &weights[shift..], n, &packed[shift..], 1);
            prop_assert_eq!(bits(&values), bits(&expected));
        }
    }

    #[test]
    fn avx2_and_avx512_have_the_same_bits(
        format in any_format(),
        size in 0usize..100,
        tokens in 1usize..8,
        seed: u64,
    ) {
        let vector: Vec<_> =
            support::supported().into_iter().filter(|kernels| kernels.isa() != Isa::Scalar).collect();
        let n = length(format, size);
        let mut random = Random(seed);
        let weights = random.weights(format, 5 * n);
        let x = random.floats(n * tokens);
        let results: Vec<_> = vector
            .iter()
            .map(|kernels| {
                let packed: Vec<u8> =
                    x.chunks(n).flat_map(|x| quantised(kernels, format, x)).collect();
                bits(&product(kernels, format, &weights, n, &packed, tokens))
            })
            .collect();
        for pair in results.windows(2) {
            prop_assert_eq!(&pair[0], &pair[1], "{}", format);
        }
    }

    #[test]
    fn any_bytes_at_all_are_multiplied_and_unpacked(
        format in any_format(),
        size in 0usize..100,
        seed: u64,
    ) {
        let n = length(format, size);
        let mut random = Random(seed);
        let row_bytes = format.row_bytes(n).unwrap_or(0);
        let weights = random.bytes(2 * row_bytes);
        let packed = random.bytes(format.activation().row_bytes(n).unwrap_or(0));
        let mut unpacked = Vec::new();
        for kernels in support::supported() {
            product(kernels, format, &weights, n, &packed, 1);
            let mut values = vec![0.0; n];
            kernels.dequantize(format, &weights[..row_bytes], &mut values);
            unpacked.push(values);
        }
        // NaN compares as NaN, whatever its payload.
        for pair in unpacked.windows(2) {
            for (a, b) in pair[0].iter().zip(&pair[1]) {
                prop_assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan());
            }
        }
    }
}

#[test]
fn output_between_the_columns_is_left_alone() {
    let mut random = Random(1);
    let (n, rows, tokens, stride) = (512, 3, 20, 7);
    let weights = random.weights(Format::Q4K, n * rows);
    for kernels in support::supported() {
        let x: Vec<u8> = (0..tokens)
            .flat_map(|_| quantised(kernels, Format::Q4K, &random.floats(n)))
            .collect();
        let tight = product(kernels, Format::Q4K, &weights, n, &x, tokens);
        let mut out = vec![-1.0; stride * (tokens - 1) + rows];
        kernels.rows(Format::Q4K, &weights, n, &x, tokens, &mut out, stride);
        for (t, row) in out.chunks(stride).enumerate() {
            assert_eq!(row[..rows], tight[t * rows..][..rows]);
            assert!(row[rows..].iter().all(|value| *value == -1.0));
        }
    }
}

#[test]
fn empty_products_do_nothing() {
    for kernels in support::supported() {
        kernels.rows(Format::Q4K, &[], 256, &[0; 292], 1, &mut [], 0);
        kernels.rows(Format::Q4K, &[0; 144], 256, &[], 0, &mut [], 0);
        kernels.rows(Format::F16, &[], 0, &[], 3, &mut [], 0);
    }
}

#[test]
#[should_panic(expected = "output too small")]
fn an_output_that_is_too_small_is_refused() {
    support::scalar().rows(Format::F16, &[0; 4], 1, &[0; 8], 2, &mut [0.0; 3], 2);
}

#[test]
#[should_panic(expected = "length of the tokens")]
fn tokens_that_are_too_short_are_refused() {
    support::scalar().rows(Format::F16, &[0; 4], 1, &[0; 7], 2, &mut [0.0; 4], 2);
}
