//! A byte stream to an [`Address`]: TCP, AF_VSOCK, or a Unix socket that connects on to a vsock port.
//!
//! Reads and writes block for at most the timeout set; a timeout shows as `WouldBlock`, as the standard library's sockets do it.

use core::time::Duration;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;

use vsock::VsockStream;

use crate::address::Address;

/// "OK", a space, a port of ten digits at most, a line feed, and room for a peer that adds a carriage return.
const CONNECT_REPLY_LIMIT: usize = 32;

pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    Vsock(VsockStream),
}

impl Transport {
    /// Opens a connection. AF_VSOCK has the kernel's own limit for this (2 s); the other two use `timeout`.
    pub(crate) fn connect(address: &Address, timeout: Duration) -> io::Result<Self> {
        let transport = match address {
            Address::Tcp { host, port } => Self::Tcp(connect_tcp(host, *port, timeout)?),
            Address::Vsock { cid, port } => {
                Self::Vsock(VsockStream::connect_with_cid_port(*cid, *port)?)
            }
            Address::Unix { path, port } => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                request_port(&stream, *port)?;
                Self::Unix(stream)
            }
        };
        transport.set_timeout(timeout)?;
        Ok(transport)
    }

    /// Another handle to the same connection.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
            Self::Vsock(stream) => Self::Vsock(stream.try_clone()?),
        })
    }

    /// Ends the connection: whoever waits for it, waits no longer.
    pub(crate) fn shut_down(&self) {
        // One that is not open any more is what was wanted.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Vsock(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// Bounds every later read and write.
    pub(crate) fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Some(timeout);
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
            Self::Vsock(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
        }
    }
}

/// Tries every address of the host in turn; the last failure is the one reported.
fn connect_tcp(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                // A request is written whole: waiting to fill a segment would only delay it.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The CONNECT protocol: one line with the guest's port, one line back, then the stream is the guest's.
fn request_port(mut stream: impl Read + Write, port: u32) -> io::Result<()> {
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let mut reply = Vec::new();
    // Byte by byte: whatever follows the line feed belongs to the guest.
    let mut byte = [0];
    while reply.last() != Some(&b'\n') {
        if stream.read(&mut byte)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                format!("nothing in the guest listens on vsock port {port} (yet)"),
            ));
        }
        reply.extend_from_slice(&byte);
        if reply.len() > CONNECT_REPLY_LIMIT {
            break;
        }
    }
    let accepted = core::str::from_utf8(&reply)
        .ok()
        .and_then(|line| line.trim_end().strip_prefix("OK "))
        .is_some_and(|number| number.parse::<u32>().is_ok());
    if !accepted {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the socket does not speak the CONNECT protocol",
        ));
    }
    Ok(())
}

impl Read for Transport {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(out),
            Self::Unix(stream) => stream.read(out),
            Self::Vsock(stream) => stream.read(out),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(data),
            Self::Unix(stream) => stream.write(data),
            Self::Vsock(stream) => stream.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with fixed bytes and keeps what was written.
    struct Scripted<'a> {
        reply: &'a [u8],
        written: Vec<u8>,
    }

    impl Read for Scripted<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.reply.read(out)
        }
    }

    impl Write for Scripted<'_> {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.written.write(data)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn request(reply: &[u8]) -> (io::Result<()>, Vec<u8>, usize) {
        let mut peer = Scripted {
            reply,
            written: Vec::new(),
        };
        let result = request_port(&mut peer, 8443);
        (result, peer.written, peer.reply.len())
    }

    #[test]
    fn connect_reads_the_reply_line_and_no_byte_more() {
        let (result, written, left) = request(b"OK 1073741824\nguest");
        assert!(result.is_ok());
        assert_eq!(written, b"CONNECT 8443\n");
        assert_eq!(left, b"guest".len());
    }

    #[test]
    fn connect_refusals_are_told_apart() {
        let kind = |reply: &[u8]| request(reply).0.unwrap_err().kind();
        assert_eq!(kind(b""), io::ErrorKind::ConnectionRefused);
        assert_eq!(kind(b"OK"), io::ErrorKind::ConnectionRefused);
        assert_eq!(kind(b"NO 1\n"), io::ErrorKind::InvalidData);
        assert_eq!(kind(b"OK x\n"), io::ErrorKind::InvalidData);
        assert_eq!(kind(&[b'O'; 4096]), io::ErrorKind::InvalidData);
    }
}
