//! Qwen3 inference: from a GGUF file's bytes to tokens, text and probabilities.
//!
//! No operating system, no network, no `unsafe`: the caller brings the file in memory, a set of worker threads and
//! the kernels of this processor.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod cache;
pub mod chat;
mod forward;
pub mod gguf;
pub mod model;
mod options;
mod sampler;
mod scheduler;
mod session;
pub mod tokenizer;
mod workers;

pub use cache::KvFormat;
pub use model::{LoadError, Model};
pub use options::{EngineError, EngineOptions};
pub use sampler::{Logprob, Sampling, TokenLogprobs};
pub use scheduler::{Engine, Event, FinishReason, Request, SequenceId, SubmitError, Usage};
pub use session::{FeedError, Session};
pub use workers::{SingleThread, Workers};

#[cfg(test)]
#[path = "../tests/common/gguf_writer.rs"]
#[allow(dead_code)] // The integration tests use the rest.
mod gguf_writer;
