//! One client: its stream, its TLS session, and the requests on it.
//!
//! A connection moves through the phases below on its own; [`Connection::poll`] does a bounded amount
//! of work and never waits. Whatever its client does, or fails to do, ends in a response, in a closed
//! connection, or both, before the phase's deadline.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::time::Duration;

use crate::{
    Inference, Stream,
    api::{Answer, ApiError, Reply, Service},
    config::Timeouts,
    evidence::{Leaf, Ticket},
    http::{Exchange, HttpError, Limits, Progress, RequestReader, Stage},
    tls::{Broken, Session, Settings},
};

/// Plaintext of responses above which no more is produced until the client has read some.
const OUTBOX_LIMIT: usize = 64 * 1024;
/// After the last response the client's remaining bytes are read and dropped for this long, so that
/// a reset does not overtake the response.
const LINGER: Duration = Duration::from_secs(2);

/// What a poll came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing to do until something arrives or time passes.
    Idle,
    /// Something was done; there may be more.
    Active,
    /// The connection is over and can be dropped.
    Over,
}

/// What the connection is doing.
enum Phase<Sequence> {
    /// TLS is being negotiated.
    Handshake,
    /// A request is being read, or awaited.
    Reading,
    /// The engine is at work on an answer.
    Answering {
        answer: Box<Answer<Sequence>>,
        exchange: Exchange,
    },
    /// A quote is being made.
    Attesting { ticket: Ticket, exchange: Exchange },
    /// The last response is being sent.
    Finishing,
    /// Everything is sent; waiting for the client to close.
    Lingering,
}

/// One client's connection.
pub(crate) struct Connection<S, I: Inference> {
    stream: S,
    session: Session,
    reader: RequestReader,
    limits: Limits,
    timeouts: Timeouts,
    phase: Phase<I::Sequence>,
    /// What the reader was waiting for when the deadline was last set.
    stage: Stage,
    /// When the phase must be over; in the server's patience, like every time here.
    deadline: Option<Duration>,
    /// When the client must have taken some of the bytes waiting for it.
    write_deadline: Option<Duration>,
    /// Plaintext of responses not yet encrypted.
    outbox: Vec<u8>,
}

impl<S: Stream, I: Inference> Connection<S, I> {
    /// A connection over a stream just accepted.
    pub(crate) fn new(
        stream: S,
        tls: &Settings,
        leaf: Arc<Leaf>,
        limits: Limits,
        timeouts: Timeouts,
        now: Duration,
    ) -> Result<Self, Broken> {
        Ok(Self {
            stream,
            session: Session::new(tls, leaf)?,
            reader: RequestReader::new(limits),
            limits,
            timeouts,
            phase: Phase::Handshake,
            stage: Stage::Idle,
            deadline: Some(now + timeouts.handshake),
            write_deadline: None,
            outbox: Vec::new(),
        })
    }

    /// When the connection will be closed if it goes on serving no purpose; None if it serves one.
    pub(crate) fn idle_until(&self) -> Option<Duration> {
        let idle = matches!(self.phase, Phase::Reading) && self.stage == Stage::Idle;
        self.deadline.filter(|_| idle && self.is_flushed())
    }

    /// Ends what the connection has going on elsewhere. Called once, before it is dropped.
    pub(crate) fn abandon(&mut self, service: &mut Service<I>) {
        match (&self.phase, &mut service.model) {
            (Phase::Answering { answer, .. }, Some((engine, _))) => answer.cancel(engine),
            (Phase::Attesting { ticket, .. }, _) => service.attestor.forget(*ticket),
            _ => {}
        }
    }

    /// Does what can be done now, within bounds.
    pub(crate) fn poll(&mut self, service: &mut Service<I>, now: Duration) -> Outcome {
        match self.try_poll(service, now) {
            Ok(outcome) => outcome,
            Err(Broken) => {
                // A TLS alert may be waiting to tell the peer why; it gets one chance.
                let _ = self.session.transmit(&mut self.stream);
                Outcome::Over
            }
        }
    }

    fn try_poll(&mut self, service: &mut Service<I>, now: Duration) -> Result<Outcome, Broken> {
        let mut active = self.session.receive(&mut self.stream)?;
        active |= self.advance(service, now)?;
        active |= self.flush(now)?;
        let expired = |deadline: Option<Duration>| deadline.is_some_and(|at| at <= now);
        if expired(self.write_deadline) {
            return Ok(Outcome::Over);
        }
        if expired(self.deadline) {
            match (&self.phase, self.stage) {
                (Phase::Reading, Stage::Head | Stage::Body) => self.refuse(HttpError::Timeout),
                (Phase::Reading, Stage::Idle) => self.finish(),
                _ => return Ok(Outcome::Over),
            }
            self.flush(now)?;
            return Ok(Outcome::Active);
        }
        let over = matches!(self.phase, Phase::Lingering) && self.session.input_ended();
        Ok(match (over, active) {
            (true, _) => Outcome::Over,
            (false, true) => Outcome::Active,
            (false, false) => Outcome::Idle,
        })
    }

    /// Goes as far as the current phase can.
    fn advance(&mut self, service: &mut Service<I>, now: Duration) -> Result<bool, Broken> {
        match &mut self.phase {
            Phase::Handshake => {
                if self.session.is_established() {
                    self.phase = Phase::Reading;
                    self.deadline = Some(now + self.timeouts.idle);
                } else if self.session.input_ended() {
                    return Err(Broken);
                }
                Ok(false)
            }
            // One response at a time: the next request is read when this one's answer is gone.
            Phase::Reading if self.outbox.is_empty() => Ok(self.read_request(service, now)),
            Phase::Reading => Ok(false),
            Phase::Answering { .. } => self.continue_answer(service, now),
            Phase::Attesting { ticket, exchange } => {
                let (ticket, exchange) = (*ticket, *exchange);
                self.await_attestation(ticket, exchange, service, now)
            }
            Phase::Finishing => {
                if self.outbox.is_empty() && self.session.is_flushed() {
                    self.phase = Phase::Lingering;
                    self.deadline = Some(now + LINGER);
                }
                self.session.plaintext().clear();
                Ok(false)
            }
            Phase::Lingering => {
                self.session.plaintext().clear();
                Ok(false)
            }
        }
    }

    /// Reads on, and answers the request if that completes it.
    fn read_request(&mut self, service: &mut Service<I>, now: Duration) -> bool {
        match self.reader.advance(self.session.plaintext()) {
            Ok(Progress::More) => {
                self.watch_stage(now);
                if self.session.input_ended() {
                    match self.stage {
                        Stage::Idle => self.finish(),
                        _ => self.refuse(HttpError::Malformed("it ends in the middle")),
                    }
                }
                false
            }
            Ok(Progress::Continue) => {
                self.outbox
                    .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                self.watch_stage(now);
                true
            }
            Ok(Progress::Request(mut request)) => {
                let exchange = Exchange::for_request(&request);
                match service.answer(&mut request, &self.session) {
                    Ok(Reply::Whole(response)) => {
                        exchange.respond(&response, &mut self.outbox);
                        self.next_request(exchange, now);
                    }
                    Ok(Reply::Attested(ticket)) => {
                        self.phase = Phase::Attesting { ticket, exchange };
                        self.deadline = None;
                    }
                    Ok(Reply::Growing(answer)) => {
                        self.phase = Phase::Answering { answer, exchange };
                        self.deadline = None;
                    }
                    Err(error) => {
                        exchange.respond(&error.to_response(), &mut self.outbox);
                        self.next_request(exchange, now);
                    }
                }
                true
            }
            Err(error) => {
                self.refuse(error);
                true
            }
        }
    }

    /// Moves the deadline when the reader has begun to wait for something else.
    fn watch_stage(&mut self, now: Duration) {
        let stage = self.reader.stage();
        if stage != self.stage {
            self.stage = stage;
            self.deadline = Some(match stage {
                Stage::Idle => now + self.timeouts.idle,
                Stage::Head => now + self.timeouts.header,
                Stage::Body => now + self.timeouts.body,
            });
        }
    }

    /// Passes on what the engine has come up with.
    fn continue_answer(&mut self, service: &mut Service<I>, now: Duration) -> Result<bool, Broken> {
        let (Phase::Answering { answer, exchange }, Some((engine, _))) =
            (&mut self.phase, &mut service.model)
        else {
            return Err(Broken);
        };
        if self.session.was_cut_off() {
            return Err(Broken);
        }
        if self.session.input_ended() {
            answer.begin(exchange, &mut self.outbox);
            // A client that announced the end of its requests still reads. If it is gone all the same, its
            // machine answers our bytes with a reset, which an empty write brings to light.
            self.stream.write(&[]).map_err(|_| Broken)?;
        }
        if self.outbox.len() >= OUTBOX_LIMIT {
            return Ok(false);
        }
        let before = self.outbox.len();
        if answer.advance(engine, exchange, &mut self.outbox) {
            let exchange = *exchange;
            self.next_request(exchange, now);
            return Ok(true);
        }
        Ok(self.outbox.len() > before)
    }

    /// Passes on the answer to a challenge, once it is there.
    fn await_attestation(
        &mut self,
        ticket: Ticket,
        exchange: Exchange,
        service: &mut Service<I>,
        now: Duration,
    ) -> Result<bool, Broken> {
        if self.session.was_cut_off() {
            return Err(Broken);
        }
        let Some(answer) = service.take_attestation(ticket) else {
            return Ok(false);
        };
        let response = answer.unwrap_or_else(|error| error.to_response());
        exchange.respond(&response, &mut self.outbox);
        self.next_request(exchange, now);
        Ok(true)
    }

    /// After a response: waits for the next request, or ends the connection if this was the last.
    fn next_request(&mut self, exchange: Exchange, now: Duration) {
        self.reader = RequestReader::new(self.limits);
        self.stage = Stage::Idle;
        if exchange.keep_alive() {
            self.phase = Phase::Reading;
            self.deadline = Some(now + self.timeouts.idle);
        } else {
            self.finish();
        }
    }

    /// Answers what is not a request, and ends the connection.
    fn refuse(&mut self, error: HttpError) {
        let response = ApiError::from(error).to_response();
        Exchange::last().respond(&response, &mut self.outbox);
        self.finish();
    }

    /// Ends the connection as soon as everything is sent.
    fn finish(&mut self) {
        self.phase = Phase::Finishing;
        self.deadline = None;
    }

    fn is_flushed(&self) -> bool {
        self.outbox.is_empty() && self.session.is_flushed()
    }

    /// Encrypts and writes what the client takes. Returns whether it took anything.
    fn flush(&mut self, now: Duration) -> Result<bool, Broken> {
        let mut taken = 0;
        loop {
            match self.session.send(&self.outbox[taken..])? {
                0 => break,
                count => taken += count,
            }
        }
        self.outbox.drain(..taken);
        if matches!(self.phase, Phase::Finishing) && self.outbox.is_empty() {
            self.session.close()?;
        }
        let written = self.session.transmit(&mut self.stream)?;
        if self.is_flushed() {
            self.write_deadline = None;
        } else if written || self.write_deadline.is_none() {
            self.write_deadline = Some(now + self.timeouts.write);
        }
        Ok(written || taken > 0)
    }
}
