//! Reading requests: bytes in, [`Request`]s out, limits kept throughout.

use alloc::{string::String, vec::Vec};
use core::mem;

use super::{HttpError, chunked};

/// Header fields in one request.
const MAX_HEADERS: usize = 64;

/// What one request may consist of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Request line and header fields, in bytes.
    pub(crate) header_bytes: usize,
    /// The body after decoding, in bytes.
    pub(crate) body_bytes: usize,
}

/// The methods that anything here answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    /// A method of RFC 9110 that no resource here has.
    Other,
}

/// One request, complete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// The path of the target, still percent-encoded, without the query.
    pub(crate) path: String,
    pub(crate) http_1_1: bool,
    /// Whether the client wants to use the connection again.
    pub(crate) keep_alive: bool,
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// What the reader is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The first byte of a request.
    Idle,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body,
}

/// What has come of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing yet; all input was consumed.
    More,
    /// The client waits for `100 Continue` before it sends the body.
    Continue,
    Request(Request),
}

/// How the end of a body is found.
#[derive(Debug)]
enum Framing {
    /// This many bytes are still to come.
    Length(usize),
    Chunked(chunked::Decoder),
}

/// Reads the requests of one connection, one after the other.
#[derive(Debug)]
pub(crate) struct RequestReader {
    limits: Limits,
    head: Vec<u8>,
    body: Option<(Request, Framing)>,
}

impl RequestReader {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            head: Vec::new(),
            body: None,
        }
    }

    /// What the reader is waiting for.
    pub(crate) fn stage(&self) -> Stage {
        match self.body {
            Some(_) => Stage::Body,
            None if self.head.is_empty() => Stage::Idle,
            None => Stage::Head,
        }
    }

    /// Consumes `input` up to the end of the current request at most.
    ///
    /// # Errors
    /// Any [`HttpError`]; the reader must not be used after one.
    pub(crate) fn advance(&mut self, input: &mut Vec<u8>) -> Result<Progress, HttpError> {
        if self.body.is_none() {
            if !self.collect_head(input)? {
                return Ok(Progress::More);
            }
            let head = mem::take(&mut self.head);
            let (request, framing, wants_continue) = parse_head(&head, &self.limits)?;
            self.body = Some((request, framing));
            if wants_continue && input.is_empty() {
                return Ok(Progress::Continue);
            }
        }
        let Some((mut request, mut framing)) = self.body.take() else {
            return Ok(Progress::More);
        };
        let (used, complete) = match &mut framing {
            Framing::Length(remaining) => {
                let used = input.len().min(*remaining);
                request.body.extend_from_slice(&input[..used]);
                *remaining -= used;
                (used, *remaining == 0)
            }
            Framing::Chunked(decoder) => {
                decoder.decode(input, &mut request.body, self.limits.body_bytes)?
            }
        };
        input.drain(..used);
        if complete {
            return Ok(Progress::Request(request));
        }
        self.body = Some((request, framing));
        Ok(Progress::More)
    }

    /// Moves bytes from `input` to the head until it is complete. Returns whether it is.
    fn collect_head(&mut self, input: &mut Vec<u8>) -> Result<bool, HttpError> {
        let held = self.head.len();
        self.head.append(input);
        for index in held..self.head.len() {
            let line_ended = self.head[index] == b'\n';
            if line_ended && !self.head[..index].ends_with(b"\r") {
                return Err(HttpError::Malformed("a line does not end in CR LF"));
            }
            // RFC 9112, 2.2: an empty line before the request line is ignored. One is.
            if index == 1 && line_ended {
                continue;
            }
            if line_ended && self.head[..=index].ends_with(b"\r\n\r\n") {
                *input = self.head.split_off(index + 1);
                return Ok(true);
            }
            if index >= self.limits.header_bytes {
                let request_line_ended = self.head[2..=index].contains(&b'\n');
                return Err(if request_line_ended {
                    HttpError::HeadersTooLarge
                } else {
                    HttpError::TargetTooLong
                });
            }
        }
        Ok(false)
    }
}

/// Parses a complete head. Also returns how the body is framed and whether the client waits for
/// `100 Continue`.
fn parse_head(head: &[u8], limits: &Limits) -> Result<(Request, Framing, bool), HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(HttpError::Malformed("the request line is missing")),
        Err(httparse::Error::TooManyHeaders) => return Err(HttpError::HeadersTooLarge),
        Err(httparse::Error::Version) if names_other_version(head) => {
            return Err(HttpError::Version);
        }
        Err(httparse::Error::HeaderName) => {
            return Err(HttpError::Malformed("a header name is invalid"));
        }
        Err(httparse::Error::HeaderValue) => {
            return Err(HttpError::Malformed("a header value is invalid"));
        }
        Err(_) => return Err(HttpError::Malformed("the request line is invalid")),
    }
    let http_1_1 = parsed.version == Some(1);
    let fields = Fields(parsed.headers);
    if http_1_1 && fields.one("host")?.is_none() {
        return Err(HttpError::Malformed("HTTP/1.1 needs a Host header"));
    }
    let method = match parsed.method.unwrap_or_default() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" | "DELETE" | "PATCH" | "OPTIONS" | "TRACE" | "CONNECT" => Method::Other,
        _ => return Err(HttpError::NotImplemented("this method")),
    };
    let framing = framing(&fields, method, http_1_1, limits)?;
    let wants_continue = match fields.one("expect")? {
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => {
            http_1_1 && !matches!(framing, Framing::Length(0))
        }
        Some(_) => return Err(HttpError::UnknownExpectation),
        None => false,
    };
    let request = Request {
        method,
        path: path_of(parsed.path.unwrap_or_default()),
        http_1_1,
        keep_alive: if http_1_1 {
            !fields.has_token("connection", "close")
        } else {
            fields.has_token("connection", "keep-alive")
        },
        content_type: fields.text("content-type")?,
        content_encoding: fields.text("content-encoding")?,
        body: Vec::new(),
    };
    Ok((request, framing, wants_continue))
}

/// RFC 9112, 6: exactly one way to find the end of the body, or an error.
fn framing(
    fields: &Fields<'_>,
    method: Method,
    http_1_1: bool,
    limits: &Limits,
) -> Result<Framing, HttpError> {
    let length = fields.one("content-length")?;
    let Some(coding) = fields.one("transfer-encoding")? else {
        let Some(length) = length else {
            return match method {
                Method::Post => Err(HttpError::LengthRequired),
                _ => Ok(Framing::Length(0)),
            };
        };
        if length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
            return Err(HttpError::Malformed("Content-Length is not a number"));
        }
        // A number too big to represent is too big to accept.
        return match core::str::from_utf8(length).map(str::parse) {
            Ok(Ok(length)) if length <= limits.body_bytes => Ok(Framing::Length(length)),
            _ => Err(HttpError::BodyTooLarge(limits.body_bytes)),
        };
    };
    if length.is_some() {
        return Err(HttpError::Malformed(
            "Content-Length and Transfer-Encoding exclude each other",
        ));
    }
    if !http_1_1 {
        return Err(HttpError::Malformed("HTTP/1.0 has no Transfer-Encoding"));
    }
    if !coding.eq_ignore_ascii_case(b"chunked") {
        return Err(HttpError::NotImplemented("this transfer coding"));
    }
    Ok(Framing::Chunked(chunked::Decoder::new()))
}

/// Whether the request line ends in an HTTP version that is just not ours.
fn names_other_version(head: &[u8]) -> bool {
    let mut lines = head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let version = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    version
        .strip_prefix(b"HTTP/")
        .is_some_and(|number| matches!(number, [major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit()))
}

/// The path of a request target in origin or absolute form (RFC 9112, 3.2), without its query.
fn path_of(target: &str) -> String {
    let origin = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => {
            rest.find('/').map_or("/", |at| &rest[at..])
        }
        _ => target,
    };
    let end = origin.find(['?', '#']).unwrap_or(origin.len());
    String::from(&origin[..end])
}

/// The header fields of a request, looked up without regard to case.
struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value.trim_ascii())
    }

    /// The value of a field that must not occur twice.
    fn one(&self, name: &str) -> Result<Option<&'a [u8]>, HttpError> {
        let mut values = self.all(name);
        let first = values.next();
        match values.next() {
            Some(_) => Err(HttpError::Malformed("a header occurs more than once")),
            None => Ok(first),
        }
    }

    /// The value of a field that must not occur twice and must be text.
    fn text(&self, name: &str) -> Result<Option<String>, HttpError> {
        let value = self.one(name)?.map(core::str::from_utf8).transpose();
        let value = value.map_err(|_| HttpError::Malformed("a header is not text"))?;
        Ok(value.map(String::from))
    }

    /// Whether a comma-separated field contains `token`.
    fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }
}

#[cfg(test)]
mod tests;
