//! Asking one server: a connection opened when first needed, kept while the server keeps it, replaced when it is gone.

use crate::address::Address;
use crate::api::{
    ChatBody, ChatChunk, ChatCompletion, ChatRequest, ErrorBody, Health, Model, ModelList,
};
use crate::error::Error;
use crate::session::{Connector, Options, Request, Response, Session};
use crate::sse::EventParser;

/// Bytes of an answer that is not streamed.
const BODY_LIMIT: usize = 16 << 20;
/// How much of a refusal that is not an API error is worth showing.
const EXCERPT: usize = 200;

/// A client of one server.
pub struct Client {
    address: Address,
    connector: Connector,
    session: Option<Session>,
}

impl Client {
    /// Prepares a client; connects at the first request.
    pub fn new(address: Address, options: Options) -> Result<Self, Error> {
        Ok(Self {
            address,
            connector: Connector::new(options)?,
            session: None,
        })
    }

    /// How far the server is; also while it is not ready or has failed.
    pub fn health(&mut self) -> Result<Health, Error> {
        let response = self.exchange(&Request::get("/health"))?;
        match response.status() {
            200 | 503 => self.finish(response),
            _ => Err(self.refusal(response)),
        }
    }

    /// What the server offers.
    pub fn models(&mut self) -> Result<Vec<Model>, Error> {
        let response = self.exchange(&Request::get("/v1/models"))?;
        if response.status() != 200 {
            return Err(self.refusal(response));
        }
        let list: ModelList = self.finish(response)?;
        Ok(list.data)
    }

    /// Asks for a chat completion and waits for all of it.
    pub fn chat(&mut self, request: &ChatRequest) -> Result<ChatCompletion, Error> {
        let body = serde_json::to_vec(&ChatBody::new(request, false))?;
        let response = self.exchange(&Request::post("/v1/chat/completions", &body))?;
        if response.status() != 200 {
            return Err(self.refusal(response));
        }
        self.finish(response)
    }

    /// Asks for a chat completion piece by piece. Dropping the stream before its end closes the connection, which cancels the answer.
    pub fn chat_stream(&mut self, request: &ChatRequest) -> Result<ChatStream<'_>, Error> {
        let body = serde_json::to_vec(&ChatBody::new(request, true))?;
        let response = self.exchange(&Request::post("/v1/chat/completions", &body))?;
        if response.status() != 200 {
            return Err(self.refusal(response));
        }
        if !response.is_event_stream() {
            return Err(Error::Protocol("a stream of events was asked for"));
        }
        Ok(ChatStream {
            client: self,
            response: Some(response),
            events: EventParser::default(),
            part: Vec::new(),
        })
    }

    /// Sends a request and reads the answer's head. A kept connection whose time is up is replaced, and so is one that turns out to
    /// be closed, once: the server may close an idle one at any time, and then has not seen the request.
    fn exchange(&mut self, request: &Request<'_>) -> Result<Response, Error> {
        if let Some(session) = self.session.take().filter(|session| !session.is_due()) {
            match session.request(request) {
                Err(Error::Closed | Error::Io(_)) => {}
                outcome => return outcome,
            }
        }
        self.connector.connect(&self.address)?.request(request)
    }

    /// Reads the rest of an answer as JSON, and keeps the connection if the server does.
    fn finish<T: serde::de::DeserializeOwned>(
        &mut self,
        mut response: Response,
    ) -> Result<T, Error> {
        let body = response.read_whole(BODY_LIMIT)?;
        self.session = response.into_session();
        Ok(serde_json::from_slice(&body)?)
    }

    /// The error an answer of another status than 200 stands for.
    fn refusal(&mut self, mut response: Response) -> Error {
        let (status, retry_after) = (response.status(), response.retry_after());
        let body = match response.read_whole(BODY_LIMIT) {
            Ok(body) => body,
            Err(error) => return error,
        };
        self.session = response.into_session();
        let message = match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => body.error.message,
            Err(_) => String::from_utf8_lossy(&body)
                .chars()
                .take(EXCERPT)
                .collect(),
        };
        Error::Refused {
            status,
            message,
            retry_after,
        }
    }
}

/// The pieces of an answer, as they arrive; ends after the last one or the first error.
pub struct ChatStream<'a> {
    client: &'a mut Client,
    response: Option<Response>,
    events: EventParser,
    part: Vec<u8>,
}

impl ChatStream<'_> {
    /// The next piece; `None` once the server said `[DONE]` and the body has ended.
    fn advance(&mut self) -> Result<Option<ChatChunk>, Error> {
        while let Some(response) = &mut self.response {
            if let Some(event) = self.events.next_event() {
                if event != "[DONE]" {
                    return parse_event(&event, response.status()).map(Some);
                }
                // Whatever follows is not part of the answer; a well-behaved server sends nothing.
                response.read_whole(EXCERPT)?;
                self.client.session = self.response.take().and_then(Response::into_session);
                break;
            }
            response.read_part(&mut self.part)?;
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
            self.response = None;
        }
        item
    }
}
