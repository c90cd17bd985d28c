//! The messages by which QEMU asks Intel's quote generation service (QGS) for a quote, and a service that answers them.
//!
//! On the socket each message follows its length, four bytes big-endian. A message is a header of 16 bytes — major and minor version
//! (16 bits each), type, size with header, error code (32 bits each) — and a body, all little-endian (Intel DCAP, `qgs_msg_lib.h`,
//! version 1.1):
//!
//! | type | body |
//! |---|---|
//! | 0, request | size of the report, size of the list of identities, report, list |
//! | 1, answer | size of the chosen identity, size of the quote, identity, quote |
//!
//! A request of exactly 1024 bytes is a bare TDREPORT, and its answer a bare quote: the form that older guests speak themselves.

use std::fmt;
use std::io::{self, Read, Write};

/// Bytes before a body.
const HEADER: usize = 16;
const MAJOR: u16 = 1;
const MINOR: u16 = 1;
const GET_QUOTE_REQUEST: u32 = 0;
const GET_QUOTE_ANSWER: u32 = 1;
/// A bare TDREPORT.
const BARE: usize = 1024;
/// The largest message taken: a quote with a chain of certificates of any sort is far smaller.
const MESSAGE_LIMIT: usize = 1 << 20;

/// Why a service gives no quote, as its answer says it: Intel's names and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ErrorCode {
    Unexpected = 0x12001,
    OutOfMemory = 0x12002,
    InvalidParameter = 0x12003,
    InvalidVersion = 0x12004,
    InvalidType = 0x12005,
    InvalidSize = 0x12006,
    InvalidCode = 0x12007,
}

/// A request for a quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    pub report: &'a [u8],
    /// Whether the report came without a header, so that the quote has to go without one.
    pub bare: bool,
}

/// Why an answer has no quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoQuote {
    /// The service says so, with this code.
    Refused(u32),
    /// The answer is not one.
    Malformed,
}

impl fmt::Display for NoQuote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code) => write!(f, "the quote service refused with code {code:#x}"),
            Self::Malformed => f.write_str("the quote service's answer makes no sense"),
        }
    }
}

impl std::error::Error for NoQuote {}

impl<'a> Request<'a> {
    /// Reads a message; the error is what to answer.
    pub fn decode(message: &'a [u8]) -> Result<Self, ErrorCode> {
        if message.len() == BARE {
            return Ok(Self {
                report: message,
                bare: true,
            });
        }
        let (kind, error, body) = split(message)?;
        if kind != GET_QUOTE_REQUEST {
            return Err(ErrorCode::InvalidType);
        }
        if error != 0 {
            return Err(ErrorCode::InvalidCode);
        }
        let (report, _identities) = two_parts(body).ok_or(ErrorCode::InvalidSize)?;
        Ok(Self {
            report,
            bare: false,
        })
    }

    /// The message with which QEMU asks.
    pub fn encode(report: &[u8]) -> Vec<u8> {
        message(GET_QUOTE_REQUEST, 0, &[report, &[]])
    }

    /// The message that answers this request.
    pub fn answer(&self, quote: Result<&[u8], ErrorCode>) -> Vec<u8> {
        match quote {
            Ok(quote) if self.bare => quote.to_vec(),
            Ok(quote) => message(GET_QUOTE_ANSWER, 0, &[&[], quote]),
            Err(code) => refusal(code),
        }
    }
}

/// The message that refuses.
pub fn refusal(code: ErrorCode) -> Vec<u8> {
    message(GET_QUOTE_ANSWER, code as u32, &[&[], &[]])
}

/// The quote in an answer, as QEMU takes it: without an identity.
pub fn quote(answer: &[u8]) -> Result<&[u8], NoQuote> {
    let (kind, error, body) = split(answer).map_err(|_| NoQuote::Malformed)?;
    if kind != GET_QUOTE_ANSWER {
        return Err(NoQuote::Malformed);
    }
    if error != 0 {
        return Err(NoQuote::Refused(error));
    }
    match two_parts(body) {
        Some(([], quote)) if !quote.is_empty() => Ok(quote),
        _ => Err(NoQuote::Malformed),
    }
}

/// Reads a message off a socket.
pub fn receive(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MESSAGE_LIMIT {
        let reason = format!("a message of {length} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    let mut message = vec![0; length];
    from.read_exact(&mut message)?;
    Ok(message)
}

/// Writes a message to a socket.
pub fn send(to: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a message of over 4 GiB"))?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(message)
}

/// Answers the requests on one connection until its other end closes it.
pub fn serve(
    connection: &mut (impl Read + Write),
    quoting: impl Fn(&[u8]) -> Result<Vec<u8>, ErrorCode>,
) -> io::Result<()> {
    loop {
        let message = match receive(connection) {
            Ok(message) => message,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let answer = match Request::decode(&message) {
            Ok(request) => {
                let quote = quoting(request.report);
                request.answer(quote.as_deref().map_err(|&code| code))
            }
            Err(code) => refusal(code),
        };
        send(connection, &answer)?;
    }
}

/// Type, error code and body of a message with a sound header.
fn split(message: &[u8]) -> Result<(u32, u32, &[u8]), ErrorCode> {
    let (header, body) = message
        .split_first_chunk::<HEADER>()
        .ok_or(ErrorCode::InvalidSize)?;
    let [m0, m1, _, _, k0, k1, k2, k3, s0, s1, s2, s3, e0, e1, e2, e3] = *header;
    if u16::from_le_bytes([m0, m1]) != MAJOR {
        return Err(ErrorCode::InvalidVersion);
    }
    if u32::from_le_bytes([s0, s1, s2, s3]) as usize != message.len() {
        return Err(ErrorCode::InvalidSize);
    }
    let kind = u32::from_le_bytes([k0, k1, k2, k3]);
    Ok((kind, u32::from_le_bytes([e0, e1, e2, e3]), body))
}

/// Two byte strings behind their two sizes, and nothing else.
fn two_parts(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = body.split_first_chunk()?;
    let (second, rest) = rest.split_first_chunk()?;
    let (first, second) = (u32::from_le_bytes(*first), u32::from_le_bytes(*second));
    let (first, rest) = rest.split_at_checked(first as usize)?;
    (rest.len() == second as usize).then_some((first, rest))
}

/// A message of two byte strings. They are reports and quotes, so their sizes fit.
fn message(kind: u32, error: u32, parts: &[&[u8]; 2]) -> Vec<u8> {
    let size = HEADER + 8 + parts[0].len() + parts[1].len();
    let mut message = Vec::with_capacity(size);
    message.extend(MAJOR.to_le_bytes());
    message.extend(MINOR.to_le_bytes());
    for word in [
        kind,
        size as u32,
        error,
        parts[0].len() as u32,
        parts[1].len() as u32,
    ] {
        message.extend(word.to_le_bytes());
    }
    message.extend(parts.concat());
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_has_the_bytes_that_qemu_sends() {
        let request = Request::encode(&[0x81; 1024]);
        assert_eq!(request.len(), 1048);
        assert_eq!(request[..8], [1, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(request[8..16], [0x18, 4, 0, 0, 0, 0, 0, 0]);
        assert_eq!(request[16..24], [0, 4, 0, 0, 0, 0, 0, 0]);
        let decoded = Request::decode(&request).unwrap();
        assert_eq!((decoded.report, decoded.bare), (&[0x81; 1024][..], false));
    }

    #[test]
    fn quotes_and_refusals_arrive() {
        let request = Request::encode(&[0; 1024]);
        let request = Request::decode(&request).unwrap();
        assert_eq!(quote(&request.answer(Ok(b"quote"))), Ok(&b"quote"[..]));
        let refusal = request.answer(Err(ErrorCode::InvalidParameter));
        assert_eq!(quote(&refusal), Err(NoQuote::Refused(0x12003)));
    }

    #[test]
    fn a_bare_report_gets_a_bare_quote() {
        let request = Request::decode(&[0x81; 1024]).unwrap();
        assert!(request.bare);
        assert_eq!(request.answer(Ok(b"quote")), b"quote");
    }

    #[test]
    fn what_is_wrong_has_its_code() {
        let good = Request::encode(&[0; 100]);
        for (at, value, code) in [
            (0, 2, ErrorCode::InvalidVersion),
            (4, 1, ErrorCode::InvalidType),
            (4, 4, ErrorCode::InvalidType),
            (8, 0, ErrorCode::InvalidSize),
            (12, 1, ErrorCode::InvalidCode),
            (16, 101, ErrorCode::InvalidSize),
            (19, 0xff, ErrorCode::InvalidSize),
            (20, 1, ErrorCode::InvalidSize),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(Request::decode(&bad), Err(code), "byte {at}");
        }
        for length in 0..good.len() {
            assert_eq!(
                Request::decode(&good[..length]),
                Err(ErrorCode::InvalidSize)
            );
        }
    }

    #[test]
    fn an_answer_with_an_identity_or_without_a_quote_is_none() {
        for parts in [[&b"id"[..], b"quote"], [b"", b""]] {
            let answer = message(GET_QUOTE_ANSWER, 0, &parts);
            assert_eq!(quote(&answer), Err(NoQuote::Malformed));
        }
        assert_eq!(quote(&Request::encode(b"report")), Err(NoQuote::Malformed));
    }

    #[test]
    fn lengths_on_the_socket_are_big_endian_and_bounded() {
        let mut socket = Vec::new();
        send(&mut socket, &[7; 300]).unwrap();
        assert_eq!(socket[..4], [0, 0, 1, 0x2c]);
        assert_eq!(receive(&mut &socket[..]).unwrap(), [7; 300]);
        // The same length little-endian, which some other software writes.
        let mistaken = 0x0418_u32.to_le_bytes();
        let error = receive(&mut &mistaken[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(receive(&mut &socket[..100]).is_err());
    }

    proptest! {
        #[test]
        fn any_message_is_survived(message: Vec<u8>, mut sized: Vec<u8>) {
            let _ = Request::decode(&message);
            let _ = quote(&message);
            // With a sound header, so that the body is looked at.
            let size = sized.len() as u32;
            if let Some(header) = sized.first_chunk_mut::<HEADER>() {
                *header = [0; HEADER];
                header[0] = 1;
                header[8..12].copy_from_slice(&size.to_le_bytes());
                let _ = Request::decode(&sized);
                sized[4] = 1;
                let _ = quote(&sized);
            }
        }
    }
}
