//! Opening a sealed model: the [age v1 format](https://age-encryption.org/v1), read as a stream.
//!
//! A sealed file is a textual header, in which the file key is wrapped for some recipients, and a payload in chunks of 64 KiB,
//! each encrypted and authenticated on its own (ChaCha20-Poly1305 under a counter, the "STREAM" construction). The trust
//! domain never holds an identity: the model's owner unwraps the 16-byte [`FileKey`] and sends that. So what is here is the
//! whole of the format but for the recipient types:
//!
//! ```text
//! bytes of the file ──► Envelope::read ──► Envelope::unlock(file key) ──► Opening::push … ──► Opening::finish ──► Opened
//!                       header, nonce      header MAC                     chunks, in place     length, last chunk
//! ```
//!
//! A key of another file, a header or a chunk that was changed, chunks in another order, a file that is cut or continued:
//! each is a typed error, and an [`Opening`] that does not end in [`Opened`] overwrites what it has decrypted. Chunks are
//! decrypted in parallel, in the place where the plaintext stays, while the file is still arriving; the SHA-256 digests of the
//! sealed file and of its plaintext are taken on the way.
//!
//! All cryptography is *ring*'s, which the image contains already.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod arrival;
mod envelope;
mod header;
mod key;
mod layout;
mod opening;

pub use arrival::{Arrival, Contents, Plain};
pub use envelope::{Envelope, EnvelopeError, Kind, WrongKey};
pub use header::{HEADER_LIMIT, Header, HeaderError, Stanza};
pub use key::FileKey;
pub use layout::{CHUNK, Layout, LayoutError, TAG};
pub use opening::{OpenError, Opened, Opening, Parallel};
