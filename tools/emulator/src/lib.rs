//! The TD emulator: runs an unmodified image as a trust domain on an ordinary Linux machine, without TDX hardware.
//!
//! The guest's ring-0 code runs in ring 3 at native speed; what traps is emulated. This crate plays the TDX module, the VMM, the devices and
//! the quoting service. It is for development and tests: it has none of the protection of silicon, and its quotes are signed by a test root.

pub mod apic;
pub mod bus;
pub mod cpu;
pub mod cpuid;
pub mod delivery;
pub mod devices;
pub mod emulate;
pub mod event;
pub mod fault;
pub mod hob;
pub mod hostile;
pub mod machine;
mod measurement;
pub mod memory;
pub mod module;
pub mod msr;
pub mod paging;
pub mod patch;
pub mod ptrace;
pub mod quoting;
pub mod report;
pub mod shadow;
pub mod symbols;
pub mod td;
pub mod tdvf;
pub mod trace;
pub mod vcpu;
pub mod vmcall;
