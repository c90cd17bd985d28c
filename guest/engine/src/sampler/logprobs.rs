//! Log-probabilities of the model's own distribution, for the caller to see.

use alloc::vec::Vec;

use kernels::math;

/// A token and the natural logarithm of its probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logprob {
    pub token: u32,
    pub logprob: f32,
}

/// What was likely where a token was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// The chosen token.
    pub chosen: Logprob,
    /// The most probable tokens, the most probable first and equals by id.
    pub top: Vec<Logprob>,
}

/// Stands for impossible, where minus infinity would do harm (it has no JSON).
const IMPOSSIBLE: f32 = -9999.0;

impl TokenLogprobs {
    /// The log-probabilities of `chosen` and of the `count` most probable tokens.
    pub(super) fn new(logits: &[f32], chosen: u32, count: usize) -> Self {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits
            .iter()
            .filter(|x| !x.is_nan())
            .map(|&x| f64::from(math::exp(x - max)))
            .sum();
        let log_sum = math::ln(sum) as f32;
        let logprob = |logit: f32| {
            let value = logit - max - log_sum;
            // Also for NaN.
            if value >= IMPOSSIBLE {
                value
            } else {
                IMPOSSIBLE
            }
        };
        let mut top: Vec<Logprob> = (0..)
            .zip(logits)
            .map(|(token, &logit)| Logprob {
                token,
                logprob: logprob(logit),
            })
            .collect();
        let by_rank =
            |a: &Logprob, b: &Logprob| b.logprob.total_cmp(&a.logprob).then(a.token.cmp(&b.token));
        if count > 0 && count < top.len() {
            top.select_nth_unstable_by(count - 1, by_rank);
        }
        top.truncate(count);
        top.sort_unstable_by(by_rank);
        top.shrink_to_fit();
        let logit = logits.get(chosen as usize).copied().unwrap_or(f32::NAN);
        Self {
            chosen: Logprob {
                token: chosen,
                logprob: logprob(logit),
            },
            top,
        }
    }
}
