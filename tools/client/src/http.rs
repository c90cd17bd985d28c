//! HTTP/1.1, the part a client of one known server needs, read strictly and within bounds (RFC 9112).
//!
//! The server is not trusted with the client's memory: the head, each chunk line and the trailer are bounded here, whole bodies
//! by the caller. A body's length is told once, by `Content-Length` or by chunks; anything else is an error, never a guess.

use core::time::Duration;
use std::io::{BufRead, BufReader, Read, Write};

use crate::error::Error;

/// Bytes of a response's head, and of a trailer.
const HEAD_LIMIT: u64 = 16 * 1024;
/// Header fields in a response.
const FIELD_LIMIT: usize = 64;
/// Bytes of the line before a chunk.
const CHUNK_LINE_LIMIT: u64 = 256;

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Head {
    pub status: u16,
    /// Seconds of a `Retry-After` field.
    pub retry_after: Option<u64>,
    /// The `Content-Type` field.
    pub content_type: Option<String>,
    /// The connection can carry another request once the body is read.
    pub keep_alive: bool,
    body: Framing,
}

impl Head {
    /// Whether the body was read to its end.
    pub fn is_finished(&self) -> bool {
        self.body == Framing::Done
    }
}

/// How much of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// This many bytes.
    Length(u64),
    /// This many bytes of the current chunk; 0 before the first and between two.
    Chunked {
        left: u64,
        first: bool,
    },
    Done,
}

/// One connection: requests go out, answers come in, in turn.
pub(crate) struct Connection<S: Read + Write> {
    stream: BufReader<S>,
    timeout: Duration,
}

impl<S: Read + Write> Connection<S> {
    /// `timeout` is the one set on the stream; it only words the error.
    pub fn new(stream: S, timeout: Duration) -> Self {
        Self {
            stream: BufReader::new(stream),
            timeout,
        }
    }

    /// Another one is set on the stream.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// The stream below.
    pub fn stream(&self) -> &S {
        self.stream.get_ref()
    }

    /// Sends a request; a body is JSON. `path` is graphic ASCII, `host` comes from a parsed address.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        host: &str,
        body: Option<&[u8]>,
    ) -> Result<(), Error> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
        if let Some(body) = body {
            request.extend_from_slice(
                format!(
                    "Content-Type: application/json\r\nContent-Length: {}\r\n",
                    body.len()
                )
                .as_bytes(),
            );
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body.unwrap_or_default());
        let stream = self.stream.get_mut();
        stream
            .write_all(&request)
            .and_then(|()| stream.flush())
            .map_err(|error| Error::from_io(error, self.timeout))
    }

    /// Reads the head of the answer.
    pub fn read_head(&mut self) -> Result<Head, Error> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let before = head.len();
            self.read_line(&mut head, HEAD_LIMIT, "the head is too long")?;
            if head.len() == before {
                return Err(Error::Closed);
            }
        }
        parse_head(&head)
    }

    /// Reads the next part of a body into `out` (replacing what it held); empty at the end.
    pub fn read_body(&mut self, head: &mut Head, out: &mut Vec<u8>) -> Result<(), Error> {
        out.clear();
        if let Framing::Chunked { left: 0, first } = head.body {
            head.body = self.next_chunk(first)?;
        }
        let left = match head.body {
            Framing::Length(left) | Framing::Chunked { left, .. } => left,
            Framing::Done => return Ok(()),
        };
        if left == 0 {
            head.body = Framing::Done;
            return Ok(());
        }
        let available = self
            .stream
            .fill_buf()
            .map_err(|error| Error::from_io(error, self.timeout))?;
        if available.is_empty() {
            return Err(Error::Closed);
        }
        let take = available
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        out.extend(available.iter().take(take));
        self.stream.consume(take);
        let left = left - take as u64;
        head.body = match head.body {
            Framing::Chunked { .. } => Framing::Chunked { left, first: false },
            _ => Framing::Length(left),
        };
        Ok(())
    }

    /// Reads a whole body of at most `limit` bytes.
    pub fn read_whole(&mut self, head: &mut Head, limit: usize) -> Result<Vec<u8>, Error> {
        let mut whole = Vec::new();
        let mut part = Vec::new();
        loop {
            self.read_body(head, &mut part)?;
            if part.is_empty() {
                return Ok(whole);
            }
            if part.len() > limit - whole.len() {
                return Err(Error::Protocol("the body is too long"));
            }
            whole.append(&mut part);
        }
    }

    /// The end of the chunk before, the size line of the next, and after the last one the trailer.
    fn next_chunk(&mut self, first: bool) -> Result<Framing, Error> {
        let mut line = Vec::new();
        if !first {
            self.read_line(
                &mut line,
                CHUNK_LINE_LIMIT,
                "a chunk is longer than its size",
            )?;
            if line != b"\r\n" {
                return Err(Error::Protocol("a chunk is longer than its size"));
            }
            line.clear();
        }
        self.read_line(
            &mut line,
            CHUNK_LINE_LIMIT,
            "a chunk's size line is too long",
        )?;
        let left = parse_chunk_size(&line).ok_or(Error::Protocol("a chunk's size is malformed"))?;
        if left > 0 {
            return Ok(Framing::Chunked { left, first: false });
        }
        let mut trailer = Vec::new();
        loop {
            let before = trailer.len();
            self.read_line(&mut trailer, HEAD_LIMIT, "the trailer is too long")?;
            match trailer.get(before..) {
                Some(b"\r\n") => return Ok(Framing::Done),
                Some([]) | None => return Err(Error::Closed),
                Some(_) => {}
            }
        }
    }

    /// Appends one line with its line feed; nothing at the end of the stream. `limit` bounds all of `out`.
    fn read_line(
        &mut self,
        out: &mut Vec<u8>,
        limit: u64,
        too_long: &'static str,
    ) -> Result<(), Error> {
        let room = limit.saturating_sub(out.len() as u64);
        let read = (&mut self.stream)
            .take(room)
            .read_until(b'\n', out)
            .map_err(|error| Error::from_io(error, self.timeout))?;
        match out.last() {
            Some(b'\n') => Ok(()),
            _ if read as u64 == room => Err(Error::Protocol(too_long)),
            _ if read == 0 => Ok(()),
            _ => Err(Error::Closed),
        }
    }
}

/// Size in hexadecimal, then optional extensions, which mean nothing here.
fn parse_chunk_size(line: &[u8]) -> Option<u64> {
    let line = core::str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?;
    let digits = line.split(';').next()?.trim_end_matches([' ', '\t']);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

fn parse_head(bytes: &[u8]) -> Result<Head, Error> {
    let mut fields = [httparse::EMPTY_HEADER; FIELD_LIMIT];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) | Err(_) => {
            return Err(Error::Protocol("the head is malformed"));
        }
    }
    let (Some(1), Some(status)) = (response.version, response.code) else {
        return Err(Error::Protocol("the version is not HTTP/1.1"));
    };
    let mut length = None;
    let mut chunked = false;
    let mut head = Head {
        status,
        retry_after: None,
        content_type: None,
        keep_alive: true,
        body: Framing::Done,
    };
    for field in response.headers.iter() {
        let value = core::str::from_utf8(field.value)
            .map_err(|_| Error::Protocol("a header field is not UTF-8"))?
            .trim();
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let digits = value.bytes().all(|byte| byte.is_ascii_digit());
            let value = value.parse::<u64>().ok().filter(|_| digits);
            if length.is_some() || value.is_none() {
                return Err(Error::Protocol("Content-Length is not one number"));
            }
            length = value;
        } else if is("transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case("chunked") {
                return Err(Error::Protocol("Transfer-Encoding is not `chunked`"));
            }
            chunked = true;
        } else if is("connection") {
            let mut options = value.split(',').map(str::trim);
            head.keep_alive &= !options.any(|option| option.eq_ignore_ascii_case("close"));
        } else if is("retry-after") {
            head.retry_after = value.parse().ok();
        } else if is("content-type") {
            head.content_type = Some(value.to_owned());
        }
    }
    head.body = match (length, chunked) {
        (Some(length), false) => Framing::Length(length),
        (None, true) => Framing::Chunked {
            left: 0,
            first: true,
        },
        (Some(_), true) => return Err(Error::Protocol("the body has two lengths")),
        (None, false) => return Err(Error::Protocol("the body has no length")),
    };
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io;

    /// Reads a fixed answer in pieces of `step` bytes.
    struct Answer<'a> {
        bytes: &'a [u8],
        step: usize,
    }

    impl Read for Answer<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = out.len().min(self.step);
            self.bytes.read(&mut out[..n])
        }
    }

    impl Write for Answer<'_> {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn read(bytes: &[u8], step: usize) -> Result<(u16, Vec<u8>), Error> {
        let mut connection = Connection::new(Answer { bytes, step }, Duration::ZERO);
        let mut head = connection.read_head()?;
        let body = connection.read_whole(&mut head, 1 << 20)?;
        Ok((head.status, body))
    }

    #[test]
    fn reads_both_framings_in_any_pieces() {
        for step in 1..40 {
            let fixed = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloNEXT";
            assert_eq!(read(fixed, step).unwrap(), (200, b"hello".to_vec()));
            let chunked =
                b"HTTP/1.1 503 Later\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\nNEXT";
            assert_eq!(read(chunked, step).unwrap(), (503, b"hello".to_vec()));
        }
    }

    #[test]
    fn refuses_what_is_ambiguous_or_cut() {
        let broken: [&[u8]; 12] = [
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            b"HTTP/1.1 200 OK\r\nContent-",
            b"SSH-2.0-OpenSSH\r\n\r\n",
        ];
        for bytes in broken {
            assert!(read(bytes, 7).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn bounds_what_it_reads() {
        let mut endless = b"HTTP/1.1 200 OK\r\n".to_vec();
        endless.extend(b"A: b\r\n".repeat(10_000));
        assert!(matches!(read(&endless, 4096), Err(Error::Protocol(_))));
        let mut long = b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n".to_vec();
        long.resize(2_100_000, b'x');
        assert!(matches!(read(&long, 4096), Err(Error::Protocol(_))));
    }

    #[test]
    fn notices_the_end_of_keep_alive() {
        let head = parse_head(
            b"HTTP/1.1 429 Busy\r\nConnection: x, Close\r\nRetry-After: 3\r\ncontent-length: 0\r\n\r\n",
        )
        .unwrap();
        assert!(!head.keep_alive);
        assert_eq!(head.retry_after, Some(3));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(
            head in prop::sample::select(vec![
                "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            ]),
            tail in prop::collection::vec(any::<u8>(), 0..200),
            step in 1usize..50,
        ) {
            let mut bytes = head.as_bytes().to_vec();
            bytes.extend(tail);
            let _ = read(&bytes, step);
        }
    }
}
