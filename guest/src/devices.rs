//! The devices of the machine, started once, behind one arena of memory that they may see.

use core::ptr::NonNull;

use machine::clock;
use machine::heap::{Arena, OutOfMemory};
use machine::pci::{ConfigPorts, MmioWindow};
use machine::println;
use machine::virtio::{DeviceAddress, Devices, SharedArena};

/// Starts a driver for every device there is and reports those that cannot be used. Call once: the arena, the PCI ports and
/// the register window are taken for good.
///
/// # Errors
/// There is no memory for the shared arena.
pub fn start() -> Result<Devices, OutOfMemory> {
    let memory = Arena::new(SharedArena::LENGTH)?.leak();
    // RAM is identity mapped, so devices reach it at the same address.
    let device = DeviceAddress(memory.as_ptr().addr() as u64);
    let base = NonNull::from(memory).cast();
    // SAFETY: the arena is leaked, and its only reference ended with the cast.
    let mut arena = unsafe { SharedArena::new(base, device, SharedArena::LENGTH) };
    // SAFETY: this is ring 0 of a q35 machine, and nobody else uses the ports.
    let mut ports = unsafe { ConfigPorts::new() };
    let mut window = MmioWindow::new();
    // SAFETY: the loader maps the window one to one, there is no RAM in it, and this is the only window.
    let devices = unsafe { Devices::start(&mut ports, &mut window, &mut arena, clock::now) };
    for failure in &devices.failures {
        println!("vitrine: left out: {failure}");
    }
    Ok(devices)
}
