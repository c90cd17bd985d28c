//! A model's hyper-parameters, all from the file.

use alloc::format;

use crate::gguf::{Gguf, GgufError, Problem, Quoted};

/// The architecture this engine computes.
const ARCHITECTURE: &str = "qwen3";

/// Bounds far above any model of this family; they keep products of sizes in range.
const MAX_WIDTH: usize = 1 << 20;
pub(super) const MAX_CONTEXT: usize = 1 << 24;

/// The shape of a dense Qwen3 model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Transformer blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward network.
    pub feed_forward: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of one head; the heads together need not be as wide as `hidden`.
    pub head_dim: usize,
    /// Added to the mean square in every norm.
    pub epsilon: f32,
    /// Positions the model was made for.
    pub context_length: usize,
}

impl Config {
    /// Reads the hyper-parameters.
    ///
    /// # Errors
    /// A key is missing, of the wrong type, or its value makes no sense.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, GgufError> {
        const ARCHITECTURE_KEY: &str = "general.architecture";
        let bad = |key: &str, why| Err(GgufError::key(key, Problem::BadValue(why)));
        match gguf.string(ARCHITECTURE_KEY)? {
            Some(ARCHITECTURE) => {}
            Some(other) => {
                return bad(
                    ARCHITECTURE_KEY,
                    format!(
                        "{} is not supported, only {ARCHITECTURE:?} is",
                        Quoted(other)
                    ),
                );
            }
            None => return Err(GgufError::key(ARCHITECTURE_KEY, Problem::Missing)),
        }
        const SPLIT: &str = "split.count";
        if let Some(count) = gguf.integer(SPLIT)?
            && count > 1
        {
            return bad(
                SPLIT,
                format!("this is one of {count} files; merge them first"),
            );
        }

        let hidden = gguf.positive("qwen3.embedding_length", MAX_WIDTH)?;
        let heads = gguf.positive("qwen3.attention.head_count", MAX_WIDTH)?;
        const KV_HEADS: &str = "qwen3.attention.head_count_kv";
        let kv_heads = gguf.integer(KV_HEADS)?.unwrap_or(heads);
        if kv_heads == 0 || heads % kv_heads != 0 {
            return bad(
                KV_HEADS,
                format!("{kv_heads} does not divide {heads} heads"),
            );
        }
        const HEAD_DIM: &str = "qwen3.attention.key_length";
        let head_dim = gguf.integer(HEAD_DIM)?.unwrap_or(hidden / heads);
        if head_dim == 0 || head_dim % 2 != 0 || heads * head_dim.min(MAX_WIDTH) > MAX_WIDTH {
            return bad(
                HEAD_DIM,
                format!("{head_dim} for {heads} heads is not supported"),
            );
        }
        for key in ["qwen3.attention.value_length", "qwen3.rope.dimension_count"] {
            if let Some(length) = gguf.integer(key)?
                && length != head_dim
            {
                return bad(key, format!("{length} is not the key length {head_dim}"));
            }
        }
        const EPSILON: &str = "qwen3.attention.layer_norm_rms_epsilon";
        let epsilon = gguf
            .float(EPSILON)?
            .ok_or_else(|| GgufError::key(EPSILON, Problem::Missing))?;
        if !(0.0..1.0).contains(&epsilon) {
            return bad(EPSILON, format!("{epsilon} is not in [0, 1)"));
        }
        let context_length = gguf.positive("qwen3.context_length", MAX_CONTEXT)?;
        Ok(Self {
            layers: gguf.positive("qwen3.block_count", MAX_WIDTH)?,
            hidden,
            feed_forward: gguf.positive("qwen3.feed_forward_length", MAX_WIDTH)?,
            heads,
            kv_heads,
            head_dim,
            epsilon,
            context_length,
        })
    }

    /// Width of all query heads together.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads, or all value heads, together.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Query heads that share one key head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}
