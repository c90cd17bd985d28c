//! The body of `POST /v1/completions`: a prompt as it stands.

use alloc::vec::Vec;

use serde_json::Value;

use super::{ApiError, fields::Fields, parameters::token_id};
use crate::Inference;

/// Reads `prompt`: a string, an array of token ids, or an array holding just one of either.
pub(super) fn read_prompt(
    fields: &Fields<'_>,
    engine: &impl Inference,
) -> Result<Vec<u32>, ApiError> {
    refuse_unsupported(fields)?;
    let mismatch = || fields.mismatch("prompt", "a string or an array of token ids");
    let mut prompt = fields.get("prompt").ok_or_else(mismatch)?;
    if let Value::Array(items) = prompt
        && let [first @ (Value::String(_) | Value::Array(_)), rest @ ..] = items.as_slice()
    {
        if !rest.is_empty() {
            return Err(ApiError::unsupported(
                "prompt",
                "one prompt per request is supported",
            ));
        }
        prompt = first;
    }
    let tokens = match prompt {
        Value::String(text) => engine.encode(text),
        Value::Array(ids) => {
            let ids = ids.iter().map(|id| {
                let id = usize::try_from(id.as_u64()?).ok()?;
                token_id(id, engine.vocabulary_size())
            });
            ids.collect::<Option<Vec<_>>>().ok_or_else(|| {
                fields.mismatch("prompt", "an array of token ids of the vocabulary")
            })?
        }
        _ => return Err(mismatch()),
    };
    if tokens.is_empty() {
        return Err(fields.mismatch("prompt", "at least one token long"));
    }
    Ok(tokens)
}

/// The number of alternatives to report per token, if log-probabilities are wanted.
pub(super) fn read_logprobs(fields: &Fields<'_>) -> Result<Option<usize>, ApiError> {
    fields.integer("logprobs", 0..=5)
}

fn refuse_unsupported(fields: &Fields<'_>) -> Result<(), ApiError> {
    if fields.boolean("echo")?.unwrap_or(false) {
        return Err(ApiError::unsupported("echo", "`echo` is not supported"));
    }
    if fields
        .text("suffix")?
        .is_some_and(|suffix| !suffix.is_empty())
    {
        return Err(ApiError::unsupported("suffix", "`suffix` is not supported"));
    }
    Ok(())
}
