//! The parts of the loader that are pure: addresses, formats and plans. The binary (`main.rs`) adds the machine.
//!
//! What others share with the loader is defined here once: the guest takes [`handoff`], the image builder takes [`layout`], [`header`] and
//! [`elf`].
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod e820;
pub mod elf;
pub mod handoff;
pub mod header;
pub mod layout;
pub mod memory;
pub mod paging;
pub mod plan;
