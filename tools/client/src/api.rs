//! The requests and answers of the server's API, as JSON: OpenAI's chat completions with the extensions vLLM made common
//! (`top_k`, `min_p`, `return_token_ids`, `chat_template_kwargs`). Fields an answer has beyond these are ignored.

use serde::{Deserialize, Serialize};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A turn of the given role.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self {
            role: role.to_owned(),
            content: content.into(),
        }
    }
}

/// How to choose tokens. What is `None` is left to the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sampling {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
}

/// A chat completion to ask for. Whether it streams is the called method's matter.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// As `/v1/models` names it.
    pub model: String,
    pub messages: Vec<Message>,
    pub sampling: Sampling,
    /// Whether the model may think before it answers; `None` leaves it to the server.
    pub thinking: Option<bool>,
}

/// [`ChatRequest`] as it travels.
#[derive(Serialize)]
pub(crate) struct ChatBody<'a> {
    model: &'a str,
    messages: &'a [Message],
    #[serde(flatten)]
    sampling: &'a Sampling,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_template_kwargs: Option<TemplateArguments>,
    return_token_ids: bool,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct TemplateArguments {
    enable_thinking: bool,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl<'a> ChatBody<'a> {
    pub fn new(request: &'a ChatRequest, stream: bool) -> Self {
        Self {
            model: &request.model,
            messages: &request.messages,
            sampling: &request.sampling,
            chat_template_kwargs: request
                .thinking
                .map(|enable_thinking| TemplateArguments { enable_thinking }),
            return_token_ids: true,
            stream,
            stream_options: stream.then_some(StreamOptions {
                include_usage: true,
            }),
        }
    }
}

/// Tokens a request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub total_tokens: u64,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ChatCompletion {
    pub model: String,
    pub choices: Vec<Choice>,
    #[serde(default)]
    pub usage: Option<Usage>,
}

/// One of a [`ChatCompletion`]'s answers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Choice {
    pub message: Answer,
    #[serde(default)]
    pub finish_reason: Option<String>,
    #[serde(default)]
    pub token_ids: Option<Vec<u32>>,
}

/// What the model said; a reply may have no text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Answer {
    #[serde(default)]
    pub content: Option<String>,
}

/// A piece of a streamed answer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ChatChunk {
    #[serde(default)]
    pub choices: Vec<ChunkChoice>,
    /// In the last chunk only.
    #[serde(default)]
    pub usage: Option<Usage>,
}

/// One of a [`ChatChunk`]'s pieces.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ChunkChoice {
    #[serde(default)]
    pub delta: Delta,
    #[serde(default)]
    pub finish_reason: Option<String>,
    #[serde(default)]
    pub token_ids: Option<Vec<u32>>,
}

/// What a piece adds to the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Delta {
    #[serde(default)]
    pub content: Option<String>,
}

/// What `/health` says; the status is 200 only when ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    pub state: State,
    /// How much of the model is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The instruction set the kernels use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isa: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// From reset to ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What the evidence in its certificate is worth: none, pending, current or expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// Why there is no newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence_failure: Option<String>,
    /// What its first CPU has spent in the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub computing_ms: Option<u64>,
    /// What its first CPU has spent awake on everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving_ms: Option<u64>,
}

/// How far a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Booting,
    /// The model is sealed, and its key has not come.
    Sealed,
    Loading,
    /// The model is there, and being tried out.
    Warming,
    Ready,
    /// The evidence has expired and cannot be renewed: nothing new is taken on.
    Draining,
    Failed,
}

/// The list `/v1/models` gives.
#[derive(Deserialize)]
pub(crate) struct ModelList {
    pub data: Vec<Model>,
}

/// A model the server offers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Model {
    /// The name to ask for.
    pub id: String,
}

/// The body of a refusal, and of an event that ends a stream early.
#[derive(Deserialize)]
pub(crate) struct ErrorBody {
    pub error: ErrorDetail,
}

#[derive(Deserialize)]
pub(crate) struct ErrorDetail {
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_only_what_is_set() {
        let request = ChatRequest {
            model: "m".into(),
            messages: vec![Message::new("user", "hi")],
            sampling: Sampling {
                seed: Some(7),
                ..Sampling::default()
            },
            thinking: Some(false),
        };
        assert_eq!(
            serde_json::to_value(ChatBody::new(&request, false)).unwrap(),
            serde_json::json!({
                "model": "m", "messages": [{"role": "user", "content": "hi"}], "seed": 7,
                "chat_template_kwargs": {"enable_thinking": false}, "return_token_ids": true, "stream": false,
            })
        );
    }

    #[test]
    fn answers_may_say_more_or_less() {
        let health: Health =
            serde_json::from_str(r#"{"state":"loading","percent":40,"later":1}"#).unwrap();
        assert_eq!((health.state, health.percent), (State::Loading, Some(40)));
        let chunk: ChatChunk = serde_json::from_str(
            r#"{"choices":[{"delta":{"role":"assistant","content":null},"finish_reason":null}],"usage":null}"#,
        )
        .unwrap();
        assert_eq!(chunk.choices[0].delta.content, None);
    }
}
