//! The machine under the guest: CPU, memory and devices, on bare metal.
//!
//! Everything here may assume what the loader promises on entry (64-bit mode, an identity map of all RAM, no interrupts) and
//! nothing from a device or the host. `pci`, `virtio` and `net` are the devices; the other modules are the CPU side. Whether the machine is a
//! trust domain is known to [`platform`] and to the modules that it names.
//! The crate also builds on a Linux host, where its pure parts are tested; code that touches hardware is simply not called there.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod acceptance;
pub mod apic;
pub mod clock;
pub mod console;
pub mod cpu;
pub mod entropy;
pub mod fatal;
pub mod fw_cfg;
pub mod heap;
pub mod interrupts;
pub mod measurement;
pub mod mmio;
pub mod msr;
pub mod net;
pub mod paging;
pub mod pci;
pub mod platform;
pub mod port;
pub mod quote;
pub mod smp;
pub mod sync;
pub mod virtio;
