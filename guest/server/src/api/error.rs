//! Errors as OpenAI clients expect them: a status, and a JSON object saying what to change.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use core::time::Duration;

use serde::Serialize;

use crate::http::{HttpError, Response, Status};

/// Seconds after which a client may try again when the queue is full.
const BUSY_RETRY_SECONDS: u32 = 1;
/// Seconds after which a client may ask for evidence again.
const EVIDENCE_RETRY_SECONDS: u32 = 2;
/// Seconds after which a client may try again while the model is loading.
const LOADING_RETRY_SECONDS: u32 = 5;

/// A request that is answered with an error; the connection stays usable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: Status,
    message: String,
    parameter: Option<String>,
    code: Option<&'static str>,
    retry_after: Option<u32>,
    allow: Option<&'static str>,
}

impl ApiError {
    fn new(status: Status, message: String) -> Self {
        Self {
            status,
            message,
            parameter: None,
            code: None,
            retry_after: None,
            allow: None,
        }
    }

    /// 400: `parameter` has a value it cannot have.
    pub(crate) fn invalid(parameter: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            parameter: Some(parameter.into()),
            ..Self::new(Status::BAD_REQUEST, message.into())
        }
    }

    /// 400: `parameter` asks for something this server does not do.
    pub(crate) fn unsupported(parameter: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: Some("unsupported_value"),
            ..Self::invalid(parameter, message)
        }
    }

    /// 400: the body is not a JSON object.
    pub(crate) fn not_json(detail: impl core::fmt::Display) -> Self {
        let message = format!("the request body is not a JSON object: {detail}");
        Self::new(Status::BAD_REQUEST, message)
    }

    /// 400: prompt and answer do not fit into the context.
    pub(crate) fn context_length(
        parameter: &'static str,
        context: usize,
        prompt: usize,
        answer: usize,
    ) -> Self {
        Self {
            code: Some("context_length_exceeded"),
            ..Self::invalid(
                parameter,
                format!(
                    "the maximum context length is {context} tokens, but {} were requested \
                     ({prompt} in the prompt, {answer} in the answer)",
                    prompt.saturating_add(answer)
                ),
            )
        }
    }

    /// 404: there is nothing at this path.
    pub(crate) fn no_such_path() -> Self {
        Self::new(Status::NOT_FOUND, "there is nothing at this path".into())
    }

    /// 404: the model asked for is not the one served.
    pub(crate) fn no_such_model(asked: &str, served: &str) -> Self {
        Self {
            parameter: Some("model".into()),
            code: Some("model_not_found"),
            ..Self::new(
                Status::NOT_FOUND,
                format!("the model `{asked}` does not exist here; this server has `{served}`"),
            )
        }
    }

    /// 405: the path exists and takes other methods.
    pub(crate) fn method(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::new(
                Status::METHOD_NOT_ALLOWED,
                format!("the methods here are: {allow}"),
            )
        }
    }

    /// 415: the body is not declared as plain JSON.
    pub(crate) fn media_type(message: &'static str) -> Self {
        Self::new(Status::UNSUPPORTED_MEDIA_TYPE, message.into())
    }

    /// 429: as many requests are waiting as may.
    pub(crate) fn busy() -> Self {
        Self {
            code: Some("queue_full"),
            retry_after: Some(BUSY_RETRY_SECONDS),
            ..Self::new(
                Status::TOO_MANY_REQUESTS,
                "too many requests are waiting; try again".into(),
            )
        }
    }

    /// 500: the server is at fault.
    pub(crate) fn internal(message: &str) -> Self {
        Self::new(Status::INTERNAL_SERVER_ERROR, message.into())
    }

    /// 403: whoever asks may not.
    pub(crate) fn forbidden(code: &'static str, message: &str) -> Self {
        Self {
            code: Some(code),
            ..Self::new(Status::FORBIDDEN, message.into())
        }
    }

    /// 409: that was settled before.
    pub(crate) fn conflict(code: &'static str, message: &str) -> Self {
        Self {
            code: Some(code),
            ..Self::new(Status::CONFLICT, message.into())
        }
    }

    /// 429: after a wrong key none is looked at for a while.
    pub(crate) fn too_many_keys(wait: Duration) -> Self {
        Self {
            code: Some("too_many_wrong_keys"),
            retry_after: Some(wait.as_secs() as u32 + 1),
            ..Self::new(
                Status::TOO_MANY_REQUESTS,
                "a wrong key was sent before; try again later".into(),
            )
        }
    }

    /// 501: this machine is not a trust domain.
    pub(crate) fn no_evidence() -> Self {
        Self {
            code: Some("no_evidence"),
            ..Self::new(
                Status::NOT_IMPLEMENTED,
                "this machine is not a trust domain and has no evidence".into(),
            )
        }
    }

    /// 503: there is no quote at the moment.
    pub(crate) fn evidence_delayed(reason: impl core::fmt::Display) -> Self {
        Self {
            code: Some("evidence_unavailable"),
            retry_after: Some(EVIDENCE_RETRY_SECONDS),
            ..Self::new(
                Status::SERVICE_UNAVAILABLE,
                format!("there is no evidence at the moment: {reason}"),
            )
        }
    }

    /// 503: the model is there and its key is not.
    pub(crate) fn sealed() -> Self {
        Self {
            code: Some("model_sealed"),
            retry_after: Some(LOADING_RETRY_SECONDS),
            ..Self::new(
                Status::SERVICE_UNAVAILABLE,
                "the model is sealed and waits for its key".into(),
            )
        }
    }

    /// 503: the certificate could not be replaced in time, so this machine takes nothing new on.
    pub(crate) fn draining() -> Self {
        Self {
            code: Some("draining"),
            retry_after: Some(LOADING_RETRY_SECONDS),
            ..Self::new(
                Status::SERVICE_UNAVAILABLE,
                "the evidence has expired and cannot be renewed; nothing new is taken on".into(),
            )
        }
    }

    /// 503: there is no model yet.
    pub(crate) fn not_ready() -> Self {
        Self {
            code: Some("model_not_ready"),
            retry_after: Some(LOADING_RETRY_SECONDS),
            ..Self::new(
                Status::SERVICE_UNAVAILABLE,
                "the model is not ready; see /health".into(),
            )
        }
    }

    /// 503: there will be no model.
    pub(crate) fn failed(reason: &str) -> Self {
        Self {
            code: Some("model_failed"),
            ..Self::new(
                Status::SERVICE_UNAVAILABLE,
                format!("the model could not be loaded: {reason}"),
            )
        }
    }

    /// The error object, as it stands in a body or an event.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            error: Detail<'a>,
        }
        #[derive(Serialize)]
        struct Detail<'a> {
            message: &'a str,
            r#type: &'a str,
            param: Option<&'a str>,
            code: Option<&'a str>,
        }
        let error = Detail {
            message: &self.message,
            r#type: match self.status.code() {
                429 => "rate_limit_error",
                500.. => "server_error",
                _ => "invalid_request_error",
            },
            param: self.parameter.as_deref(),
            code: self.code,
        };
        super::json(&Body { error })
    }

    /// The response that carries it.
    pub(crate) fn to_response(&self) -> Response {
        let mut headers = Vec::new();
        if let Some(seconds) = self.retry_after {
            headers.push(("Retry-After", seconds.to_string()));
        }
        if let Some(methods) = self.allow {
            headers.push(("Allow", methods.into()));
        }
        Response {
            status: self.status,
            content_type: "application/json",
            headers,
            body: self.to_json(),
        }
    }
}

impl From<HttpError> for ApiError {
    fn from(error: HttpError) -> Self {
        Self::new(error.status(), error.to_string())
    }
}
