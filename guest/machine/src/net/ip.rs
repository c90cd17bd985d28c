//! Connections over TCP: smoltcp on top of the network card.
//!
//! A few sockets always listen; one that a peer has connected to becomes a [`Connection`] and is replaced. The address
//! comes from DHCP, from the configuration, or, if no lease arrives, is what QEMU's user network expects.

use super::card::Card;
use super::stream::{Channel, Stream};
use super::{LINGER, MAX_CONNECTIONS, StaticAddress};
use crate::virtio::DeviceError;
use crate::virtio::net::NetDevice;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::net::SocketAddrV4;
use core::time::Duration;
use embedded_io::ErrorKind;
use smoltcp::iface::{
    Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet,
};
use smoltcp::socket::{dhcpv4, tcp};
use smoltcp::time::{Duration as TcpDuration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Cidr};

/// Sockets that listen at a time.
const BACKLOG: usize = 8;
const SOCKET_BUFFER: usize = 32 << 10;
/// How long to wait for a lease before falling back.
const LEASE_PATIENCE: Duration = Duration::from_secs(3);
const DISCOVER_INTERVAL: TcpDuration = TcpDuration::from_secs(1);
const KEEP_ALIVE: TcpDuration = TcpDuration::from_secs(30);
const PEER_TIMEOUT: TcpDuration = TcpDuration::from_secs(75);
/// How long a peer may take to finish connecting.
const CONNECT_TIMEOUT: TcpDuration = TcpDuration::from_secs(10);
/// Packets taken in or sent per poll, so that a flood cannot keep the caller from its other work.
const BURST: usize = 64;

struct Connection {
    handle: SocketHandle,
    channel: Rc<RefCell<Channel>>,
    closing: bool,
    ended: bool,
    /// When patience ends, once the stream was dropped.
    deadline: Option<Duration>,
}

/// The IP side of the network.
pub struct IpStack {
    card: Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    port: u16,
    listening: Vec<SocketHandle>,
    connections: Vec<Connection>,
    dhcp: Option<SocketHandle>,
    fall_back_at: Option<Duration>,
}

impl IpStack {
    /// Listens at `port`. Without a static address DHCP is asked. `seed` makes sequence numbers unpredictable.
    pub fn new(
        device: NetDevice,
        port: u16,
        address: Option<StaticAddress>,
        seed: u64,
        now: Duration,
    ) -> Self {
        let mac = EthernetAddress(device.mac());
        let mut card = Card::new(device);
        let mut config = Config::new(HardwareAddress::Ethernet(mac));
        config.random_seed = seed;
        let interface = Interface::new(config, &mut card, instant(now));
        let mut stack = Self {
            card,
            interface,
            sockets: SocketSet::new(Vec::new()),
            port,
            listening: Vec::new(),
            connections: Vec::new(),
            dhcp: None,
            fall_back_at: None,
        };
        match address {
            Some(address) => stack.set_address(address),
            None => {
                let mut dhcp = dhcpv4::Socket::new();
                let mut retry = dhcp.get_retry_config();
                retry.discover_timeout = DISCOVER_INTERVAL;
                dhcp.set_retry_config(retry);
                stack.dhcp = Some(stack.sockets.add(dhcp));
                stack.fall_back_at = Some(now.saturating_add(LEASE_PATIENCE));
            }
        }
        stack
    }

    /// The address in use, once there is one.
    pub fn address(&self) -> Option<core::net::Ipv4Addr> {
        self.interface.ipv4_addr()
    }

    /// Moves packets and bytes. New connections go to `accepted`. Returns whether anything happened.
    pub fn poll(
        &mut self,
        now: Duration,
        mut accepted: impl FnMut(Stream, SocketAddrV4),
    ) -> Result<bool, DeviceError> {
        self.card.check_health(now)?;
        let at = instant(now);
        let mut busy = false;
        self.interface.poll_maintenance(at);
        for _ in 0..BURST {
            // Before each packet, because a burst of peers may connect between two polls.
            self.listen();
            match self
                .interface
                .poll_ingress_single(at, &mut self.card, &mut self.sockets)
            {
                PollIngressSingleResult::None => break,
                _ => busy = true,
            }
        }
        self.configure(now);
        busy |= self.promote(&mut accepted);
        busy |= self.pump(now);
        for _ in 0..BURST {
            match self
                .interface
                .poll_egress(at, &mut self.card, &mut self.sockets)
            {
                PollResult::None => break,
                PollResult::SocketStateChanged => busy = true,
            }
        }
        self.card.result().map(|()| busy)
    }

    /// Ends every connection and shuts the card down.
    pub fn fail(&mut self, error: DeviceError) {
        for connection in self.connections.drain(..) {
            connection
                .channel
                .borrow_mut()
                .break_off(ErrorKind::ConnectionReset);
        }
        self.card.fail(error);
    }

    /// Keeps enough sockets listening, as long as the limit on connections allows.
    fn listen(&mut self) {
        let mut ready = 0;
        for handle in &self.listening {
            let socket = self.sockets.get_mut::<tcp::Socket>(*handle);
            if !socket.is_open() {
                begin_listening(socket, self.port);
            }
            ready += usize::from(socket.is_listening());
        }
        while ready < BACKLOG && self.listening.len() + self.connections.len() < MAX_CONNECTIONS {
            let buffer = || tcp::SocketBuffer::new(vec![0; SOCKET_BUFFER]);
            let mut socket = tcp::Socket::new(buffer(), buffer());
            begin_listening(&mut socket, self.port);
            self.listening.push(self.sockets.add(socket));
            ready += 1;
        }
    }

    /// Turns sockets that a peer has connected to into connections.
    fn promote(&mut self, accepted: &mut impl FnMut(Stream, SocketAddrV4)) -> bool {
        let before = self.connections.len();
        let (sockets, connections) = (&mut self.sockets, &mut self.connections);
        self.listening.retain(|handle| {
            let socket = sockets.get_mut::<tcp::Socket>(*handle);
            let peer = socket.remote_endpoint().filter(|_| socket.may_send());
            let Some(peer) = peer else {
                return true;
            };
            socket.set_timeout(Some(PEER_TIMEOUT));
            let IpAddress::Ipv4(address) = peer.addr;
            let (channel, stream) = Channel::open();
            connections.push(Connection {
                handle: *handle,
                channel,
                closing: false,
                ended: false,
                deadline: None,
            });
            accepted(stream, SocketAddrV4::new(address, peer.port));
            false
        });
        self.connections.len() != before
    }

    /// Moves bytes between sockets and streams, and removes what is over.
    fn pump(&mut self, now: Duration) -> bool {
        let mut busy = false;
        let sockets = &mut self.sockets;
        self.connections.retain_mut(|connection| {
            let socket = sockets.get_mut::<tcp::Socket>(connection.handle);
            busy |= move_bytes(socket, &mut connection.channel.borrow_mut());
            let over = connection.wind_up(socket, now);
            if over {
                sockets.remove(connection.handle);
            }
            !over
        });
        busy
    }

    /// Follows DHCP, or gives up on it for now.
    fn configure(&mut self, now: Duration) {
        let Some(handle) = self.dhcp else {
            return;
        };
        let event = self.sockets.get_mut::<dhcpv4::Socket>(handle).poll();
        // A lost lease changes nothing: the old address is as good as none, and a new lease replaces it.
        if let Some(dhcpv4::Event::Configured(lease)) = event {
            let network = lease.address;
            let leased = StaticAddress::new(network.address(), network.prefix_len(), lease.router);
            // An impossible lease is no lease.
            if let Ok(address) = leased {
                self.fall_back_at = None;
                self.set_address(address);
            }
        }
        if self.fall_back_at.is_some_and(|at| now >= at) {
            self.fall_back_at = None;
            self.set_address(StaticAddress::FALL_BACK);
        }
    }

    fn set_address(&mut self, address: StaticAddress) {
        let network = Ipv4Cidr::new(address.address, address.prefix);
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            // An empty list has room for one.
            let _ = addresses.push(IpCidr::Ipv4(network));
        });
        let routes = self.interface.routes_mut();
        routes.remove_default_ipv4_route();
        if let Some(gateway) = address.gateway {
            // Room for one default route is part of the table.
            let _ = routes.add_default_ipv4_route(gateway);
        }
    }
}

impl Connection {
    /// Follows a connection to its end. True when it is over and its socket can go.
    fn wind_up(&mut self, socket: &mut tcp::Socket<'_>, now: Duration) -> bool {
        let mut channel = self.channel.borrow_mut();
        match socket.state() {
            // The peer reset it, it timed out, or it ended as it should.
            tcp::State::Closed => {
                channel.break_off(ErrorKind::ConnectionReset);
                return true;
            }
            // Both ends are done. The last acknowledgement goes out after this; waiting longer for stray packets would
            // only keep memory from others.
            tcp::State::TimeWait => return core::mem::replace(&mut self.ended, true),
            _ => {}
        }
        if channel.dropped {
            let deadline = *self.deadline.get_or_insert(now.saturating_add(LINGER));
            if now > deadline {
                socket.abort();
            } else if channel.sending.is_empty() && !self.closing {
                self.closing = true;
                socket.set_ack_delay(None);
                socket.close();
            }
        }
        false
    }
}

/// Makes an unused socket wait for a peer.
fn begin_listening(socket: &mut tcp::Socket<'_>, port: u16) {
    socket.set_timeout(Some(CONNECT_TIMEOUT));
    socket.set_keep_alive(Some(KEEP_ALIVE));
    socket.set_nagle_enabled(false);
    // The socket is closed, and 0, the one port that is refused, is nowhere to listen at anyway.
    let _ = socket.listen(port);
}

/// Moves what fits in both directions and notes the end of the peer's data.
fn move_bytes(socket: &mut tcp::Socket<'_>, channel: &mut Channel) -> bool {
    let mut busy = false;
    while socket.can_recv() && (channel.dropped || channel.received.room() > 0) {
        let taken = socket.recv(|bytes| {
            let count = if channel.dropped {
                bytes.len()
            } else {
                channel.received.push(bytes)
            };
            (count, count)
        });
        if taken.unwrap_or(0) == 0 {
            break;
        }
        busy = true;
    }
    if !socket.may_recv() && !channel.peer_finished {
        let end = socket.recv(|_| (0, ()));
        channel.peer_finished = end == Err(tcp::RecvError::Finished);
        busy |= channel.peer_finished;
    }
    while socket.can_send() && !channel.sending.is_empty() {
        let count = socket.send_slice(channel.sending.front()).unwrap_or(0);
        channel.sending.drop_front(count);
        if count == 0 {
            break;
        }
        busy = true;
    }
    busy
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[path = "ip_tests.rs"]
mod tests;
