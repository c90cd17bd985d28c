//! The byte stream the server sees, the same whichever device carries it.
//!
//! A stream and the network side of its connection share a [`Channel`]: two bounded byte queues and a few facts. The
//! stream never touches a device; [`super::Network::poll`] moves the bytes. All of it runs on one CPU.

use super::ring::Ring;
use alloc::rc::Rc;
use core::cell::RefCell;
use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write, WriteReady};

/// Bytes buffered in each direction of a connection, and the credit a vsock peer gets.
pub const BUFFER: usize = 64 << 10;

/// What the two sides of a connection share.
pub struct Channel {
    /// Bytes from the peer.
    pub received: Ring,
    /// Bytes for the peer.
    pub sending: Ring,
    /// The peer will send no more.
    pub peer_finished: bool,
    /// The peer will take no more.
    pub peer_deaf: bool,
    /// The connection is gone, and why.
    pub broken: Option<ErrorKind>,
    /// The stream was dropped: what was written is still to be delivered, nothing more is wanted.
    pub dropped: bool,
}

impl Channel {
    /// The shared state of a new connection and the stream for its user.
    pub fn open() -> (Rc<RefCell<Self>>, Stream) {
        let channel = Rc::new(RefCell::new(Self {
            received: Ring::new(BUFFER),
            sending: Ring::new(BUFFER),
            peer_finished: false,
            peer_deaf: false,
            broken: None,
            dropped: false,
        }));
        let stream = Stream(channel.clone());
        (channel, stream)
    }

    /// Notes that the connection is gone. What was received before stays readable.
    pub fn break_off(&mut self, kind: ErrorKind) {
        self.broken.get_or_insert(kind);
        self.sending.clear();
    }
}

/// One connection. Reading and writing never wait.
///
/// - [`ReadReady::read_ready`]: there are bytes, the end, or an error to get; otherwise `read` fails with
///   [`ErrorKind::Interrupted`]. `read` returning zero is the end of what the peer sends.
/// - [`Write::write`] takes what fits, [`WriteReady::write_ready`] tells whether anything does (an error counts:
///   `write` then returns it). Writing with no room takes nothing and returns zero.
/// - [`Write::flush`] does nothing: bytes leave at the next poll of the network.
/// - Dropping the stream closes the connection once everything written has been sent, or a time limit has passed.
pub struct Stream(Rc<RefCell<Channel>>);

impl Stream {
    /// Whether nothing written to the stream can reach the peer any more.
    pub fn is_over(&self) -> bool {
        let channel = self.0.borrow();
        channel.broken.is_some() || channel.peer_deaf
    }
}

impl ErrorType for Stream {
    type Error = ErrorKind;
}

impl ReadReady for Stream {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        let channel = self.0.borrow();
        Ok(!channel.received.is_empty() || channel.peer_finished || channel.broken.is_some())
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, ErrorKind> {
        let mut channel = self.0.borrow_mut();
        if into.is_empty() {
            return Ok(0);
        }
        match channel.received.pop(into) {
            0 if channel.peer_finished => Ok(0),
            0 => Err(channel.broken.unwrap_or(ErrorKind::Interrupted)),
            count => Ok(count),
        }
    }
}

impl WriteReady for Stream {
    fn write_ready(&mut self) -> Result<bool, ErrorKind> {
        let channel = self.0.borrow();
        Ok(channel.sending.room() > 0 || channel.broken.is_some() || channel.peer_deaf)
    }
}

impl Write for Stream {
    fn write(&mut self, from: &[u8]) -> Result<usize, ErrorKind> {
        let mut channel = self.0.borrow_mut();
        if let Some(kind) = channel.broken {
            return Err(kind);
        }
        if channel.peer_deaf {
            return Err(ErrorKind::BrokenPipe);
        }
        Ok(channel.sending.push(from))
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut channel = self.0.borrow_mut();
        channel.dropped = true;
        channel.received.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn nothing_to_read_is_not_the_end() {
        let (channel, mut stream) = Channel::open();
        assert_eq!(stream.read_ready(), Ok(false));
        assert_eq!(stream.read(&mut [0; 4]), Err(ErrorKind::Interrupted));
        channel.borrow_mut().peer_finished = true;
        assert_eq!(stream.read_ready(), Ok(true));
        assert_eq!(stream.read(&mut [0; 4]), Ok(0));
    }

    #[test]
    fn what_arrived_is_read_before_the_end_and_before_an_error() {
        let (channel, mut stream) = Channel::open();
        channel.borrow_mut().received.push(b"abc");
        channel.borrow_mut().break_off(ErrorKind::ConnectionReset);
        let mut into = [0; 2];
        assert_eq!(stream.read(&mut into), Ok(2));
        assert_eq!(stream.read(&mut into), Ok(1));
        assert_eq!(stream.read(&mut into), Err(ErrorKind::ConnectionReset));
        assert_eq!(stream.write(b"x"), Err(ErrorKind::ConnectionReset));
    }

    #[test]
    fn a_full_stream_is_not_ready() {
        let (channel, mut stream) = Channel::open();
        assert_eq!(stream.write(&vec![1; BUFFER + 5]), Ok(BUFFER));
        assert_eq!(stream.write_ready(), Ok(false));
        assert_eq!(stream.write(b"x"), Ok(0));
        channel.borrow_mut().sending.drop_front(1);
        assert_eq!(stream.write(b"xy"), Ok(1));
    }

    #[test]
    fn a_peer_that_takes_no_more_is_a_broken_pipe() {
        let (channel, mut stream) = Channel::open();
        channel.borrow_mut().peer_deaf = true;
        assert_eq!(stream.write_ready(), Ok(true));
        assert_eq!(stream.write(b"x"), Err(ErrorKind::BrokenPipe));
    }

    #[test]
    fn dropping_keeps_what_was_written() {
        let (channel, mut stream) = Channel::open();
        stream.write(b"bye").unwrap();
        channel.borrow_mut().received.push(b"unread");
        drop(stream);
        let channel = channel.borrow();
        assert!(channel.dropped);
        assert_eq!((channel.sending.len(), channel.received.len()), (3, 0));
    }
}
