//! The thin client: connect to a Vitrine server, judge what it shows, then ask it.
//!
//! Blocking, no engine inside, no `unsafe`. [`Address`] says where, [`Trust`] what is accepted as proof, [`Client`] asks. [`Connector`] and
//! [`Session`] are what it is made of, for programs that pass other requests on.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use client::{ChatRequest, Client, Message, Options, Pinned, Sampling, Trust};
//! use verifier::{Collateral, Policy, TrustAnchor};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = Policy::parse(&std::fs::read("policy.toml")?, |name| std::fs::read(name))?;
//! let collateral = Collateral::parse(&std::fs::read("collateral.json")?).ok();
//! let pinned = Pinned { policy, anchor: TrustAnchor::intel(), collateral };
//! let trust = Trust::Evidence(Arc::new(pinned));
//! let mut client = Client::new("tcp://127.0.0.1:8443".parse()?, Options::new(trust))?;
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
mod evidence;
mod http;
mod session;
mod sse;
mod term;
mod tls;
mod transport;

pub use address::{Address, AddressError};
pub use api::{
    Answer, ChatChunk, ChatCompletion, ChatRequest, Choice, ChunkChoice, Delta, Health, Message,
    Model, Sampling, State, Usage,
};
pub use client::{ChatStream, Client};
pub use error::Error;
pub use evidence::{Judge, Pinned, Proof};
pub use session::{Connector, Interrupter, Options, Request, Response, Session, Trust};
pub use term::Term;
