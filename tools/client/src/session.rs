//! Asking: one connection, opened when first needed, kept while the server keeps it, replaced when it is gone.

use core::time::Duration;
use std::sync::Arc;

use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::address::Address;
use crate::api::{
    ChatBody, ChatChunk, ChatCompletion, ChatRequest, ErrorBody, Health, Model, ModelList,
};
use crate::error::Error;
use crate::http::{Connection, Head};
use crate::sse::EventParser;
use crate::tls::{self, Trust};
use crate::transport::Transport;

/// Bytes of an answer that is not streamed.
const BODY_LIMIT: usize = 16 << 20;
/// How much of a refusal that is not an API error is worth showing.
const EXCERPT: usize = 200;

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the server must show.
    pub trust: Trust,
    /// For the connection and each step of its handshake.
    pub connect_timeout: Duration,
    /// For each silence within an answer. A long prompt is silent until its first token.
    pub answer_timeout: Duration,
}

impl Options {
    /// Ten seconds to connect, ten minutes of silence.
    pub fn new(trust: Trust) -> Self {
        Self {
            trust,
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(600),
        }
    }
}

type TlsStream = StreamOwned<ClientConnection, Transport>;

/// A client of one server.
pub struct Client {
    address: Address,
    options: Options,
    tls: Arc<ClientConfig>,
    connection: Option<Connection<TlsStream>>,
}

impl Client {
    /// Prepares a client; connects at the first request.
    pub fn new(address: Address, options: Options) -> Result<Self, Error> {
        Ok(Self {
            address,
            tls: tls::config(options.trust)?,
            options,
            connection: None,
        })
    }

    /// How far the server is; also while it is not ready or has failed.
    pub fn health(&mut self) -> Result<Health, Error> {
        let (mut head, connection) = self.exchange("GET", "/health", None)?;
        match head.status {
            200 | 503 => self.finish(&mut head, connection),
            _ => Err(self.refusal(&mut head, connection)),
        }
    }

    /// What the server offers.
    pub fn models(&mut self) -> Result<Vec<Model>, Error> {
        let (mut head, connection) = self.exchange("GET", "/v1/models", None)?;
        if head.status != 200 {
            return Err(self.refusal(&mut head, connection));
        }
        let list: ModelList = self.finish(&mut head, connection)?;
        Ok(list.data)
    }

    /// Asks for a chat completion and waits for all of it.
    pub fn chat(&mut self, request: &ChatRequest) -> Result<ChatCompletion, Error> {
        let body = serde_json::to_vec(&ChatBody::new(request, false))?;
        let (mut head, connection) = self.exchange("POST", "/v1/chat/completions", Some(&body))?;
        if head.status != 200 {
            return Err(self.refusal(&mut head, connection));
        }
        self.finish(&mut head, connection)
    }

    /// Asks for a chat completion piece by piece. Dropping the stream before its end closes the connection, which cancels the answer.
    pub fn chat_stream(&mut self, request: &ChatRequest) -> Result<ChatStream<'_>, Error> {
        let body = serde_json::to_vec(&ChatBody::new(request, true))?;
        let (mut head, connection) = self.exchange("POST", "/v1/chat/completions", Some(&body))?;
        if head.status != 200 {
            return Err(self.refusal(&mut head, connection));
        }
        if !head.event_stream {
            return Err(Error::Protocol("a stream of events was asked for"));
        }
        Ok(ChatStream {
            client: self,
            connection: Some(connection),
            head,
            events: EventParser::default(),
            part: Vec::new(),
        })
    }

    /// Sends a request and reads the answer's head. A kept connection that turns out to be closed is replaced once: the server
    /// may close an idle one at any time, and then has not seen the request.
    fn exchange(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<(Head, Connection<TlsStream>), Error> {
        let host = match &self.address {
            Address::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Address::Tcp { host, port } => format!("{host}:{port}"),
            Address::Vsock { .. } | Address::Unix { .. } => "localhost".to_owned(),
        };
        loop {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.connect()?,
            };
            let reused = connection.used();
            let outcome = connection
                .send(method, path, &host, body)
                .and_then(|()| connection.read_head());
            match outcome {
                Ok(head) => return Ok((head, connection)),
                Err(Error::Closed | Error::Io(_)) if reused => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens a connection and completes its handshake, so that a server without evidence is refused before anything is sent.
    fn connect(&self) -> Result<Connection<TlsStream>, Error> {
        let timeout = self.options.connect_timeout;
        let mut transport =
            Transport::connect(&self.address, timeout).map_err(|source| Error::Connect {
                address: self.address.clone(),
                source,
            })?;
        // Never sent (no server name indication) and never compared: the name is not what is trusted.
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([127, 0, 0, 1])));
        let mut tls = ClientConnection::new(Arc::clone(&self.tls), name)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut transport)
                .map_err(|error| Error::from_io(error, timeout))?;
        }
        let timeout = self.options.answer_timeout;
        transport
            .set_timeout(timeout)
            .map_err(|error| Error::from_io(error, timeout))?;
        Ok(Connection::new(StreamOwned::new(tls, transport), timeout))
    }

    /// Reads the rest of an answer as JSON, and keeps the connection if the server does.
    fn finish<T: serde::de::DeserializeOwned>(
        &mut self,
        head: &mut Head,
        mut connection: Connection<TlsStream>,
    ) -> Result<T, Error> {
        let body = connection.read_whole(head, BODY_LIMIT)?;
        self.keep(head, connection);
        Ok(serde_json::from_slice(&body)?)
    }

    /// The error an answer of another status than 200 stands for.
    fn refusal(&mut self, head: &mut Head, mut connection: Connection<TlsStream>) -> Error {
        let body = match connection.read_whole(head, BODY_LIMIT) {
            Ok(body) => body,
            Err(error) => return error,
        };
        self.keep(head, connection);
        let message = match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => body.error.message,
            Err(_) => String::from_utf8_lossy(&body)
                .chars()
                .take(EXCERPT)
                .collect(),
        };
        Error::Refused {
            status: head.status,
            message,
            retry_after: head.retry_after,
        }
    }

    fn keep(&mut self, head: &Head, connection: Connection<TlsStream>) {
        if head.keep_alive {
            self.connection = Some(connection);
        }
    }
}

/// The pieces of an answer, as they arrive; ends after the last one or the first error.
pub struct ChatStream<'a> {
    client: &'a mut Client,
    connection: Option<Connection<TlsStream>>,
    head: Head,
    events: EventParser,
    part: Vec<u8>,
}

impl ChatStream<'_> {
    /// The next piece; `None` once the server said `[DONE]` and the body has ended.
    fn advance(&mut self) -> Result<Option<ChatChunk>, Error> {
        while let Some(connection) = &mut self.connection {
            if let Some(event) = self.events.next_event() {
                if event != "[DONE]" {
                    return parse_event(&event, self.head.status).map(Some);
                }
                // Whatever follows is not part of the answer; a well-behaved server sends nothing.
                connection.read_whole(&mut self.head, EXCERPT)?;
                if let Some(connection) = self.connection.take() {
                    self.client.keep(&self.head, connection);
                }
                break;
            }
            connection.read_body(&mut self.head, &mut self.part)?;
            if self.part.is_empty() {
                return Err(Error::Closed);
            }
            self.events.feed(&self.part)?;
        }
        Ok(None)
    }
}

/// A chunk, or the error a server reports in the middle of a stream.
fn parse_event(event: &str, status: u16) -> Result<ChatChunk, Error> {
    if let Ok(body) = serde_json::from_str::<ErrorBody>(event) {
        return Err(Error::Refused {
            status,
            message: body.error.message,
            retry_after: None,
        });
    }
    Ok(serde_json::from_str(event)?)
}

impl Iterator for ChatStream<'_> {
    type Item = Result<ChatChunk, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.advance().transpose();
        if !matches!(item, Some(Ok(_))) {
            self.connection = None;
        }
        item
    }
}
