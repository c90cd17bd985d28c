//! Responses of the proxy's own, and those it passes on.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use hyper::{Response, StatusCode};
use serde_json::json;
use tokio::sync::mpsc;

use crate::cancel::CancelOnDrop;
use crate::dialer::WeakerMode;
use crate::forward::{Cut, Failure, Head};

/// Marks every answer given while a weaker mode is in force.
const WEAKER_MODE: HeaderName = HeaderName::from_static("vitrine-weaker-mode");
/// Which server answered.
const UPSTREAM: HeaderName = HeaderName::from_static("vitrine-upstream");

pub(crate) type Reply = Response<Either<Full<Bytes>, Parts>>;

/// A body that arrives part by part.
pub(crate) struct Parts {
    parts: mpsc::Receiver<Result<Bytes, Cut>>,
    /// Hyper drops the body when it is complete or its client has gone.
    _cancel: CancelOnDrop,
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let part = self.parts.poll_recv(context);
        part.map(|part| part.map(|part| part.map(Frame::data)))
    }
}

/// An answer as a server gives it.
pub(crate) fn passed_on(
    head: Head,
    parts: mpsc::Receiver<Result<Bytes, Cut>>,
    cancel: CancelOnDrop,
) -> Reply {
    let body = Parts {
        parts,
        _cancel: cancel,
    };
    let mut reply = Response::new(Either::Right(body));
    *reply.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = reply.headers_mut();
    let content_type = head.content_type.as_deref().map(HeaderValue::from_str);
    if let Some(Ok(value)) = content_type {
        headers.insert(CONTENT_TYPE, value);
    }
    if let Some(seconds) = head.retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if let Ok(value) = HeaderValue::from_str(&head.address.to_string()) {
        headers.insert(UPSTREAM, value);
    }
    reply
}

/// A reply of the proxy's own.
pub(crate) fn own(status: StatusCode, content_type: &'static str, body: String) -> Reply {
    let mut reply = Response::new(Either::Left(Full::new(body.into())));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    reply
}

/// An error in the form of the API.
pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Reply {
    let kind = match status.is_server_error() {
        true => "server_error",
        false => "invalid_request_error",
    };
    let error = json!({ "message": message, "type": kind, "param": null, "code": code });
    own(
        status,
        "application/json",
        json!({ "error": error }).to_string(),
    )
}

/// The error that stands for a request without an answer.
pub(crate) fn failure(failure: Failure, pause: u64) -> Reply {
    match failure {
        Failure::NoUpstream(upstreams) => {
            let refused = upstreams.iter().any(|(_, _, refused)| *refused);
            let words: Vec<String> = upstreams
                .iter()
                .map(|(address, words, _)| format!("{address}: {words}"))
                .collect();
            let words = words.join("; ");
            if refused {
                let message =
                    format!("no server passed its verification, and nothing was sent: {words}");
                return error(StatusCode::BAD_GATEWAY, "no_verified_upstream", &message);
            }
            let message = format!("no server can be reached: {words}");
            let mut reply = error(StatusCode::SERVICE_UNAVAILABLE, "no_upstream", &message);
            reply.headers_mut().insert(RETRY_AFTER, pause.max(1).into());
            reply
        }
        Failure::Upstream(address, cause) => {
            let status = match cause {
                client::Error::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
                _ => StatusCode::BAD_GATEWAY,
            };
            error(status, "upstream_failed", &format!("{address}: {cause}"))
        }
        // For nobody.
        Failure::Cancelled => error(StatusCode::BAD_GATEWAY, "cancelled", "the client has gone"),
    }
}

/// Says so in a reply if weaker modes are in force.
pub(crate) fn mark(reply: &mut Reply, modes: &[WeakerMode]) {
    for mode in modes {
        let value = HeaderValue::from_static(mode.name());
        reply.headers_mut().append(WEAKER_MODE, value);
    }
}
