//! Choosing the next token from logits.
//!
//! The steps, in order: logit bias; repetition, presence and frequency penalties; then, at temperature 0, the largest
//! logit, else temperature, top-k, top-p and min-p, and a draw among what is left. A draw depends on the seed, on how
//! many tokens the sequence has already got, and on the logits, and on nothing else.
//!
//! Logits may be anything: NaN counts as impossible.

mod logprobs;
mod nucleus;
mod random;

#[cfg(test)]
mod tests;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use kernels::Kernels;

pub use logprobs::{Logprob, TokenLogprobs};
use nucleus::Candidate;

/// How tokens are chosen and when an answer ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 for the most probable token always; 1 for the model's own distribution.
    pub temperature: f32,
    /// Only the so many most probable tokens; 0 for all.
    pub top_k: usize,
    /// Only the most probable tokens that together reach this probability; 1 for all.
    pub top_p: f32,
    /// Only tokens at least this many times as probable as the most probable one; 0 for all.
    pub min_p: f32,
    /// Positive logits of tokens seen in prompt or answer are divided by this, negative ones multiplied; 1 for none.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens seen in the answer.
    pub presence_penalty: f32,
    /// Subtracted from the logits of tokens for each time they were seen in the answer.
    pub frequency_penalty: f32,
    /// Added to the logits of single tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Same seed, same answer.
    pub seed: u64,
    /// Texts before which the answer ends.
    pub stop: Vec<String>,
    /// Report each token's log-probability, and those of so many of the most probable tokens.
    pub logprobs: Option<usize>,
}

impl Default for Sampling {
    /// The model's own distribution.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            stop: Vec::new(),
            logprobs: None,
        }
    }
}

impl Sampling {
    /// The most probable token, always.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            ..Self::default()
        }
    }

    /// The name of the first parameter that is out of range.
    pub fn invalid(&self) -> Option<&'static str> {
        let any = f32::NEG_INFINITY..f32::INFINITY;
        [
            ("temperature", self.temperature, 0.0..f32::INFINITY),
            // 1 itself is allowed; the next float is 1 + EPSILON.
            ("top_p", self.top_p, 0.0..1.0 + f32::EPSILON),
            ("min_p", self.min_p, 0.0..1.0 + f32::EPSILON),
            (
                "repetition_penalty",
                self.repetition_penalty,
                f32::MIN_POSITIVE..f32::INFINITY,
            ),
            ("presence_penalty", self.presence_penalty, any.clone()),
            ("frequency_penalty", self.frequency_penalty, any),
        ]
        .into_iter()
        .find(|(_, value, range)| !range.contains(value))
        .map(|(name, ..)| name)
        .or_else(|| {
            self.logit_bias
                .iter()
                .any(|(_, bias)| bias.is_nan())
                .then_some("logit_bias")
        })
    }
}

/// The state of one sequence's choices.
pub(crate) struct Sampler {
    sampling: Sampling,
    /// Tokens that penalties look at, and how often each is in the answer.
    seen: BTreeMap<u32, u32>,
    /// Tokens chosen so far.
    chosen: u64,
    candidates: Vec<Candidate>,
}

impl Sampler {
    pub fn new(sampling: Sampling, prompt: &[u32]) -> Self {
        let mut seen = BTreeMap::new();
        if sampling.repetition_penalty != 1.0 {
            seen.extend(prompt.iter().map(|&token| (token, 0)));
        }
        Self {
            sampling,
            seen,
            chosen: 0,
            candidates: Vec::new(),
        }
    }

    /// Chooses a token; `logits` are changed.
    pub fn sample(
        &mut self,
        kernels: &Kernels,
        logits: &mut [f32],
    ) -> (u32, Option<TokenLogprobs>) {
        // Log-probabilities are the model's own, before anything is done to them.
        let original = self.sampling.logprobs.map(|top| (logits.to_vec(), top));
        self.adjust(logits);
        let token = if self.sampling.temperature == 0.0 {
            kernels.argmax(logits) as u32
        } else {
            self.draw(logits)
        };
        let logprobs = original.map(|(logits, top)| TokenLogprobs::new(&logits, token, top));
        self.chosen += 1;
        if self.counts() {
            *self.seen.entry(token).or_default() += 1;
        }
        (token, logprobs)
    }

    /// Whether what was chosen matters for what will be.
    fn counts(&self) -> bool {
        let Sampling {
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            ..
        } = self.sampling;
        repetition_penalty != 1.0 || presence_penalty != 0.0 || frequency_penalty != 0.0
    }

    /// Applies bias and penalties.
    fn adjust(&self, logits: &mut [f32]) {
        let sampling = &self.sampling;
        for &(token, bias) in &sampling.logit_bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        for (&token, &count) in &self.seen {
            let Some(logit) = logits.get_mut(token as usize) else {
                continue;
            };
            if *logit > 0.0 {
                *logit /= sampling.repetition_penalty;
            } else {
                *logit *= sampling.repetition_penalty;
            }
            if count > 0 {
                *logit -= sampling.presence_penalty + sampling.frequency_penalty * count as f32;
            }
        }
    }

    /// Draws among the candidates that top-k, top-p and min-p leave.
    fn draw(&mut self, logits: &[f32]) -> u32 {
        let Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            seed,
            ..
        } = self.sampling;
        nucleus::collect(logits, temperature, &mut self.candidates);
        nucleus::keep_top_k(&mut self.candidates, top_k);
        nucleus::keep_top_p(&mut self.candidates, top_p);
        nucleus::keep_min_p(&mut self.candidates, min_p);
        nucleus::draw(&self.candidates, random::uniform(seed, self.chosen))
    }
}
