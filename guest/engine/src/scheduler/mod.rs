//! The engine: many requests, computed together.
//!
//! Requests wait in a bounded queue until a place and enough pages are free for the longest they may become, so a request
//! that has started never runs out of memory. Each step is either a piece of the prompts or one token for every sequence
//! that is past its prompt; while there is work of both kinds they take turns, so that running answers keep their pace.
//!
//! What is computed for a sequence does not depend on the others, so an answer is the same alone and in company.

mod request;
mod sequence;
mod stop;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use kernels::Kernels;

pub use request::{Event, FinishReason, Request, SequenceId, SubmitError, Usage};
use sequence::Sequence;

use crate::cache::{KvCache, PAGE};
use crate::forward::{Forward, Run};
use crate::model::Model;
use crate::options::{EngineError, EngineOptions, Plan};
use crate::workers::{Workers, for_each};

/// A model at work.
pub struct Engine<'m, W> {
    forward: Forward<'m, W>,
    cache: KvCache,
    context: usize,
    max_sequences: usize,
    max_queue: usize,
    waiting: VecDeque<Sequence>,
    live: Vec<Sequence>,
    /// Ended, but not all events are taken.
    ended: Vec<Sequence>,
    next_id: u64,
    /// What the last step did.
    last: Step,
}

/// What a step computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Prefill,
    Decode,
}

impl<'m, W: Workers> Engine<'m, W> {
    /// An idle engine. All memory it will ever use for computing is allocated here.
    ///
    /// # Errors
    /// An option is out of range, or there is not enough memory.
    pub fn new(
        model: Model<'m>,
        kernels: &'static Kernels,
        workers: W,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        let plan = Plan::new(&model, options, workers.count())?;
        let cache = plan.cache(&model).map_err(|_| plan.out_of_memory())?;
        let forward = Forward::new(model, kernels, workers, plan.capacity.clone())
            .map_err(|_| plan.out_of_memory())?;
        Ok(Self {
            forward,
            cache,
            context: plan.context,
            max_sequences: options.max_sequences,
            max_queue: options.queue,
            waiting: VecDeque::new(),
            live: Vec::new(),
            ended: Vec::new(),
            next_id: 0,
            last: Step::Decode,
        })
    }

    /// The model.
    pub fn model(&self) -> &Model<'m> {
        self.forward.model()
    }

    /// The kernels it computes with.
    pub fn kernels(&self) -> &'static Kernels {
        self.forward.kernels()
    }

    /// Longest sequence in tokens, prompt and answer together.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Sequences being computed.
    pub fn active(&self) -> usize {
        self.live.len()
    }

    /// Sequences waiting to start.
    pub fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// Tokens that the KV cache still has room for.
    pub fn free_kv_tokens(&self) -> usize {
        self.cache.free_pages() * PAGE
    }

    /// Accepts a request. Its events must be taken until it has finished, or it must be cancelled.
    ///
    /// # Errors
    /// The request is out of range, or too many wait or have finished without their events being taken.
    pub fn submit(&mut self, request: Request) -> Result<SequenceId, SubmitError> {
        if request.prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        if request.prompt.len() >= self.context {
            return Err(SubmitError::PromptTooLong {
                tokens: request.prompt.len(),
                limit: self.context,
            });
        }
        let known = self.model().tokenizer().vocabulary_size();
        if let Some(&token) = request
            .prompt
            .iter()
            .find(|&&token| token as usize >= known)
        {
            return Err(SubmitError::UnknownToken(token));
        }
        if request.max_tokens == 0 {
            return Err(SubmitError::Invalid("max_tokens"));
        }
        if let Some(name) = request.sampling.invalid() {
            return Err(SubmitError::Invalid(name));
        }
        if self.waiting.len() + self.ended.len() >= self.max_queue.max(1) && !self.starts_at_once()
        {
            return Err(SubmitError::QueueFull);
        }
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.waiting
            .push_back(Sequence::new(id, request, self.context));
        self.admit();
        Ok(id)
    }

    /// Whether nothing waits and a place is free.
    fn starts_at_once(&self) -> bool {
        self.waiting.is_empty()
            && self.live.len() < self.max_sequences
            && self.ended.len() < self.max_queue.max(1)
    }

    /// Computes one step and returns true, or returns false if there is nothing to do.
    pub fn step(&mut self) -> bool {
        self.admit();
        let prefilling = self.live.iter().any(Sequence::is_prefilling);
        let decoding = self.live.iter().any(|sequence| !sequence.is_prefilling());
        let step = match (prefilling, decoding) {
            (false, false) => return false,
            (true, false) => Step::Prefill,
            (false, true) => Step::Decode,
            (true, true) if self.last == Step::Decode => Step::Prefill,
            (true, true) => Step::Decode,
        };
        self.last = step;
        self.compute(step);
        true
    }

    /// What happened to a sequence since the last call, in order; nothing if it is unknown. After
    /// [`Event::Finished`] it is forgotten.
    pub fn take_events(&mut self, id: SequenceId) -> Vec<Event> {
        if let Some(sequence) = self.live.iter_mut().find(|sequence| sequence.id == id) {
            return core::mem::take(&mut sequence.events);
        }
        match self.ended.iter().position(|sequence| sequence.id == id) {
            Some(index) => self.ended.swap_remove(index).events,
            None => Vec::new(),
        }
    }

    /// Ends a sequence at once and forgets it. Nothing happens if it is unknown.
    pub fn cancel(&mut self, id: SequenceId) {
        self.waiting.retain(|sequence| sequence.id != id);
        self.ended.retain(|sequence| sequence.id != id);
        if let Some(index) = self.live.iter().position(|sequence| sequence.id == id) {
            let mut sequence = self.live.remove(index);
            self.cache.release(&mut sequence.pages);
        }
    }

    /// Starts waiting sequences, in their order, while there is room.
    fn admit(&mut self) {
        while self.live.len() < self.max_sequences {
            let Some(sequence) = self.waiting.front_mut() else {
                return;
            };
            let positions = sequence.positions();
            if !self.cache.reserve(&mut sequence.pages, positions) {
                return;
            }
            self.live.extend(self.waiting.pop_front());
        }
    }

    fn compute(&mut self, step: Step) {
        // The sequences that take part, with how many tokens.
        let mut room = self.forward.capacity().rows;
        let mut shares = Vec::new();
        for sequence in &mut self.live {
            if sequence.is_prefilling() == (step == Step::Prefill) && room > 0 {
                let share = sequence.pending().min(room);
                room -= share;
                shares.push((sequence, share));
            }
        }
        // The logits of a sequence's last pending token choose what comes after it.
        let chooses = |sequence: &Sequence, share: usize| sequence.pending() == share;
        let runs: Vec<Run<'_>> = shares
            .iter()
            .map(|(sequence, share)| {
                let (start, tokens) = sequence.next_tokens(*share);
                let outputs = usize::from(chooses(sequence, *share));
                Run {
                    tokens,
                    start,
                    pages: &sequence.pages,
                    outputs,
                }
            })
            .collect();
        let logits = self.forward.forward(&mut self.cache, &runs);

        let width = logits.model.weights().output.rows;
        let mut rows = logits.values.chunks_exact_mut(width);
        let parts = shares.into_iter().filter_map(|(sequence, share)| {
            let chooses = chooses(sequence, share);
            sequence.advance(share);
            if chooses {
                Some((sequence, rows.next()?))
            } else {
                None
            }
        });
        for_each(logits.workers, parts, |(sequence, row)| {
            sequence.choose(logits.kernels, logits.model.tokenizer(), row);
        });
        for mut sequence in self.live.extract_if(.., |sequence| sequence.is_over()) {
            self.cache.release(&mut sequence.pages);
            self.ended.push(sequence);
        }
    }
}
