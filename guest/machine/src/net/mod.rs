//! The network as the server sees it: streams, whichever device carries them.
//!
//! [`Network::poll`] drives a network card (TCP) and a vsock device, either of which may be absent. Everything runs on one CPU
//! and nothing waits. A device that breaks the rules is shut down: its streams fail, [`Network::take_failure`] tells
//! why, and the other device goes on.

mod card;
mod ip;
mod ring;
mod stream;
mod vsock;

pub use stream::{BUFFER, Stream};

use crate::virtio::net::NetDevice;
use crate::virtio::vsock::{Arrival, Endpoint, RECEIVE_DATA, TRANSMIT_DATA, VsockDevice};
use crate::virtio::{DeviceError, DeviceKind};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::fmt;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;
use ip::IpStack;
use vsock::Connections;

/// Connections at a time on each of the two paths, closing ones included.
const MAX_CONNECTIONS: usize = 32;
/// How long a dropped stream may take to deliver what was written to it.
const LINGER: Duration = Duration::from_secs(15);
/// Packets taken in per poll.
const BURST: usize = 64;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// TCP over the network card.
    Tcp(SocketAddrV4),
    /// A virtio socket.
    Vsock {
        /// Context identifier of the peer; 2 is the host.
        cid: u64,
        /// Its port.
        port: u32,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Vsock { cid, port } => write!(f, "vsock {cid}:{port}"),
        }
    }
}

/// Why an address cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// The address or the gateway is not one a single machine can have.
    NotUnicast,
    /// The prefix is longer than 32 bits.
    Prefix,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUnicast => "the address or the gateway is not one a machine can have",
            Self::Prefix => "the network prefix is longer than 32 bits",
        })
    }
}

impl core::error::Error for AddressError {}

/// An IPv4 address fixed in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticAddress {
    address: Ipv4Addr,
    prefix: u8,
    gateway: Option<Ipv4Addr>,
}

impl StaticAddress {
    /// What QEMU's user network expects of its first guest.
    pub const FALL_BACK: Self = Self {
        address: Ipv4Addr::new(10, 0, 2, 15),
        prefix: 24,
        gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
    };

    /// An address in a network of `prefix` bits, with the way out of it.
    pub fn new(
        address: Ipv4Addr,
        prefix: u8,
        gateway: Option<Ipv4Addr>,
    ) -> Result<Self, AddressError> {
        if !is_unicast(address) || gateway.is_some_and(|gateway| !is_unicast(gateway)) {
            return Err(AddressError::NotUnicast);
        }
        if prefix > 32 {
            return Err(AddressError::Prefix);
        }
        Ok(Self {
            address,
            prefix,
            gateway,
        })
    }
}

fn is_unicast(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_broadcast() || address.is_multicast())
}

/// Where to listen.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListenConfig {
    /// TCP port; None leaves the network card unused.
    pub tcp: Option<u16>,
    /// Vsock port; None leaves the vsock device unused.
    pub vsock: Option<u32>,
    /// A fixed address. Without one DHCP is asked, and after three seconds without a lease
    /// [`StaticAddress::FALL_BACK`] is used.
    pub address: Option<StaticAddress>,
}

struct VsockStack {
    device: VsockDevice,
    connections: Connections,
    incoming: Box<[u8; RECEIVE_DATA]>,
    outgoing: Box<[u8; TRANSMIT_DATA]>,
}

/// Both network paths.
pub struct Network {
    ip: Option<IpStack>,
    vsock: Option<VsockStack>,
    accepted: VecDeque<(Stream, Origin)>,
    failures: VecDeque<(DeviceKind, DeviceError)>,
}

impl Network {
    /// Starts listening on the devices there are. `seed` is 64 bits of entropy.
    pub fn new(
        config: &ListenConfig,
        card: Option<NetDevice>,
        vsock: Option<VsockDevice>,
        seed: u64,
        now: Duration,
    ) -> Self {
        let ip = card
            .zip(config.tcp)
            .map(|(card, port)| IpStack::new(card, port, config.address, seed, now));
        let vsock = vsock.zip(config.vsock).map(|(device, port)| VsockStack {
            connections: Connections::new(device.cid(), port),
            device,
            incoming: Box::new([0; RECEIVE_DATA]),
            outgoing: Box::new([0; TRANSMIT_DATA]),
        });
        Self {
            ip,
            vsock,
            accepted: VecDeque::new(),
            failures: VecDeque::new(),
        }
    }

    /// Moves packets between devices and streams; never waits. Returns whether there was anything to do.
    pub fn poll(&mut self, now: Duration) -> bool {
        let accepted = &mut self.accepted;
        // Peers that left before anybody looked at them: what waits here is bounded by the connections there are.
        accepted.retain(|(stream, _)| !stream.is_over());
        let mut busy = false;
        if let Some(ip) = &mut self.ip {
            let result = ip.poll(now, |stream, peer| {
                accepted.push_back((stream, Origin::Tcp(peer)))
            });
            match result {
                Ok(worked) => busy |= worked,
                Err(error) => {
                    ip.fail(error);
                    self.ip = None;
                    self.failures.push_back((DeviceKind::Net, error));
                }
            }
        }
        if let Some(vsock) = &mut self.vsock {
            match vsock.poll(now, accepted) {
                Ok(worked) => busy |= worked,
                Err(error) => {
                    vsock.connections.cut(0);
                    vsock.device.fail(error);
                    self.vsock = None;
                    self.failures.push_back((DeviceKind::Vsock, error));
                }
            }
        }
        busy
    }

    /// The next new connection.
    pub fn accept(&mut self) -> Option<(Stream, Origin)> {
        self.accepted.pop_front()
    }

    /// The next device that had to be shut down, and why. Each is reported once.
    pub fn take_failure(&mut self) -> Option<(DeviceKind, DeviceError)> {
        self.failures.pop_front()
    }

    /// The machine's IPv4 address, once it has one.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.ip.as_ref()?.address()
    }

    /// The machine's vsock context identifier, if it listens there.
    pub fn cid(&self) -> Option<u64> {
        Some(self.vsock.as_ref()?.device.cid())
    }
}

impl VsockStack {
    fn poll(
        &mut self,
        now: Duration,
        accepted: &mut VecDeque<(Stream, Origin)>,
    ) -> Result<bool, DeviceError> {
        self.device.check_health(now)?;
        let mut busy = false;
        if self.device.was_reset()? {
            self.connections.cut(self.device.cid());
            busy = true;
        }
        for _ in 0..BURST {
            let Some(arrival) = self.device.receive(&mut self.incoming)? else {
                break;
            };
            busy = true;
            match arrival {
                Arrival::Packet(header) => {
                    let data = &self.incoming[..header.length as usize];
                    if let Some((stream, Endpoint { cid, port })) =
                        self.connections.on_packet(&header, data)
                    {
                        accepted.push_back((stream, Origin::Vsock { cid, port }));
                    }
                }
                Arrival::Malformed(header) => self.connections.on_malformed(&header),
            }
        }
        self.connections.expire(now);
        while self.device.can_transmit()? {
            let Some(header) = self.connections.next_packet(now, &mut self.outgoing) else {
                break;
            };
            let data = &self.outgoing[..header.length as usize];
            self.device.transmit(&header, data)?;
            busy = true;
        }
        Ok(busy)
    }
}

#[cfg(test)]
mod tests;
