//! The devices against the drivers of the real guest.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::common::{Guest, Machine, Ports, Report, eventually, exchange, functions, pattern};
use emulator::bus::Bus;
use emulator::hostile::Host;
use vm_memory::{Bytes, GuestAddress};

const SOON: Duration = Duration::from_secs(10);

fn serving(machine: &Machine) -> (Guest, Vec<u8>) {
    let guest = Guest::start(machine);
    let Report::Model(Ok(model)) = guest.next() else {
        panic!("no model");
    };
    assert_eq!(guest.next(), Report::Serving);
    (guest, model)
}

#[test]
fn a_disk_arrives_whole() {
    for length in [1, 511, 512, 513, 128 << 10, (1 << 20) + 77, 5_000_003] {
        let contents = pattern(length);
        let machine = Machine::new(&contents, Host::honest());
        let (_guest, model) = serving(&machine);
        assert!(model == contents, "{length} bytes");
    }
}

#[test]
fn vsock_carries_bytes_both_ways() {
    let machine = Machine::new(&[1], Host::honest());
    let (_guest, _) = serving(&machine);
    for length in [1, 4052, 4053, 60_000] {
        let data = pattern(length);
        let mut stream = machine.connect_vsock(8443).unwrap();
        assert!(
            exchange(&mut stream, &data).unwrap() == data,
            "{length} bytes"
        );
    }
}

#[test]
fn a_long_vsock_stream_keeps_within_credit() {
    let machine = Machine::new(&[1], Host::honest());
    let (_guest, _) = serving(&machine);
    let mut stream = machine.connect_vsock(8443).unwrap();
    let data = pattern(40_000);
    for _ in 0..50 {
        assert!(exchange(&mut stream, &data).unwrap() == data);
    }
}

#[test]
fn many_clients_at_once() {
    let machine = Machine::new(&[1], Host::honest());
    let (_guest, _) = serving(&machine);
    let mut streams: Vec<_> = (0..24)
        .map(|_| machine.connect_vsock(8443).unwrap())
        .collect();
    for (index, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&[index as u8; 1000]).unwrap();
    }
    for (index, stream) in streams.iter_mut().enumerate() {
        let mut echo = [0; 1000];
        stream.read_exact(&mut echo).unwrap();
        assert_eq!(echo, [index as u8; 1000]);
    }
}

#[test]
fn a_port_where_nobody_listens_ends_the_stream() {
    let machine = Machine::new(&[1], Host::honest());
    let (_guest, _) = serving(&machine);
    assert!(machine.connect_vsock(22).is_err());
}

#[test]
fn before_the_guest_listens_a_client_is_sent_away() {
    let machine = Machine::new(&[1], Host::honest());
    let start = Instant::now();
    assert!(machine.connect_vsock(8443).is_err());
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn tcp_reaches_the_guest_through_a_forwarded_port() {
    let machine = Machine::new(&[1], Host::honest());
    let (_guest, _) = serving(&machine);
    for length in [1, 1460, 60_000] {
        let data = pattern(length);
        let echo = eventually(SOON, || exchange(&mut machine.connect_tcp()?, &data));
        assert!(echo.unwrap() == data, "{length} bytes");
    }
}

#[test]
fn the_end_of_a_client_reaches_the_guest_and_back() {
    let machine = Machine::new(&[1], Host::honest());
    let (_guest, _) = serving(&machine);
    let mut vsock = machine.connect_vsock(8443).unwrap();
    vsock.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(vsock.read(&mut [0; 1]).unwrap(), 0);
    let mut tcp = eventually(SOON, || {
        let mut tcp = machine.connect_tcp()?;
        exchange(&mut tcp, b"x")?;
        Ok(tcp)
    })
    .unwrap();
    tcp.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(tcp.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_disk_that_is_not_there_is_an_error_with_its_name() {
    let folder = tempfile::TempDir::new().unwrap();
    let missing = folder.path().join("missing");
    let error = emulator::devices::Board::new(
        emulator::devices::Options {
            disks: vec![emulator::devices::DiskOptions {
                path: missing.clone(),
                serial: "model:1".into(),
            }],
            ..Default::default()
        },
        std::sync::Arc::new(
            emulator::bus::SharedMemory::from_ranges(&[(GuestAddress(0), 4096)]).unwrap(),
        ),
        std::sync::Arc::new(crate::common::Arrived::default()),
        Box::new(crate::common::Text::default()),
        std::sync::Arc::new(Host::honest()),
    )
    .err()
    .unwrap();
    assert!(
        error.to_string().contains(missing.to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn every_virtio_function_is_found_once_and_the_console_speaks() {
    let machine = Machine::new(&[1], Host::honest());
    let mut ports = Ports(machine.board.clone());
    let found: Vec<u16> = functions(&mut ports)
        .iter()
        .map(|function| function.device)
        .collect();
    assert_eq!(found, [0x1042, 0x1041, 0x1053]);
    machine.board.io(0x3f8, 1, Some(b'!'.into()));
    assert_eq!(machine.console.take(), b"!");
    assert_eq!(machine.board.io(0x1234, 2, None), 0xffff);
    assert_eq!(machine.board.mmio(0xdead_0000, 4, None), 0xffff_ffff);
}

/// A queue whose rings are not in shared memory, and messages.
#[test]
fn a_queue_outside_of_memory_needs_a_reset_and_says_so_by_message() {
    let machine = Machine::new(&[1], Host::honest());
    let bus = &machine.board;
    let disk = 1u32 << 11;
    let config = |offset: u32, value: u32| {
        bus.io(0xcf8, 4, Some(1 << 31 | disk | offset));
        bus.io(0xcfc, 4, Some(value));
    };
    let (messages, blocks) = (0xe000_0000u64, 0xe000_4000u64);
    config(0x14, messages as u32);
    config(0x20, blocks as u32);
    config(0x04, 6);
    config(0x40, 1 << 31);
    bus.mmio(messages + 16, 4, Some(0xfee0_0000));
    bus.mmio(messages + 24, 4, Some(0x55));
    bus.mmio(messages + 28, 4, Some(0));
    let write = |offset: u64, size: u8, value: u64| {
        bus.mmio(blocks + offset, size, Some(value));
    };
    write(0x10, 2, 1);
    write(0x14, 1, 3);
    for half in 0..2 {
        write(0x08, 4, half);
        write(0x0c, 4, if half == 1 { 3 } else { 0 });
    }
    write(0x14, 1, 11);
    write(0x20, 8, 1 << 40);
    write(0x28, 8, 0x2000);
    write(0x30, 8, 0x3000);
    write(0x1c, 2, 1);
    assert!(machine.interrupts.take().is_empty());
    write(0x14, 1, 15);
    assert_eq!(bus.mmio(blocks + 0x14, 1, None), 15 | 64);
    assert_eq!(machine.interrupts.take(), [(0xfee0_0000, 0x55)]);
    // After a reset and with rings in memory it works, and says so by a message.
    write(0x14, 1, 0);
    assert_eq!(bus.mmio(blocks + 0x14, 1, None), 0);
    write(0x14, 1, 3);
    for half in 0..2 {
        write(0x08, 4, half);
        write(0x0c, 4, if half == 1 { 3 } else { 0 });
    }
    write(0x14, 1, 11);
    write(0x18, 2, 4);
    write(0x1a, 2, 1);
    write(0x20, 8, 0x1000);
    write(0x28, 8, 0x2000);
    write(0x30, 8, 0x3000);
    write(0x1c, 2, 1);
    write(0x14, 1, 15);
    // Identify: header, serial, status.
    let memory = &machine.memory;
    let put = |at: u64, bytes: &[u8]| memory.write_slice(bytes, GuestAddress(at)).unwrap();
    let descriptor = |index: u64, address: u64, length: u32, flags: u16| {
        let next = index as u16 + 1;
        let bytes = [
            &address.to_le_bytes()[..],
            &length.to_le_bytes(),
            &flags.to_le_bytes(),
            &next.to_le_bytes(),
        ]
        .concat();
        put(0x1000 + 16 * index, &bytes);
    };
    put(0x4000, &8u32.to_le_bytes());
    descriptor(0, 0x4000, 16, 1);
    descriptor(1, 0x5000, 20, 3);
    descriptor(2, 0x6000, 1, 2);
    put(0x6000, &[0xff]);
    put(0x2002, &1u16.to_le_bytes());
    write(0x3000, 2, 0);
    let start = Instant::now();
    while memory.read_obj::<u16>(GuestAddress(0x3002)).unwrap() == 0 {
        assert!(start.elapsed() < SOON);
    }
    let mut serial = [0; 20];
    memory
        .read_slice(&mut serial, GuestAddress(0x5000))
        .unwrap();
    assert_eq!(&serial[..8], b"model:1\0");
    assert_eq!(memory.read_obj::<u8>(GuestAddress(0x6000)).unwrap(), 0);
    assert_eq!(memory.read_obj::<u32>(GuestAddress(0x3008)).unwrap(), 21);
    let message = eventually(SOON, || {
        machine
            .interrupts
            .take()
            .pop()
            .ok_or(std::io::ErrorKind::NotFound.into())
    });
    assert_eq!(message.unwrap(), (0xfee0_0000, 0x55));
}
