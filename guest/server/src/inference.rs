//! What the server asks of an engine. The composition root installs an implementation when the model
//! is loaded; tests install a scripted one.

use alloc::{string::String, vec::Vec};
use core::fmt;

/// Facts about the loaded model that requests are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFacts {
    /// The name clients know it by, unless the configuration gives another one.
    pub name: String,
    /// Positions of one sequence, prompt and answer together, in tokens.
    pub context: usize,
    /// Token ids are below this.
    pub vocabulary: usize,
}

/// One generation as the API asks for it; everything is within its documented range.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Token ids, at least one, all in the vocabulary, fewer than the context has positions.
    pub prompt: Vec<u32>,
    /// Tokens to generate at most, at least one; with the prompt no more than the context.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Generation ends before the first occurrence of any of these in the answer.
    pub stop: Vec<String>,
    /// Report the log-probability of every chosen token and of this many alternatives.
    pub logprobs: Option<usize>,
}

/// How the next token is chosen from the logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 chooses the most likely token.
    pub temperature: f32,
    /// Nucleus: keep the most likely tokens that together reach this probability; in (0, 1].
    pub top_p: f32,
    /// Keep this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep tokens at least this fraction as likely as the most likely one; in [0, 1].
    pub min_p: f32,
    /// Divides the positive logits of tokens seen before, multiplies negative ones; 1 is none.
    pub repetition_penalty: f32,
    /// Subtracted from the logit of every token generated before.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token for every time it was generated before.
    pub frequency_penalty: f32,
    /// Added to the logits of these token ids.
    pub logit_bias: Vec<(u32, f32)>,
    /// Makes the choice reproducible.
    pub seed: u64,
}

/// A conversation for the model's chat template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// At least one.
    pub messages: Vec<Message>,
    /// Tool definitions, each one JSON object as text.
    pub tools: Vec<String>,
    /// Whether the model may think before it answers.
    pub thinking: bool,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; empty for an assistant that only called tools.
    pub content: String,
    /// Calls an assistant made.
    pub tool_calls: Vec<ToolCall>,
}

/// Who speaks in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions; `developer` in the newer dialect of the API.
    System,
    /// The person asking.
    User,
    /// The model.
    Assistant,
    /// What a called tool returned.
    Tool,
}

/// One call of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// Its arguments, a JSON object as text.
    pub arguments: String,
}

/// Names a running sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SequenceId(pub u64);

/// What happened to a sequence, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// One token was chosen.
    Token {
        /// Its id.
        id: u32,
        /// Text that became complete with it: possibly none, possibly more than its own.
        text: String,
        /// Present if the request asked for it.
        logprobs: Option<TokenLogprobs>,
    },
    /// Nothing more follows.
    Finished {
        /// Why.
        reason: FinishReason,
        /// Text that was held back and belongs to the answer after all.
        text: String,
    },
}

/// Natural log-probabilities at one position.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Of the chosen token.
    pub chosen: f32,
    /// The most likely tokens, most likely first.
    pub top: Vec<(u32, f32)>,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its answer, or a stop string occurred.
    Stop,
    /// The token limit was reached.
    Length,
    /// The engine gave up on it.
    Failed,
}

/// Why a generation was not taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// No room now; later there may be.
    QueueFull,
    /// The engine cannot run it at all.
    Refused(&'static str),
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QueueFull => f.write_str("the queue is full"),
            Self::Refused(reason) => f.write_str(reason),
        }
    }
}

impl core::error::Error for SubmitError {}

/// An engine with a model in it.
pub trait Inference {
    /// Facts about the model.
    fn facts(&self) -> &ModelFacts;
    /// Token ids of a text, special tokens recognised.
    fn encode(&self, text: &str) -> Vec<u32>;
    /// Token ids of a conversation, up to where the assistant begins to speak.
    fn encode_chat(&self, conversation: &Conversation) -> Vec<u32>;
    /// The bytes a token stands for: any bytes at all, not always whole characters.
    fn token_bytes(&self, id: u32) -> Vec<u8>;
    /// Sequences taken on and not yet running.
    fn queued(&self) -> usize;
    /// Takes on a generation.
    ///
    /// # Errors
    /// When it cannot be queued.
    fn submit(&mut self, generation: Generation) -> Result<SequenceId, SubmitError>;
    /// Computes for a bounded time: one prefill chunk or one decode step. False when idle.
    fn step(&mut self) -> bool;
    /// Takes what happened to a sequence since the last call; after [`Event::Finished`] its id means
    /// nothing any more.
    fn take_events(&mut self, sequence: SequenceId) -> Vec<Event>;
    /// Ends a sequence without further events and frees what it holds.
    fn cancel(&mut self, sequence: SequenceId);
}
