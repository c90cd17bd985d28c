//! What the server asks of an engine. [`engine::Engine`] answers it; so does a scripted engine in the
//! tests.

use alloc::vec::Vec;
use core::fmt::Debug;

use attestation::events::MAX_MODEL_NAME;
use engine::{Engine, Event, Request, SequenceId, SubmitError, Workers};

/// What a model is called if its file has no name for it.
pub const UNNAMED: &str = "qwen3";

/// The name under which a model is measured and served: `name`, as far as evidence has room for it.
pub fn measured_name(name: &str) -> &str {
    match name {
        "" => UNNAMED,
        name => &name[..name.floor_char_boundary(MAX_MODEL_NAME)],
    }
}

/// An engine with a model in it.
pub trait Inference {
    /// Names a sequence from its submission until its last event was taken or it was cancelled.
    type Sequence: Copy + Debug;

    /// What clients call the model, unless the configuration has another name.
    fn name(&self) -> &str;

    /// Longest sequence, prompt and answer together, in tokens.
    fn context(&self) -> usize;

    /// Number of tokens; ids are below it.
    fn vocabulary_size(&self) -> usize;

    /// The tokens of `text`, in which control tokens are recognised.
    fn encode(&self, text: &str) -> Vec<u32>;

    /// The bytes a token stands for: any bytes, not always whole characters; none if it is unknown.
    fn token_bytes(&self, token: u32) -> &[u8];

    /// Takes a request on.
    ///
    /// # Errors
    /// It is out of range, or too many wait already.
    fn submit(&mut self, request: Request) -> Result<Self::Sequence, SubmitError>;

    /// Computes for a short time: a piece of the prompts, or one token for every answer. False when
    /// there is nothing to do.
    fn step(&mut self) -> bool;

    /// What happened to a sequence since the last call, in order.
    fn take_events(&mut self, sequence: Self::Sequence) -> Vec<Event>;

    /// Ends a sequence at once and frees what it holds.
    fn cancel(&mut self, sequence: Self::Sequence);
}

impl<W: Workers> Inference for Engine<'_, W> {
    type Sequence = SequenceId;

    fn name(&self) -> &str {
        self.model().name().unwrap_or(UNNAMED)
    }

    fn context(&self) -> usize {
        Engine::context(self)
    }

    fn vocabulary_size(&self) -> usize {
        self.model().tokenizer().vocabulary_size()
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        self.model().tokenizer().encode(text, true)
    }

    fn token_bytes(&self, token: u32) -> &[u8] {
        let bytes = self.model().tokenizer().token_bytes(token);
        bytes.unwrap_or_default()
    }

    fn submit(&mut self, request: Request) -> Result<SequenceId, SubmitError> {
        Engine::submit(self, request)
    }

    fn step(&mut self) -> bool {
        Engine::step(self)
    }

    fn take_events(&mut self, sequence: SequenceId) -> Vec<Event> {
        Engine::take_events(self, sequence)
    }

    fn cancel(&mut self, sequence: SequenceId) {
        Engine::cancel(self, sequence);
    }
}
