//! Resumption and early data would skip what a handshake shows (row M14 of the catalogue of attacks).

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::thread;

use client::{Connector, Options, Request, Trust};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

/// A server that offers tickets, with early data, to everyone: no connection uses one.
#[test]
fn every_connection_has_a_handshake_of_its_own() {
    let own = rcgen::generate_simple_self_signed(["guest".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let provider = rustls::crypto::ring::default_provider();
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], PrivateKeyDer::Pkcs8(key))
        .unwrap();
    config.max_early_data_size = 1 << 14;
    let config = Arc::new(config);
    assert!(config.send_tls13_tickets > 0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let address = address.parse().unwrap();
    let (seen, kinds) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                request.push(byte[0]);
            }
            let _ = seen.send(stream.conn.handshake_kind());
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
            let _ = stream.write_all(answer);
            let _ = stream.flush();
        }
    });
    let connector = Connector::new(Options::new(Trust::InsecureNoTee)).unwrap();
    for _ in 0..3 {
        let session = connector.connect(&address).unwrap();
        let mut response = session.request(&Request::get("/health")).unwrap();
        assert_eq!(response.read_whole(100).unwrap(), b"{}");
        assert_eq!(kinds.recv().unwrap(), Some(HandshakeKind::Full));
    }
}
