//! What is asked of the engine and what it answers.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::sampler::{Sampling, TokenLogprobs};

/// A prompt to be continued.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// Longest answer in tokens; the context may end it earlier.
    pub max_tokens: usize,
    /// How the answer's tokens are chosen.
    pub sampling: Sampling,
    /// Go on after the model has ended its answer. For measurements.
    pub ignore_end: bool,
}

/// Names a sequence for as long as the engine lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub(super) u64);

/// Why a request is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// Too many sequences wait already; try again later.
    QueueFull,
    /// The prompt has no tokens.
    EmptyPrompt,
    /// The prompt leaves no room for an answer in a context of `limit` tokens.
    PromptTooLong { tokens: usize, limit: usize },
    /// The prompt has a token that the vocabulary lacks.
    UnknownToken(u32),
    /// A parameter is out of range.
    Invalid(&'static str),
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QueueFull => write!(f, "too many requests are waiting"),
            Self::EmptyPrompt => write!(f, "the prompt is empty"),
            Self::PromptTooLong { tokens, limit } => {
                write!(
                    f,
                    "the prompt has {tokens} tokens, which leaves no room in a context of {limit}"
                )
            }
            Self::UnknownToken(token) => write!(f, "token {token} is not in the vocabulary"),
            Self::Invalid(name) => write!(f, "{name} is out of range"),
        }
    }
}

impl core::error::Error for SubmitError {}

/// Something that happened to a sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A token was chosen.
    Token {
        id: u32,
        /// The text that is certain now: it ends with a whole character, and with nothing that may be the start of a stop
        /// text. Possibly empty; the texts of all events together are the answer.
        text: String,
        /// If they were asked for.
        logprobs: Option<TokenLogprobs>,
    },
    /// No more tokens will come.
    Finished { reason: FinishReason, usage: Usage },
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop text was met.
    Stop,
    /// It is as long as the request or the context allows.
    Length,
}

/// How many tokens a sequence cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: usize,
    /// The token that ended the answer included.
    pub completion_tokens: usize,
}
