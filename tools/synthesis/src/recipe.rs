//! A model described completely: shape, formats, seed. Its length is known before a byte is written.

use core::fmt;

use crate::header::{self, ALIGNMENT, Description, Metadata};
use crate::shape::{Mix, Shape};
use crate::tensors::{self, Tensor};
use crate::vocabulary::Vocabulary;

/// A model to write. Made by [`Recipe::new`], which checks that it can exist.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub(crate) seed: u64,
    pub(crate) head: Vec<u8>,
    pub(crate) tensors: Vec<Tensor>,
    length: u64,
}

/// Why a model cannot exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecipeError {
    /// A dimension that must not be zero is.
    Zero(&'static str),
    /// Query heads are not a multiple of key/value heads.
    Heads { heads: u32, kv_heads: u32 },
    /// Rotary embedding turns pairs: the head dimension must be even.
    HeadDim(u32),
    /// A row of this tensor is not a whole number of its format's blocks.
    Row {
        tensor: String,
        length: u64,
        block: u64,
    },
    /// The vocabulary has fewer tokens than its bytes, words and added tokens.
    Vocabulary { asked: u64, least: u64 },
    /// The file would be longer than 2^63 bytes.
    TooLarge,
}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero(dimension) => write!(f, "{dimension} must not be zero"),
            Self::Heads { heads, kv_heads } => {
                write!(
                    f,
                    "{heads} heads cannot share {kv_heads} key/value heads evenly"
                )
            }
            Self::HeadDim(dim) => write!(f, "the head dimension {dim} is odd"),
            Self::Row {
                tensor,
                length,
                block,
            } => write!(
                f,
                "{tensor}: rows of {length} are not a multiple of {block}, as the format needs; choose other dimensions or F16"
            ),
            Self::Vocabulary { asked, least } => {
                write!(
                    f,
                    "a vocabulary of {asked} tokens is too small: it has at least {least}"
                )
            }
            Self::TooLarge => f.write_str("the model is too large"),
        }
    }
}

impl core::error::Error for RecipeError {}

impl Recipe {
    /// Describes a model called `name`.
    ///
    /// # Errors
    /// The dimensions contradict each other or the formats of `mix`.
    pub fn new(name: &str, shape: &Shape, mix: Mix, seed: u64) -> Result<Self, RecipeError> {
        check(shape)?;
        let vocabulary = Vocabulary::new(shape.vocabulary);
        let tokens = vocabulary.tokens.len() as u64;
        if let Some(asked) = shape.vocabulary.filter(|&asked| asked < tokens) {
            return Err(RecipeError::Vocabulary {
                asked,
                least: tokens,
            });
        }
        let tensors = tensors::list(shape, mix, tokens);
        let mut descriptions = Vec::new();
        let mut end = 0_u64;
        for tensor in &tensors {
            let row = tensor.row_bytes().ok_or_else(|| RecipeError::Row {
                tensor: tensor.name.clone(),
                length: tensor.columns(),
                block: tensor.format.block_length(),
            });
            row?;
            descriptions.push(Description {
                name: &tensor.name,
                dimensions: &tensor.dimensions,
                ggml_type: tensor.format.ggml_type(),
                offset: end,
            });
            end = tensor
                .bytes()
                .and_then(|bytes| end.checked_add(bytes)?.checked_next_multiple_of(ALIGNMENT))
                .filter(|&end| end < 1 << 62)
                .ok_or(RecipeError::TooLarge)?;
        }
        let head = header::head(&metadata(name, shape, mix, &vocabulary), &descriptions);
        Ok(Self {
            seed,
            length: head.len() as u64 + end,
            head,
            tensors,
        })
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.length
    }
}

fn check(shape: &Shape) -> Result<(), RecipeError> {
    let dimensions = [
        ("the number of layers", shape.layers),
        ("the hidden width", shape.hidden),
        ("the feed-forward width", shape.feed_forward),
        ("the number of heads", shape.heads),
        ("the number of key/value heads", shape.kv_heads),
        ("the head dimension", shape.head_dim),
        ("the context length", shape.context),
    ];
    for (name, value) in dimensions {
        if value == 0 {
            return Err(RecipeError::Zero(name));
        }
    }
    if !shape.heads.is_multiple_of(shape.kv_heads) {
        return Err(RecipeError::Heads {
            heads: shape.heads,
            kv_heads: shape.kv_heads,
        });
    }
    if !shape.head_dim.is_multiple_of(2) {
        return Err(RecipeError::HeadDim(shape.head_dim));
    }
    Ok(())
}

fn metadata(name: &str, shape: &Shape, mix: Mix, vocabulary: &Vocabulary) -> Metadata {
    let mut out = Metadata::default();
    out.string("general.architecture", "qwen3");
    out.string("general.type", "model");
    out.string("general.name", name);
    out.u32("general.file_type", mix.file_type());
    out.u32("general.quantization_version", 2);
    out.u32("general.alignment", ALIGNMENT as u32);
    out.u32("qwen3.block_count", shape.layers);
    out.u32("qwen3.context_length", shape.context);
    out.u32("qwen3.embedding_length", shape.hidden);
    out.u32("qwen3.feed_forward_length", shape.feed_forward);
    out.u32("qwen3.attention.head_count", shape.heads);
    out.u32("qwen3.attention.head_count_kv", shape.kv_heads);
    out.u32("qwen3.attention.key_length", shape.head_dim);
    out.u32("qwen3.attention.value_length", shape.head_dim);
    out.f32("qwen3.attention.layer_norm_rms_epsilon", shape.rms_epsilon);
    out.f32("qwen3.rope.freq_base", shape.rope_theta);
    out.string("tokenizer.ggml.model", "gpt2");
    out.string("tokenizer.ggml.pre", "qwen2");
    out.strings("tokenizer.ggml.tokens", &vocabulary.tokens);
    out.i32s("tokenizer.ggml.token_type", &vocabulary.types);
    out.strings("tokenizer.ggml.merges", &vocabulary.merges);
    out.u32("tokenizer.ggml.eos_token_id", vocabulary.end_of_turn);
    out.u32("tokenizer.ggml.padding_token_id", vocabulary.end_of_text);
    out.bool("tokenizer.ggml.add_bos_token", false);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(change: impl FnOnce(&mut Shape), mix: Mix) -> Result<Recipe, RecipeError> {
        let mut shape = Shape::tiny();
        change(&mut shape);
        Recipe::new("test", &shape, mix, 1)
    }

    #[test]
    fn impossible_shapes_are_named() {
        let error = |change: fn(&mut Shape)| recipe(change, Mix::Q4KM).unwrap_err();
        assert_eq!(
            error(|s| s.layers = 0),
            RecipeError::Zero("the number of layers")
        );
        assert_eq!(
            error(|s| s.kv_heads = 3),
            RecipeError::Heads {
                heads: 4,
                kv_heads: 3
            }
        );
        assert_eq!(error(|s| s.head_dim = 65), RecipeError::HeadDim(65));
        assert!(matches!(
            error(|s| s.hidden = 288),
            RecipeError::Row {
                length: 288,
                block: 256,
                ..
            }
        ));
        assert!(matches!(
            error(|s| s.vocabulary = Some(300)),
            RecipeError::Vocabulary { .. }
        ));
        assert_eq!(
            error(|s| {
                s.hidden = 1 << 31;
                s.feed_forward = 1 << 31;
            }),
            RecipeError::TooLarge
        );
        assert!(recipe(|s| s.hidden = 288, Mix::Q8_0).is_ok());
    }

    #[test]
    fn known_shapes_have_the_known_sizes() {
        let tensor_bytes = |shape: &Shape, mix| -> u64 {
            let recipe = Recipe::new("test", shape, mix, 1).unwrap();
            recipe.length() - recipe.head.len() as u64
        };
        // Files of these shapes that llama.cpp quantised hold 1.1015 and 0.3908 GB of weights.
        let bytes = tensor_bytes(&Shape::qwen3_1_7b(), Mix::Q4KM);
        assert!((1_101_400_000..1_101_600_000).contains(&bytes), "{bytes}");
        let bytes = tensor_bytes(&Shape::qwen3_0_6b(), Mix::Q4KM);
        assert!((390_700_000..391_100_000).contains(&bytes), "{bytes}");
    }
}
