//! Both paths together: what a failing device may and may not do.

use super::*;
use crate::virtio::fake::{FakeDevice, FakeTransport};
use crate::virtio::vsock::{HEADER_LENGTH, Header, Operation, TYPE_STREAM};
use crate::virtio::{status, test_arena};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use embedded_io::{ErrorKind, Read, Write};
use proptest::prelude::*;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

fn clock() -> Duration {
    Duration::ZERO
}

struct World {
    card: Rc<RefCell<FakeDevice>>,
    vsock: Rc<RefCell<FakeDevice>>,
    network: Network,
}

fn world() -> World {
    let mut arena = test_arena(4 << 20);
    let card = FakeDevice::new(1 << 5, &[2, 0, 0, 0, 0, 1]);
    let vsock = FakeDevice::new(0, &3u64.to_le_bytes());
    let config = ListenConfig {
        tcp: Some(8443),
        vsock: Some(8443),
        address: None,
    };
    let network = Network::new(
        &config,
        NetDevice::new(FakeTransport::silent(&card), &mut arena, clock).ok(),
        VsockDevice::new(FakeTransport::silent(&vsock), &mut arena, clock).ok(),
        1,
        clock(),
    );
    World {
        card,
        vsock,
        network,
    }
}

impl World {
    fn deliver(&mut self, operation: Operation, data: &[u8]) {
        let header = Header {
            source: Endpoint { cid: 2, port: 1 },
            destination: Endpoint { cid: 3, port: 8443 },
            length: data.len() as u32,
            socket_type: TYPE_STREAM,
            operation: Some(operation),
            flags: 0,
            buffer: 1 << 16,
            consumed: 0,
        };
        let mut vsock = self.vsock.borrow_mut();
        let chain = vsock.ring(RECEIVE).take().unwrap();
        let written = chain.write(&[&header.to_bytes()[..], data].concat());
        vsock.ring(RECEIVE).finish(chain.head, written);
    }

    fn sent(&mut self) -> Vec<(Header, Vec<u8>)> {
        let mut vsock = self.vsock.borrow_mut();
        let mut packets = Vec::new();
        while let Some(chain) = vsock.ring(TRANSMIT).take() {
            let bytes = chain.readable();
            let (header, data) = bytes.split_first_chunk::<HEADER_LENGTH>().unwrap();
            packets.push((Header::parse(header), data.to_vec()));
            vsock.ring(TRANSMIT).finish(chain.head, 0);
        }
        packets
    }
}

#[test]
fn a_vsock_connection_echoes_through_the_rings() {
    let mut world = world();
    world.deliver(Operation::Request, &[]);
    world.deliver(Operation::Data, b"ping");
    assert!(world.network.poll(clock()));
    let (mut stream, origin) = world.network.accept().unwrap();
    assert_eq!(origin, Origin::Vsock { cid: 2, port: 1 });
    let mut into = [0; 8];
    assert_eq!(stream.read(&mut into), Ok(4));
    stream.write(&into[..4]).unwrap();
    world.network.poll(clock());
    let sent = world.sent();
    assert_eq!(sent[0].0.operation, Some(Operation::Response));
    assert_eq!(sent[1].1, b"ping");
    assert!(!world.network.poll(clock()), "nothing left to do");
}

#[test]
fn a_vsock_device_that_lies_fails_alone() {
    let mut world = world();
    world.deliver(Operation::Request, &[]);
    world.network.poll(clock());
    let (mut stream, _) = world.network.accept().unwrap();
    world.vsock.borrow_mut().ring(RECEIVE).finish_raw(5000, 0);
    world.network.poll(clock());
    assert_eq!(
        world.network.take_failure(),
        Some((DeviceKind::Vsock, DeviceError::UsedId))
    );
    assert_eq!(world.network.take_failure(), None);
    assert_eq!(stream.read(&mut [0; 1]), Err(ErrorKind::ConnectionReset));
    assert!(world.vsock.borrow().failed());
    assert!(!world.card.borrow().failed());
    world.network.poll(Duration::from_secs(4));
    assert_eq!(
        world.network.address(),
        Some(Ipv4Addr::new(10, 0, 2, 15)),
        "the card goes on"
    );
}

#[test]
fn a_card_that_is_reset_behind_our_back_fails_alone() {
    let mut world = world();
    world.card.borrow_mut().status = 0;
    world.network.poll(Duration::from_secs(2));
    assert_eq!(
        world.network.take_failure(),
        Some((DeviceKind::Net, DeviceError::Reset))
    );
    assert_eq!(world.vsock.borrow().status & status::FAILED, 0);
    world.deliver(Operation::Request, &[]);
    world.network.poll(Duration::from_secs(2));
    assert!(world.network.accept().is_some());
}

#[test]
fn peers_that_leave_before_they_are_accepted_take_no_memory() {
    let mut world = world();
    for _ in 0..100 {
        world.deliver(Operation::Request, &[]);
        world.deliver(Operation::Reset, &[]);
        world.network.poll(clock());
        world.sent();
    }
    assert!(world.network.accepted.len() <= 1);
}

#[test]
fn addresses_no_machine_can_have_are_refused() {
    let error = |address, prefix| StaticAddress::new(address, prefix, None).err();
    for address in [[0, 0, 0, 0], [255, 255, 255, 255], [224, 0, 0, 1]] {
        assert_eq!(error(address.into(), 24), Some(AddressError::NotUnicast));
    }
    assert_eq!(
        error(Ipv4Addr::new(10, 0, 0, 1), 33),
        Some(AddressError::Prefix)
    );
    assert_eq!(error(Ipv4Addr::new(10, 0, 0, 1), 32), None);
}

/// One thing a host may do between two polls.
#[derive(Clone, Debug)]
enum Act {
    /// Fill the next buffer of a queue and return it properly.
    Fill { vsock: bool, bytes: Vec<u8> },
    /// Return the next request of a queue with any length.
    Return {
        vsock: bool,
        queue: u16,
        written: u32,
    },
    /// Put anything into a used ring.
    Lie {
        vsock: bool,
        queue: u16,
        id: u32,
        written: u32,
    },
    /// Set a used index.
    Jump { vsock: bool, queue: u16, index: u16 },
}

fn act() -> impl Strategy<Value = Act> {
    // Bytes that pass for a vsock packet of ours until chance changes some.
    let packet = (
        any::<[u8; 3]>(),
        0u8..8,
        0u8..4,
        proptest::collection::vec(any::<u8>(), 0..99),
    )
        .prop_map(|(noise, operation, port, data)| {
            let header = Header {
                source: Endpoint {
                    cid: 2,
                    port: port.into(),
                },
                destination: Endpoint { cid: 3, port: 8443 },
                length: data.len() as u32,
                socket_type: TYPE_STREAM,
                operation: None,
                flags: u32::from(noise[0] & 3),
                buffer: noise[1].into(),
                consumed: noise[2].into(),
            };
            let mut bytes = header.to_bytes();
            bytes[30] = operation;
            [&bytes[..], &data].concat()
        });
    let bytes = prop_oneof![packet, proptest::collection::vec(any::<u8>(), 0..200)];
    let queue = 0u16..3;
    prop_oneof![
        8 => (any::<bool>(), bytes).prop_map(|(vsock, bytes)| Act::Fill { vsock, bytes }),
        4 => (any::<bool>(), queue.clone(), 0u32..100)
            .prop_map(|(vsock, queue, written)| Act::Return { vsock, queue, written }),
        1 => (any::<bool>(), queue.clone(), 0u32..130, 0u32..9000)
            .prop_map(|(vsock, queue, id, written)| Act::Lie { vsock, queue, id, written }),
        1 => (any::<bool>(), queue, any::<u16>()).prop_map(|(vsock, queue, index)| Act::Jump { vsock, queue, index }),
    ]
}

proptest! {
    // Each case sets up both devices in an arena that is never freed.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the devices do, nothing panics and streams end in data or errors.
    #[test]
    fn any_behaviour_of_the_devices_is_survived(acts in proptest::collection::vec(act(), 1..80)) {
        let mut world = world();
        let mut streams = Vec::new();
        let mut now = Duration::ZERO;
        for act in acts {
            let (Act::Fill { vsock, .. } | Act::Return { vsock, .. } | Act::Lie { vsock, .. } | Act::Jump { vsock, .. }) = act;
            {
                let mut device = if vsock { world.vsock.borrow_mut() } else { world.card.borrow_mut() };
                match act {
                    Act::Fill { bytes, .. } => {
                        let ring = device.ring(RECEIVE);
                        if let Some(chain) = ring.take() {
                            let written = chain.write(&bytes);
                            ring.finish(chain.head, written);
                        }
                    }
                    Act::Return { queue, written, .. } => {
                        let ring = device.rings.get_mut(&queue);
                        if let Some((ring, chain)) = ring.and_then(|ring| ring.take().map(|chain| (ring, chain))) {
                            ring.finish(chain.head, written);
                        }
                    }
                    Act::Lie { queue, id, written, .. } => {
                        if let Some(ring) = device.rings.get_mut(&queue) {
                            ring.finish_raw(id, written);
                        }
                    }
                    Act::Jump { queue, index, .. } => {
                        if let Some(ring) = device.rings.get_mut(&queue) {
                            ring.set_used_index(index);
                        }
                    }
                }
            }
            now += Duration::from_millis(100);
            world.network.poll(now);
            streams.extend(core::iter::from_fn(|| world.network.accept()));
            for (stream, _) in &mut streams {
                let _ = stream.read(&mut [0; 64]);
                let _ = stream.write(&[5; 64]);
            }
        }
        let failures: Vec<_> = core::iter::from_fn(|| world.network.take_failure()).collect();
        prop_assert!(failures.len() <= 2);
        for (kind, _) in failures {
            let device = if kind == DeviceKind::Vsock { &world.vsock } else { &world.card };
            prop_assert!(device.borrow().failed());
        }
    }
}
