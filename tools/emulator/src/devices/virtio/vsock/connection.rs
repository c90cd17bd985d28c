//! One connection: a client's Unix socket on one side, the guest's packets and credit on the other.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::net::UnixStream;

use super::packet::{Operation, Packet, WILL_NOT_RECEIVE, WILL_NOT_SEND};

/// Bytes that are taken from the guest before the client reads them.
pub const BUFFER: u32 = 256 << 10;
/// Bytes that are taken from the client before the guest has room for them.
const AHEAD: usize = 64 << 10;
/// How far the guest's credit may grow without it being told.
const CREDIT_STEP: u32 = BUFFER / 4;
/// `CONNECT`, a space, ten digits and the line end fit easily.
const LONGEST_LINE: usize = 32;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The client has not said which port it wants.
    Greeting,
    /// The guest was asked.
    Requested,
    /// Bytes flow.
    Open,
    /// The guest is done with it; the client still has bytes to read.
    Draining,
    /// Nobody needs it any more.
    Over,
}

/// A connection.
pub struct Connection {
    stream: UnixStream,
    stage: Stage,
    host_port: u32,
    guest_port: u32,
    line: Vec<u8>,
    /// Packets without data that wait to be sent.
    control: VecDeque<(Operation, u32)>,
    to_client: VecDeque<u8>,
    to_guest: VecDeque<u8>,
    /// Data bytes sent to the guest; what it said it buffers and has consumed. All modulo 2^32.
    sent: u32,
    guest_buffer: u32,
    guest_consumed: u32,
    /// Bytes that the client took, and how many of them the guest was told about.
    consumed: u32,
    told: u32,
    client_finished: bool,
    guest_finished: bool,
    guest_deaf: bool,
    finish_sent: bool,
    readable: bool,
}

impl Connection {
    /// A client that has just connected; `host_port` is the port it will seem to come from.
    pub fn new(stream: UnixStream, host_port: u32) -> Self {
        Self {
            stream,
            stage: Stage::Greeting,
            host_port,
            guest_port: 0,
            line: Vec::new(),
            control: VecDeque::new(),
            to_client: VecDeque::new(),
            to_guest: VecDeque::new(),
            sent: 0,
            guest_buffer: 0,
            guest_consumed: 0,
            consumed: 0,
            told: 0,
            client_finished: false,
            guest_finished: false,
            guest_deaf: false,
            finish_sent: false,
            readable: true,
        }
    }

    /// The client's socket, to wait for it.
    pub fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// The client has sent something or hung up.
    pub fn on_readable(&mut self) {
        self.readable = true;
    }

    /// Whether the connection can be forgotten.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over && self.control.is_empty()
    }

    /// Whether bytes flow.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Moves bytes between the client's socket and the buffers.
    pub fn advance(&mut self) {
        match self.stage {
            Stage::Greeting => self.greet(),
            Stage::Requested if self.readable => self.watch_for_hang_up(),
            Stage::Open | Stage::Draining => {
                self.flush();
                self.fill();
                self.wind_up();
            }
            Stage::Requested | Stage::Over => {}
        }
    }

    /// Takes in a packet of the guest's.
    pub fn on_packet(&mut self, packet: &Packet) {
        self.guest_buffer = packet.buffer;
        self.guest_consumed = packet.consumed;
        match (Operation::from_number(packet.operation), self.stage) {
            (Some(Operation::Response), Stage::Requested) => {
                self.stage = Stage::Open;
                // A socket that nothing was written to yet has room for a line; a client that is gone is noticed later.
                let _ = self
                    .stream
                    .write_all(format!("OK {}\n", self.host_port).as_bytes());
            }
            (Some(Operation::Data), Stage::Open) if !self.guest_finished => {
                self.to_client.extend(&packet.data)
            }
            (Some(Operation::Shutdown), Stage::Open) => {
                self.guest_deaf |= packet.flags & WILL_NOT_RECEIVE != 0;
                self.guest_finished |= packet.flags & WILL_NOT_SEND != 0;
            }
            (Some(Operation::CreditRequest), Stage::Open) => {
                self.control.push_back((Operation::CreditUpdate, 0))
            }
            (Some(Operation::CreditUpdate), _) => {}
            // No answer to a reset, even if packets were under way.
            (Some(Operation::Reset), _) => {
                self.control.clear();
                self.stage = Stage::Draining;
            }
            _ => self.reset(),
        }
    }

    /// Ends the connection at once on both sides.
    pub fn reset(&mut self) {
        if matches!(self.stage, Stage::Requested | Stage::Open) {
            self.control.clear();
            self.control.push_back((Operation::Reset, 0));
        }
        self.stage = Stage::Over;
    }

    /// The next packet for the guest, with at most `room` bytes of data.
    pub fn next_packet(&mut self, room: usize) -> Option<Packet> {
        if let Some((operation, flags)) = self.control.pop_front() {
            return Some(Packet {
                flags,
                ..self.packet(operation)
            });
        }
        if self.stage != Stage::Open {
            return None;
        }
        let credit = self
            .guest_buffer
            .saturating_sub(self.sent.wrapping_sub(self.guest_consumed));
        let length = self.to_guest.len().min(room).min(credit as usize);
        if length > 0 {
            self.sent = self.sent.wrapping_add(length as u32);
            let data = self.to_guest.drain(..length).collect();
            return Some(Packet {
                data,
                ..self.packet(Operation::Data)
            });
        }
        if self.client_finished && self.to_guest.is_empty() && !self.finish_sent {
            self.finish_sent = true;
            return Some(Packet {
                flags: WILL_NOT_SEND,
                ..self.packet(Operation::Shutdown)
            });
        }
        (self.consumed.wrapping_sub(self.told) >= CREDIT_STEP)
            .then(|| self.packet(Operation::CreditUpdate))
    }

    fn packet(&mut self, operation: Operation) -> Packet {
        self.told = self.consumed;
        Packet {
            buffer: BUFFER,
            consumed: self.consumed,
            ..Packet::new(self.host_port, self.guest_port, operation)
        }
    }

    /// Reads the line that says which port is wanted, and no byte more.
    fn greet(&mut self) {
        let mut byte = [0];
        while self.stage == Stage::Greeting {
            match self.stream.read(&mut byte) {
                Ok(1) if byte == *b"\n" => match port(&self.line) {
                    Some(port) => {
                        self.guest_port = port;
                        self.stage = Stage::Requested;
                        self.control.push_back((Operation::Request, 0));
                    }
                    None => self.stage = Stage::Over,
                },
                Ok(1) if self.line.len() < LONGEST_LINE => self.line.extend(byte),
                Err(error) if is_not_now(&error) => return,
                _ => self.stage = Stage::Over,
            }
        }
    }

    /// A client that waits for the guest's answer says nothing: what can be read is its end, or what it sends ahead.
    fn watch_for_hang_up(&mut self) {
        self.fill();
        if self.client_finished {
            self.reset();
        }
    }

    /// From the client.
    fn fill(&mut self) {
        let mut block = [0; 16 << 10];
        while self.readable && !self.client_finished {
            let room = AHEAD.saturating_sub(self.to_guest.len()).min(block.len());
            if room == 0 {
                return;
            }
            match self.stream.read(&mut block[..room]) {
                Ok(0) => self.client_finished = true,
                // What the guest does not want to hear is dropped.
                Ok(_) if self.guest_deaf || self.stage == Stage::Draining => {}
                Ok(count) => self.to_guest.extend(&block[..count]),
                Err(error) if is_not_now(&error) => self.readable = false,
                Err(_) => return self.reset(),
            }
        }
    }

    /// To the client.
    fn flush(&mut self) {
        while !self.to_client.is_empty() {
            let (front, _) = self.to_client.as_slices();
            match self.stream.write(front) {
                Ok(count) => {
                    self.to_client.drain(..count);
                    self.consumed = self.consumed.wrapping_add(count as u32);
                }
                Err(error) if is_not_now(&error) => return,
                Err(_) => return self.reset(),
            }
        }
    }

    /// Ends what is at its end.
    fn wind_up(&mut self) {
        if !self.to_client.is_empty() {
            return;
        }
        if self.stage == Stage::Draining {
            self.stage = Stage::Over;
        } else if self.guest_finished && self.guest_deaf {
            self.reset();
        } else if self.guest_finished {
            // The client reads the end of the stream; one that is gone needs no telling.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// The port in `CONNECT <port>`.
fn port(line: &[u8]) -> Option<u32> {
    let line = core::str::from_utf8(line).ok()?;
    line.trim_end_matches('\r')
        .strip_prefix("CONNECT ")?
        .parse()
        .ok()
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
