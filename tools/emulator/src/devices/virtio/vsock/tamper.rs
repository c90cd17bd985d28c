//! What a hostile host does to packets and credit. With an honest host everything here passes through unchanged.

use vm_memory::Bytes;

use super::packet::{Operation, Packet, TYPE_STREAM};
use crate::devices::virtio::Ring;
use crate::hostile::{Attack, Host, Target};

/// The most data of one packet to the guest: its buffers are 4 KiB with the header.
pub const ROOM: usize = 4096 - virtio_vsock::packet::PKT_HEADER_SIZE;

/// A port at which the guest may well listen.
const LIKELY_PORT: u32 = 8443;
/// Below the ports of connections, so that nobody is there.
const NO_HOST_PORT: u32 = 77;
/// Told apart from real packets by their destination: another machine's.
const OTHER_CID: u64 = 9;
/// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET (virtio 1.2, 5.10.6).
const TRANSPORT_RESET: u32 = 0;

/// A packet that nobody asked for.
pub fn uninvited(host: &Host) -> Option<Packet> {
    if !host.is_hostile() || !host.strikes(Attack::PacketFlood, Target::Vsock) {
        return None;
    }
    let operation = host.below(12) as u16;
    let data = vec![0x5a; host.below(ROOM as u64) as usize];
    Some(Packet {
        host_port: NO_HOST_PORT + host.below(4) as u32,
        guest_port: LIKELY_PORT + host.below(2) as u32,
        socket_type: TYPE_STREAM + u16::from(host.below(8) == 0),
        operation,
        flags: host.below(4) as u32,
        buffer: host.below(1 << 32) as u32,
        consumed: host.below(1 << 32) as u32,
        data: if operation == Operation::Data as u16 {
            data
        } else {
            Vec::new()
        },
    })
}

/// The credit fields of a packet.
pub fn credit(host: &Host, packet: &Packet) -> (u32, u32) {
    if !host.is_hostile() {
        return (packet.buffer, packet.consumed);
    }
    if host.strikes(Attack::CreditZero, Target::Vsock) {
        (0, packet.consumed)
    } else if host.strikes(Attack::CreditAbsurd, Target::Vsock) {
        (u32::MAX, packet.consumed.wrapping_add(1 << 31))
    } else {
        (packet.buffer, packet.consumed)
    }
}

/// The length field of a packet.
pub fn length(host: &Host, packet: &Packet) -> u32 {
    let truth = packet.data.len() as u32;
    let lies = host.is_hostile() && truth > 0 && host.strikes(Attack::PacketLength, Target::Vsock);
    if lies {
        truth + 1 + host.below(1 << 31) as u32
    } else {
        truth
    }
}

/// The machine a packet is for.
pub fn destination(host: &Host, packet: &Packet, cid: u64) -> u64 {
    let uninvited = host.is_hostile() && packet.host_port < NO_HOST_PORT + 1;
    if uninvited { OTHER_CID } else { cid }
}

/// Tells the guest that all connections were cut, if that is to be. True if they are to be.
pub fn cut_all(host: &Host, events: &mut Ring) -> bool {
    if !host.is_hostile()
        || !events.has_request()
        || !host.strikes(Attack::TransportReset, Target::Vsock)
    {
        return false;
    }
    let Some(chain) = events.take() else {
        return false;
    };
    let head = chain.head_index();
    let place = chain.writable().next().map(|segment| segment.addr());
    let written = place.is_some_and(|at| events.memory().write_obj(TRANSPORT_RESET, at).is_ok());
    events.finish(head, if written { 4 } else { 0 });
    events.rest();
    written
}
