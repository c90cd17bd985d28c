//! The parameters `/v1/chat/completions` and `/v1/completions` share: how to generate, and how to
//! deliver the result.
//!
//! Names and ranges are those of the OpenAI API reference; `top_k`, `min_p`, `repetition_penalty`,
//! `ignore_eos` and `return_token_ids` are the extensions vLLM has made common. A parameter that would change the
//! answer and is not supported is refused, never ignored.

use alloc::{string::String, vec::Vec};

use engine::Sampling;
use serde_json::Value;

use super::{ApiError, fields::Fields};

/// Stop strings in one request, and bytes in each.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;
/// Entries in `logit_bias`.
const MAX_BIASES: usize = 1024;

/// How to generate and deliver an answer.
#[derive(Debug)]
pub(super) struct Parameters {
    pub(super) sampling: Sampling,
    pub(super) max_tokens: Option<usize>,
    /// Go on after the model has ended its answer.
    pub(super) ignore_end: bool,
    pub(super) delivery: Delivery,
}

/// What the client gets back, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Send the answer in server-sent events as it grows.
    pub(super) stream: bool,
    /// End the stream with the token counts.
    pub(super) include_usage: bool,
    /// Report token ids beside the text.
    pub(super) token_ids: bool,
}

impl Parameters {
    /// Reads the shared parameters; those for log-probabilities are not among them. `random_seed` is
    /// used when the client gives none.
    pub(super) fn read(
        fields: &Fields<'_>,
        vocabulary_size: usize,
        random_seed: u64,
    ) -> Result<Self, ApiError> {
        refuse_unsupported(fields)?;
        Ok(Self {
            sampling: Sampling {
                temperature: fields.number("temperature", 0.0..=2.0)?.unwrap_or(1.0),
                top_p: top_p(fields)?,
                top_k: top_k(fields)?,
                min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(0.0),
                repetition_penalty: fields
                    .number("repetition_penalty", 0.01..=10.0)?
                    .unwrap_or(1.0),
                presence_penalty: fields
                    .number("presence_penalty", -2.0..=2.0)?
                    .unwrap_or(0.0),
                frequency_penalty: fields
                    .number("frequency_penalty", -2.0..=2.0)?
                    .unwrap_or(0.0),
                logit_bias: logit_bias(fields, vocabulary_size)?,
                seed: seed(fields)?.unwrap_or(random_seed),
                stop: stop(fields)?,
                logprobs: None,
            },
            max_tokens: max_tokens(fields)?,
            ignore_end: fields.boolean("ignore_eos")?.unwrap_or(false),
            delivery: delivery(fields)?,
        })
    }
}

fn refuse_unsupported(fields: &Fields<'_>) -> Result<(), ApiError> {
    for name in ["n", "best_of"] {
        if fields
            .integer(name, 1..=128)?
            .is_some_and(|count| count != 1)
        {
            return Err(ApiError::unsupported(
                name,
                "one answer per request: only 1 is supported",
            ));
        }
    }
    if let Some(format) = fields.object("response_format")?
        && format.text("type")?.is_some_and(|kind| kind != "text")
    {
        return Err(ApiError::unsupported(
            "response_format.type",
            "only the response format `text` is supported",
        ));
    }
    Ok(())
}

fn top_p(fields: &Fields<'_>) -> Result<f32, ApiError> {
    match fields.number("top_p", 0.0..=1.0)? {
        None => Ok(1.0),
        Some(p) if p > 0.0 => Ok(p),
        Some(_) => Err(fields.mismatch("top_p", "above 0")),
    }
}

/// `top_k`: 0 and, as in vLLM, -1 mean all tokens.
fn top_k(fields: &Fields<'_>) -> Result<usize, ApiError> {
    if fields.get("top_k").and_then(Value::as_i64) == Some(-1) {
        return Ok(0);
    }
    Ok(fields.integer("top_k", 0..=1_000_000)?.unwrap_or(0))
}

/// `seed`: any 64-bit integer; a negative one stands for its two's complement.
fn seed(fields: &Fields<'_>) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.get("seed") else {
        return Ok(None);
    };
    match value.as_u64().or(value.as_i64().map(i64::cast_unsigned)) {
        Some(seed) => Ok(Some(seed)),
        None => Err(fields.mismatch("seed", "a 64-bit integer")),
    }
}

fn max_tokens(fields: &Fields<'_>) -> Result<Option<usize>, ApiError> {
    let range = 1..=i32::MAX as usize;
    let newer = fields.integer("max_completion_tokens", range.clone())?;
    Ok(newer.or(fields.integer("max_tokens", range)?))
}

fn stop(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let expected = "a string or an array of up to 16 strings, of 1 to 256 bytes each";
    let mismatch = || fields.mismatch("stop", expected);
    let values = match fields.get("stop") {
        None => &[],
        Some(Value::Array(values)) if values.len() <= MAX_STOPS => values.as_slice(),
        Some(value @ Value::String(_)) => core::slice::from_ref(value),
        Some(_) => return Err(mismatch()),
    };
    let texts = values.iter().map(|value| match value {
        Value::String(text) if (1..=MAX_STOP_BYTES).contains(&text.len()) => Ok(text.clone()),
        _ => Err(mismatch()),
    });
    texts.collect()
}

fn logit_bias(fields: &Fields<'_>, vocabulary_size: usize) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(biases) = fields.object("logit_bias")? else {
        return Ok(Vec::new());
    };
    let expected = "at most 1024 token ids of the vocabulary with numbers from -100 to 100";
    let mismatch = || fields.mismatch("logit_bias", expected);
    let entries = biases.members().map(|(name, value)| {
        let id = name.parse().ok();
        let id = id.and_then(|id| token_id(id, vocabulary_size));
        let bias = value.as_f64().filter(|bias| bias.abs() <= 100.0);
        id.zip(bias.map(|bias| bias as f32)).ok_or_else(mismatch)
    });
    let entries: Vec<_> = entries.collect::<Result<_, _>>()?;
    if entries.len() > MAX_BIASES {
        return Err(mismatch());
    }
    Ok(entries)
}

fn delivery(fields: &Fields<'_>) -> Result<Delivery, ApiError> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let options = fields.object("stream_options")?;
    if options.is_some() && !stream {
        return Err(ApiError::invalid(
            "stream_options",
            "`stream_options` needs `stream` to be true",
        ));
    }
    let include_usage = match options {
        Some(options) => options.boolean("include_usage")?.unwrap_or(false),
        None => false,
    };
    Ok(Delivery {
        stream,
        include_usage,
        token_ids: fields.boolean("return_token_ids")?.unwrap_or(false),
    })
}

/// A number as a token id, if there is such a token.
pub(super) fn token_id(number: usize, vocabulary_size: usize) -> Option<u32> {
    u32::try_from(number)
        .ok()
        .filter(|_| number < vocabulary_size)
}
