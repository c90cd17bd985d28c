//! A TCP socket of the host as the server wants its streams.

use std::{
    io::{self, ErrorKind},
    net::TcpStream,
};

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};

pub struct Socket(TcpStream);

impl Socket {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).expect("a non-blocking socket");
        stream.set_nodelay(true).expect("a socket without delay");
        Self(stream)
    }
}

impl ErrorType for Socket {
    type Error = io::Error;
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut self.0, buffer)
    }
}

impl ReadReady for Socket {
    fn read_ready(&mut self) -> io::Result<bool> {
        match self.0.peek(&mut [0]) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match io::Write::write(&mut self.0, buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WriteReady for Socket {
    fn write_ready(&mut self) -> io::Result<bool> {
        Ok(true)
    }
}
