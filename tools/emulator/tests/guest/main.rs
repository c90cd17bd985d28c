//! Small guests, assembled here, in the whole emulator.

mod calls;
mod common;
mod platform;
mod rules;
mod sleep;
