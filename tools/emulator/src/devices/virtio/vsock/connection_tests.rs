//! Connections between a Unix socket pair and scripted packets.

use super::*;
use std::os::unix::net::UnixStream as Client;

fn connected() -> (Client, Connection) {
    let (client, server) = Client::pair().unwrap();
    server.set_nonblocking(true).unwrap();
    (client, Connection::new(UnixStream::from_std(server), 4000))
}

fn from_guest(operation: Operation) -> Packet {
    Packet {
        buffer: 100,
        ..Packet::new(4000, 8443, operation)
    }
}

fn open() -> (Client, Connection) {
    let (mut client, mut connection) = connected();
    client.write_all(b"CONNECT 8443\nhello").unwrap();
    connection.advance();
    let request = connection.next_packet(1000).unwrap();
    assert_eq!(
        (request.operation, request.guest_port),
        (Operation::Request as u16, 8443)
    );
    connection.on_packet(&from_guest(Operation::Response));
    let mut reply = [0; 8];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"OK 4000\n");
    (client, connection)
}

#[test]
fn bytes_flow_within_the_guests_credit() {
    let (mut client, mut connection) = open();
    connection.advance();
    assert_eq!(connection.next_packet(1000).unwrap().data, b"hello");
    client.write_all(&[7; 200]).unwrap();
    connection.on_readable();
    connection.advance();
    assert_eq!(connection.next_packet(50).unwrap().data.len(), 50);
    assert_eq!(connection.next_packet(1000).unwrap().data.len(), 45);
    assert_eq!(connection.next_packet(1000), None);
    connection.on_packet(&Packet {
        consumed: 100,
        ..from_guest(Operation::CreditUpdate)
    });
    assert_eq!(connection.next_packet(1000).unwrap().data.len(), 100);
}

#[test]
fn what_the_client_took_is_credit_for_the_guest() {
    let (mut client, mut connection) = open();
    let data = vec![1; CREDIT_STEP as usize];
    connection.on_packet(&Packet {
        data: data.clone(),
        ..from_guest(Operation::Data)
    });
    let mut taken = vec![0; data.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| client.read_exact(&mut taken).unwrap());
        while connection.consumed < CREDIT_STEP {
            connection.advance();
        }
    });
    assert_eq!(taken, data);
    // Five bytes that the client sent ahead go first, with the news.
    let packet = connection.next_packet(1000).unwrap();
    assert_eq!((packet.consumed, packet.buffer), (CREDIT_STEP, BUFFER));
    connection.on_packet(&from_guest(Operation::CreditRequest));
    assert_eq!(
        connection.next_packet(1000).unwrap().operation,
        Operation::CreditUpdate as u16
    );
}

#[test]
fn the_clients_end_becomes_a_half_close() {
    let (client, mut connection) = open();
    client.shutdown(Shutdown::Write).unwrap();
    connection.on_readable();
    connection.advance();
    assert_eq!(connection.next_packet(1000).unwrap().data, b"hello");
    let end = connection.next_packet(1000).unwrap();
    assert_eq!(
        (end.operation, end.flags),
        (Operation::Shutdown as u16, WILL_NOT_SEND)
    );
    assert!(connection.is_open());
}

#[test]
fn the_guests_full_close_is_confirmed_after_the_last_byte() {
    let (mut client, mut connection) = open();
    connection.on_packet(&Packet {
        data: b"bye".to_vec(),
        ..from_guest(Operation::Data)
    });
    connection.on_packet(&Packet {
        flags: WILL_NOT_RECEIVE | WILL_NOT_SEND,
        ..from_guest(Operation::Shutdown)
    });
    connection.advance();
    let mut text = [0; 3];
    client.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"bye");
    assert_eq!(
        connection.next_packet(1000).unwrap().operation,
        Operation::Reset as u16
    );
    assert!(connection.is_over());
}

#[test]
fn a_refusal_ends_the_client() {
    let (mut client, mut connection) = connected();
    client.write_all(b"CONNECT 1\n").unwrap();
    connection.advance();
    connection.next_packet(1000).unwrap();
    connection.on_packet(&from_guest(Operation::Reset));
    connection.advance();
    assert!(connection.is_over());
}

#[test]
fn who_does_not_greet_properly_is_sent_away() {
    for greeting in [
        &b"GET / HTTP/1.1\n"[..],
        b"CONNECT x\n",
        b"CONNECT -1\n",
        &[b'C'; 40],
        b"\n",
    ] {
        let (mut client, mut connection) = connected();
        client.write_all(greeting).unwrap();
        connection.advance();
        assert!(connection.is_over(), "{greeting:?}");
    }
    let (mut client, mut connection) = connected();
    client.write_all(b"CONN").unwrap();
    connection.advance();
    assert!(!connection.is_over(), "there may be more");
    drop(client);
    connection.advance();
    assert!(connection.is_over());
}

#[test]
fn a_client_that_leaves_early_is_withdrawn() {
    let (mut client, mut connection) = connected();
    client.write_all(b"CONNECT 1\n").unwrap();
    connection.advance();
    connection.next_packet(1000).unwrap();
    drop(client);
    connection.on_readable();
    connection.advance();
    assert_eq!(
        connection.next_packet(1000).unwrap().operation,
        Operation::Reset as u16
    );
    assert!(connection.is_over());
}
