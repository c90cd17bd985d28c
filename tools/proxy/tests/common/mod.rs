//! A server behind TLS, a dialer that judges as it is told, and a plain HTTP client.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use client::{Address, Connector, Options, Term, Trust};
use proxy::{Dialed, Dialer, Limits, Pool, Refusal, Shown, WeakerMode};
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use verifier::{Check, Code, Outcome, Report, Verdict};

/// A server that answers like Vitrine's, and remembers what it was asked.
pub struct Upstream {
    pub address: Address,
    /// Request lines and bodies, those of health left out.
    requests: Mutex<Vec<String>>,
    /// The status of answers, and how long a part of a streamed one takes.
    pub status: AtomicUsize,
    pub part: Mutex<Duration>,
    /// Connections that ended while they were being answered.
    pub broken: AtomicUsize,
}

impl Upstream {
    fn at(listener: &TcpListener) -> Arc<Self> {
        Arc::new(Self {
            address: format!("tcp://{}", listener.local_addr().unwrap())
                .parse()
                .unwrap(),
            requests: Mutex::default(),
            status: AtomicUsize::new(200),
            part: Mutex::default(),
            broken: AtomicUsize::new(0),
        })
    }

    /// One that takes connections and says nothing.
    pub fn silent() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self::at(&listener);
        thread::spawn(move || {
            let connections: Vec<_> = listener.incoming().collect();
            drop(connections);
        });
        upstream
    }

    pub fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self::at(&listener);
        let (tls, server) = (tls(), Arc::clone(&upstream));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(Arc::clone(&tls)).unwrap();
                let mut stream = StreamOwned::new(connection, stream.unwrap());
                let server = Arc::clone(&server);
                thread::spawn(move || while server.answer(&mut stream).is_some() {});
            }
        });
        upstream
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Answers one request; `None` when the connection is over.
    fn answer(&self, stream: &mut (impl Read + Write)) -> Option<()> {
        let (line, body) = read_request(stream)?;
        if line.starts_with("GET /health ") {
            return reply(stream, 200, r#"{"state":"ready","model":"<m>"}"#);
        }
        self.requests
            .lock()
            .unwrap()
            .push(format!("{line}\n{body}"));
        let status = self.status.load(Ordering::SeqCst);
        if status != 200 {
            return reply(stream, status, r#"{"error":{"message":"later"}}"#);
        }
        if !body.contains("stream") {
            return reply(stream, 200, r#"{"object":"answer"}"#);
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut pieces = vec![head.to_owned()];
        pieces.extend((0..20).map(|part| format!("{:x}\r\ndata: {part:02}\n\n\r\n", 10)));
        pieces.push("e\r\ndata: [DONE]\n\n\r\n".to_owned());
        pieces.push("0\r\n\r\n".to_owned());
        for piece in pieces {
            let part = *self.part.lock().unwrap();
            thread::sleep(part);
            if stream
                .write_all(piece.as_bytes())
                .and_then(|()| stream.flush())
                .is_err()
            {
                self.broken.fetch_add(1, Ordering::SeqCst);
                return None;
            }
        }
        Some(())
    }
}

fn tls() -> Arc<ServerConfig> {
    let certificate = rcgen::generate_simple_self_signed(["guest".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
    let key = ring::sign::any_supported_type(&PrivateKeyDer::Pkcs8(key)).unwrap();
    let certified = CertifiedKey::new(vec![certificate.cert.der().clone()], key);
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    Arc::new(config)
}

fn read_request(stream: &mut impl Read) -> Option<(String, String)> {
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
    let line = head.lines().next().unwrap().to_owned();
    Some((line, String::from_utf8(body).unwrap()))
}

fn reply(stream: &mut impl Write, status: usize, body: &str) -> Option<()> {
    let length = body.len();
    let reply = format!(
        "HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(reply.as_bytes()).ok()?;
    stream.flush().ok()
}

/// What the dialer is told of one server.
#[derive(Clone, Default)]
pub struct Orders {
    pub refuse: bool,
    pub certificate: Option<[u8; 48]>,
    /// From the moment of dialling.
    pub renew: Option<Duration>,
}

/// Judges by orders, and counts its connections.
#[derive(Clone, Default)]
pub struct Judge {
    pub orders: Arc<Mutex<HashMap<String, Orders>>>,
    pub dialed: Arc<AtomicUsize>,
    pub modes: Vec<WeakerMode>,
}

impl Judge {
    pub fn order(&self, upstream: &Upstream, orders: Orders) {
        let address = upstream.address.to_string();
        self.orders.lock().unwrap().insert(address, orders);
    }

    pub fn dialed(&self) -> usize {
        self.dialed.load(Ordering::SeqCst)
    }
}

impl Dialer for Judge {
    fn dial(&self, address: &Address) -> Result<Dialed, Refusal> {
        self.dialed.fetch_add(1, Ordering::SeqCst);
        let orders = self
            .orders
            .lock()
            .unwrap()
            .get(&address.to_string())
            .cloned();
        let orders = orders.unwrap_or_default();
        let connector = Connector::new(Options::new(Trust::InsecureNoTee)).unwrap();
        let session = connector.connect(address).map_err(Refusal::Connection)?;
        if orders.refuse {
            return Err(Refusal::Evidence(vec![report(Verdict::EvidenceMismatch)]));
        }
        Ok(Dialed {
            session,
            shown: Shown {
                reports: vec![report(Verdict::Accepted)],
                certificate: orders.certificate,
                term: orders.renew.map(|left| Term {
                    renewal: SystemTime::now() + left,
                    end: None,
                }),
            },
        })
    }

    fn weaker_modes(&self) -> &[WeakerMode] {
        &self.modes
    }
}

fn report(verdict: Verdict) -> Report {
    let outcome = match verdict {
        Verdict::Accepted => Outcome::Passed,
        _ => Outcome::Failed(Code::NotFresh),
    };
    let findings = match outcome {
        Outcome::Failed(code) => vec![code],
        _ => Vec::new(),
    };
    Report {
        verdict,
        findings,
        checks: vec![Check {
            name: "freshness",
            expected: "<expected>".into(),
            found: "<found>".into(),
            outcome,
        }],
        anchor: "a test".into(),
        proved: None,
    }
}

/// A proxy to `upstreams`; gives its address.
pub fn start(judge: &Judge, upstreams: &[&Upstream], limits: Limits) -> SocketAddr {
    let addresses: Vec<Address> = upstreams.iter().map(|one| one.address.clone()).collect();
    let pool = Pool::new(Box::new(judge.clone()), &addresses, limits);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || proxy::serve(pool, listener).unwrap());
    address
}

/// The proxy's limits, with little patience.
pub fn hasty() -> Limits {
    Limits {
        max_age: Duration::from_secs(600),
        pause: Duration::from_millis(200),
    }
}

/// Sends a request on a connection of its own; gives everything that comes back.
pub fn ask(proxy: SocketAddr, request: &str) -> String {
    let mut stream = send(proxy, request);
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

/// Sends a request; the answer is still to be read.
pub fn send(proxy: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

pub fn post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// The JSON of the status page.
pub fn status(proxy: SocketAddr) -> serde_json::Value {
    let reply = ask(proxy, &get("/vitrine/status"));
    let (_, body) = reply.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// Waits for `condition`, for a few seconds at most.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "not in time: {what}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}
