//! The client against a rustls server in this process: what it sends, accepts, refuses, and how it treats connections.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use client::{ChatRequest, Client, Error, Message, Options, Pinned, Sampling, State, Trust};
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use verifier::{Policy, TrustAnchor};

/// What the server does after reading a request.
#[derive(Clone)]
enum Reply {
    /// Writes these bytes and waits for the next request.
    Keep(String),
    /// Writes these bytes and closes.
    Close(String),
}

/// A server that answers the replies in turn, over however many connections, and reports each request.
struct TestServer {
    replies: Mutex<std::vec::IntoIter<Reply>>,
    requests: Sender<String>,
    connections: AtomicUsize,
    tls: Arc<ServerConfig>,
}

impl TestServer {
    fn new(replies: Vec<Reply>, matching_key: bool) -> (Arc<Self>, Receiver<String>) {
        let certificate = rcgen::generate_simple_self_signed(["guest".to_owned()]).unwrap();
        let key = match matching_key {
            true => certificate.signing_key.serialize_der(),
            false => rcgen::KeyPair::generate().unwrap().serialize_der(),
        };
        let key =
            ring::sign::any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key)))
                .unwrap();
        let certified = CertifiedKey::new(vec![certificate.cert.der().clone()], key);
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        let (requests, received) = channel();
        let server = Self {
            replies: Mutex::new(replies.into_iter()),
            requests,
            connections: AtomicUsize::new(0),
            tls: Arc::new(tls),
        };
        (Arc::new(server), received)
    }

    /// Serves one connection to its end.
    fn serve(&self, stream: impl Read + Write) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let mut stream = StreamOwned::new(
            ServerConnection::new(Arc::clone(&self.tls)).unwrap(),
            stream,
        );
        while let Some(request) = read_request(&mut stream) {
            self.requests.send(request).unwrap();
            let reply = self.replies.lock().unwrap().next();
            let (Some(Reply::Keep(bytes)) | Some(Reply::Close(bytes))) = &reply else {
                return;
            };
            // In small pieces, as a network may deliver them.
            for piece in bytes.as_bytes().chunks(7) {
                stream.write_all(piece).unwrap();
                stream.flush().unwrap();
            }
            if let Some(Reply::Close(_)) = reply {
                stream.conn.send_close_notify();
                let _ = stream.flush();
                return;
            }
        }
    }

    /// Serves every TCP connection; gives the address.
    fn listen(self: &Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let server = Arc::clone(self);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let server = Arc::clone(&server);
                thread::spawn(move || server.serve(stream.unwrap()));
            }
        });
        address
    }
}

/// Request line and body; `None` when the client has gone.
fn read_request(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    let line = head.lines().next().unwrap();
    Some(format!("{line}\n{}", String::from_utf8(body).unwrap()))
}

fn json(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn events(events: &[&str]) -> String {
    let mut answer =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_owned();
    for event in events {
        let event = format!("data: {event}\n\n");
        answer += &format!("{:x}\r\n{event}\r\n", event.len());
    }
    answer + "0\r\n\r\n"
}

fn client(address: &str, trust: Trust) -> Client {
    let options = Options {
        answer_timeout: Duration::from_secs(5),
        ..Options::new(trust)
    };
    Client::new(address.parse().unwrap(), options).unwrap()
}

fn evidence() -> Trust {
    Trust::Evidence(Arc::new(Pinned {
        policy: Policy::default(),
        anchor: TrustAnchor::intel(),
        collateral: None,
    }))
}

fn request() -> ChatRequest {
    ChatRequest {
        model: "m".into(),
        messages: vec![Message::new("user", "hi")],
        sampling: Sampling::default(),
        thinking: None,
    }
}

const HEALTH: &str = r#"{"state":"ready","isa":"avx2","vcpus":2}"#;
const HELLO: &str = r#"{"choices":[{"delta":{"content":"Hel"},"token_ids":[1]}]}"#;
const END: &str =
    r#"{"choices":[{"delta":{"content":"lo"},"finish_reason":"stop","token_ids":[2,3]}]}"#;
const USAGE: &str =
    r#"{"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":3,"total_tokens":7}}"#;

#[test]
fn one_connection_carries_every_kind_of_request() {
    let (server, requests) = TestServer::new(
        vec![
            Reply::Keep(json(
                "503 Service Unavailable",
                r#"{"state":"loading","percent":3}"#,
            )),
            Reply::Keep(json(
                "200 OK",
                r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#,
            )),
            Reply::Keep(json(
                "200 OK",
                r#"{"model":"m","choices":[{"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop","token_ids":[1]}]}"#,
            )),
            Reply::Keep(events(&[HELLO, END, USAGE, "[DONE]"])),
            Reply::Keep(json(
                "429 Too Many Requests",
                r#"{"error":{"message":"full","type":"busy"}}"#,
            )),
            Reply::Keep(json("200 OK", HEALTH)),
        ],
        true,
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    // Accepts once: a second connection would hang the test's requests.
    thread::spawn(move || server.serve(listener.accept().unwrap().0));

    let mut client = client(&address, Trust::InsecureNoTee);
    let health = client.health().unwrap();
    assert_eq!((health.state, health.percent), (State::Loading, Some(3)));
    assert_eq!(client.models().unwrap()[0].id, "m");
    let whole = client.chat(&request()).unwrap();
    assert_eq!(whole.choices[0].message.content.as_deref(), Some("Hello"));

    let mut text = String::new();
    let mut tokens = Vec::new();
    let mut usage = None;
    for chunk in client.chat_stream(&request()).unwrap() {
        let chunk = chunk.unwrap();
        usage = usage.or(chunk.usage);
        for choice in chunk.choices {
            text += &choice.delta.content.unwrap_or_default();
            tokens.extend(choice.token_ids.unwrap_or_default());
        }
    }
    assert_eq!((text.as_str(), tokens), ("Hello", vec![1, 2, 3]));
    assert_eq!(usage.unwrap().total_tokens, 7);

    let refused = client.chat(&request()).unwrap_err();
    assert!(matches!(&refused, Error::Refused { status: 429, message, .. } if message == "full"));
    assert!(!refused.is_transport());
    assert_eq!(client.health().unwrap().state, State::Ready);

    let lines: Vec<String> = requests
        .try_iter()
        .map(|request| request.lines().next().unwrap().to_owned())
        .collect();
    assert_eq!(lines[0], "GET /health HTTP/1.1");
    assert_eq!(lines[3], "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(lines.len(), 6);
}

#[test]
fn without_evidence_nothing_is_sent() {
    let (server, requests) = TestServer::new(vec![Reply::Keep(json("200 OK", HEALTH))], true);
    let error = client(&server.listen(), evidence()).health().unwrap_err();
    assert!(matches!(error, Error::NoEvidence), "{error}");
    assert!(requests.recv_timeout(Duration::from_millis(300)).is_err());
}

#[test]
fn a_handshake_not_signed_by_the_certificates_key_is_refused() {
    let (server, requests) = TestServer::new(vec![Reply::Keep(json("200 OK", HEALTH))], false);
    let error = client(&server.listen(), Trust::InsecureNoTee)
        .health()
        .unwrap_err();
    assert!(matches!(error, Error::Tls(_)), "{error}");
    assert!(requests.recv_timeout(Duration::from_millis(300)).is_err());
}

#[test]
fn a_connection_the_server_closed_is_replaced() {
    let (server, requests) = TestServer::new(
        vec![
            Reply::Close(json("200 OK", HEALTH)),
            Reply::Keep(json("200 OK", HEALTH)),
        ],
        true,
    );
    let mut client = client(&server.listen(), Trust::InsecureNoTee);
    client.health().unwrap();
    client.health().unwrap();
    assert_eq!(requests.try_iter().count(), 2);
}

#[test]
fn a_broken_stream_is_an_error_and_ends() {
    let cut = events(&[HELLO, END]);
    let cut = cut.strip_suffix("0\r\n\r\n").unwrap();
    let failing = events(&[HELLO, r#"{"error":{"message":"out of memory"}}"#, "[DONE]"]);
    let unfinished = events(&[HELLO]);
    let (server, _requests) = TestServer::new(
        vec![
            Reply::Close(cut.to_owned()),
            Reply::Close(failing),
            Reply::Close(unfinished),
        ],
        true,
    );
    let mut client = client(&server.listen(), Trust::InsecureNoTee);
    for expected in [2, 1, 1] {
        let chunks: Vec<_> = client.chat_stream(&request()).unwrap().collect();
        assert_eq!(
            chunks.iter().filter(|chunk| chunk.is_ok()).count(),
            expected
        );
        assert!(chunks.last().unwrap().is_err());
        assert_eq!(chunks.len(), expected + 1);
    }
}

#[test]
fn reaches_a_guest_port_through_a_unix_socket() {
    let (server, _requests) = TestServer::new(vec![Reply::Keep(json("200 OK", HEALTH))], true);
    let directory = std::env::temp_dir().join(format!("vitrine-client-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("vm.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut line = [0; 13];
        stream.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"CONNECT 8443\n");
        stream.write_all(b"OK 1024\n").unwrap();
        server.serve(stream);
    });
    let address = format!("unix:{}#8443", path.display());
    let health = client(&address, Trust::InsecureNoTee).health();
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(health.unwrap().state, State::Ready);
}

#[test]
fn nobody_there_is_a_connect_error() {
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = client(&format!("tcp://{unused}"), Trust::InsecureNoTee)
        .health()
        .unwrap_err();
    assert!(matches!(error, Error::Connect { .. }));
    assert!(error.is_transport());
}

#[test]
fn a_connection_whose_time_is_up_is_replaced() {
    let health = || Reply::Keep(json("200 OK", r#"{"state":"ready"}"#));
    for (max_age, connections) in [(Duration::from_secs(600), 1), (Duration::ZERO, 3)] {
        let (server, _requests) = TestServer::new(vec![health(), health(), health()], true);
        let options = Options {
            max_age,
            ..Options::new(Trust::InsecureNoTee)
        };
        let mut client = Client::new(server.listen().parse().unwrap(), options).unwrap();
        for _ in 0..3 {
            assert_eq!(client.health().unwrap().state, State::Ready);
        }
        assert_eq!(server.connections.load(Ordering::SeqCst), connections);
    }
}
