//! The network behind the card: one machine that is the gateway, gives out the address, and lets clients of the host in.
//!
//! smoltcp is that machine's IP stack. A client that connects to a forwarded port of the host is answered by a connection of the gateway's to
//! the guest, and bytes are copied between the two. Nothing leads out: what the guest sends anywhere else is dropped.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Registry, Token};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpEndpoint, Ipv4Address};

use super::{FRAME, GATEWAY, GUEST_ADDRESS, dhcp, tamper};
use crate::hostile::Host;

/// The gateway's Ethernet address, as QEMU's.
pub const MAC: EthernetAddress = EthernetAddress([0x52, 0x55, 10, 0, 2, 2]);
const PREFIX: u8 = 24;
const SOCKET_BUFFER: usize = 64 << 10;
/// Clients at a time; more have to wait.
const MOST_CLIENTS: usize = 256;
/// Frames on their way to the guest; more are lost, as in any switch.
const MOST_FRAMES: usize = 1024;
const FIRST_PORT: u16 = 49_152;
const CONNECT_TIMEOUT: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(10);

/// A port of the host that leads to one of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where the host listens.
    pub host: SocketAddr,
    /// The guest's port.
    pub guest: u16,
}

/// A client of the host and the gateway's connection for it.
struct Client {
    stream: TcpStream,
    handle: SocketHandle,
    readable: bool,
    finished: bool,
    shut: bool,
}

/// Frames between the guest and the gateway.
#[derive(Default)]
struct Cable {
    to_gateway: VecDeque<Vec<u8>>,
    to_guest: VecDeque<Vec<u8>>,
}

/// The network.
pub struct Nat {
    cable: Cable,
    interface: Interface,
    sockets: SocketSet<'static>,
    dhcp: SocketHandle,
    listeners: Vec<(TcpListener, u16)>,
    clients: BTreeMap<usize, Client>,
    registry: Option<Registry>,
    next_token: usize,
    next_port: u16,
    started: std::time::Instant,
    host: Arc<Host>,
}

impl Nat {
    /// Listens at the ports that lead in.
    pub fn new(forwards: &[Forward], host: Arc<Host>) -> io::Result<Self> {
        let mut cable = Cable::default();
        let config = Config::new(HardwareAddress::Ethernet(MAC));
        let mut interface = Interface::new(config, &mut cable, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // An empty list has room for one.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(GATEWAY), PREFIX));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let packets =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 8 * FRAME]);
        let mut server = udp::Socket::new(packets(), packets());
        // The socket is new and the port is not zero.
        let _ = server.bind(dhcp::SERVER_PORT);
        let listen = |forward: &Forward| Ok((TcpListener::bind(forward.host)?, forward.guest));
        Ok(Self {
            cable,
            interface,
            dhcp: sockets.add(server),
            sockets,
            listeners: forwards.iter().map(listen).collect::<io::Result<_>>()?,
            clients: BTreeMap::new(),
            registry: None,
            next_token: forwards.len(),
            next_port: FIRST_PORT,
            started: std::time::Instant::now(),
            host,
        })
    }

    /// Waits for clients.
    pub fn register(&mut self, registry: &Registry) -> io::Result<()> {
        for (token, (listener, _)) in self.listeners.iter_mut().enumerate() {
            registry.register(listener, Token(token), Interest::READABLE)?;
        }
        self.registry = Some(registry.try_clone()?);
        Ok(())
    }

    /// A frame from the guest.
    pub fn on_frame(&mut self, frame: &[u8]) {
        self.cable.to_gateway.push_back(frame.to_vec());
    }

    /// The next frame for the guest.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        self.cable.to_guest.pop_front()
    }

    /// The guest is gone, and with it every connection.
    pub fn unplug(&mut self) {
        for client in core::mem::take(&mut self.clients).into_values() {
            self.sockets.remove(client.handle);
        }
        self.cable = Cable::default();
    }

    /// Notes which clients there are and have something.
    pub fn on_events(&mut self, events: &Events) {
        self.accept();
        for event in events {
            let client = self.clients.get_mut(&event.token().0);
            if let Some(client) = client.filter(|_| event.is_readable() || event.is_read_closed()) {
                client.readable = true;
            }
        }
    }

    /// Moves packets and bytes. Returns when to be called again if nothing happens.
    pub fn advance(&mut self) -> Option<Duration> {
        loop {
            let now = Instant::from_micros(self.started.elapsed().as_micros() as i64);
            self.interface.poll(now, &mut self.cable, &mut self.sockets);
            let leased = self.serve_dhcp();
            let moved = self.pump();
            if !leased && !moved {
                let delay = self.interface.poll_delay(now, &self.sockets);
                return delay.map(|delay| Duration::from_micros(delay.total_micros()));
            }
        }
    }

    fn accept(&mut self) {
        for index in 0..self.listeners.len() {
            while self.clients.len() < MOST_CLIENTS {
                let (listener, port) = &self.listeners[index];
                let port = *port;
                // No more clients for now, or no more descriptors: those who wait stay in the kernel's queue.
                let Ok((stream, _)) = listener.accept() else {
                    break;
                };
                self.welcome(stream, port);
            }
        }
    }

    /// Connects a client to the guest. One that cannot be is closed.
    fn welcome(&mut self, mut stream: TcpStream, port: u16) {
        let buffer = || tcp::SocketBuffer::new(vec![0; SOCKET_BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_timeout(Some(CONNECT_TIMEOUT));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let local = self.next_port;
        self.next_port = FIRST_PORT | local.wrapping_add(1);
        let remote = IpEndpoint::new(IpAddress::Ipv4(GUEST_ADDRESS), port);
        let connected = socket.connect(self.interface.context(), remote, local);
        let token = self.next_token;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self
            .registry
            .as_ref()
            .map(|registry| registry.register(&mut stream, Token(token), interest));
        if connected.is_err() || !matches!(registered, Some(Ok(()))) {
            return;
        }
        // A client that does not get its bytes at once gets them late.
        let _ = stream.set_nodelay(true);
        self.next_token += 1;
        let client = Client {
            stream,
            handle: self.sockets.add(socket),
            readable: true,
            finished: false,
            shut: false,
        };
        self.clients.insert(token, client);
    }

    /// Copies bytes between clients and the gateway's connections. Returns whether any moved.
    fn pump(&mut self) -> bool {
        let mut moved = false;
        let sockets = &mut self.sockets;
        self.clients.retain(|_, client| {
            let socket = sockets.get_mut::<tcp::Socket>(client.handle);
            let over = matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait);
            if over {
                sockets.remove(client.handle);
            } else if !client.pump(socket, &mut moved) {
                // The next round tells the guest, the one after it forgets the connection.
                socket.abort();
                moved = true;
            }
            !over
        });
        moved
    }

    fn serve_dhcp(&mut self) -> bool {
        let socket = self.sockets.get_mut::<udp::Socket>(self.dhcp);
        let mut answered = false;
        while let Ok((datagram, _)) = socket.recv() {
            let lease = tamper::lease(&self.host, dhcp::LEASE);
            if let Some(reply) = dhcp::answer(datagram, lease) {
                let everyone =
                    IpEndpoint::new(IpAddress::Ipv4(Ipv4Address::BROADCAST), dhcp::CLIENT_PORT);
                // A full buffer loses the answer, as a network would; the guest asks again.
                answered |= socket.send_slice(&reply, everyone).is_ok();
            }
        }
        answered
    }
}

impl Client {
    /// Copies what can be copied. False if the client is gone.
    fn pump(&mut self, socket: &mut tcp::Socket<'_>, moved: &mut bool) -> bool {
        if socket.state() == tcp::State::Established {
            // From here on the client decides how long it waits.
            socket.set_timeout(None);
        }
        while self.readable && !self.finished && socket.can_send() {
            let stream = &mut self.stream;
            let read = socket.send(|room| match stream.read(room) {
                Ok(count) => (count, Ok(count)),
                Err(error) => (0, Err(error)),
            });
            match read {
                Ok(Ok(0)) => {
                    self.finished = true;
                    socket.close();
                    *moved = true;
                }
                Ok(Ok(_)) => *moved = true,
                Ok(Err(error)) if is_not_now(&error) => self.readable = false,
                _ => return false,
            }
        }
        while socket.can_recv() {
            let stream = &mut self.stream;
            let written = socket.recv(|bytes| match stream.write(bytes) {
                Ok(count) => (count, Ok(count)),
                Err(error) => (0, Err(error)),
            });
            match written {
                Ok(Ok(_)) => *moved = true,
                Ok(Err(error)) if is_not_now(&error) => break,
                _ => return false,
            }
        }
        let opened = !matches!(
            socket.state(),
            tcp::State::SynSent | tcp::State::SynReceived
        );
        if opened && !socket.may_recv() && !socket.can_recv() && !self.shut {
            self.shut = true;
            // A client that is gone needs no telling.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        true
    }
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// A frame that arrives.
pub struct Arriving(Vec<u8>);

impl RxToken for Arriving {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

/// Leave to send a frame.
pub struct Leaving<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Cable {
    type RxToken<'a> = Arriving;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arriving, Leaving<'_>)> {
        let frame = self.to_gateway.pop_front()?;
        Some((Arriving(frame), Leaving(&mut self.to_guest)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        (self.to_guest.len() < MOST_FRAMES).then_some(Leaving(&mut self.to_guest))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities
    }
}
