//! What can be wrong with a message before anybody looks at what it asks for.

use core::fmt;

use super::Status;

/// A request that HTTP itself refuses. The connection cannot be used after it: where the next request
/// would begin is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpError {
    /// 400: not HTTP, or HTTP that allows two readings.
    Malformed(&'static str),
    /// 408: the request did not arrive in time.
    Timeout,
    /// 411: a POST that does not say how long its body is.
    LengthRequired,
    /// 413: the body exceeds the limit, in bytes.
    BodyTooLarge(usize),
    /// 414: the request line alone exceeds the limit for headers.
    TargetTooLong,
    /// 417: an expectation other than `100-continue`.
    UnknownExpectation,
    /// 431: the header section exceeds its limits.
    HeadersTooLarge,
    /// 501: a method or a transfer coding this server does not have.
    NotImplemented(&'static str),
    /// 505: neither HTTP/1.0 nor HTTP/1.1.
    Version,
}

impl HttpError {
    /// The status code that answers it.
    pub(crate) fn status(self) -> Status {
        match self {
            Self::Malformed(_) => Status::BAD_REQUEST,
            Self::Timeout => Status::REQUEST_TIMEOUT,
            Self::LengthRequired => Status::LENGTH_REQUIRED,
            Self::BodyTooLarge(_) => Status::CONTENT_TOO_LARGE,
            Self::TargetTooLong => Status::URI_TOO_LONG,
            Self::UnknownExpectation => Status::EXPECTATION_FAILED,
            Self::HeadersTooLarge => Status::HEADERS_TOO_LARGE,
            Self::NotImplemented(_) => Status::NOT_IMPLEMENTED,
            Self::Version => Status::VERSION_NOT_SUPPORTED,
        }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "malformed request: {what}"),
            Self::Timeout => f.write_str("the request did not arrive in time"),
            Self::LengthRequired => f.write_str("a request body needs a Content-Length"),
            Self::BodyTooLarge(limit) => {
                write!(f, "the request body is longer than {limit} bytes")
            }
            Self::TargetTooLong => f.write_str("the request target is too long"),
            Self::UnknownExpectation => f.write_str("the only known expectation is 100-continue"),
            Self::HeadersTooLarge => f.write_str("the request headers are too large"),
            Self::NotImplemented(what) => write!(f, "not implemented: {what}"),
            Self::Version => f.write_str("only HTTP/1.0 and HTTP/1.1 are spoken here"),
        }
    }
}

impl core::error::Error for HttpError {}
