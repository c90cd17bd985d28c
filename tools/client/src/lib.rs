//! The thin client: connect to a Vitrine server, judge what it shows, then ask it.
//!
//! Blocking, no engine inside, no `unsafe`. [`Address`] says where, [`Trust`] what is accepted as proof, [`Client`] asks. [`Connector`] and
//! [`Session`] are what it is made of, for programs that pass other requests on.
//!
//! ```no_run
//! use client::{ChatRequest, Client, Message, Options, Sampling, Trust};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::new("tcp://127.0.0.1:8443".parse()?, Options::new(Trust::Evidence))?;
//! let model = client.models()?.remove(0).id;
//! let request = ChatRequest {
//!     model,
//!     messages: vec![Message::new("user", "Good morning.")],
//!     sampling: Sampling::default(),
//!     thinking: None,
//! };
//! for chunk in client.chat_stream(&request)? {
//!     for choice in chunk?.choices {
//!         print!("{}", choice.delta.content.unwrap_or_default());
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod address;
mod api;
mod client;
mod error;
mod http;
mod session;
mod sse;
mod tls;
mod transport;

pub use address::{Address, AddressError};
pub use api::{
    Answer, ChatChunk, ChatCompletion, ChatRequest, Choice, ChunkChoice, Delta, Health, Message,
    Model, Sampling, State, Usage,
};
pub use client::{ChatStream, Client};
pub use error::Error;
pub use session::{Connector, Interrupter, Options, Request, Response, Session};
pub use tls::Trust;
