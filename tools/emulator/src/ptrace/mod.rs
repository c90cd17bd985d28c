//! The back-end: the guest's code runs in traced processes.

mod stub;
mod tracee;

pub use stub::ADDRESS as STUB_ADDRESS;
pub use tracee::{KICK, Rights, Tracee, Trap, WATCHED};
