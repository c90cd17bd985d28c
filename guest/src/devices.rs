//! The devices of the machine, started once, behind one arena of memory that they may see.

use machine::interrupts::DEVICE_VECTOR;
use machine::pci::{ConfigPorts, Message, MmioWindow};
use machine::println;
use machine::virtio::{ArenaFull, Devices, SharedArena};
use machine::{apic, clock};

use crate::evidence::Evidence;

/// Starts a driver for every device there is and reports those that cannot be used. Call once: the arena, the PCI ports and
/// the register window are taken for good. Quotes go through the same arena, so what vouches for the machine, and for the guest's
/// `executable` on it, comes from here too.
///
/// # Errors
/// The arena has no room for quotes.
pub fn start(executable: &[u8]) -> Result<(Devices, Evidence), ArenaFull> {
    // SAFETY: this is the machine that the loader made, and nobody else asks.
    let mut arena = unsafe { SharedArena::of_machine() };
    // SAFETY: this function is called once.
    let evidence = unsafe { Evidence::of_machine(executable, &mut arena) }?;
    // SAFETY: this is ring 0 of a q35 machine, and nobody else uses the ports.
    let mut ports = unsafe { ConfigPorts::new() };
    let mut window = MmioWindow::new();
    let interrupt = Message::new(apic::id(), DEVICE_VECTOR);
    // SAFETY: outside a TD the loader maps the window one to one; there is no RAM in it, and this is the only window.
    let devices =
        unsafe { Devices::start(&mut ports, &mut window, &mut arena, clock::now, interrupt) };
    for failure in &devices.failures {
        println!("vitrine: left out: {failure}");
    }
    Ok((devices, evidence))
}
