//! The forward pass against the model's definition, written down naively in double precision, on shapes that the oracle
//! vectors do not have.

mod common;

use common::model::{LEAST, SMALL, Shape, writer};
use common::threads::Threads;
use common::vectors::relative_rms;
use common::{Aligned, GgufWriter};
use engine::gguf::Gguf;
use engine::{EngineOptions, Model, Session};
use kernels::{Format, Isa, Kernels};

/// Stretching of the context: the factor and the trained context.
type Yarn = Option<(f32, u32)>;

fn tensor(gguf: &Gguf<'_>, name: &str) -> Vec<f64> {
    let tensor = gguf.tensor(name).unwrap();
    let row = tensor.dimensions[0] as usize;
    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    let mut values = vec![0.0; row];
    let rows = tensor
        .data
        .chunks_exact(tensor.format.row_bytes(row).unwrap());
    rows.flat_map(|bytes| {
        kernels.dequantize(tensor.format, bytes, &mut values);
        values.iter().map(|&value| value.into()).collect::<Vec<_>>()
    })
    .collect()
}

/// `weights x`, the rows of `weights` as long as `x`.
fn product(weights: &[f64], x: &[f64]) -> Vec<f64> {
    weights
        .chunks_exact(x.len())
        .map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum())
        .collect()
}

fn norm(x: &[f64], weight: &[f64], epsilon: f64) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    x.iter()
        .zip(weight)
        .map(|(x, weight)| x / (mean + epsilon).sqrt() * weight)
        .collect()
}

/// Turns a head to a position, as the YaRN paper and llama.cpp define it.
fn rotate(head: &mut [f64], position: usize, theta: f64, yarn: Yarn) {
    let dims = head.len() as f64;
    let half = head.len() / 2;
    for pair in 0..half {
        let mut frequency = theta.powf(-2.0 * pair as f64 / dims);
        let mut magnitude = 1.0;
        if let Some((factor, trained)) = yarn {
            let factor = f64::from(factor);
            let place = |turns: f64| {
                dims * (f64::from(trained) / (turns * 2.0 * std::f64::consts::PI)).ln()
                    / (2.0 * theta.ln())
            };
            let (low, high) = (
                place(32.0).floor().max(0.0),
                place(1.0).ceil().min(dims - 1.0),
            );
            let kept = 1.0 - ((pair as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
            frequency = frequency / factor * (1.0 - kept) + frequency * kept;
            magnitude = 1.0 + 0.1 * factor.ln();
        }
        let (sin, cos) = (frequency * position as f64).sin_cos();
        let (a, b) = (head[pair], head[pair + half]);
        head[pair] = (a * cos - b * sin) * magnitude;
        head[pair + half] = (b * cos + a * sin) * magnitude;
    }
}

/// The logits after the last of `tokens`.
fn reference(gguf: &Gguf<'_>, shape: &Shape, tokens: &[u32], yarn: Yarn) -> Vec<f32> {
    let (hidden, head_dim) = (shape.hidden as usize, shape.head_dim as usize);
    let number = |key| f64::from(gguf.float(key).unwrap().unwrap());
    let theta = number("qwen3.rope.freq_base");
    let epsilon = number("qwen3.attention.layer_norm_rms_epsilon");
    let norm = |x: &[f64], weight: &[f64]| norm(x, weight, epsilon);
    let embedding = tensor(gguf, "token_embd.weight");
    let mut stream: Vec<Vec<f64>> = tokens
        .iter()
        .map(|&token| embedding[token as usize * hidden..][..hidden].to_vec())
        .collect();
    for layer in 0..shape.layers {
        let get = |name: &str| tensor(gguf, &format!("blk.{layer}.{name}.weight"));
        let (wq, wk, wv, wo) = (
            get("attn_q"),
            get("attn_k"),
            get("attn_v"),
            get("attn_output"),
        );
        let heads_of = |weights: &[f64], x: &[f64], weight: &str, position| {
            let mut heads = Vec::new();
            for head in product(weights, x).chunks_exact(head_dim) {
                let mut head = norm(head, &get(weight));
                rotate(&mut head, position, theta, yarn);
                heads.push(head);
            }
            heads
        };
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (position, x) in stream.iter_mut().enumerate() {
            let h = norm(x, &get("attn_norm"));
            keys.push(heads_of(&wk, &h, "attn_k_norm", position));
            values.push(product(&wv, &h));
            let mut attended = Vec::new();
            for (index, q) in heads_of(&wq, &h, "attn_q_norm", position)
                .iter()
                .enumerate()
            {
                let head = index / (shape.heads / shape.kv_heads) as usize;
                let dot =
                    |key: &Vec<Vec<f64>>| product(&key[head], q)[0] / (head_dim as f64).sqrt();
                let weights: Vec<f64> = keys.iter().map(|key| dot(key).exp()).collect();
                let total: f64 = weights.iter().sum();
                attended.extend((0..head_dim).map(|i| {
                    let weighted = weights
                        .iter()
                        .zip(&values)
                        .map(|(w, value)| w * value[head * head_dim + i]);
                    weighted.sum::<f64>() / total
                }));
            }
            x.iter_mut()
                .zip(product(&wo, &attended))
                .for_each(|(x, y)| *x += y);

            let h = norm(x, &get("ffn_norm"));
            let gate = product(&get("ffn_gate"), &h)
                .into_iter()
                .map(|gate| gate / (1.0 + (-gate).exp()));
            let inner: Vec<f64> = gate
                .zip(product(&get("ffn_up"), &h))
                .map(|(gate, up)| gate * up)
                .collect();
            x.iter_mut()
                .zip(product(&get("ffn_down"), &inner))
                .for_each(|(x, y)| *x += y);
        }
    }
    let last = norm(stream.last().unwrap(), &tensor(gguf, "output_norm.weight"));
    let output = if shape.tied {
        embedding
    } else {
        tensor(gguf, "output.weight")
    };
    product(&output, &last)
        .into_iter()
        .map(|logit| logit as f32)
        .collect()
}

fn check(shape: &Shape, yarn: Yarn) {
    let mut writer = writer(shape);
    if let Some((factor, trained)) = yarn {
        writer
            .string("qwen3.rope.scaling.type", "yarn")
            .f32("qwen3.rope.scaling.factor", factor)
            .u32("qwen3.rope.scaling.original_context_length", trained);
    }
    // Keys and values are rounded to half precision.
    compare(&writer, shape, yarn, 0.002);
}

fn compare(writer: &GgufWriter, shape: &Shape, yarn: Yarn, tolerance: f64) {
    let file = Aligned::new(&writer.finish().1);
    let known = usize::from(shape.last_byte) + 1;
    let tokens: Vec<u32> = (0..40.min(shape.context as usize))
        .map(|i| (i * i % known) as u32)
        .collect();
    let expected = reference(&Gguf::parse(file.bytes()).unwrap(), shape, &tokens, yarn);
    for kernels in [Isa::Scalar, Isa::Avx2, Isa::Avx512]
        .into_iter()
        .filter_map(Kernels::for_isa)
    {
        let model = Model::load(file.bytes()).unwrap();
        let options = EngineOptions {
            context: 64,
            max_sequences: 1,
            chunk: 9,
            ..EngineOptions::default()
        };
        let mut session = Session::new(model, kernels, Threads(2), &options).unwrap();
        let error = relative_rms(session.feed(&tokens).unwrap(), &expected);
        assert!(error < tolerance, "{}: relRMS {error}", kernels.isa());
    }
}

#[test]
fn grouped_heads_narrower_than_the_stream_and_wider() {
    check(&SMALL, None);
    check(
        &Shape {
            head_dim: 8,
            tied: true,
            ..SMALL
        },
        None,
    );
    check(&LEAST, None);
}

#[test]
fn head_counts_that_are_no_powers_of_two() {
    check(
        &Shape {
            heads: 6,
            kv_heads: 3,
            hidden: 72,
            feed_forward: 100,
            ..SMALL
        },
        None,
    );
    check(
        &Shape {
            heads: 5,
            kv_heads: 5,
            layers: 1,
            ..SMALL
        },
        None,
    );
    check(
        &Shape {
            heads: 7,
            kv_heads: 1,
            head_dim: 20,
            layers: 3,
            ..SMALL
        },
        None,
    );
}

#[test]
fn stretched_contexts() {
    check(&SMALL, Some((4.0, 32)));
    check(
        &Shape {
            head_dim: 64,
            ..SMALL
        },
        Some((2.0, 1024)),
    );
}

#[test]
fn other_bases_and_epsilons() {
    for (theta, epsilon) in [(1e4, 1e-3), (5e6, 1e-5), (1e7, 0.1)] {
        let (base, least) = (
            "qwen3.rope.freq_base",
            "qwen3.attention.layer_norm_rms_epsilon",
        );
        let mut writer = writer(&SMALL);
        writer.remove(base).f32(base, theta);
        writer.remove(least).f32(least, epsilon);
        compare(&writer, &SMALL, None, 0.002);
    }
}

/// Where the blocks of a tensor type have their half-precision numbers, and what each is for weights around zero when the scale
/// is 1: the type's number, the offsets, and those numbers.
const BLOCKS: [(u32, &[(usize, f64)]); 12] = [
    (2, &[(0, 1.0)]),
    (3, &[(0, 1.0), (2, -7.5)]),
    (6, &[(0, 1.0)]),
    (7, &[(0, 1.0), (2, -15.5)]),
    (8, &[(0, 1.0)]),
    (10, &[(80, 1.0), (82, 1.5)]),
    (11, &[(108, 1.0)]),
    (12, &[(0, 1.0), (2, 7.5)]),
    (13, &[(0, 1.0), (2, 15.5)]),
    (14, &[(208, 1.0)]),
    (20, &[(0, 1.0)]),
    (23, &[(0, 1.0)]),
];

/// Random blocks of a type whose weights have about the given root mean square.
fn blocks(kind: u32, halves: &[(usize, f64)], weights: usize, rms: f64) -> Vec<u8> {
    let format = Format::from_ggml_type(kind).unwrap();
    let mut state = 1u64;
    let random = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    });
    let mut bytes: Vec<u8> = random.take(format.row_bytes(weights).unwrap()).collect();
    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    let mut values = vec![0.0; weights];
    let mut scale = 1.0;
    // The first round measures.
    for _ in 0..2 {
        for block in bytes.chunks_exact_mut(format.block_bytes()) {
            for &(offset, factor) in halves {
                let value = (scale * factor) as f32;
                kernels.f32_to_f16(&[value], &mut block[offset..offset + 2]);
            }
        }
        kernels.dequantize(format, &bytes, &mut values);
        let squares: f32 = values.iter().map(|value| value * value).sum();
        scale = rms / f64::from(squares / weights as f32).sqrt();
    }
    bytes
}

#[test]
fn every_quantised_type() {
    let shape = Shape {
        hidden: 256,
        feed_forward: 512,
        head_dim: 128,
        ..SMALL
    };
    for (kind, halves) in BLOCKS {
        let mut writer = writer(&shape);
        let file = Aligned::new(&writer.finish().1);
        for tensor in Gguf::parse(file.bytes()).unwrap().tensors() {
            let [row, count, ..] = tensor.dimensions;
            if count > 1 {
                let data = blocks(
                    kind,
                    halves,
                    (row * count) as usize,
                    (row as f64).powf(-0.5),
                );
                writer
                    .remove(tensor.name)
                    .tensor(tensor.name, &[row, count], kind, &data);
            }
        }
        println!("type {kind}");
        // The products take activations of eight bits.
        compare(&writer, &shape, None, 0.05);
    }
}

#[test]
fn half_precision_types() {
    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    for kind in [1, 30] {
        let mut writer = writer(&SMALL);
        let file = Aligned::new(&writer.finish().1);
        for tensor in Gguf::parse(file.bytes()).unwrap().tensors() {
            let [row, count, ..] = tensor.dimensions;
            if count == 1 {
                continue;
            }
            let halves = tensor.data.chunks_exact(4).flat_map(|bytes| {
                let mut half = [bytes[2], bytes[3]];
                if kind == 1 {
                    let value = f32::from_le_bytes(bytes.try_into().unwrap());
                    kernels.f32_to_f16(&[value], &mut half);
                }
                half
            });
            let data: Vec<u8> = halves.collect();
            writer
                .remove(tensor.name)
                .tensor(tensor.name, &[row, count], kind, &data);
        }
        compare(&writer, &SMALL, None, 0.005);
    }
}
