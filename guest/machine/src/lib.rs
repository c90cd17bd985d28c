//! The machine under the guest: CPU, memory and devices, on bare metal.
//!
//! Everything here may assume what the loader promises on entry (64-bit mode, an identity map of all RAM, no interrupts) and
//! nothing from a device or the host. The modules above `pci` are the CPU side; `pci`, `virtio` and `net` are the devices.
//! The crate also builds on a Linux host, where its pure parts are tested; code that touches hardware is simply not called there.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod apic;
pub mod clock;
pub mod console;
pub mod cpu;
pub mod entropy;
pub mod fatal;
pub mod fw_cfg;
pub mod heap;
pub mod interrupts;
pub mod net;
pub mod paging;
pub mod pci;
pub mod port;
pub mod smp;
pub mod sync;
pub mod virtio;
