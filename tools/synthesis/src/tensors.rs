//! The list of a model's tensors, in llama.cpp's order: what each is called, how large, in which format, and how its values spread.

use crate::format::Format;
use crate::shape::{Mix, Shape};

/// Size of the embedding beside what the layers add to it: small, or a token would mostly predict itself through a tied output.
const EMBEDDING_GAIN: f32 = 0.25;
/// What the output norm multiplies by: with the embedding's gain it gives logits of about 2.5, some tokens much likelier than others.
const OUTPUT_GAIN: f32 = 10.0;
/// Spread of norm weights around their mean: an engine that forgets one gives visibly other results.
const NORM_DEVIATION: f32 = 0.15;

/// One tensor.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub name: String,
    /// Row length, then rows; a vector has the first only.
    pub dimensions: Vec<u64>,
    pub format: Format,
    pub mean: f32,
    pub deviation: f32,
}

impl Tensor {
    /// A matrix whose output is about as large as its input, times `gain`.
    fn matrix(name: String, columns: u64, rows: u64, format: Format, gain: f32) -> Self {
        Self {
            name,
            dimensions: vec![columns, rows],
            format,
            mean: 0.0,
            deviation: gain / (columns as f32).sqrt(),
        }
    }

    fn norm(name: String, length: u32, mean: f32) -> Self {
        Self {
            name,
            dimensions: vec![length.into()],
            format: Format::F32,
            mean,
            deviation: NORM_DEVIATION * mean,
        }
    }

    pub fn columns(&self) -> u64 {
        self.dimensions.first().copied().unwrap_or(0)
    }

    pub fn rows(&self) -> u64 {
        self.dimensions.get(1).copied().unwrap_or(1)
    }

    /// Bytes of a row; `None` if a row is not a whole number of blocks, or too long.
    pub fn row_bytes(&self) -> Option<u64> {
        if !self.columns().is_multiple_of(self.format.block_length()) {
            return None;
        }
        (self.columns() / self.format.block_length()).checked_mul(self.format.block_bytes())
    }

    /// Bytes of the tensor; `None` as for a row.
    pub fn bytes(&self) -> Option<u64> {
        self.row_bytes()?.checked_mul(self.rows())
    }
}

/// Every tensor of a model with this many tokens.
pub(crate) fn list(shape: &Shape, mix: Mix, tokens: u64) -> Vec<Tensor> {
    let hidden = u64::from(shape.hidden);
    let feed_forward = u64::from(shape.feed_forward);
    let queries = u64::from(shape.heads) * u64::from(shape.head_dim);
    let keys = u64::from(shape.kv_heads) * u64::from(shape.head_dim);
    let ordinary = mix.ordinary();
    // Every layer adds twice to the residual stream: smaller, so that their sum stays near 1.
    let residual = 1.0 / (2.0 * shape.layers as f32).sqrt();

    let mut tensors = Vec::new();
    let embedding = if shape.tied { mix.finer() } else { ordinary };
    tensors.push(Tensor::norm(
        "output_norm.weight".into(),
        shape.hidden,
        OUTPUT_GAIN,
    ));
    tensors.push(Tensor::matrix(
        "token_embd.weight".into(),
        hidden,
        tokens,
        embedding,
        EMBEDDING_GAIN,
    ));
    if !shape.tied {
        tensors.push(Tensor::matrix(
            "output.weight".into(),
            hidden,
            tokens,
            mix.finer(),
            EMBEDDING_GAIN,
        ));
    }
    for layer in 0..shape.layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let sensitive = mix.sensitive(layer, shape.layers);
        let matrix = |part, columns, rows, format, gain| {
            Tensor::matrix(name(part), columns, rows, format, gain)
        };
        tensors.extend([
            matrix("attn_k", hidden, keys, ordinary, 1.0),
            Tensor::norm(name("attn_k_norm"), shape.head_dim, 1.0),
            Tensor::norm(name("attn_norm"), shape.hidden, 1.0),
            matrix("attn_output", queries, hidden, ordinary, residual),
            matrix("attn_q", hidden, queries, ordinary, 1.0),
            Tensor::norm(name("attn_q_norm"), shape.head_dim, 1.0),
            matrix("attn_v", hidden, keys, sensitive, 1.0),
            matrix("ffn_down", feed_forward, hidden, sensitive, residual),
            matrix("ffn_gate", hidden, feed_forward, ordinary, 1.0),
            Tensor::norm(name("ffn_norm"), shape.hidden, 1.0),
            matrix("ffn_up", hidden, feed_forward, ordinary, 1.0),
        ]);
    }
    tensors
}
