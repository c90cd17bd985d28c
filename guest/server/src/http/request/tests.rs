use alloc::{format, vec};

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    header_bytes: 1024,
    body_bytes: 64,
};

/// Reads all requests in `input`, cut at `cuts`, up to the first error.
fn read(input: &[u8], cuts: &[usize]) -> (Vec<Request>, Option<HttpError>) {
    let mut reader = RequestReader::new(LIMITS);
    let mut requests = Vec::new();
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.push(input.len());
    cuts.sort_unstable();
    let mut pending = Vec::new();
    let mut start = 0;
    for end in cuts {
        pending.extend_from_slice(&input[start..end]);
        start = end;
        loop {
            match reader.advance(&mut pending) {
                Ok(Progress::Request(request)) => {
                    requests.push(request);
                    reader = RequestReader::new(LIMITS);
                }
                Ok(Progress::Continue) => {}
                Ok(Progress::More) => {
                    assert!(pending.is_empty());
                    break;
                }
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

/// The one request in `input`, or why it is none.
fn one(input: &str) -> Result<Request, HttpError> {
    match read(input.as_bytes(), &[]) {
        (_, Some(error)) => Err(error),
        (mut requests, None) => Ok(requests.pop().expect("a complete request")),
    }
}

fn post(headers: &str, body: &str) -> Result<Request, HttpError> {
    one(&format!(
        "POST /x HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}"
    ))
}

#[test]
fn reads_a_get() {
    let request = one("GET /v1/models?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(request.method, Method::Get);
    assert_eq!(request.path, "/v1/models");
    assert!(request.http_1_1 && request.keep_alive && request.body.is_empty());
}

#[test]
fn reads_bodies_of_both_framings() {
    let request = post(
        "Content-Length: 3\r\nContent-Type: application/json\r\n",
        "abc",
    )
    .unwrap();
    assert_eq!(request.body, b"abc");
    assert_eq!(request.content_type.as_deref(), Some("application/json"));
    let request = post(
        "Transfer-Encoding: Chunked\r\n",
        "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
    )
    .unwrap();
    assert_eq!(request.body, b"abc");
}

#[test]
fn reads_pipelined_requests_and_one_leading_empty_line() {
    let (requests, error) = read(
        b"\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\nPOST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\
          \r\nxGET /c HTTP/1.0\r\n\r\n",
        &[],
    );
    assert_eq!(error, None);
    let paths: Vec<_> = requests
        .iter()
        .map(|request| request.path.as_str())
        .collect();
    assert_eq!(paths, ["/a", "/b", "/c"]);
}

#[test]
fn keep_alive_follows_version_and_header() {
    let keep = |version: &str, header: &str| {
        let request = format!("GET / HTTP/{version}\r\nHost: a\r\n{header}\r\n");
        one(&request).unwrap().keep_alive
    };
    assert!(keep("1.1", ""));
    assert!(!keep("1.1", "Connection: x, Close\r\n"));
    assert!(!keep("1.0", ""));
    assert!(keep("1.0", "Connection: Keep-Alive\r\n"));
}

#[test]
fn targets_have_two_forms() {
    let path = |target: &str| one(&format!("GET {target} HTTP/1.0\r\n\r\n")).unwrap().path;
    assert_eq!(path("/a/b?c"), "/a/b");
    assert_eq!(path("http://host:1/a?b"), "/a");
    assert_eq!(path("http://host"), "/");
    assert_eq!(path("/a?b://c/d"), "/a");
    assert_eq!(path("*"), "*");
}

#[test]
fn asks_to_continue_only_if_the_body_is_still_to_come() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n";
    let mut reader = RequestReader::new(LIMITS);
    assert_eq!(reader.advance(&mut head.into()), Ok(Progress::Continue));
    assert_eq!(reader.stage(), Stage::Body);
    assert!(matches!(
        reader.advance(&mut vec![b'a', b'b']),
        Ok(Progress::Request(_))
    ));
    let mut reader = RequestReader::new(LIMITS);
    let mut all = Vec::from(head);
    all.push(b'a');
    assert_eq!(reader.advance(&mut all), Ok(Progress::More));
    assert_eq!(
        post("Expect: wonders\r\nContent-Length: 0\r\n", ""),
        Err(HttpError::UnknownExpectation)
    );
}

#[test]
fn refuses_ambiguous_framing() {
    for headers in [
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length : 1\r\n",
        "Content-Length: 1\r\n folded: 1\r\n",
        "Host: b\r\nContent-Length: 0\r\n",
    ] {
        let result = post(headers, "x");
        assert!(
            matches!(result, Err(HttpError::Malformed(_))),
            "{headers:?}: {result:?}"
        );
    }
    for coding in [
        "gzip",
        "chunked, chunked",
        "gzip, chunked",
        "xchunked",
        "identity",
    ] {
        let result = post(&format!("Transfer-Encoding: {coding}\r\n"), "");
        assert!(
            matches!(result, Err(HttpError::NotImplemented(_))),
            "{coding}: {result:?}"
        );
    }
    let old = one("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert!(matches!(old, Err(HttpError::Malformed(_))));
}

#[test]
fn refuses_what_is_not_http() {
    for input in [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / FTP/1.1\r\n\r\n",
        "GET / HTTP/1.1x\r\nHost: a\r\n\r\n",
        "\r\n\r\n",
        "\u{16}\u{3}\u{1}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nb: \u{0}\r\n\r\n",
    ] {
        let result = one(input);
        assert!(
            matches!(result, Err(HttpError::Malformed(_))),
            "{input:?}: {result:?}"
        );
    }
}

#[test]
fn each_refusal_has_its_status() {
    let long = "x".repeat(2000);
    let many = "a: b\r\n".repeat(MAX_HEADERS + 1);
    for (result, expected) in [
        (one("GET / HTTP/2.0\r\n\r\n"), 505),
        (one("GET / HTTP/1.2\r\n\r\n"), 505),
        (one("BREW / HTTP/1.1\r\nHost: a\r\n\r\n"), 501),
        (one("POST / HTTP/1.1\r\nHost: a\r\n\r\n"), 411),
        (post("Content-Length: 65\r\n", ""), 413),
        (
            post("Content-Length: 99999999999999999999999999\r\n", ""),
            413,
        ),
        (post("Transfer-Encoding: chunked\r\n", "41\r\n"), 413),
        (one(&format!("GET /{long} HTTP/1.1\r\n\r\n")), 414),
        (one(&format!("GET / HTTP/1.1\r\nA: {long}\r\n\r\n")), 431),
        (
            one(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")),
            431,
        ),
    ] {
        assert_eq!(result.unwrap_err().status().code(), expected);
    }
}

/// Bytes that look like HTTP often enough to reach every state.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        Just(b"POST /v1 HTTP/1.1\r\nHost: a\r\n".to_vec()),
        Just(b"Content-Length: 5\r\n".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        Just(b"Expect: 100-continue\r\n".to_vec()),
        Just(b"5\r\nabcde\r\n".to_vec()),
        Just(b"0\r\n\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        "[ -~]{0,6}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn cuts_never_change_the_meaning(
        input in plausible(),
        cuts in proptest::collection::vec(any::<usize>(), 0..8),
    ) {
        let every_byte: Vec<_> = (0..input.len()).collect();
        let whole = read(&input, &[]);
        prop_assert_eq!(&whole, &read(&input, &cuts));
        prop_assert_eq!(&whole, &read(&input, &every_byte));
    }

    #[test]
    fn arbitrary_bytes_never_panic(input in proptest::collection::vec(any::<u8>(), 0..2000)) {
        read(&input, &[]);
    }
}
