//! The adversary's end of a TLS connection: challenges are answered as the strategy says, everything else is passed on to the victim.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use attestation::challenge::{Answer, EXPORTER_LABEL, Purpose, Role};
use client::Request;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde::Deserialize;

use super::identity::{Asked, Identity};
use super::{Adversary, Strategy, ask, dial};
use crate::failure::{Context, Failure, Result};

/// What no request of these tests exceeds.
const REQUEST_LIMIT: usize = 1 << 20;
/// An answer that is passed on.
const ANSWER_LIMIT: usize = 16 << 20;

/// A request as far as it matters here.
struct Asking {
    method: String,
    path: String,
    body: Vec<u8>,
}

/// What is sent back.
struct Reply {
    status: u16,
    content_type: String,
    body: Vec<u8>,
}

/// The body of a challenge.
#[derive(Deserialize)]
struct Posed {
    nonce: String,
    purpose: String,
}

impl Adversary {
    /// Speaks TLS with a client until it leaves.
    pub(super) fn converse(
        &self,
        stream: TcpStream,
        tls: &Arc<ServerConfig>,
        identity: &Identity,
    ) -> Result<()> {
        let connection = ServerConnection::new(Arc::clone(tls)).context("begin TLS")?;
        let mut stream = StreamOwned::new(connection, self.capture.tap(&stream));
        while let Some(asking) = self.read_request(&mut stream).context("read a request")? {
            let exporter = |nonce: &[u8; 32]| {
                let label = EXPORTER_LABEL.as_bytes();
                let connection = &stream.conn;
                connection.export_keying_material([0; 32], label, Some(nonce))
            };
            let reply = match (asking.path.as_str(), self.strategy) {
                ("/attestation", strategy) if strategy != Strategy::Eavesdrop => {
                    let (nonce, purpose) = challenge(&asking.body)?;
                    let exporter = exporter(&nonce).context("export keying material")?;
                    let asked = Asked {
                        purpose,
                        role: Role::Server,
                        nonce,
                        exporter,
                    };
                    self.answer(identity, asked)?
                }
                _ => self.forward(&asking)?,
            };
            let Reply {
                status,
                content_type,
                body,
            } = reply;
            let head = format!(
                "HTTP/1.1 {status} Status\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream
                .write_all(&[head.as_bytes(), &body].concat())
                .and_then(|()| stream.flush())
                .context("answer")?;
        }
        Ok(())
    }

    /// Reads a request and records it in clear; `None` at the connection's end.
    fn read_request(&self, stream: &mut impl Read) -> io::Result<Option<Asking>> {
        let malformed = || io::Error::other("not a request of a client of ours");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte)? == 0 || head.len() > REQUEST_LIMIT {
                return Ok(None);
            }
            self.capture.record(&byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .map_or(Ok(0), |length| length.trim().parse())
            .map_err(|_| malformed())?;
        if length > REQUEST_LIMIT {
            return Err(malformed());
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        self.capture.record(&body)?;
        let mut words = head.split(' ');
        match (words.next(), words.next()) {
            (Some(method), Some(path)) => Ok(Some(Asking {
                method: method.to_owned(),
                path: path.to_owned(),
                body,
            })),
            _ => Err(malformed()),
        }
    }

    /// The answer to a challenge.
    fn answer(&self, identity: &Identity, asked: Asked) -> Result<Reply> {
        let own = |asked| identity.answer(&self.seen, &self.pki, &asked);
        let body = match self.strategy {
            Strategy::ReplayAnswer => self.earlier.clone(),
            Strategy::RelayAnswer => ask(&self.victim, &asked.nonce, asked.purpose)?,
            Strategy::DivertAnswer => ask(self.other()?, &asked.nonce, asked.purpose)?,
            Strategy::Reflect => own(Asked {
                role: Role::Client,
                ..asked
            })?,
            Strategy::CertificateAsAnswer => Answer {
                quote: self.seen.quote().to_vec(),
                path: Vec::new(),
            }
            .encode(),
            Strategy::OtherPurpose => own(Asked {
                purpose: match asked.purpose {
                    Purpose::Session => Purpose::KeyRelease,
                    Purpose::KeyRelease => Purpose::Session,
                },
                ..asked
            })?,
            Strategy::Refuse => {
                return Ok(Reply {
                    status: 501,
                    content_type: "application/json".to_owned(),
                    body: b"{}".to_vec(),
                });
            }
            // The others are refused before they are challenged; if not, this is what makes it show.
            _ => own(asked)?,
        };
        Ok(Reply {
            status: 200,
            content_type: "application/cbor".to_owned(),
            body,
        })
    }

    /// Has the victim answer.
    fn forward(&self, asking: &Asking) -> Result<Reply> {
        let request = match asking.method.as_str() {
            "post" => Request::post(&asking.path, &asking.body),
            _ => Request::get(&asking.path),
        };
        let mut response = dial(&self.victim)?.request(&request)?;
        Ok(Reply {
            status: response.status(),
            content_type: response.content_type().unwrap_or_default().to_owned(),
            body: response.read_whole(ANSWER_LIMIT)?,
        })
    }
}

/// Nonce and purpose of a challenge.
fn challenge(body: &[u8]) -> Result<([u8; 32], Purpose)> {
    let posed: Posed = serde_json::from_slice(body)?;
    let purpose = match posed.purpose.as_str() {
        "session" => Purpose::Session,
        "key-release" => Purpose::KeyRelease,
        other => return Err(Failure::new(format!("no purpose is called {other}"))),
    };
    let mut nonce = [0; 32];
    for (byte, digits) in nonce.iter_mut().zip(posed.nonce.as_bytes().chunks(2)) {
        let digits = str::from_utf8(digits).context("read a nonce")?;
        *byte = u8::from_str_radix(digits, 16).context("read a nonce")?;
    }
    Ok((nonce, purpose))
}
