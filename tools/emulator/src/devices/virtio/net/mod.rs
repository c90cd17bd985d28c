//! virtio-net (virtio 1.2, 5.1): a network card whose cable leads into a network of two machines, the guest and [`nat`].

mod dhcp;
mod nat;
mod tamper;

pub use nat::Forward;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Registry};
use virtio_bindings::virtio_net::VIRTIO_NET_F_MAC;
use vm_memory::{Bytes, GuestAddress};

use super::{Backend, Ring};
use crate::hostile::{Attack, Host, Target};
use nat::Nat;

/// Network device (virtio 1.2, 5).
const DEVICE_TYPE: u16 = 1;
/// Ethernet controller (PCI Local Bus 3.0, appendix D).
const ETHERNET: [u8; 3] = [2, 0, 0];
/// Receive and transmit (virtio 1.2, 5.1.2).
const QUEUES: [u16; 2] = [256, 256];
/// The header before each frame (virtio 1.2, 5.1.6): no offload is offered, so it says only that the frame fills one buffer.
const HEADER: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// The largest frame without its checksum (IEEE 802.3: 1500 bytes behind a header of 14).
const FRAME: usize = 1514;
/// The largest that a hostile host sends.
const OVERSIZED: usize = 4096;

/// The guest's addresses, the same as in QEMU's user network (QEMU `docs/system/devices/net.rst`).
pub const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
/// See [`GUEST_MAC`].
pub const GUEST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The only other machine on the network: gateway and DHCP server.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// The card.
pub struct Card {
    nat: Nat,
    host: Arc<Host>,
}

impl Card {
    /// A card whose network lets clients of the host in at the given ports.
    ///
    /// # Errors
    /// A port of the host is taken.
    pub fn new(forwards: &[Forward], host: Arc<Host>) -> io::Result<Self> {
        Ok(Self {
            nat: Nat::new(forwards, host.clone())?,
            host,
        })
    }

    fn receive_from_guest(&mut self, ring: &mut Ring) {
        ring.drain(|ring, chain| {
            let memory = ring.memory();
            let mut packet = Vec::with_capacity(HEADER.len() + FRAME);
            for segment in chain.clone().readable() {
                let room = (HEADER.len() + FRAME).saturating_sub(packet.len());
                let start = packet.len();
                packet.resize(start + room.min(segment.len() as usize), 0);
                if memory
                    .read_slice(&mut packet[start..], segment.addr())
                    .is_err()
                {
                    packet.clear();
                    break;
                }
            }
            if let Some(frame) = packet.get(HEADER.len()..) {
                self.nat.on_frame(frame);
            }
            ring.finish(chain.head_index(), 0);
        });
    }

    fn send_to_guest(&mut self, ring: &mut Ring) {
        while ring.has_request() {
            let garbage = tamper::garbage(&self.host);
            let Some(frame) = garbage.or_else(|| self.nat.next_frame()) else {
                break;
            };
            let Some(chain) = ring.take() else {
                break;
            };
            let memory = ring.memory();
            let mut written = 0;
            let bytes: Vec<u8> = HEADER.iter().chain(&frame).copied().collect();
            for segment in chain.clone().writable() {
                let part = (bytes.len() - written).min(segment.len() as usize);
                let place: GuestAddress = segment.addr();
                if memory
                    .write_slice(&bytes[written..written + part], place)
                    .is_err()
                {
                    break;
                }
                written += part;
            }
            // A frame that does not fit is lost.
            let whole = written == bytes.len();
            ring.finish(chain.head_index(), if whole { written as u32 } else { 0 });
        }
        ring.rest();
    }
}

impl Backend for Card {
    fn device_type(&self) -> u16 {
        DEVICE_TYPE
    }

    fn class(&self) -> [u8; 3] {
        ETHERNET
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_NET_F_MAC
    }

    fn queues(&self) -> &'static [u16] {
        &QUEUES
    }

    fn config(&self) -> Vec<u8> {
        // The address and, without the feature that gives it a meaning, a status.
        [&GUEST_MAC[..], &[0; 2]].concat()
    }

    fn register(&mut self, registry: &Registry) -> io::Result<()> {
        self.nat.register(registry)
    }

    fn work(&mut self, events: &Events, rings: Option<&mut [Ring]>) -> Option<Duration> {
        self.nat.on_events(events);
        let Some([receive, transmit]) = rings else {
            self.nat.unplug();
            return None;
        };
        self.receive_from_guest(transmit);
        let again = self.nat.advance();
        self.send_to_guest(receive);
        again
    }

    fn reset(&mut self) {
        self.nat.unplug();
    }
}
