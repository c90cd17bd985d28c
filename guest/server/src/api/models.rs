//! `GET /v1/models` and `GET /v1/models/{model}`: the one model served.

use alloc::{string::String, vec::Vec};

use serde::Serialize;

use super::json;
use crate::http::{Response, Status};

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'a str,
    created: u64,
    owned_by: &'a str,
    /// vLLM's name for the context length.
    max_model_len: usize,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'a str,
    data: [Model<'a>; 1],
}

fn model(name: &str, context: usize, created: u64) -> Model<'_> {
    Model {
        id: name,
        object: "model",
        created,
        owned_by: "vitrine",
        max_model_len: context,
    }
}

/// The list of models. `created` is the moment the model was installed, in UNIX seconds.
pub(super) fn list(name: &str, context: usize, created: u64) -> Response {
    let list = List {
        object: "list",
        data: [model(name, context, created)],
    };
    respond(json(&list))
}

/// The model itself.
pub(super) fn retrieve(name: &str, context: usize, created: u64) -> Response {
    respond(json(&model(name, context, created)))
}

fn respond(body: Vec<u8>) -> Response {
    Response {
        status: Status::OK,
        content_type: "application/json",
        headers: Vec::new(),
        body,
    }
}

/// Undoes percent-encoding (RFC 3986, 2.1). None if it is not well-formed or not UTF-8.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            _ => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone() {
        assert_eq!(percent_decode("Qwen3%200.6B/a").unwrap(), "Qwen3 0.6B/a");
        assert_eq!(percent_decode("%C3%a9").unwrap(), "é");
        for malformed in ["%", "%4", "%zz", "%ff", "a%+1"] {
            assert_eq!(percent_decode(malformed), None, "{malformed}");
        }
    }
}
