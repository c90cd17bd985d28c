//! The vsock state machine against a scripted peer.

use super::*;
use alloc::vec;
use embedded_io::{Read, ReadReady, Write, WriteReady};
use proptest::prelude::*;

const CID: u64 = 7;
const PORT: u32 = 8443;
const ZERO: Duration = Duration::ZERO;

fn from_peer(port: u32, operation: Operation) -> Header {
    Header {
        source: Endpoint { cid: 2, port },
        destination: Endpoint {
            cid: CID,
            port: PORT,
        },
        length: 0,
        socket_type: TYPE_STREAM,
        operation: Some(operation),
        flags: 0,
        buffer: 1000,
        consumed: 0,
    }
}

fn connect(table: &mut Connections, port: u32) -> Stream {
    let (stream, origin) = table
        .on_packet(&from_peer(port, Operation::Request), &[])
        .unwrap();
    assert_eq!(origin, Endpoint { cid: 2, port });
    assert_eq!(next(table).unwrap().0.operation, Some(Operation::Response));
    stream
}

fn next(table: &mut Connections) -> Option<(Header, Vec<u8>)> {
    let mut data = [0; TRANSMIT_DATA];
    let header = table.next_packet(ZERO, &mut data)?;
    Some((header, data[..header.length as usize].to_vec()))
}

fn operation(table: &mut Connections) -> Option<Operation> {
    next(table).and_then(|(header, _)| header.operation)
}

#[test]
fn data_flows_both_ways() {
    let mut table = Connections::new(CID, PORT);
    let mut stream = connect(&mut table, 1);
    table.on_packet(&from_peer(1, Operation::Data), b"hello");
    let mut into = [0; 16];
    assert_eq!(stream.read(&mut into), Ok(5));
    stream.write(b"world").unwrap();
    let (header, data) = next(&mut table).unwrap();
    assert_eq!(
        (header.operation, &data[..]),
        (Some(Operation::Data), &b"world"[..])
    );
    assert_eq!((header.buffer, header.consumed), (BUFFER as u32, 5));
    assert_eq!(header.destination, Endpoint { cid: 2, port: 1 });
    assert_eq!(operation(&mut table), None);
}

#[test]
fn the_peers_credit_is_respected_and_asked_for() {
    let mut table = Connections::new(CID, PORT);
    let mut stream = connect(&mut table, 1);
    stream.write(&[1; 2500]).unwrap();
    assert_eq!(next(&mut table).unwrap().1.len(), 1000);
    assert_eq!(operation(&mut table), None);
    let mut data = [0; TRANSMIT_DATA];
    let later = table.next_packet(CREDIT_PATIENCE, &mut data).unwrap();
    assert_eq!(later.operation, Some(Operation::CreditRequest));
    let update = Header {
        consumed: 400,
        ..from_peer(1, Operation::CreditUpdate)
    };
    table.on_packet(&update, &[]);
    assert_eq!(next(&mut table).unwrap().1.len(), 400);
    // Numbers that make no sense give no credit.
    table.on_packet(
        &Header {
            consumed: 5000,
            ..update
        },
        &[],
    );
    assert_eq!(operation(&mut table), None);
}

#[test]
fn our_credit_is_renewed_when_the_user_has_read() {
    let mut table = Connections::new(CID, PORT);
    let mut stream = connect(&mut table, 1);
    let block = vec![9; 4096];
    for _ in 0..BUFFER / block.len() {
        table.on_packet(&from_peer(1, Operation::Data), &block);
    }
    assert_eq!(operation(&mut table), None, "nothing was read yet");
    let mut into = vec![0; CREDIT_STEP as usize];
    stream.read(&mut into).unwrap();
    let (header, _) = next(&mut table).unwrap();
    assert_eq!(
        (header.operation, header.consumed),
        (Some(Operation::CreditUpdate), CREDIT_STEP)
    );
    assert_eq!(operation(&mut table), None, "told once");
    table.on_packet(&from_peer(1, Operation::CreditRequest), &[]);
    assert_eq!(operation(&mut table), Some(Operation::CreditUpdate));
    // An answer that would grant nothing waits until it grants something.
    for _ in 0..CREDIT_STEP as usize / block.len() {
        table.on_packet(&from_peer(1, Operation::Data), &block);
    }
    table.on_packet(&from_peer(1, Operation::CreditRequest), &[]);
    assert_eq!(operation(&mut table), None);
    stream.read(&mut into[..1]).unwrap();
    let (header, _) = next(&mut table).unwrap();
    assert_eq!(
        (header.operation, header.consumed),
        (Some(Operation::CreditUpdate), CREDIT_STEP + 1)
    );
}

#[test]
fn an_unknown_operation_only_carries_credit() {
    let mut table = Connections::new(CID, PORT);
    let mut stream = connect(&mut table, 1);
    let unknown = Header {
        operation: None,
        buffer: 3,
        ..from_peer(1, Operation::Data)
    };
    table.on_packet(&unknown, &[]);
    stream.write(b"hello").unwrap();
    assert_eq!(next(&mut table).unwrap().1, b"hel");
}

#[test]
fn a_peer_that_overruns_its_credit_loses_its_connection_only() {
    let mut table = Connections::new(CID, PORT);
    let mut bad = connect(&mut table, 1);
    let mut good = connect(&mut table, 2);
    for _ in 0..BUFFER / 4096 {
        table.on_packet(&from_peer(1, Operation::Data), &[0; 4096]);
    }
    table.on_packet(&from_peer(1, Operation::Data), b"x");
    assert_eq!(operation(&mut table), Some(Operation::Reset));
    assert_eq!(bad.write(b"x"), Err(ErrorKind::ConnectionReset));
    good.write(b"x").unwrap();
    assert_eq!(operation(&mut table), Some(Operation::Data));
}

#[test]
fn half_close_ends_one_direction() {
    let mut table = Connections::new(CID, PORT);
    let mut stream = connect(&mut table, 1);
    let half = Header {
        flags: SHUTDOWN_SEND,
        ..from_peer(1, Operation::Shutdown)
    };
    table.on_packet(&half, &[]);
    assert_eq!(stream.read(&mut [0; 4]), Ok(0));
    stream.write(b"still here").unwrap();
    assert_eq!(next(&mut table).unwrap().1, b"still here");
    // Data after the end is out of turn.
    table.on_packet(&from_peer(1, Operation::Data), b"x");
    assert_eq!(operation(&mut table), Some(Operation::Reset));
}

#[test]
fn the_peers_full_close_is_confirmed_and_leaves_what_it_sent() {
    let mut table = Connections::new(CID, PORT);
    let mut stream = connect(&mut table, 1);
    table.on_packet(&from_peer(1, Operation::Data), b"last");
    let close = Header {
        flags: SHUTDOWN_SEND | SHUTDOWN_RECEIVE,
        ..from_peer(1, Operation::Shutdown)
    };
    table.on_packet(&close, &[]);
    assert_eq!(operation(&mut table), Some(Operation::Reset));
    let mut into = [0; 8];
    assert_eq!(stream.read(&mut into), Ok(4));
    assert_eq!(stream.read(&mut into), Ok(0));
    assert_eq!(stream.write(b"x"), Err(ErrorKind::BrokenPipe));
}

#[test]
fn dropping_a_stream_flushes_then_closes() {
    let mut table = Connections::new(CID, PORT);
    let mut stream = connect(&mut table, 1);
    stream.write(b"bye").unwrap();
    drop(stream);
    table.expire(ZERO);
    assert_eq!(next(&mut table).unwrap().1, b"bye");
    let (header, _) = next(&mut table).unwrap();
    assert_eq!(header.operation, Some(Operation::Shutdown));
    assert_eq!(header.flags, SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
    // Data still under way is taken and forgotten.
    table.on_packet(&from_peer(1, Operation::Data), b"late");
    table.on_packet(&from_peer(1, Operation::Reset), &[]);
    assert!(table.connections.is_empty());
    assert_eq!(operation(&mut table), None);
}

#[test]
fn a_peer_that_never_confirms_is_reset_in_time() {
    let mut table = Connections::new(CID, PORT);
    drop(connect(&mut table, 1));
    table.expire(ZERO);
    assert_eq!(operation(&mut table), Some(Operation::Shutdown));
    assert_eq!(operation(&mut table), None);
    let again = table
        .next_packet(SHUTDOWN_INTERVAL, &mut [0; TRANSMIT_DATA])
        .unwrap();
    assert_eq!(again.operation, Some(Operation::Shutdown));
    table.expire(CLOSE_PATIENCE);
    assert_eq!(operation(&mut table), None);
    table.expire(CLOSE_PATIENCE + Duration::from_millis(1));
    let (header, _) = next(&mut table).unwrap();
    assert_eq!(header.operation, Some(Operation::Reset));
    assert_eq!((header.source.port, header.destination.port), (PORT, 1));
    assert!(table.connections.is_empty());
}

#[test]
fn a_peer_that_takes_nothing_cannot_hold_a_dropped_stream() {
    let mut table = Connections::new(CID, PORT);
    let mut stream = connect(&mut table, 1);
    stream.write(&[0; 2000]).unwrap();
    drop(stream);
    assert_eq!(operation(&mut table), Some(Operation::Data));
    table.expire(ZERO);
    table.expire(LINGER + Duration::from_millis(1));
    assert_eq!(operation(&mut table), Some(Operation::Reset));
}

#[test]
fn what_is_not_for_us_is_refused() {
    let mut table = Connections::new(CID, PORT);
    let request = from_peer(1, Operation::Request);
    let elsewhere = Header {
        destination: Endpoint { cid: CID, port: 22 },
        ..request
    };
    let datagram = Header {
        socket_type: 3,
        ..request
    };
    let unknown = Header {
        operation: None,
        ..request
    };
    for refused in [
        elsewhere,
        datagram,
        unknown,
        from_peer(1, Operation::Data),
        from_peer(1, Operation::Response),
    ] {
        assert!(table.on_packet(&refused, &[]).is_none());
        let (answer, _) = next(&mut table).unwrap();
        assert_eq!(answer.operation, Some(Operation::Reset));
        assert_eq!(
            (answer.source, answer.destination),
            (refused.destination, refused.source)
        );
        assert_eq!(answer.socket_type, refused.socket_type);
    }
    // No answer to a reset, nor to what was meant for another machine.
    table.on_packet(&from_peer(1, Operation::Reset), &[]);
    let stray = Header {
        destination: Endpoint { cid: 9, port: PORT },
        ..request
    };
    table.on_packet(&stray, &[]);
    assert_eq!(operation(&mut table), None);
}

#[test]
fn connections_and_refusals_are_bounded() {
    let mut table = Connections::new(CID, PORT);
    let mut streams = Vec::new();
    for port in 0..1000 {
        streams.extend(table.on_packet(&from_peer(port, Operation::Request), &[]));
    }
    assert_eq!(streams.len(), MAX_CONNECTIONS);
    assert_eq!(table.refusals.len(), MAX_REFUSALS);
}

#[test]
fn connections_take_turns() {
    let mut table = Connections::new(CID, PORT);
    let mut streams: Vec<Stream> = (0..4).map(|port| connect(&mut table, port)).collect();
    for stream in &mut streams {
        stream.write(&vec![0; BUFFER]).unwrap();
    }
    for port in 0..4 {
        let roomy = Header {
            buffer: u32::MAX,
            ..from_peer(port, Operation::CreditUpdate)
        };
        table.on_packet(&roomy, &[]);
    }
    let mut seen = [0; 4];
    for _ in 0..8 {
        seen[next(&mut table).unwrap().0.destination.port as usize] += 1;
    }
    assert_eq!(seen, [2; 4]);
    assert!(
        streams
            .iter_mut()
            .all(|stream| stream.write_ready() == Ok(true))
    );
}

#[test]
fn a_second_request_or_a_malformed_packet_ends_the_connection() {
    let mut table = Connections::new(CID, PORT);
    let mut first = connect(&mut table, 1);
    let mut second = connect(&mut table, 2);
    assert!(
        table
            .on_packet(&from_peer(1, Operation::Request), &[])
            .is_none()
    );
    table.on_malformed(&from_peer(2, Operation::Data));
    assert_eq!(operation(&mut table), Some(Operation::Reset));
    assert_eq!(operation(&mut table), Some(Operation::Reset));
    for stream in [&mut first, &mut second] {
        assert_eq!(stream.read_ready(), Ok(true));
        assert_eq!(stream.read(&mut [0; 1]), Err(ErrorKind::ConnectionReset));
    }
}

#[test]
fn a_cut_breaks_every_stream() {
    let mut table = Connections::new(CID, PORT);
    let mut stream = connect(&mut table, 1);
    table.cut(8);
    assert_eq!(stream.read(&mut [0; 1]), Err(ErrorKind::ConnectionReset));
    assert!(
        table
            .on_packet(&from_peer(1, Operation::Request), &[])
            .is_none(),
        "the identifier changed"
    );
}

proptest! {
    /// Whatever the host sends, tables stay bounded, credit is kept, and nothing panics.
    #[test]
    fn any_sequence_of_packets_is_survived(
        packets in proptest::collection::vec(
            (0u32..4, 0u16..9, any::<u32>(), any::<u32>(), 0u32..4, 0usize..4052, any::<bool>()), 1..120),
    ) {
        let mut table = Connections::new(CID, PORT);
        let mut streams = Vec::new();
        let mut now = ZERO;
        for (port, number, buffer, consumed, flags, length, drop_one) in packets {
            let mut bytes = from_peer(port, Operation::Data).to_bytes();
            bytes[30] = number as u8;
            let header = Header { buffer, consumed, flags, length: length as u32, ..Header::parse(&bytes) };
            streams.extend(table.on_packet(&header, &vec![0; length]));
            for (stream, _) in &mut streams {
                let _ = stream.write(&[1; 300]);
                let _ = stream.read(&mut [0; 100]);
            }
            if drop_one {
                streams.pop();
            }
            now += Duration::from_millis(700);
            table.expire(now);
            let mut data = [0; TRANSMIT_DATA];
            for _ in 0..200 {
                let Some(sent) = table.next_packet(now, &mut data) else { break };
                prop_assert_eq!(sent.source.cid, CID);
                prop_assert!(sent.length as usize <= TRANSMIT_DATA);
            }
            prop_assert!(table.connections.len() <= MAX_CONNECTIONS);
        }
    }
}
