//! HTTP/1.1 (RFC 9110, RFC 9112), server side, without I/O.
//!
//! Strict where leniency has been exploited: one framing per message, CRLF line ends, no folded
//! headers, no guessing. What a byte sequence means never depends on how it was cut into pieces.

mod chunked;
mod error;
mod request;
mod response;

pub(crate) use error::HttpError;
pub(crate) use request::{Limits, Method, Progress, Request, RequestReader, Stage};
pub(crate) use response::{Exchange, Response, Status};
