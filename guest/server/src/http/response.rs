//! Writing responses.

use alloc::{string::String, vec::Vec};
use core::fmt::Write;

use super::{Method, Request};

/// A status code with its reason phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(u16, &'static str);

impl Status {
    pub(crate) const OK: Self = Self(200, "OK");
    pub(crate) const ACCEPTED: Self = Self(202, "Accepted");
    pub(crate) const BAD_REQUEST: Self = Self(400, "Bad Request");
    pub(crate) const FORBIDDEN: Self = Self(403, "Forbidden");
    pub(crate) const NOT_FOUND: Self = Self(404, "Not Found");
    pub(crate) const METHOD_NOT_ALLOWED: Self = Self(405, "Method Not Allowed");
    pub(crate) const REQUEST_TIMEOUT: Self = Self(408, "Request Timeout");
    pub(crate) const CONFLICT: Self = Self(409, "Conflict");
    pub(crate) const LENGTH_REQUIRED: Self = Self(411, "Length Required");
    pub(crate) const CONTENT_TOO_LARGE: Self = Self(413, "Content Too Large");
    pub(crate) const URI_TOO_LONG: Self = Self(414, "URI Too Long");
    pub(crate) const UNSUPPORTED_MEDIA_TYPE: Self = Self(415, "Unsupported Media Type");
    pub(crate) const EXPECTATION_FAILED: Self = Self(417, "Expectation Failed");
    pub(crate) const TOO_MANY_REQUESTS: Self = Self(429, "Too Many Requests");
    pub(crate) const HEADERS_TOO_LARGE: Self = Self(431, "Request Header Fields Too Large");
    pub(crate) const INTERNAL_SERVER_ERROR: Self = Self(500, "Internal Server Error");
    pub(crate) const NOT_IMPLEMENTED: Self = Self(501, "Not Implemented");
    pub(crate) const SERVICE_UNAVAILABLE: Self = Self(503, "Service Unavailable");
    pub(crate) const VERSION_NOT_SUPPORTED: Self = Self(505, "HTTP Version Not Supported");

    /// The number, for programs.
    pub(crate) fn code(self) -> u16 {
        self.0
    }
}

/// A complete response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: Status,
    pub(crate) content_type: &'static str,
    /// Header fields beyond those every response has.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

/// How the response to one request is to be written: what the request said about the connection, and
/// how far the response has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    /// HTTP/1.1 rather than 1.0, so that a body of unknown length can be chunked.
    chunked: bool,
    keep_alive: bool,
    head_only: bool,
}

impl Exchange {
    /// The exchange `request` starts.
    pub(crate) fn for_request(request: &Request) -> Self {
        Self {
            chunked: request.http_1_1,
            keep_alive: request.keep_alive,
            head_only: request.method == Method::Head,
        }
    }

    /// The exchange that answers bytes which never became a request: the last one of its connection.
    pub(crate) fn last() -> Self {
        Self {
            chunked: true,
            keep_alive: false,
            head_only: false,
        }
    }

    /// Whether the connection can carry another request after this response.
    pub(crate) fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Writes a complete response.
    pub(crate) fn respond(&self, response: &Response, out: &mut Vec<u8>) {
        self.head(response.status, response.content_type, out);
        for (name, value) in &response.headers {
            header(name, value, out);
        }
        header("Content-Length", response.body.len(), out);
        out.extend_from_slice(b"\r\n");
        if !self.head_only {
            out.extend_from_slice(&response.body);
        }
    }

    /// Writes the head of a successful response whose body follows in pieces.
    pub(crate) fn begin(&mut self, content_type: &str, out: &mut Vec<u8>) {
        // Without chunks only the end of the connection can end the body.
        self.keep_alive &= self.chunked;
        self.head(Status::OK, content_type, out);
        if self.chunked {
            header("Transfer-Encoding", "chunked", out);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Writes one piece of the body; an empty piece is nothing at all.
    pub(crate) fn piece(&self, bytes: &[u8], out: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        if self.chunked {
            print(format_args!("{:x}\r\n", bytes.len()), out);
        }
        out.extend_from_slice(bytes);
        if self.chunked {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Ends a body written in pieces.
    pub(crate) fn end(&self, out: &mut Vec<u8>) {
        if self.chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
    }

    fn head(&self, status: Status, content_type: &str, out: &mut Vec<u8>) {
        let Status(code, reason) = status;
        print(format_args!("HTTP/1.1 {code} {reason}\r\n"), out);
        header("Content-Type", content_type, out);
        header("Cache-Control", "no-store", out);
        let connection = if self.keep_alive {
            "keep-alive"
        } else {
            "close"
        };
        header("Connection", connection, out);
    }
}

fn header(name: &str, value: impl core::fmt::Display, out: &mut Vec<u8>) {
    print(format_args!("{name}: {value}\r\n"), out);
}

/// Formats into a byte buffer, which cannot fail.
fn print(arguments: core::fmt::Arguments<'_>, out: &mut Vec<u8>) {
    struct Bytes<'a>(&'a mut Vec<u8>);
    impl Write for Bytes<'_> {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    let _ = Bytes(out).write_fmt(arguments);
}
