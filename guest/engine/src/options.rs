//! What an engine is given room for, and what that costs.

use alloc::collections::TryReserveError;
use core::fmt;

use crate::cache::{KvCache, KvFormat, PAGE};
use crate::forward::Capacity;
use crate::model::Model;

/// The working memory of a forward pass stays below about this many bytes, by taking fewer tokens at once.
const WORKING_MEMORY: usize = 24 << 20;

/// The size of an engine. None of this changes a result, except `kv` and where `context` ends an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Longest sequence in tokens, prompt and answer together; no longer than the model's own limit.
    pub context: usize,
    /// Sequences that are computed together.
    pub max_sequences: usize,
    /// Sequences that may wait for their turn.
    pub queue: usize,
    /// Prompt tokens computed in one step.
    pub chunk: usize,
    /// How keys and values are stored.
    pub kv: KvFormat,
    /// Tokens that all sequences together have room for; by default enough for `max_sequences` of `context` tokens.
    pub kv_tokens: Option<usize>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            context: 4096,
            max_sequences: 8,
            queue: 64,
            chunk: 128,
            kv: KvFormat::F16,
            kv_tokens: None,
        }
    }
}

/// Why an engine cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineError {
    /// An option is 0 or absurdly large.
    Option(&'static str),
    /// The model's heads cannot be stored in the wanted format.
    KvFormat { head_dim: usize },
    /// There is not enough memory for keys, values and working memory.
    Memory {
        /// Bytes that are needed.
        needed: usize,
    },
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(name) => write!(f, "option {name} is out of range"),
            Self::KvFormat { head_dim } => {
                write!(
                    f,
                    "heads of {head_dim} elements cannot be stored in this KV format; use F16"
                )
            }
            Self::Memory { needed } => write!(
                f,
                "not enough memory: the KV cache and working memory need {} MiB; lower the context or the number of sequences",
                needed.div_ceil(1 << 20)
            ),
        }
    }
}

impl core::error::Error for EngineError {}

/// Options made concrete for one model.
pub(crate) struct Plan {
    pub context: usize,
    pub capacity: Capacity,
    pub page_bytes: usize,
    pub pages: usize,
    /// Bytes of the cache and of the working memory.
    pub bytes: usize,
}

impl Plan {
    pub fn new(
        model: &Model<'_>,
        options: &EngineOptions,
        threads: usize,
    ) -> Result<Self, EngineError> {
        const LIMIT: usize = 1 << 24;
        let tokens = options
            .kv_tokens
            .unwrap_or(options.context.saturating_mul(options.max_sequences));
        for (value, name) in [
            (options.context, "context"),
            (options.max_sequences, "max_sequences"),
            (options.chunk, "chunk"),
            (threads, "threads"),
        ] {
            if value == 0 || value > LIMIT {
                return Err(EngineError::Option(name));
            }
        }
        let config = model.config();
        let context = options.context.min(config.context_length);
        let page_bytes = KvCache::page_bytes(config, options.kv).ok_or(EngineError::KvFormat {
            head_dim: config.head_dim,
        })?;
        // At least one sequence of full length; and a part of a page for each sequence.
        let pages = (tokens / PAGE)
            .saturating_add(options.max_sequences)
            .max(context.div_ceil(PAGE));

        let sequences = options.max_sequences;
        let capacity = |rows, outputs| Capacity {
            rows,
            outputs,
            context,
            threads,
            kv: options.kv,
        };
        let fixed = capacity(0, sequences).bytes(model);
        let one_row = capacity(1, sequences)
            .bytes(model)
            .saturating_sub(fixed)
            .max(1);
        let rows = options.chunk.min(WORKING_MEMORY / one_row).max(sequences);
        let capacity = capacity(rows, sequences);
        let bytes = page_bytes
            .saturating_mul(pages)
            .saturating_add(capacity.bytes(model));
        Ok(Self {
            context,
            capacity,
            page_bytes,
            pages,
            bytes,
        })
    }

    /// The cache that was planned.
    pub fn cache(&self, model: &Model<'_>) -> Result<KvCache, TryReserveError> {
        KvCache::new(
            model.config(),
            self.capacity.kv,
            self.page_bytes,
            self.pages,
        )
    }

    /// The error for an allocation that failed.
    pub fn out_of_memory(&self) -> EngineError {
        EngineError::Memory { needed: self.bytes }
    }
}

impl Model<'_> {
    /// Bytes that an engine with these options and so many threads allocates besides what the model itself takes.
    ///
    /// # Errors
    /// An option is out of range for this model.
    pub fn memory_required(
        &self,
        options: &EngineOptions,
        threads: usize,
    ) -> Result<usize, EngineError> {
        Plan::new(self, options, threads).map(|plan| plan.bytes)
    }
}
