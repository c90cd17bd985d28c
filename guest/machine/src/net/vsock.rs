//! Connections over vsock: the state machine behind the driver, without the device.
//!
//! The host's packets go in at [`Connections::on_packet`], ours come out of [`Connections::next_packet`]. This machine only
//! accepts connections. Each end may send what the other said it can buffer (credit); a peer that sends more, or that
//! speaks out of turn, is reset, and only its own connection ends (virtio 1.2 §5.10.6).

use super::stream::{BUFFER, Channel, Stream};
use super::{LINGER, MAX_CONNECTIONS};
use crate::virtio::vsock::{
    Endpoint, Header, Operation, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TRANSMIT_DATA, TYPE_STREAM,
};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;
use embedded_io::ErrorKind;

/// Refusals waiting to be sent. A host that provokes more gets no answer to some.
const MAX_REFUSALS: usize = 64;
/// How much the peer's credit may have grown without it being told.
const CREDIT_STEP: u32 = BUFFER as u32 / 4;
/// How long to wait for credit before asking for it, in case an update was lost.
const CREDIT_PATIENCE: Duration = Duration::from_millis(200);
/// How long the peer may take to confirm the end of a connection.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for the confirmation before asking again: vhost-device-vsock forgets to give it if it still holds
/// data for its own peer.
const SHUTDOWN_INTERVAL: Duration = Duration::from_millis(250);

struct Connection {
    peer: Endpoint,
    channel: Rc<RefCell<Channel>>,
    /// Data bytes received and sent, modulo 2^32 like everything about credit.
    received: u32,
    sent: u32,
    /// What the peer last said: how much it buffers, how much it has consumed.
    peer_buffer: u32,
    peer_consumed: u32,
    /// How much we last said to have consumed.
    told: u32,
    accept: bool,
    credit_wanted: bool,
    blocked_since: Option<Duration>,
    shutdown_at: Option<Duration>,
    /// When patience ends, once the stream was dropped.
    deadline: Option<Duration>,
}

impl Connection {
    /// Bytes the user has taken out of the buffer.
    fn consumed(&self) -> u32 {
        self.received
            .wrapping_sub(self.channel.borrow().received.len() as u32)
    }

    /// Bytes the peer can still take. A peer whose numbers make no sense gets nothing.
    fn credit(&self) -> u32 {
        let outstanding = self.sent.wrapping_sub(self.peer_consumed);
        self.peer_buffer.saturating_sub(outstanding)
    }

    fn break_off(&self) {
        self.channel
            .borrow_mut()
            .break_off(ErrorKind::ConnectionReset);
    }
}

/// What is to become of a connection after a packet.
enum Verdict {
    Keep,
    /// Forget it; the peer knows.
    Forget,
    /// Forget it and tell the peer.
    Reset,
}

/// All vsock connections of this machine.
pub struct Connections {
    cid: u64,
    port: u32,
    connections: Vec<Connection>,
    refusals: VecDeque<Header>,
    /// Whose turn it is to send.
    turn: usize,
}

impl Connections {
    /// No connections yet; `cid` is this machine's identifier, `port` the one it listens at.
    pub fn new(cid: u64, port: u32) -> Self {
        Self {
            cid,
            port,
            connections: Vec::new(),
            refusals: VecDeque::new(),
            turn: 0,
        }
    }

    /// Ends every connection, because the host has: its service restarted, or the device failed.
    pub fn cut(&mut self, cid: u64) {
        for connection in self.connections.drain(..) {
            connection.break_off();
        }
        self.refusals.clear();
        self.cid = cid;
    }

    /// Takes a packet in. Returns the stream and peer of a new connection if it asked for one.
    pub fn on_packet(&mut self, header: &Header, data: &[u8]) -> Option<(Stream, Endpoint)> {
        if header.destination.cid != self.cid {
            return None;
        }
        let stream = header.socket_type == TYPE_STREAM;
        let found = if stream && header.destination.port == self.port {
            self.connections
                .iter()
                .position(|connection| connection.peer == header.source)
        } else {
            None
        };
        match (found, header.operation) {
            (Some(index), operation) => {
                match on_packet_of(&mut self.connections[index], operation, header, data) {
                    Verdict::Keep => {}
                    Verdict::Forget => {
                        self.connections.swap_remove(index);
                    }
                    Verdict::Reset => {
                        self.connections.swap_remove(index);
                        self.refuse(header);
                    }
                }
                None
            }
            // Answering a reset with a reset could go on forever.
            (None, Some(Operation::Reset)) => None,
            (None, Some(Operation::Request)) if self.welcomes(header) => Some(self.accept(header)),
            (None, _) => {
                self.refuse(header);
                None
            }
        }
    }

    /// Refuses a packet that cannot be understood, and ends the connection it belongs to.
    pub fn on_malformed(&mut self, header: &Header) {
        if header.destination.cid != self.cid {
            return;
        }
        self.connections.retain(|connection| {
            let other = connection.peer != header.source || header.destination.port != self.port;
            if !other {
                connection.break_off();
            }
            other
        });
        if header.operation != Some(Operation::Reset) {
            self.refuse(header);
        }
    }

    fn welcomes(&self, header: &Header) -> bool {
        header.socket_type == TYPE_STREAM
            && header.destination.port == self.port
            && self.connections.len() < MAX_CONNECTIONS
    }

    fn accept(&mut self, header: &Header) -> (Stream, Endpoint) {
        let (channel, stream) = Channel::open();
        self.connections.push(Connection {
            peer: header.source,
            channel,
            received: 0,
            sent: 0,
            peer_buffer: header.buffer,
            peer_consumed: header.consumed,
            told: 0,
            accept: true,
            credit_wanted: false,
            blocked_since: None,
            shutdown_at: None,
            deadline: None,
        });
        (stream, header.source)
    }

    fn refuse(&mut self, header: &Header) {
        if self.refusals.len() < MAX_REFUSALS {
            self.refusals.push_back(Header {
                source: header.destination,
                destination: header.source,
                length: 0,
                socket_type: header.socket_type,
                operation: Some(Operation::Reset),
                flags: 0,
                buffer: 0,
                consumed: 0,
            });
        }
    }

    /// Ends connections whose time is up. Call before asking for packets.
    pub fn expire(&mut self, now: Duration) {
        let mut index = 0;
        while let Some(connection) = self.connections.get_mut(index) {
            if connection.channel.borrow().dropped {
                let deadline = *connection
                    .deadline
                    .get_or_insert(now.saturating_add(LINGER));
                if now > deadline {
                    let header = packet(connection, self.cid, self.port, Operation::Reset);
                    // `refuse` turns a received header around.
                    let received = Header {
                        source: header.destination,
                        destination: header.source,
                        ..header
                    };
                    self.connections.swap_remove(index);
                    self.refuse(&received);
                    continue;
                }
            }
            index += 1;
        }
    }

    /// The next packet to send, with `length` bytes of data at the front of `data`. None if nothing can be sent now.
    pub fn next_packet(&mut self, now: Duration, data: &mut [u8; TRANSMIT_DATA]) -> Option<Header> {
        if let Some(refusal) = self.refusals.pop_front() {
            return Some(refusal);
        }
        // Every connection gets a turn before one gets a second.
        for _ in 0..self.connections.len() {
            self.turn = (self.turn + 1) % self.connections.len();
            let connection = &mut self.connections[self.turn];
            if let Some((operation, flags, length)) = next_of(connection, now, data) {
                let header = packet(connection, self.cid, self.port, operation);
                connection.told = header.consumed;
                return Some(Header {
                    flags,
                    length,
                    ..header
                });
            }
        }
        None
    }
}

/// A packet of a connection, credit fields included.
fn packet(connection: &Connection, cid: u64, port: u32, operation: Operation) -> Header {
    Header {
        source: Endpoint { cid, port },
        destination: connection.peer,
        length: 0,
        socket_type: TYPE_STREAM,
        operation: Some(operation),
        flags: 0,
        buffer: BUFFER as u32,
        consumed: connection.consumed(),
    }
}

/// What to send for a connection: operation, flags and length of the data put at the front of `data`.
fn next_of(
    connection: &mut Connection,
    now: Duration,
    data: &mut [u8; TRANSMIT_DATA],
) -> Option<(Operation, u32, u32)> {
    if core::mem::take(&mut connection.accept) {
        return Some((Operation::Response, 0, 0));
    }
    let credit = connection.credit();
    let (waiting, room, dropped) = {
        let channel = connection.channel.borrow();
        (
            channel.sending.len(),
            channel.received.room(),
            channel.dropped,
        )
    };
    if waiting > 0 && credit > 0 {
        let most = (credit as usize).min(TRANSMIT_DATA);
        let count = connection
            .channel
            .borrow_mut()
            .sending
            .pop(&mut data[..most]);
        connection.sent = connection.sent.wrapping_add(count as u32);
        connection.blocked_since = None;
        connection.credit_wanted = false;
        return Some((Operation::Data, 0, count as u32));
    }
    if waiting == 0 && dropped && connection.shutdown_at.is_none_or(|at| now >= at) {
        if connection.shutdown_at.is_none() {
            connection.deadline = Some(now.saturating_add(CLOSE_PATIENCE));
        }
        connection.shutdown_at = Some(now.saturating_add(SHUTDOWN_INTERVAL));
        return Some((Operation::Shutdown, SHUTDOWN_RECEIVE | SHUTDOWN_SEND, 0));
    }
    let untold = connection.consumed().wrapping_sub(connection.told);
    // With a full buffer the answer to a request for credit waits until there is some to give.
    if untold >= CREDIT_STEP || connection.credit_wanted && room > 0 {
        connection.credit_wanted = false;
        return Some((Operation::CreditUpdate, 0, 0));
    }
    if waiting > 0 {
        let since = *connection.blocked_since.get_or_insert(now);
        if now.saturating_sub(since) >= CREDIT_PATIENCE {
            connection.blocked_since = Some(now);
            return Some((Operation::CreditRequest, 0, 0));
        }
    }
    None
}

/// Takes in a packet of an existing connection.
fn on_packet_of(
    connection: &mut Connection,
    operation: Option<Operation>,
    header: &Header,
    data: &[u8],
) -> Verdict {
    connection.peer_buffer = header.buffer;
    connection.peer_consumed = header.consumed;
    let mut channel = connection.channel.borrow_mut();
    match operation {
        Some(Operation::Data) => {
            if channel.peer_finished || data.len() > channel.received.room() {
                channel.break_off(ErrorKind::ConnectionReset);
                return Verdict::Reset;
            }
            connection.received = connection.received.wrapping_add(data.len() as u32);
            if !channel.dropped {
                channel.received.push(data);
            }
            Verdict::Keep
        }
        Some(Operation::Shutdown) => {
            if header.flags & SHUTDOWN_SEND != 0 {
                channel.peer_finished = true;
            }
            if header.flags & SHUTDOWN_RECEIVE != 0 {
                channel.peer_deaf = true;
                channel.sending.clear();
            }
            // With both directions over the reset is the confirmation; what was received stays with the stream.
            if channel.peer_finished && channel.peer_deaf {
                Verdict::Reset
            } else {
                Verdict::Keep
            }
        }
        Some(Operation::CreditUpdate) => Verdict::Keep,
        Some(Operation::CreditRequest) => {
            connection.credit_wanted = true;
            Verdict::Keep
        }
        Some(Operation::Reset) => {
            channel.break_off(ErrorKind::ConnectionReset);
            Verdict::Forget
        }
        // A second request, or an answer to a request never made.
        Some(Operation::Request | Operation::Response) => {
            channel.break_off(ErrorKind::ConnectionReset);
            Verdict::Reset
        }
        // A later version of the protocol may have more operations, and vhost-device-vsock sends number 0 when it
        // turns out to have nothing to say. The credit fields were all there was to it.
        None => Verdict::Keep,
    }
}

#[cfg(test)]
#[path = "vsock_tests.rs"]
mod tests;
