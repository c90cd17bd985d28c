//! The IP stack against a second smoltcp, joined through a fake network card.

extern crate std;

use super::*;
use crate::virtio::fake::{FakeDevice, FakeTransport};
use crate::virtio::net::FRAME;
use crate::virtio::test_arena;
use alloc::collections::VecDeque;
use embedded_io::{Read, ReadReady, Write, WriteReady};
use smoltcp::phy;
use smoltcp::wire::Ipv4Address;
use std::cell::Cell;

const PORT: u16 = 8443;
const HEADER: usize = 12;

std::thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::from_secs(1)) };
}

fn clock() -> Duration {
    NOW.get()
}

/// The peer's network card: frames in two queues.
#[derive(Default)]
struct Wire {
    to_peer: VecDeque<Vec<u8>>,
    from_peer: VecDeque<Vec<u8>>,
}

struct Taken(Vec<u8>);
struct Put<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::RxToken for Taken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Put<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl phy::Device for Wire {
    type RxToken<'a> = Taken;
    type TxToken<'a> = Put<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Taken, Put<'_>)> {
        let frame = self.to_peer.pop_front()?;
        Some((Taken(frame), Put(&mut self.from_peer)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Put<'_>> {
        Some(Put(&mut self.from_peer))
    }

    fn capabilities(&self) -> phy::DeviceCapabilities {
        let mut capabilities = phy::DeviceCapabilities::default();
        capabilities.medium = phy::Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities
    }
}

/// A stack and a peer on the same network.
struct World {
    fake: Rc<RefCell<FakeDevice>>,
    stack: IpStack,
    streams: VecDeque<Stream>,
    wire: Wire,
    peer: Interface,
    sockets: SocketSet<'static>,
    next_port: u16,
}

impl World {
    fn new() -> Self {
        let fake = FakeDevice::new(1 << 5, &[0x52, 0x54, 0, 1, 2, 3]);
        let card = NetDevice::new(
            FakeTransport::silent(&fake),
            &mut test_arena(1 << 20),
            clock,
        )
        .unwrap();
        let stack = IpStack::new(card, PORT, Some(StaticAddress::FALL_BACK), 1, clock());
        let mut wire = Wire::default();
        let mac = HardwareAddress::Ethernet(EthernetAddress([2, 0, 0, 0, 0, 9]));
        let mut peer = Interface::new(Config::new(mac), &mut wire, instant(clock()));
        peer.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(IpAddress::v4(10, 0, 2, 2), 24))
                .unwrap();
        });
        Self {
            fake,
            stack,
            streams: VecDeque::new(),
            wire,
            peer,
            sockets: SocketSet::new(Vec::new()),
            next_port: 40_000,
        }
    }

    fn connect(&mut self) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        self.next_port += 1;
        let guest = (IpAddress::Ipv4(Ipv4Address::new(10, 0, 2, 15)), PORT);
        socket
            .connect(self.peer.context(), guest, self.next_port)
            .unwrap();
        self.sockets.add(socket)
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Lets both sides run for `rounds` milliseconds.
    fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            NOW.set(NOW.get() + Duration::from_millis(1));
            let streams = &mut self.streams;
            self.stack
                .poll(clock(), |stream, _| streams.push_back(stream))
                .unwrap();
            let mut fake = self.fake.borrow_mut();
            while let Some(sent) = fake.ring(1).take() {
                self.wire
                    .to_peer
                    .push_back(sent.readable()[HEADER..].to_vec());
                fake.ring(1).finish(sent.head, 0);
            }
            self.peer
                .poll(instant(clock()), &mut self.wire, &mut self.sockets);
            while let Some(frame) = self.wire.from_peer.pop_front() {
                // A frame for which the driver has no buffer is lost, as on a real card.
                if let Some(chain) = fake.ring(0).take() {
                    let written = chain.write(&[&[0; HEADER], &frame[..]].concat());
                    fake.ring(0).finish(chain.head, written);
                }
            }
        }
    }
}

#[test]
fn twenty_connections_echo_at_once() {
    let mut world = World::new();
    let peers: Vec<SocketHandle> = (0..20).map(|_| world.connect()).collect();
    world.run(20);
    assert_eq!(world.streams.len(), 20);
    for (index, peer) in peers.iter().enumerate() {
        world
            .socket(*peer)
            .send_slice(&[index as u8; 1000])
            .unwrap();
    }
    world.run(20);
    let mut into = [0; 4096];
    let mut streams = core::mem::take(&mut world.streams);
    for stream in &mut streams {
        assert_eq!(stream.read_ready(), Ok(true));
        let count = stream.read(&mut into).unwrap();
        assert_eq!(stream.write(&into[..count]), Ok(1000));
    }
    world.run(20);
    for (index, peer) in peers.iter().enumerate() {
        assert_eq!(world.socket(*peer).recv_slice(&mut into), Ok(1000));
        assert!(into[..1000].iter().all(|byte| *byte == index as u8));
    }
}

#[test]
fn connections_beyond_the_limit_are_refused_and_room_comes_back() {
    let mut world = World::new();
    // All at once: far more than listen at a time.
    for _ in 0..MAX_CONNECTIONS {
        world.connect();
    }
    world.run(20);
    assert_eq!(world.streams.len(), MAX_CONNECTIONS);
    let refused = world.connect();
    world.run(20);
    assert_eq!(world.socket(refused).state(), tcp::State::Closed);
    world.streams.clear();
    let handles: Vec<SocketHandle> = world.sockets.iter().map(|(handle, _)| handle).collect();
    world.run(10);
    for handle in handles {
        world.socket(handle).close();
    }
    world.run(50);
    let welcome = world.connect();
    world.run(20);
    assert_eq!(world.socket(welcome).state(), tcp::State::Established);
}

#[test]
fn a_peer_that_stops_reading_makes_the_stream_unready_not_larger() {
    let mut world = World::new();
    let peer = world.connect();
    world.run(20);
    let mut stream = world.streams.pop_front().unwrap();
    let mut written = 0;
    for _ in 0..100 {
        if stream.write_ready().unwrap() {
            written += stream.write(&[7; 10_000]).unwrap();
        }
        world.run(2);
    }
    assert_eq!(stream.write_ready(), Ok(false));
    assert!(written <= super::super::BUFFER + SOCKET_BUFFER + 4096);
    let mut received = 0;
    let mut into = [0; 4096];
    for _ in 0..2000 {
        received += world.socket(peer).recv_slice(&mut into).unwrap();
        world.run(1);
    }
    assert_eq!(received, written);
}

#[test]
fn a_half_closed_peer_still_gets_its_answer() {
    let mut world = World::new();
    let peer = world.connect();
    world.run(20);
    let mut stream = world.streams.pop_front().unwrap();
    world.socket(peer).send_slice(b"question").unwrap();
    world.socket(peer).close();
    world.run(20);
    let mut into = [0; 64];
    assert_eq!(stream.read(&mut into), Ok(8));
    assert_eq!(stream.read(&mut into), Ok(0));
    stream.write(b"answer").unwrap();
    drop(stream);
    world.run(20);
    assert_eq!(world.socket(peer).recv_slice(&mut into), Ok(6));
    world.run(20);
    assert!(world.stack.connections.is_empty());
}

#[test]
fn a_reset_reaches_its_stream_alone() {
    let mut world = World::new();
    let (first, _second) = (world.connect(), world.connect());
    world.run(20);
    world.socket(first).abort();
    world.run(20);
    let mut results: Vec<_> = world
        .streams
        .iter_mut()
        .map(|stream| stream.write(b"x"))
        .collect();
    results.sort_by_key(Result::is_ok);
    assert_eq!(results, [Err(ErrorKind::ConnectionReset), Ok(1)]);
}

#[test]
fn a_peer_that_never_closes_is_let_go() {
    let mut world = World::new();
    let peer = world.connect();
    world.run(20);
    world.streams.clear();
    world.run(20);
    assert_eq!(world.stack.connections.len(), 1);
    NOW.set(NOW.get() + LINGER);
    world.run(20);
    assert!(world.stack.connections.is_empty());
    assert_eq!(world.socket(peer).state(), tcp::State::Closed);
}

#[test]
fn without_a_lease_the_fall_back_address_is_used() {
    let fake = FakeDevice::new(1 << 5, &[2, 0, 0, 0, 0, 1]);
    let card = NetDevice::new(
        FakeTransport::silent(&fake),
        &mut test_arena(1 << 20),
        clock,
    )
    .unwrap();
    let start = clock();
    let mut stack = IpStack::new(card, PORT, None, 1, start);
    stack
        .poll(start + Duration::from_millis(2900), |_, _| {})
        .unwrap();
    assert_eq!(stack.address(), None);
    assert!(
        fake.borrow_mut().ring(1).take().is_some(),
        "a discover was sent"
    );
    stack
        .poll(start + Duration::from_millis(3100), |_, _| {})
        .unwrap();
    assert_eq!(stack.address(), Some(Ipv4Address::new(10, 0, 2, 15)));
}
