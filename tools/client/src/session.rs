//! One connection to a server: opened, judged, and then asked one thing after the other.

use core::time::Duration;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, StreamOwned};

use crate::address::Address;
use crate::error::Error;
use crate::evidence::{self, Judge, Proof};
use crate::http::{Connection, Head};
use crate::tls;
use crate::transport::Transport;

/// The least time for which a connection is used: a server that is late with its new certificate is not asked for it again and again.
const LEAST_AGE: Duration = Duration::from_secs(5);

/// What a server must show before anything of a request is sent to it.
#[derive(Clone)]
pub enum Trust {
    /// Evidence of a trust domain that the judge accepts. A server without any is refused with [`Error::NoEvidence`], one with other
    /// evidence with [`Error::Untrusted`].
    Evidence(Arc<dyn Judge>),
    /// Nothing: the connection is encrypted to whoever answers. For development only; say so to the user each time.
    InsecureNoTee,
}

/// How to connect.
#[derive(Clone)]
pub struct Options {
    /// What the server must show.
    pub trust: Trust,
    /// For the connection and each step of its handshake.
    pub connect_timeout: Duration,
    /// For each silence while the server proves itself. A guest waits 40 seconds for a quote.
    pub proof_timeout: Duration,
    /// For each silence within an answer. A long prompt is silent until its first token.
    pub answer_timeout: Duration,
    /// How long requests are sent on a connection after it was verified. It is less if its certificate is to be replaced before.
    pub max_age: Duration,
}

impl Options {
    /// Ten seconds to connect, a minute for the proof, ten minutes of silence within an answer, and ten minutes until a connection is verified anew.
    pub fn new(trust: Trust) -> Self {
        Self {
            trust,
            connect_timeout: Duration::from_secs(10),
            proof_timeout: Duration::from_secs(60),
            answer_timeout: Duration::from_secs(600),
            max_age: Duration::from_secs(600),
        }
    }
}

type TlsStream = StreamOwned<ClientConnection, Transport>;

/// Opens connections.
pub struct Connector {
    options: Options,
    tls: Arc<ClientConfig>,
}

impl Connector {
    /// Prepares to connect.
    ///
    /// # Errors
    /// The TLS library does not accept the configuration.
    pub fn new(options: Options) -> Result<Self, Error> {
        Ok(Self {
            tls: tls::config()?,
            options,
        })
    }

    /// Opens a connection and has the server prove itself, so that one that is not trusted is refused before anything of a request is
    /// sent.
    ///
    /// # Errors
    /// Nobody is there, or whoever is there is not trusted.
    pub fn connect(&self, address: &Address) -> Result<Session, Error> {
        let timeout = self.options.connect_timeout;
        let mut transport =
            Transport::connect(address, timeout).map_err(|source| Error::Connect {
                address: address.clone(),
                source,
            })?;
        // Never sent (no server name indication) and never compared: the name is not what is trusted.
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([127, 0, 0, 1])));
        let mut tls = ClientConnection::new(Arc::clone(&self.tls), name)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut transport)
                .map_err(|error| self.judge_handshake(Error::from_io(error, timeout)))?;
        }
        let host = match address {
            Address::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Address::Tcp { host, port } => format!("{host}:{port}"),
            Address::Vsock { .. } | Address::Unix { .. } => "localhost".to_owned(),
        };
        let mut session = Session {
            connection: Connection::new(StreamOwned::new(tls, transport), timeout),
            host,
            proof: None,
            until: Instant::now() + self.options.max_age,
        };
        match &self.options.trust {
            Trust::InsecureNoTee => {}
            Trust::Evidence(judge) => {
                session.set_timeout(self.options.proof_timeout)?;
                let patience = self.options.connect_timeout;
                let (proved, proof) = evidence::prove(session, &**judge, patience)?;
                let max_age = self.options.max_age;
                let left = proof.term().left(SystemTime::now(), LEAST_AGE, max_age);
                session = Session {
                    until: Instant::now() + left,
                    proof: Some(Box::new(proof)),
                    ..proved
                };
            }
        }
        session.set_timeout(self.options.answer_timeout)?;
        Ok(session)
    }

    /// What a handshake that failed says of the server: one that does not sign with its certificate's key shows somebody else's.
    fn judge_handshake(&self, error: Error) -> Error {
        let not_its_own = rustls::Error::InvalidCertificate(CertificateError::BadSignature);
        match (&error, &self.options.trust) {
            (Error::Tls(found), Trust::Evidence(judge)) if *found == not_its_own => {
                Error::Untrusted(vec![judge.verifier().unsigned_handshake()])
            }
            _ => error,
        }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    method: &'static str,
    path: &'a str,
    body: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// Asks for what is at `path`.
    pub fn get(path: &'a str) -> Self {
        Self {
            method: "GET",
            path,
            body: None,
        }
    }

    /// Sends `body`, which is JSON, to `path`.
    pub fn post(path: &'a str, body: &'a [u8]) -> Self {
        Self {
            method: "POST",
            path,
            body: Some(body),
        }
    }
}

/// An open connection to a server that is trusted as far as [`Options`] ask.
pub struct Session {
    connection: Connection<TlsStream>,
    host: String,
    proof: Option<Box<Proof>>,
    /// When it is to be used no more.
    until: Instant,
}

impl Session {
    /// What the server proved; `None` if nothing was asked of it.
    pub fn proof(&self) -> Option<&Proof> {
        self.proof.as_deref()
    }

    /// Whether its time is up: what is asked next goes over a connection that is verified anew.
    pub fn is_due(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Bounds each silence from now on.
    fn set_timeout(&mut self, timeout: Duration) -> Result<(), Error> {
        let transport = &self.connection.stream().sock;
        transport
            .set_timeout(timeout)
            .map_err(|error| Error::from_io(error, timeout))?;
        self.connection.set_timeout(timeout);
        Ok(())
    }

    /// The connection's exporter (RFC 8446, 7.5).
    ///
    /// # Errors
    /// The TLS library refuses.
    pub fn export(&self, label: &str, context: &[u8]) -> Result<[u8; 32], Error> {
        let connection = &self.connection.stream().conn;
        let exported = connection.export_keying_material([0; 32], label.as_bytes(), Some(context));
        exported.map_err(Error::Tls)
    }

    /// A handle to end this session from another thread.
    ///
    /// # Errors
    /// The system has no more handles.
    pub fn interrupter(&self) -> Result<Interrupter, Error> {
        let stream = self.connection.stream();
        stream.sock.try_clone().map(Interrupter).map_err(Error::Io)
    }

    /// The server's certificate in DER. The handshake showed that the server holds its key.
    pub fn certificate(&self) -> Option<&[u8]> {
        let certificates = self.connection.stream().conn.peer_certificates()?;
        certificates.first().map(|certificate| certificate.as_ref())
    }

    /// Sends a request and reads the head of the answer. On a connection that was used before, [`Error::Closed`] and
    /// [`Error::Io`] may only mean that the server closed it meanwhile and has not seen the request.
    ///
    /// # Errors
    /// The path is not one, or there is no answer.
    pub fn request(mut self, request: &Request<'_>) -> Result<Response, Error> {
        let Request { method, path, body } = *request;
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Path);
        }
        self.connection.send(method, path, &self.host, body)?;
        let head = self.connection.read_head()?;
        Ok(Response {
            session: self,
            head,
        })
    }
}

/// Ends a session from another thread.
pub struct Interrupter(Transport);

impl Interrupter {
    /// Closes the connection. Whatever the session's thread waits for ends with an error.
    pub fn interrupt(&self) {
        self.0.shut_down();
    }
}

/// An answer whose head has arrived.
pub struct Response {
    session: Session,
    head: Head,
}

impl Response {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The seconds after which to try again, if the server says so.
    pub fn retry_after(&self) -> Option<u64> {
        self.head.retry_after
    }

    /// What the body is.
    pub fn content_type(&self) -> Option<&str> {
        self.head.content_type.as_deref()
    }

    /// Whether the body is a stream of server-sent events.
    pub fn is_event_stream(&self) -> bool {
        let media_type = self
            .content_type()
            .and_then(|value| value.split(';').next());
        media_type.is_some_and(|value| value.trim().eq_ignore_ascii_case("text/event-stream"))
    }

    /// Reads the next part of the body into `part`, replacing what it held; empty at the end.
    ///
    /// # Errors
    /// The body was cut off or breaks the protocol.
    pub fn read_part(&mut self, part: &mut Vec<u8>) -> Result<(), Error> {
        self.session.connection.read_body(&mut self.head, part)
    }

    /// Reads the rest of the body.
    ///
    /// # Errors
    /// As of [`Response::read_part`], or it is longer than `limit` bytes.
    pub fn read_whole(&mut self, limit: usize) -> Result<Vec<u8>, Error> {
        self.session.connection.read_whole(&mut self.head, limit)
    }

    /// The connection, if it can carry another request: the body was read to its end and the server keeps the connection.
    pub fn into_session(self) -> Option<Session> {
        (self.head.keep_alive && self.head.is_finished()).then_some(self.session)
    }
}
