//! One sequence, fed by hand: what evaluation and tests need, below the scheduler.

use core::fmt;

use kernels::Kernels;

use crate::cache::{KvCache, PageTable};
use crate::forward::{Forward, Run};
use crate::model::Model;
use crate::options::{EngineError, EngineOptions, Plan};
use crate::workers::Workers;

/// A model and one sequence's keys and values.
pub struct Session<'m, W> {
    forward: Forward<'m, W>,
    cache: KvCache,
    pages: PageTable,
    position: usize,
    context: usize,
}

/// Why tokens cannot be fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedError {
    /// No tokens.
    Empty,
    /// A token that the vocabulary lacks.
    UnknownToken(u32),
    /// The sequence would be longer than this many tokens.
    ContextFull(usize),
}

impl fmt::Display for FeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "no tokens"),
            Self::UnknownToken(token) => write!(f, "token {token} is not in the vocabulary"),
            Self::ContextFull(limit) => write!(f, "more than the context of {limit} tokens"),
        }
    }
}

impl core::error::Error for FeedError {}

impl<'m, W: Workers> Session<'m, W> {
    /// An empty sequence. `options.queue` means nothing here; `options.max_sequences` is how many rows of logits
    /// [`feed_each`](Self::feed_each) computes at once, not how many sequences there are.
    ///
    /// # Errors
    /// An option is out of range, or there is not enough memory.
    pub fn new(
        model: Model<'m>,
        kernels: &'static Kernels,
        workers: W,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        let options = EngineOptions {
            kv_tokens: Some(options.context),
            ..options.clone()
        };
        let plan = Plan::new(&model, &options, workers.count())?;
        let cache = plan.cache(&model).map_err(|_| plan.out_of_memory())?;
        let forward = Forward::new(model, kernels, workers, plan.capacity.clone())
            .map_err(|_| plan.out_of_memory())?;
        Ok(Self {
            forward,
            cache,
            pages: PageTable::default(),
            position: 0,
            context: plan.context,
        })
    }

    /// The model.
    pub fn model(&self) -> &Model<'m> {
        self.forward.model()
    }

    /// Tokens fed so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Appends `tokens`, a chunk at a time, and returns the logits after the last of them.
    ///
    /// # Errors
    /// The tokens are unknown or do not fit; nothing was appended.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&[f32], FeedError> {
        self.check(tokens)?;
        let chunk = self.forward.capacity().rows;
        let last = tokens.len().saturating_sub(1) / chunk * chunk;
        let (before, last) = tokens.split_at(last);
        for tokens in before.chunks(chunk) {
            self.forward(tokens, 0);
        }
        Ok(self.forward(last, 1))
    }

    /// Appends `tokens` and calls `visit` with the logits after each, in order.
    ///
    /// # Errors
    /// The tokens are unknown or do not fit; nothing was appended.
    pub fn feed_each(
        &mut self,
        tokens: &[u32],
        mut visit: impl FnMut(&[f32]),
    ) -> Result<(), FeedError> {
        self.check(tokens)?;
        let width = self.forward.model().weights().output.rows;
        let chunk = self.forward.capacity().outputs;
        for tokens in tokens.chunks(chunk) {
            self.forward(tokens, tokens.len())
                .chunks_exact(width)
                .for_each(&mut visit);
        }
        Ok(())
    }

    /// Forgets all tokens.
    pub fn clear(&mut self) {
        self.cache.release(&mut self.pages);
        self.position = 0;
    }

    fn check(&self, tokens: &[u32]) -> Result<(), FeedError> {
        if tokens.is_empty() {
            return Err(FeedError::Empty);
        }
        let known = self.forward.model().tokenizer().vocabulary_size();
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= known) {
            return Err(FeedError::UnknownToken(token));
        }
        if tokens.len() > self.context - self.position {
            return Err(FeedError::ContextFull(self.context));
        }
        Ok(())
    }

    /// Appends tokens that were checked and fit one pass.
    fn forward(&mut self, tokens: &[u32], outputs: usize) -> &[f32] {
        // The cache was made for a full context.
        let reached = self
            .cache
            .reserve(&mut self.pages, self.position + tokens.len());
        debug_assert!(reached);
        let start = self.position;
        self.position += tokens.len();
        let run = Run {
            tokens,
            start,
            pages: &self.pages,
            outputs,
        };
        self.forward.forward(&mut self.cache, &[run]).values
    }
}
