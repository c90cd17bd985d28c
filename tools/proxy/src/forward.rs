//! Passing one request on. Runs on a thread of its own, since connections to servers block.

use std::sync::Arc;

use client::{Address, Error, Request, Response};
use hyper::body::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::cancel::Cancel;
use crate::pool::Pool;
use crate::upstream::{Lease, Standing};

/// Bytes of a refusal that is kept while other servers are tried.
const REFUSAL_LIMIT: usize = 1 << 20;

/// A request, complete.
pub(crate) struct Question {
    /// Path and query.
    pub(crate) path: String,
    /// The body of a POST; a GET has none.
    pub(crate) body: Option<Bytes>,
}

/// The head of an answer.
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) content_type: Option<String>,
    pub(crate) retry_after: Option<u64>,
    /// Who answers.
    pub(crate) address: Address,
}

/// Why there is no answer.
pub(crate) enum Failure {
    /// No server may be used. What is known of each, and whether it was refused rather than out of reach.
    NoUpstream(Vec<(Address, String, bool)>),
    /// A verified server broke off before its answer began.
    Upstream(Address, Error),
    /// The client has gone.
    Cancelled,
}

/// A body ended before it was complete.
#[derive(Debug)]
pub(crate) struct Cut(Error);

impl core::fmt::Display for Cut {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

impl core::error::Error for Cut {}

/// Where an answer goes.
pub(crate) struct Sink {
    pub(crate) head: oneshot::Sender<Result<Head, Failure>>,
    pub(crate) parts: mpsc::Sender<Result<Bytes, Cut>>,
}

/// Gets an answer from the first server that has one, and passes it on as it comes.
pub(crate) fn forward(pool: &Pool, question: &Question, cancel: &Cancel, sink: Sink) {
    match ask(pool, question, cancel) {
        Ok(Asked::Answering(lease, response)) => pass_on(*lease, *response, cancel, sink),
        Ok(Asked::NoRoom(head, body)) => {
            let _ = sink.head.send(Ok(head));
            let _ = sink.parts.blocking_send(Ok(body));
        }
        // Nobody is there to hear of it if the client has gone.
        Err(failure) => drop(sink.head.send(Err(failure))),
    }
}

/// What asking came to.
enum Asked {
    /// A server has begun to answer.
    Answering(Box<Lease>, Box<Response>),
    /// Every server says to come later, the last one in these words.
    NoRoom(Head, Bytes),
}

fn ask(pool: &Pool, question: &Question, cancel: &Cancel) -> Result<Asked, Failure> {
    let request = match &question.body {
        Some(body) => Request::post(&question.path, body),
        None => Request::get(&question.path),
    };
    let mut tried = Vec::new();
    let mut no_room = None;
    let mut failure = None;
    while let Some(mut lease) = pool.lease(&tried) {
        let address = lease.upstream.address.clone();
        let Some(session) = lease.take() else { break };
        let armed = session.interrupter().map(|session| cancel.arm(session));
        match armed.and_then(|armed| {
            if !armed {
                return Err(Error::Closed);
            }
            session.request(&request)
        }) {
            Ok(mut response) if matches!(response.status(), 429 | 503) => {
                let head = head(&response, address);
                if let Ok(body) = response.read_whole(REFUSAL_LIMIT) {
                    no_room = Some(Asked::NoRoom(head, body.into()));
                    cancel.disarm();
                    tried.push(Arc::clone(&lease.upstream));
                    lease.finish(response.into_session());
                    continue;
                }
                tried.push(Arc::clone(&lease.upstream));
            }
            Ok(response) => return Ok(Asked::Answering(Box::new(lease), Box::new(response))),
            Err(_) if !cancel.disarm() => return Err(Failure::Cancelled),
            // The server closed it meanwhile and has not seen the request: the next connection will do.
            Err(Error::Closed | Error::Io(_)) if lease.reused => {}
            // It may still be at work, so nobody else is to begin.
            Err(error @ Error::Timeout(_)) => return Err(Failure::Upstream(address, error)),
            Err(error) => {
                tried.push(Arc::clone(&lease.upstream));
                failure = Some(Failure::Upstream(address, error));
            }
        }
    }
    match (no_room, failure) {
        (Some(no_room), _) => Ok(no_room),
        (None, Some(failure)) => Err(failure),
        (None, None) => Err(no_upstream(pool)),
    }
}

fn no_upstream(pool: &Pool) -> Failure {
    let upstreams = pool.upstreams().iter().map(|upstream| {
        let (words, refused) = match &upstream.state().standing {
            Standing::Refused(words) => (words.clone(), true),
            Standing::Unreachable(words) => (words.clone(), false),
            Standing::Accepted | Standing::Unknown => ("busy being verified".to_owned(), false),
        };
        (upstream.address.clone(), words, refused)
    });
    Failure::NoUpstream(upstreams.collect())
}

fn head(response: &Response, address: Address) -> Head {
    Head {
        status: response.status(),
        content_type: response.content_type().map(str::to_owned),
        retry_after: response.retry_after(),
        address,
    }
}

/// Passes an answer on part by part. If nobody takes it any more, dropping the connection ends it at its server.
fn pass_on(lease: Lease, mut response: Response, cancel: &Cancel, sink: Sink) {
    let head = head(&response, lease.upstream.address.clone());
    if sink.head.send(Ok(head)).is_err() {
        return;
    }
    let mut part = Vec::new();
    loop {
        match response.read_part(&mut part) {
            Ok(()) if part.is_empty() => break,
            Ok(()) => {
                if sink.parts.blocking_send(Ok(part.clone().into())).is_err() {
                    return;
                }
            }
            Err(error) => return drop(sink.parts.blocking_send(Err(Cut(error)))),
        }
    }
    // Before the client can know that the answer is complete: it may leave then, and must not take the connection with it.
    if cancel.disarm() {
        lease.finish(response.into_session());
    }
}
