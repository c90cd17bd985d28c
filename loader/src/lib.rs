//! The parts of the loader that are pure: addresses, formats and plans. The binary (`main.rs`) adds the machine.
//!
//! What others share with the loader is defined here once: the guest takes [`handoff`], the image builder takes [`layout`], [`header`] and
//! [`elf`].
#![no_std]
#![cfg_attr(not(test), forbid(unsafe_code))]

#[cfg(test)]
extern crate std;

pub mod e820;
pub mod elf;
pub mod handoff;
pub mod header;
pub mod hob;
pub mod launch;
pub mod layout;
#[cfg(test)]
mod mem;
pub mod memory;
pub mod paging;
pub mod plan;
