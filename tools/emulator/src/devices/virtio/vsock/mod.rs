//! virtio-vsock (virtio 1.2, 5.10): the guest's sockets behind a Unix socket of the host.
//!
//! A client connects to the Unix socket, writes `CONNECT <port>` and a line feed, reads `OK <port>`, and has a stream to that port of the
//! guest; the protocol is Firecracker's. The guest cannot connect out.

mod connection;
mod packet;
mod tamper;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mio::net::UnixListener;
use mio::{Events, Interest, Registry, Token};
use virtio_vsock::packet::{PKT_HEADER_SIZE, VsockPacket};

use super::{Backend, Chain, Ring};
use crate::bus::SharedMemory;
use crate::hostile::Host;
use connection::Connection;
use packet::{Operation, Packet, TYPE_STREAM};

/// Socket device (virtio 1.2, 5).
const DEVICE_TYPE: u16 = 19;
/// Another communication device (PCI Local Bus 3.0, appendix D).
const CLASS: [u8; 3] = [7, 0x80, 0];
/// Receive, transmit, event (virtio 1.2, 5.10.2).
const QUEUES: [u16; 3] = [256, 256, 16];
/// The host's context identifier (virtio 1.2, 5.10.4).
pub const HOST_CID: u64 = 2;
/// The most data of one packet of the guest's.
const LARGEST_PACKET: u32 = 64 << 10;
/// Clients at a time; more have to wait.
const MOST_CONNECTIONS: usize = 256;
/// Refusals waiting to be sent.
const MOST_REFUSALS: usize = 256;
const LISTENER: Token = Token(0);
/// Ports below are for services of the host.
const FIRST_PORT: u32 = 1 << 30;

/// The device.
pub struct Vsock {
    cid: u64,
    listener: UnixListener,
    registry: Option<Registry>,
    connections: BTreeMap<u32, Connection>,
    refusals: VecDeque<Packet>,
    next_port: u32,
    /// The connection that was served last.
    turn: u32,
    host: Arc<Host>,
}

impl Vsock {
    /// A device with context identifier `cid`, whose clients connect to a socket at `path`.
    ///
    /// # Errors
    /// The socket cannot be made: the path exists already, or its folder does not.
    pub fn listen(cid: u32, path: &Path, host: Arc<Host>) -> io::Result<Self> {
        Ok(Self {
            cid: cid.into(),
            listener: UnixListener::bind(path)?,
            registry: None,
            connections: BTreeMap::new(),
            refusals: VecDeque::new(),
            next_port: FIRST_PORT,
            turn: 0,
            host,
        })
    }

    fn accept(&mut self) {
        while self.connections.len() < MOST_CONNECTIONS {
            // No more clients for now, or no more descriptors: those who wait stay in the kernel's queue.
            let Ok((stream, _)) = self.listener.accept() else {
                return;
            };
            let port = self.next_port;
            self.next_port = FIRST_PORT | port.wrapping_add(1);
            let mut connection = Connection::new(stream, port);
            let token = Token(port as usize);
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registered = self
                .registry
                .as_ref()
                .map(|registry| registry.register(connection.stream(), token, interest));
            if let Some(Ok(())) = registered {
                self.connections.insert(port, connection);
            }
        }
    }

    /// Takes in what the guest sent.
    fn on_guest_packet(&mut self, packet: &Packet) {
        let found = self
            .connections
            .get_mut(&packet.host_port)
            .filter(|_| packet.socket_type == TYPE_STREAM);
        match found {
            Some(connection) => connection.on_packet(packet),
            None if packet.operation != Operation::Reset as u16
                && self.refusals.len() < MOST_REFUSALS =>
            {
                self.refusals.push_back(Packet {
                    socket_type: packet.socket_type,
                    ..Packet::new(packet.host_port, packet.guest_port, Operation::Reset)
                });
            }
            None => {}
        }
    }

    /// The next packet for the guest. Every connection gets a turn before one gets a second.
    fn next_packet(&mut self, room: usize) -> Option<Packet> {
        if let Some(refusal) = self.refusals.pop_front() {
            return Some(refusal);
        }
        let turn = self.turn;
        let after = self
            .connections
            .range(turn.saturating_add(1)..)
            .map(|(port, _)| *port);
        let until = self.connections.range(..=turn).map(|(port, _)| *port);
        let ports: Vec<u32> = after.chain(until).collect();
        ports.into_iter().find_map(|port| {
            let connection = self.connections.get_mut(&port)?;
            // What was sent last made room for more from the client.
            connection.advance();
            let packet = connection.next_packet(room)?;
            self.turn = port;
            Some(packet)
        })
    }

    fn receive_from_guest(&mut self, ring: &mut Ring) {
        ring.drain(|ring, mut chain| {
            let memory = ring.memory();
            let head = chain.head_index();
            // A malformed packet has no sender to answer.
            if let Ok(packet) =
                VsockPacket::from_tx_virtq_chain(&*memory, &mut chain, LARGEST_PACKET)
            {
                self.on_guest_packet(&Packet::from_guest(&packet));
            }
            ring.finish(head, 0);
        });
    }

    fn send_to_guest(&mut self, ring: &mut Ring) {
        while ring.has_request() {
            if let Some(packet) = tamper::uninvited(&self.host) {
                self.deliver(ring, &packet);
                continue;
            }
            // Every driver's buffers hold this much behind a header; a longer packet would have to be split again.
            let Some(packet) = self.next_packet(tamper::ROOM) else {
                break;
            };
            self.deliver(ring, &packet);
        }
        ring.rest();
    }

    fn deliver(&self, ring: &mut Ring, packet: &Packet) {
        let Some(chain) = ring.take() else {
            return;
        };
        let head = chain.head_index();
        let written = self
            .write_packet(&ring.memory(), chain, packet)
            .unwrap_or(0);
        ring.finish(head, written);
    }

    /// Writes a packet into a buffer of the guest's; the bytes written.
    fn write_packet(
        &self,
        memory: &SharedMemory,
        mut chain: Chain,
        packet: &Packet,
    ) -> Option<u32> {
        let mut place =
            VsockPacket::from_rx_virtq_chain(memory, &mut chain, LARGEST_PACKET).ok()?;
        place.set_header_from_raw(&[0; PKT_HEADER_SIZE]).ok()?;
        let (buffer, consumed) = tamper::credit(&self.host, packet);
        place
            .set_src_cid(HOST_CID)
            .set_dst_cid(tamper::destination(&self.host, packet, self.cid))
            .set_src_port(packet.host_port)
            .set_dst_port(packet.guest_port)
            .set_len(tamper::length(&self.host, packet))
            .set_type(packet.socket_type)
            .set_op(packet.operation)
            .set_flags(packet.flags)
            .set_buf_alloc(buffer)
            .set_fwd_cnt(consumed);
        if !packet.data.is_empty() {
            place.data_slice()?.copy_from(&packet.data);
        }
        Some((PKT_HEADER_SIZE + packet.data.len()) as u32)
    }

    fn cut(&mut self) {
        self.connections.clear();
        self.refusals.clear();
    }
}

impl Backend for Vsock {
    fn device_type(&self) -> u16 {
        DEVICE_TYPE
    }

    fn class(&self) -> [u8; 3] {
        CLASS
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &'static [u16] {
        &QUEUES
    }

    fn config(&self) -> Vec<u8> {
        self.cid.to_le_bytes().to_vec()
    }

    fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.register(&mut self.listener, LISTENER, Interest::READABLE)?;
        self.registry = Some(registry.try_clone()?);
        Ok(())
    }

    fn work(&mut self, events: &Events, rings: Option<&mut [Ring]>) -> Option<Duration> {
        self.accept();
        for event in events {
            let connection = self.connections.get_mut(&(event.token().0 as u32));
            if let Some(connection) =
                connection.filter(|_| event.is_readable() || event.is_read_closed())
            {
                connection.on_readable();
            }
        }
        let Some([receive, transmit, event]) = rings else {
            // Nobody is there to connect to: clients see the end of the stream.
            self.cut();
            return None;
        };
        self.receive_from_guest(transmit);
        for connection in self.connections.values_mut() {
            connection.advance();
        }
        let established = self.connections.values().any(Connection::is_open);
        if established && tamper::cut_all(&self.host, event) {
            self.cut();
        }
        self.send_to_guest(receive);
        self.connections
            .retain(|_, connection| !connection.is_over());
        None
    }

    fn reset(&mut self) {
        self.cut();
    }
}
