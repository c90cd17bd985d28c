//! The first requests, made by the machine itself, so that no client pays for being the first.
//!
//! As many sequences as can be computed at a time each get a prompt and a few tokens of an answer: every weight is read, every
//! thread woken, every buffer of the largest batch written. Meanwhile the certificate that names the model is on its way. When
//! both are done, the service is ready.

use alloc::{vec, vec::Vec};

use engine::{Event, Request, Sampling};

use crate::{Health, Inference, api::Service};

/// Tokens of a prompt.
const PROMPT: usize = 4;
/// Prompts that are computed in a step, at least: the first sequence must still be at its answer when the last one begins.
const PROMPTS: usize = 32;

/// The service's way from [`Health::Warming`] to [`Health::Ready`].
pub(crate) struct WarmUp<I: Inference> {
    batch: usize,
    /// The sequences that are not over yet; None before there are any.
    sequences: Option<Vec<I::Sequence>>,
}

impl<I: Inference> WarmUp<I> {
    /// A warm-up with `batch` sequences at a time.
    pub(crate) fn new(batch: usize) -> Self {
        Self {
            batch,
            sequences: None,
        }
    }

    /// Goes on, if the service is warming. Returns whether that changed anything.
    pub(crate) fn advance(&mut self, service: &mut Service<I>) -> bool {
        let (Health::Warming, Some((engine, _))) = (&service.health, &mut service.model) else {
            return false;
        };
        let sequences = self
            .sequences
            .get_or_insert_with(|| begin(engine, self.batch));
        sequences.retain(|&sequence| {
            let events = engine.take_events(sequence);
            !events
                .iter()
                .any(|event| matches!(event, Event::Finished { .. }))
        });
        let done = sequences.is_empty() && service.attestor.is_current();
        if done {
            service.health = Health::Ready {
                boot_ms: service.now.as_millis() as u64,
            };
        }
        done
    }
}

/// Submits as many requests as the engine takes, `batch` at most.
fn begin<I: Inference>(engine: &mut I, batch: usize) -> Vec<I::Sequence> {
    // One from the prompt, and one from a step in which all take part.
    let answer = 2 + batch / PROMPTS;
    let prompt = PROMPT.min(engine.context().saturating_sub(answer)).max(1);
    let vocabulary = engine.vocabulary_size().max(1);
    (0..batch)
        .map_while(|index| {
            // Different tokens, or the sequences would share what is computed of their prompts.
            let token = (index % vocabulary) as u32;
            let request = Request {
                prompt: vec![token; prompt],
                max_tokens: answer,
                sampling: Sampling::default(),
                ignore_end: true,
            };
            engine.submit(request).ok()
        })
        .collect()
}
