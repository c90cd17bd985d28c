//! An OpenAI-compatible endpoint on this machine whose other side is Vitrine servers, each verified before a prompt reaches it.
//!
//! Programs that know nothing of attestation talk plain HTTP to it; it is meant for the loopback interface. [`Pool`] keeps verified
//! connections to several servers, [`serve`] passes requests on over them, and tells at `/vitrine/status` and, to a person, at `/`
//! what each server showed. How a connection is verified is the business of a [`Dialer`].
//!
//! - A request goes to the first server that can take it; one that fails its verification is skipped until it passes again.
//! - A connection serves until its evidence is to be renewed ([`Shown::term`]) or it is too old. What is being answered then is
//!   answered to its end; after that the connection is closed and a new one is verified.
//! - A client that leaves cancels its answer.

#![forbid(unsafe_code)]

mod cancel;
mod dialer;
mod forward;
mod guard;
mod page;
mod pool;
mod reply;
mod server;
mod status;
mod upstream;

pub use dialer::{Dialed, Dialer, Refusal, Shown, WeakerMode};
pub use pool::{Limits, Pool};
pub use server::serve;
