//! A small Qwen3 model made up on the spot, for tests that need some model and no oracle.

use super::GgufWriter;

/// What the model looks like. Weights are F32.
#[derive(Clone)]
pub struct Shape {
    pub layers: u32,
    pub hidden: u32,
    pub feed_forward: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub context: u32,
    pub tied: bool,
    /// The last byte that is a token; the less, the smaller the file.
    pub last_byte: u8,
}

pub const SMALL: Shape = Shape {
    layers: 2,
    hidden: 64,
    feed_forward: 96,
    heads: 4,
    kv_heads: 2,
    head_dim: 32,
    context: 256,
    tied: false,
    last_byte: 255,
};

/// The least that is a model.
pub const LEAST: Shape = Shape {
    layers: 1,
    hidden: 8,
    feed_forward: 8,
    heads: 2,
    kv_heads: 1,
    head_dim: 4,
    context: 16,
    tied: true,
    last_byte: 3,
};

/// Every byte up to the last is a token, spelled as GPT-2 does; then come some merges and the added tokens.
pub fn vocabulary(last_byte: u8) -> Vec<(String, i32)> {
    let mut others = 0x100..;
    let mut tokens: Vec<(String, i32)> = (0..=last_byte)
        .map(|byte| match byte {
            0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => char::from_u32(others.next().unwrap()).unwrap(),
        })
        .map(|c| (c.to_string(), 1))
        .collect();
    tokens.extend(["he", "ll", "Ġw"].map(|text| (text.into(), 1)));
    tokens.extend(["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(|text| (text.into(), 3)));
    tokens.extend(["<think>", "</think>"].map(|text| (text.into(), 4)));
    tokens
}

/// The writer of a model's file, for tests that add to it.
pub fn writer(shape: &Shape) -> GgufWriter {
    let Shape {
        layers,
        hidden,
        feed_forward,
        heads,
        kv_heads,
        head_dim,
        context,
        tied,
        last_byte,
    } = *shape;
    let tokens = vocabulary(last_byte);
    let mut writer = GgufWriter::new();
    writer
        .string("general.architecture", "qwen3")
        .string("general.name", "small")
        .u32("qwen3.block_count", layers)
        .u32("qwen3.context_length", context)
        .u32("qwen3.embedding_length", hidden)
        .u32("qwen3.feed_forward_length", feed_forward)
        .u32("qwen3.attention.head_count", heads)
        .u32("qwen3.attention.head_count_kv", kv_heads)
        .u32("qwen3.attention.key_length", head_dim)
        .f32("qwen3.rope.freq_base", 1e6)
        .f32("qwen3.attention.layer_norm_rms_epsilon", 1e-6)
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", "qwen2")
        .strings(
            "tokenizer.ggml.tokens",
            tokens.iter().map(|(text, _)| text.as_str()),
        )
        .i32s(
            "tokenizer.ggml.token_type",
            tokens.iter().map(|(_, kind)| *kind),
        )
        .strings("tokenizer.ggml.merges", ["h e", "l l", "Ġ w"])
        .u32("tokenizer.ggml.eos_token_id", tokens.len() as u32 - 3);

    let mut random = Random(1);
    let mut tensor = |writer: &mut GgufWriter, name: &str, dimensions: &[u32]| {
        let count = dimensions.iter().product::<u32>();
        let scale = (3.0 / dimensions[0] as f32).sqrt();
        let data: Vec<u8> = (0..count)
            .map(|_| {
                if dimensions.len() == 1 {
                    1.0 + 0.2 * random.next()
                } else {
                    scale * random.next()
                }
            })
            .flat_map(f32::to_le_bytes)
            .collect();
        let dimensions: Vec<u64> = dimensions.iter().map(|&length| length.into()).collect();
        writer.tensor(name, &dimensions, 0, &data);
    };
    for layer in 0..layers {
        for (name, dimensions) in [
            ("attn_norm", &[hidden][..]),
            ("attn_q", &[hidden, heads * head_dim]),
            ("attn_k", &[hidden, kv_heads * head_dim]),
            ("attn_v", &[hidden, kv_heads * head_dim]),
            ("attn_q_norm", &[head_dim]),
            ("attn_k_norm", &[head_dim]),
            ("attn_output", &[heads * head_dim, hidden]),
            ("ffn_norm", &[hidden]),
            ("ffn_gate", &[hidden, feed_forward]),
            ("ffn_up", &[hidden, feed_forward]),
            ("ffn_down", &[feed_forward, hidden]),
        ] {
            tensor(
                &mut writer,
                &format!("blk.{layer}.{name}.weight"),
                dimensions,
            );
        }
    }
    let count = tokens.len() as u32;
    tensor(&mut writer, "token_embd.weight", &[hidden, count]);
    tensor(&mut writer, "output_norm.weight", &[hidden]);
    if !tied {
        tensor(&mut writer, "output.weight", &[hidden, count]);
    }
    writer
}

/// A linear congruential generator: numbers in -1.0..1.0.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}
