//! An adversary as its victims have it: a process at an address, and a file with everything that has reached it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::failure::{Context as _, Result, ensure};
use crate::guest::Guest;
use crate::pins::Pins;
use crate::process::Process;

/// RFC 8446, 5.1: the types of a record on the wire.
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
/// The longest record that ends a client's handshake: a Finished message with a hash of 48 bytes, its type, and the authentication tag.
const FINISHED: usize = 4 + 48 + 1 + 16;
/// An alert, encrypted.
const ALERT: usize = 2 + 1 + 16;

/// A running adversary.
pub struct Adversary {
    _process: Process,
    /// Where it takes its victim's place.
    pub address: String,
    capture: PathBuf,
}

impl Adversary {
    /// Puts it between clients and `victim`, with a strategy of `cargo xtask adversary`.
    pub fn start(pins: &Pins, strategy: &str, victim: &Guest, other: &Guest) -> Result<Self> {
        let capture = pins.directory().join(format!("{strategy}.capture"));
        let program = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(program);
        command.args(["adversary", "--strategy", strategy, "--pki", pins.pki()]);
        command.args(["--victim", &victim.tcp().to_string()]);
        command.args(["--other", &other.tcp().to_string()]);
        command.arg("--capture").arg(&capture);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let mut port = String::new();
        if let Some(stdout) = process.child().stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut port)
                .context("hear from the adversary")?;
        }
        ensure!(!port.is_empty(), "the adversary does not listen");
        Ok(Self {
            _process: process,
            address: format!("tcp://127.0.0.1:{}", port.trim()),
            capture,
        })
    }

    /// Whether what has reached it so far contains this.
    pub fn heard(&self, text: &str) -> Result<bool> {
        let bytes = fs::read(&self.capture).context("read the capture")?;
        ensure!(!bytes.is_empty(), "nothing at all reached the adversary");
        Ok(bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes()))
    }

    /// Fails unless all that reached it are TLS records of handshakes: of each connection a ClientHello, then what ends the handshake, or breaks
    /// it off. A request, whatever is in it and whoever can read it, would be one record more. For adversaries that never read one.
    pub fn heard_only_handshakes(&self) -> Result<()> {
        let bytes = fs::read(&self.capture).context("read the capture")?;
        let records = records(&bytes)?;
        ensure!(
            are_handshakes(&records),
            "more than handshakes reached the adversary, or less: (type, bytes) of its records are {records:?}"
        );
        Ok(())
    }

    /// Fails unless a request reached it as TLS records, encrypted like everything else that follows a ClientHello.
    pub fn heard_a_request_encrypted(&self) -> Result<()> {
        let bytes = fs::read(&self.capture).context("read the capture")?;
        let records = records(&bytes)?;
        let in_clear = records.iter().filter(|(kind, _)| *kind == HANDSHAKE);
        let hellos = in_clear.count();
        ensure!(
            hellos == 1 && !are_handshakes(&records),
            "a conversation should be one ClientHello and encrypted requests: (type, bytes) of its records are {records:?}"
        );
        Ok(())
    }

    /// Fails if any of these reached it.
    pub fn heard_none_of(&self, texts: &[&str]) -> Result<()> {
        for text in texts {
            ensure!(!self.heard(text)?, "{text:?} reached the adversary");
        }
        Ok(())
    }
}

/// Type and length of each TLS record in what a client sent (RFC 8446, 5.1).
fn records(bytes: &[u8]) -> Result<Vec<(u8, usize)>> {
    let mut records = Vec::new();
    let mut rest = bytes;
    while let Some(([kind, 3, _, high, low], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        ensure!(
            length <= after.len() && matches!(*kind, 20..=23),
            "a record of type {kind} is cut off after {} of {length} bytes",
            after.len()
        );
        records.push((*kind, length));
        rest = &after[length..];
    }
    ensure!(
        rest.is_empty() && !records.is_empty(),
        "{} of {} bytes that reached the adversary are no TLS records",
        rest.len(),
        bytes.len()
    );
    Ok(records)
}

/// Whether a client that sent these records sent handshakes and nothing after them.
fn are_handshakes(records: &[(u8, usize)]) -> bool {
    let mut connections = records.split(|(kind, _)| *kind == HANDSHAKE);
    let starts_with_one = connections.next().is_some_and(<[_]>::is_empty);
    starts_with_one
        && connections.all(|sent| {
            let ends: Vec<usize> = sent
                .iter()
                .filter(|(kind, _)| *kind != CHANGE_CIPHER_SPEC)
                .map(|(kind, length)| match *kind {
                    APPLICATION_DATA => *length,
                    // An alert in clear breaks a handshake off as well.
                    _ => ALERT,
                })
                .collect();
            match ends[..] {
                [end] => end <= FINISHED,
                [end, alert] => end <= FINISHED && alert == ALERT,
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_walked_to_their_end() {
        let hello = [&[22, 3, 1, 0, 2, 1, 2][..], &[20, 3, 3, 0, 1, 1]].concat();
        assert_eq!(records(&hello).unwrap(), [(22, 2), (20, 1)]);
        assert!(records(&[]).is_err());
        assert!(records(&hello[..6]).is_err());
        assert!(records(&[&hello[..], b"GET / HTTP/1.1"].concat()).is_err());
    }

    #[test]
    fn a_request_is_a_record_too_many() {
        let hello = [(22, 1500), (20, 1)];
        let sent = |more: &[(u8, usize)]| are_handshakes(&[&hello[..], more].concat());
        assert!(sent(&[(23, 69)]) && sent(&[(23, 53), (23, 19)]));
        // Broken off at the certificate, encrypted and in clear.
        assert!(sent(&[(23, 19)]) && sent(&[(21, 2)]));
        assert!(are_handshakes(
            &[&hello[..], &[(23, 69)], &hello[..], &[(23, 69)]].concat()
        ));
        assert!(!sent(&[(23, 69), (23, 69)]) && !sent(&[(23, 400)]) && !sent(&[]));
        assert!(!sent(&[(23, 69), (23, 19), (23, 19)]));
        assert!(!are_handshakes(&[(23, 69)]));
    }
}
