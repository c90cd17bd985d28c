//! The network face of Vitrine: TLS 1.3, HTTP/1.1 and the OpenAI-compatible API, over any
//! non-blocking `embedded-io` stream.
//!
//! What holds on entry: the composition root has a clock, a parsed [`Config`], the [`TrustDomain`] it runs
//! in, if any, and something that accepts connections. It attaches every accepted stream to a
//! [`Server`] and calls [`Server::poll`] for as long as it runs; everything else happens inside.
//!
//! What this crate is responsible for: that nothing one client sends, or fails to send, disturbs
//! another one. Every buffer has a limit, every wait has a deadline, every poll does a bounded amount
//! of work per connection, and no input can panic. Nothing a client sends is ever logged.
//!
//! It knows neither devices nor models: streams come in through [`Stream`], the engine through
//! [`Inference`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(test)]
extern crate std;

mod api;
pub mod config;
mod connection;
mod evidence;
mod hex;
mod http;
mod identity;
pub mod inference;
mod load;
mod provider;
mod server;
mod stream;
mod tls;
mod vault;
mod warm_up;

pub use api::health::{Health, Platform};
pub use config::{Config, ConfigError};
pub use evidence::{QuoteError, TrustDomain};
pub use identity::IdentityError;
pub use inference::{Inference, measured_name};
pub use server::{AtCapacity, Server, SetupError};
pub use stream::Stream;
pub use tls::{TlsSetupError, WallClock};
