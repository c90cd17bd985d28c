//! The byte streams the server talks over.

use embedded_io::{Read, ReadReady, Write, WriteReady};

/// A non-blocking, bidirectional byte stream: TCP, vsock or a test's socket pair.
///
/// The traits are `embedded-io`'s, with these rules on top, because its `read` and `write` may block:
/// * `read_ready()` is true when data or the end of the stream can be read now; `read` is called only
///   then, and `Ok(0)` means that the peer will send nothing more.
/// * `write_ready()` is false when a write would take nothing; `write` takes what fits, and `Ok(0)`
///   also means "later".
/// * An error is final. Once the peer has reset the connection, or takes no more, every `write` fails,
///   even one of no bytes.
/// * Dropping the stream closes it in an orderly way.
pub trait Stream: Read + Write + ReadReady + WriteReady {}

impl<S: Read + Write + ReadReady + WriteReady> Stream for S {}
