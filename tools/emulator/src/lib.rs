//! The TD emulator: runs an unmodified image as a trust domain on an ordinary Linux machine, without TDX hardware.
//!
//! The guest's ring-0 code runs in ring 3 at native speed; what traps is emulated. This crate plays the TDX module, the VMM, the devices and
//! the quoting service. It is for development and tests: it has none of the protection of silicon, and its quotes are signed by a test root.

pub mod bus;
pub mod devices;
pub mod hostile;
pub mod quoting;
