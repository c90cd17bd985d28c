//! The emulator's devices, driven by the drivers of the real guest.

mod common;
mod drivers;
mod hostile;
