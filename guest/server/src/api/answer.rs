//! An answer under way: the engine's events on one side, JSON or server-sent events on the other.
//!
//! What the model thinks before it answers (`<think>…</think>`) and the tool calls it writes
//! (`<tool_call>…</tool_call>`) stay in the text as the model wrote them.

use alloc::{format, string::String, vec::Vec};

use engine::{Event, FinishReason, Logprob, TokenLogprobs, Usage};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{json, parameters::Delivery};
use crate::{
    Inference,
    http::{Exchange, Response, Status},
};

/// Which of the two endpoints is answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Completion,
}

/// What every object of one answer begins with.
#[derive(Debug)]
pub(super) struct Heading {
    pub(super) id: u64,
    /// UNIX seconds.
    pub(super) created: u64,
    pub(super) model: String,
}

/// One answer, from its submission to its last byte.
#[derive(Debug)]
pub(crate) struct Answer<Sequence> {
    kind: Kind,
    sequence: Sequence,
    delivery: Delivery,
    id: String,
    heading: Heading,
    /// Whether the head of the response has been written.
    begun: bool,
    /// What an answer in one piece is made of; empty between the events of a stream.
    text: String,
    token_ids: Vec<u32>,
    logprobs: Vec<Value>,
    /// Characters before the next token, for the older log-probability format.
    offset: usize,
}

#[derive(Serialize)]
struct Object<'a> {
    id: &'a str,
    object: &'a str,
    created: u64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Counts>,
}

/// A choice in any of its four forms: chat or not, whole or a piece.
#[derive(Default, Serialize)]
struct Choice<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    logprobs: Option<Value>,
    finish_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<&'a [u32]>,
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

/// [`Usage`], as clients expect it.
#[derive(Serialize)]
struct Counts {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
}

impl<Sequence: Copy> Answer<Sequence> {
    pub(super) fn new(
        kind: Kind,
        sequence: Sequence,
        delivery: Delivery,
        heading: Heading,
    ) -> Self {
        let prefix = match kind {
            Kind::Chat => "chatcmpl",
            Kind::Completion => "cmpl",
        };
        Self {
            kind,
            sequence,
            delivery,
            id: format!("{prefix}-{:016x}", heading.id),
            heading,
            begun: false,
            text: String::new(),
            token_ids: Vec::new(),
            logprobs: Vec::new(),
            offset: 0,
        }
    }

    /// Ends the generation; nobody waits for it any more.
    pub(crate) fn cancel(&self, engine: &mut impl Inference<Sequence = Sequence>) {
        engine.cancel(self.sequence);
    }

    /// Writes the head of the response if it has not been: the status is then decided.
    ///
    /// An answer in one piece normally waits with its head until it is complete. A client that has
    /// closed its side is sent the head at once: if it is gone altogether, this is what finds out.
    pub(crate) fn begin(&mut self, exchange: &mut Exchange, out: &mut Vec<u8>) {
        if self.begun {
            return;
        }
        self.begun = true;
        if !self.delivery.stream {
            exchange.begin("application/json", out);
            return;
        }
        exchange.begin("text/event-stream", out);
        if self.kind == Kind::Chat {
            let choice = Choice {
                delta: Some(Message {
                    role: Some("assistant"),
                    content: Some(""),
                }),
                ..Choice::default()
            };
            event(&self.object(&[choice], None), exchange, out);
        }
    }

    /// Takes the engine's events and writes what they amount to. Returns whether the answer is
    /// complete.
    pub(crate) fn advance(
        &mut self,
        engine: &mut impl Inference<Sequence = Sequence>,
        exchange: &mut Exchange,
        out: &mut Vec<u8>,
    ) -> bool {
        if self.delivery.stream {
            self.begin(exchange, out);
        }
        for event in engine.take_events(self.sequence) {
            match event {
                Event::Token { id, text, logprobs } => {
                    self.take_token(engine, id, &text, logprobs);
                    if self.delivery.stream {
                        self.write_piece(None, exchange, out);
                    }
                }
                Event::Finished { reason, usage } => {
                    self.finish(reason, usage, exchange, out);
                    return true;
                }
            }
        }
        false
    }

    fn take_token(
        &mut self,
        engine: &impl Inference,
        id: u32,
        text: &str,
        logprobs: Option<TokenLogprobs>,
    ) {
        self.text.push_str(text);
        if self.delivery.token_ids {
            self.token_ids.push(id);
        }
        if let Some(logprobs) = logprobs {
            let entry = match self.kind {
                Kind::Chat => chat_logprobs(engine, &logprobs),
                Kind::Completion => completion_logprobs(engine, &logprobs, self.offset),
            };
            self.logprobs.push(entry);
        }
        self.offset += text.chars().count();
    }

    /// Ends the response.
    fn finish(
        &mut self,
        reason: FinishReason,
        usage: Usage,
        exchange: &mut Exchange,
        out: &mut Vec<u8>,
    ) {
        let reason = match reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        };
        let counts = Counts {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
        };
        if self.delivery.stream {
            self.write_piece(Some(reason), exchange, out);
            if self.delivery.include_usage {
                event(&self.object(&[], Some(counts)), exchange, out);
            }
            exchange.piece(b"data: [DONE]\n\n", out);
            exchange.end(out);
            return;
        }
        let text = self.text.as_str();
        let mut choice = Choice {
            logprobs: self.collected_logprobs(),
            finish_reason: Some(reason),
            token_ids: self.delivery.token_ids.then_some(self.token_ids.as_slice()),
            ..Choice::default()
        };
        match self.kind {
            Kind::Chat => {
                choice.message = Some(Message {
                    role: Some("assistant"),
                    content: Some(text),
                });
            }
            Kind::Completion => choice.text = Some(text),
        }
        let body = json(&self.object(&[choice], Some(counts)));
        self.write_whole(body, exchange, out);
    }

    /// Writes an answer in one piece, after a head that may have been sent before.
    fn write_whole(&self, body: Vec<u8>, exchange: &mut Exchange, out: &mut Vec<u8>) {
        if self.begun {
            exchange.piece(&body, out);
            exchange.end(out);
        } else {
            let response = Response {
                status: Status::OK,
                content_type: "application/json",
                headers: Vec::new(),
                body,
            };
            exchange.respond(&response, out);
        }
    }

    /// Writes what has come together since the last event of a stream, if there is anything.
    fn write_piece(
        &mut self,
        finish_reason: Option<&str>,
        exchange: &mut Exchange,
        out: &mut Vec<u8>,
    ) {
        let silent = self.text.is_empty() && self.token_ids.is_empty() && self.logprobs.is_empty();
        if silent && finish_reason.is_none() {
            return;
        }
        let text = self.text.as_str();
        let mut choice = Choice {
            logprobs: self.collected_logprobs(),
            finish_reason,
            token_ids: self.delivery.token_ids.then_some(self.token_ids.as_slice()),
            ..Choice::default()
        };
        match self.kind {
            Kind::Chat => {
                let content = (!text.is_empty()).then_some(text);
                choice.delta = Some(Message {
                    role: None,
                    content,
                });
            }
            Kind::Completion => choice.text = Some(text),
        }
        event(&self.object(&[choice], None), exchange, out);
        self.text.clear();
        self.token_ids.clear();
        self.logprobs.clear();
    }

    fn object<'a>(&'a self, choices: &'a [Choice<'a>], usage: Option<Counts>) -> Object<'a> {
        Object {
            id: &self.id,
            object: match (self.kind, self.delivery.stream) {
                (Kind::Chat, true) => "chat.completion.chunk",
                (Kind::Chat, false) => "chat.completion",
                (Kind::Completion, _) => "text_completion",
            },
            created: self.heading.created,
            model: &self.heading.model,
            choices,
            usage,
        }
    }

    /// The log-probabilities collected so far in the shape of the endpoint, if any.
    fn collected_logprobs(&self) -> Option<Value> {
        if self.logprobs.is_empty() {
            return None;
        }
        if self.kind == Kind::Chat {
            return Some(json!({ "content": self.logprobs, "refusal": null }));
        }
        // The older format has one array per property instead of one object per token.
        let column = |name: &str| -> Vec<&Value> {
            self.logprobs
                .iter()
                .filter_map(|entry| entry.get(name))
                .collect()
        };
        Some(json!({
            "tokens": column("token"),
            "token_logprobs": column("logprob"),
            "top_logprobs": column("top"),
            "text_offset": column("offset"),
        }))
    }
}

/// Writes one server-sent event.
fn event(object: &Object<'_>, exchange: &Exchange, out: &mut Vec<u8>) {
    let mut line = Vec::from(b"data: ");
    line.append(&mut json(object));
    line.extend_from_slice(b"\n\n");
    exchange.piece(&line, out);
}

/// One token's entry in a chat answer.
fn chat_logprobs(engine: &impl Inference, logprobs: &TokenLogprobs) -> Value {
    let describe = |entry: &Logprob| {
        let bytes = engine.token_bytes(entry.token);
        json!({
            "token": String::from_utf8_lossy(bytes),
            "logprob": entry.logprob,
            "bytes": bytes,
        })
    };
    let mut entry = describe(&logprobs.chosen);
    entry["top_logprobs"] = logprobs.top.iter().map(describe).collect();
    entry
}

/// One token's properties in the older format of `/v1/completions`.
fn completion_logprobs(engine: &impl Inference, logprobs: &TokenLogprobs, offset: usize) -> Value {
    let text =
        |entry: &Logprob| String::from_utf8_lossy(engine.token_bytes(entry.token)).into_owned();
    let top = logprobs.top.iter();
    let top: Map<_, _> = top
        .map(|entry| (text(entry), entry.logprob.into()))
        .collect();
    json!({
        "token": text(&logprobs.chosen),
        "logprob": logprobs.chosen.logprob,
        "top": top,
        "offset": offset,
    })
}
