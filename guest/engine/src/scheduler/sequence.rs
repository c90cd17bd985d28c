//! One request on its way: what is in the cache, what comes next, and what its owner has not seen yet.

use alloc::string::String;
use alloc::vec::Vec;

use kernels::Kernels;

use super::request::{Event, FinishReason, Request, SequenceId, Usage};
use super::stop::StopMatcher;
use crate::cache::PageTable;
use crate::sampler::Sampler;
use crate::tokenizer::{Decoder, Tokenizer};

/// A sequence that waits, or is being computed.
pub(super) struct Sequence {
    pub id: SequenceId,
    pub pages: PageTable,
    /// The prompt, and then the answer so far.
    tokens: Vec<u32>,
    prompt_tokens: usize,
    /// Tokens whose keys and values are in the cache.
    computed: usize,
    /// Tokens after which it ends.
    limit: usize,
    ignore_end: bool,
    sampler: Sampler,
    decoder: Decoder,
    stop: StopMatcher,
    pub events: Vec<Event>,
}

impl Sequence {
    /// A checked request, in a context that the prompt does not fill.
    pub fn new(id: SequenceId, request: Request, context: usize) -> Self {
        let prompt_tokens = request.prompt.len();
        Self {
            id,
            pages: PageTable::default(),
            prompt_tokens,
            computed: 0,
            limit: prompt_tokens
                .saturating_add(request.max_tokens)
                .min(context),
            ignore_end: request.ignore_end,
            decoder: Decoder::new(),
            stop: StopMatcher::new(&request.sampling.stop),
            sampler: Sampler::new(request.sampling, &request.prompt),
            tokens: request.prompt,
            events: Vec::new(),
        }
    }

    /// Positions that it may need in the cache. (The last token of an answer is never computed.)
    pub fn positions(&self) -> usize {
        self.limit - 1
    }

    /// Tokens that are not computed yet: at least one of a sequence that is not over.
    pub fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// The next `count` pending tokens, and the position of the first.
    pub fn next_tokens(&self, count: usize) -> (usize, &[u32]) {
        (
            self.computed,
            self.tokens
                .get(self.computed..self.computed + count)
                .unwrap_or_default(),
        )
    }

    /// Whether some of the prompt is not computed yet.
    pub fn is_prefilling(&self) -> bool {
        self.computed < self.prompt_tokens
    }

    /// Notes that `count` more tokens were computed.
    pub fn advance(&mut self, count: usize) {
        self.computed += count;
    }

    /// Whether it will not go on.
    pub fn is_over(&self) -> bool {
        matches!(self.events.last(), Some(Event::Finished { .. }))
    }

    /// Chooses the next token from the logits after the last one.
    pub fn choose(&mut self, kernels: &Kernels, tokenizer: &Tokenizer, logits: &mut [f32]) {
        let (token, logprobs) = self.sampler.sample(kernels, logits);
        self.tokens.push(token);
        let ended = tokenizer.is_end(token) && !self.ignore_end;

        let mut decoded = String::new();
        self.decoder.push(tokenizer.text_bytes(token), &mut decoded);
        let full = self.tokens.len() >= self.limit;
        if ended || full {
            self.decoder.finish(&mut decoded);
        }
        let (mut text, stopped) = self.stop.push(&decoded);
        let reason = match (ended || stopped, full) {
            (true, _) => Some(FinishReason::Stop),
            (false, true) => Some(FinishReason::Length),
            (false, false) => None,
        };
        if reason.is_some() && !stopped {
            text.push_str(&self.stop.finish());
        }
        self.events.push(Event::Token {
            id: token,
            text,
            logprobs,
        });
        if let Some(reason) = reason {
            let usage = Usage {
                prompt_tokens: self.prompt_tokens,
                completion_tokens: self.tokens.len() - self.prompt_tokens,
            };
            self.events.push(Event::Finished { reason, usage });
        }
    }
}
