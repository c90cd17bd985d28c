//! Qwen3 inference: from a GGUF file's bytes to tokens, text and probabilities.
//!
//! No operating system, no network, no `unsafe`: the caller brings the file in memory, a set of worker threads and
//! the kernels of this processor.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod chat;
pub mod gguf;
pub mod tokenizer;

#[cfg(test)]
#[path = "../tests/common/gguf_writer.rs"]
#[allow(dead_code)] // The integration tests use the rest.
mod gguf_writer;
