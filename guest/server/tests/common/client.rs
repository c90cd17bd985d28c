//! A TLS client that can also misbehave.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, StreamOwned, WantsVerifier,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{ring::default_provider as provider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde_json::Value;

/// A response, its body decoded.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// The payloads of a stream of server-sent events, the final `[DONE]` checked and removed.
    pub fn events(&self) -> Vec<Value> {
        assert_eq!(self.header("content-type"), Some("text/event-stream"));
        let text = std::str::from_utf8(&self.body).expect("text");
        let mut lines: Vec<_> = text.split_terminator("\n\n").collect();
        assert_eq!(lines.pop(), Some("data: [DONE]"));
        let payloads = lines
            .iter()
            .map(|line| line.strip_prefix("data: ").expect("an event"));
        payloads
            .map(|payload| serde_json::from_str(payload).expect("JSON"))
            .collect()
    }
}

fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

pub struct Client {
    tls: StreamOwned<ClientConnection, TcpStream>,
    /// Bytes received and not yet consumed.
    received: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr, certificate: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from(certificate.to_vec()))
            .expect("a trust anchor");
        Self::with_config(
            address,
            builder()
                .with_root_certificates(roots)
                .with_no_client_auth(),
        )
    }

    /// A client that looks at no certificate, only at its key's signature.
    pub fn connect_to_anybody(address: SocketAddr) -> Self {
        let verifier = Arc::new(Anybody);
        let config = builder()
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Self::with_config(address, config)
    }

    fn with_config(address: SocketAddr, config: ClientConfig) -> Self {
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        let socket = TcpStream::connect(address).expect("a connection");
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout");
        socket.set_nodelay(true).expect("no delay");
        let mut tls = StreamOwned::new(connection, socket);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock).expect("a handshake");
        }
        Self {
            tls,
            received: Vec::new(),
        }
    }

    /// The server's certificate, DER.
    pub fn certificate(&self) -> Vec<u8> {
        let chain = self.tls.conn.peer_certificates().expect("a certificate");
        chain[0].to_vec()
    }

    /// TLS-Exporter(label, context, 32).
    pub fn export(&self, label: &str, context: &[u8]) -> [u8; 32] {
        self.tls
            .conn
            .export_keying_material([0; 32], label.as_bytes(), Some(context))
            .expect("an exporter")
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.tls
            .write_all(bytes.as_ref())
            .expect("a writable connection");
        self.tls.flush().expect("a writable connection");
    }

    /// Says that nothing more will be sent, by close_notify and by FIN.
    pub fn half_close(&mut self) {
        self.tls.conn.send_close_notify();
        let _ = self.tls.conn.complete_io(&mut self.tls.sock);
        self.tls
            .sock
            .shutdown(Shutdown::Write)
            .expect("an open socket");
    }

    /// Sends FIN alone, as a program does that knows nothing of TLS closure.
    pub fn shutdown_write(&mut self) {
        self.tls
            .sock
            .shutdown(Shutdown::Write)
            .expect("an open socket");
    }

    pub fn get(&mut self, path: &str) -> Reply {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.reply()
    }

    pub fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        self.send_post(path, body);
        self.reply()
    }

    pub fn send_post(&mut self, path: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let length = body.len();
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.send(request);
    }

    /// Reads one response.
    pub fn reply(&mut self) -> Reply {
        self.try_reply(true).expect("a response")
    }

    /// Reads the response to a HEAD request.
    pub fn head_reply(&mut self) -> Reply {
        self.try_reply(false).expect("a response")
    }

    fn try_reply(&mut self, with_body: bool) -> Option<Reply> {
        let head = self.take_until(b"\r\n\r\n")?;
        let head = String::from_utf8(head).expect("a textual head");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().expect("a status");
        let headers: Vec<_> = lines
            .map(|line| line.split_once(": ").expect("a header"))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let mut reply = Reply {
            status,
            headers,
            body: Vec::new(),
        };
        if !with_body || status == 100 {
            return Some(reply);
        }
        if let Some(length) = reply.header("content-length") {
            let length = length.parse().expect("a length");
            reply.body = self.take(length).expect("a complete body");
        } else if reply.header("transfer-encoding").is_some() {
            loop {
                let size = self.take_until(b"\r\n").expect("a chunk size");
                let size = std::str::from_utf8(&size).expect("a chunk size");
                let size = usize::from_str_radix(size.trim_end(), 16).expect("a chunk size");
                let chunk = self.take(size + 2).expect("a chunk");
                reply.body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    break;
                }
            }
        } else {
            while self.receive() {}
            reply.body.append(&mut self.received);
        }
        Some(reply)
    }

    /// Waits until `pattern` has been received.
    pub fn wait_for(&mut self, pattern: &[u8]) {
        self.take_until(pattern)
            .expect("the pattern before the end");
    }

    /// Whether the server has closed the connection without sending anything more.
    pub fn is_closed(&mut self) -> bool {
        while self.receive() {}
        self.received.is_empty()
    }

    fn take_until(&mut self, pattern: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self
                .received
                .windows(pattern.len())
                .position(|window| window == pattern);
            if let Some(at) = found {
                return self.take(at + pattern.len());
            }
            if !self.receive() {
                return None;
            }
        }
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.received.len() < count {
            if !self.receive() {
                return None;
            }
        }
        let rest = self.received.split_off(count);
        Some(std::mem::replace(&mut self.received, rest))
    }

    /// Receives something; false at the end.
    fn receive(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.tls.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no answer in time");
            }
            Err(_) => false,
        }
    }
}
