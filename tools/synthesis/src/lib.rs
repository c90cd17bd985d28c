//! Qwen3 models with random weights: any shape, in F16, Q8_0 or Q4_K_M, as GGUF files that are the same bytes on every machine.
//!
//! For tests, demonstrations and benchmarks, where what a model says does not matter but its shape, its speed and its
//! reproducibility do. Text survives the tokenizer, the chat template works, and the logits are far from uniform: activations keep
//! their size through the layers as in a trained model. Two formats of one seed round the same weights.

#![forbid(unsafe_code)]

mod format;
mod header;
mod random;
mod recipe;
mod shape;
mod tensors;
mod vocabulary;
mod write;

pub use recipe::{Recipe, RecipeError};
pub use shape::{Mix, Shape};
