//! `cargo xtask adversary`: whoever sits between a client and a trust domain, as a process of its own for the tests of attacks.
//!
//! It listens, does to each connection what its strategy says, and writes down everything that reaches it: the bytes on the wire, and in
//! clear what was sent to it over TLS. A test looks there for what must not have been sent.

mod conversation;
mod identity;

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use attestation::challenge::Purpose;
use client::{Address, Connector, Options, Request, Session, Trust};
use rustls::ServerConfig;
use serde_json::json;
use testpki::TestPki;

use crate::calendar;
use crate::failure::{Context, Failure, Result, ensure};
use crate::interrupt;
use identity::{Evidence, Identity, Victim};

/// An answer to a challenge.
const ANSWER_LIMIT: usize = 1 << 20;
/// How often it looks whether somebody comes, or wants it to end.
const POLL: Duration = Duration::from_millis(10);

/// Sit between a client and a trust domain (for the tests of attacks)
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// What to do
    #[arg(long, value_enum)]
    strategy: Strategy,
    /// The trust domain whose clients come here
    #[arg(long, value_name = "ADDRESS")]
    victim: Address,
    /// Another trust domain
    #[arg(long, value_name = "ADDRESS")]
    other: Option<Address>,
    /// The test root: with its keys, evidence for a session key that the adversary has
    #[arg(long, value_name = "DIR")]
    pki: PathBuf,
    /// Where to write down what arrives
    #[arg(long, value_name = "FILE")]
    capture: PathBuf,
}

/// An attack, or what shows that the test of one can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Strategy {
    /// Pass the bytes on to the victim; it has the keys
    Pass,
    /// Pass the bytes on to the other domain
    Divert,
    /// Show a certificate without evidence, read everything, and pass it on
    Eavesdrop,
    /// Show the victim's certificate, whose key the adversary lacks
    ReplayCertificate,
    /// Show the victim's evidence in a certificate of the adversary's
    RelayCertificate,
    /// The same, with the adversary's key in the claims
    RewriteClaims,
    /// Show the victim's answer to a challenge as evidence of a certificate
    AnswerAsCertificate,
    // From here on the adversary has a session key that the evidence in its certificate is for, as if the victim's had leaked.
    /// Answer with what the victim answered before
    ReplayAnswer,
    /// Answer with what the victim answers to the same nonce
    RelayAnswer,
    /// Answer with what the other domain answers to the same nonce
    DivertAnswer,
    /// Answer with a quote in the client's role
    Reflect,
    /// Answer with the quote in the victim's certificate
    CertificateAsAnswer,
    /// Answer with a quote for the other purpose: of a key's release instead of prompts, or the reverse
    OtherPurpose,
    /// Give no answer
    Refuse,
    /// Answer as the domain would: what no client can tell from the domain
    Impersonate,
}

struct Adversary {
    strategy: Strategy,
    victim: Address,
    other: Option<Address>,
    pki: TestPki,
    tls: Option<(Arc<ServerConfig>, Identity)>,
    seen: Victim,
    /// The victim's answer to an earlier challenge.
    earlier: Vec<u8>,
    capture: Capture,
}

/// Runs the command; says on standard output at which port.
pub fn run(arguments: &Arguments) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
    let port = listener.local_addr().context("listen")?.port();
    let adversary = Arc::new(Adversary::new(arguments)?);
    println!("{port}");
    listener.set_nonblocking(true).context("listen")?;
    while !interrupt::interrupted() {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).context("accept")?;
                let adversary = Arc::clone(&adversary);
                // However a connection ends, the next one is another attack.
                thread::spawn(move || adversary.attack(stream));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(POLL),
            Err(error) => return Err(error).context("accept"),
        }
    }
    Ok(())
}

impl Adversary {
    fn new(arguments: &Arguments) -> Result<Self> {
        let now = calendar::now();
        let pki = TestPki::load(&arguments.pki).context("read the test root")?;
        let seen = Victim::look(&dial(&arguments.victim)?, &pki, &arguments.pki, now)?;
        let earlier = ask(&arguments.victim, &[0x5a; 32], Purpose::Session)?;
        let strategy = arguments.strategy;
        let identity = match strategy {
            Strategy::Pass | Strategy::Divert => None,
            Strategy::Eavesdrop => Some(Identity::new(&seen, Evidence::None, &pki)?),
            Strategy::ReplayCertificate => Some(Identity::without_key(&seen)?),
            Strategy::RelayCertificate => Some(Identity::new(&seen, Evidence::Copied, &pki)?),
            Strategy::RewriteClaims => Some(Identity::new(&seen, Evidence::Rewritten, &pki)?),
            Strategy::AnswerAsCertificate => {
                let evidence = Evidence::Answer(&earlier);
                Some(Identity::new(&seen, evidence, &pki)?)
            }
            _ => Some(Identity::new(&seen, Evidence::Sound, &pki)?),
        };
        let tls = match identity {
            None => None,
            Some(identity) => Some((identity.config()?, identity)),
        };
        Ok(Self {
            strategy,
            victim: arguments.victim.clone(),
            other: arguments.other.clone(),
            tls,
            pki,
            seen,
            earlier,
            capture: Capture::create(&arguments.capture)?,
        })
    }

    /// One connection, to its end.
    fn attack(&self, stream: TcpStream) -> Result<()> {
        match &self.tls {
            Some((tls, identity)) => self.converse(stream, tls, identity),
            None => {
                let victim = match self.strategy {
                    Strategy::Divert => self.other()?,
                    _ => &self.victim,
                };
                self.pass(&stream, victim)
            }
        }
    }

    /// Passes bytes on in both directions.
    fn pass(&self, client: &TcpStream, to: &Address) -> Result<()> {
        let Address::Tcp { host, port } = to else {
            return Err(Failure::new(format!("{to} is not reached over TCP")));
        };
        let server = TcpStream::connect((&**host, *port)).context(format!("reach {to}"))?;
        thread::scope(|scope| {
            scope.spawn(|| {
                // Either end may break off: that ends both.
                let _ = io::copy(&mut &server, &mut &*client);
                let _ = client.shutdown(Shutdown::Both);
            });
            let mut tapped = self.capture.tap(client);
            let _ = io::copy(&mut tapped, &mut &server);
            let _ = server.shutdown(Shutdown::Both);
        });
        Ok(())
    }

    fn other(&self) -> Result<&Address> {
        let other = self.other.as_ref();
        other.ok_or_else(|| Failure::new("this strategy needs --other"))
    }
}

/// A connection that takes whoever answers.
fn dial(address: &Address) -> Result<Session> {
    let connector = Connector::new(Options::new(Trust::InsecureNoTee))?;
    Ok(connector.connect(address)?)
}

/// A domain's answer to a challenge over a connection of the adversary's.
fn ask(address: &Address, nonce: &[u8; 32], purpose: Purpose) -> Result<Vec<u8>> {
    let nonce: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
    let purpose = match purpose {
        Purpose::Session => "session",
        Purpose::KeyRelease => "key-release",
    };
    let body = json!({ "nonce": nonce, "purpose": purpose }).to_string();
    let request = Request::post("/attestation", body.as_bytes());
    let mut response = dial(address)?.request(&request)?;
    let answer = response.read_whole(ANSWER_LIMIT)?;
    ensure!(
        response.status() == 200,
        "{address} answers a challenge with {}",
        response.status()
    );
    Ok(answer)
}

/// What has arrived, in a file.
struct Capture(Mutex<File>);

impl Capture {
    fn create(path: &PathBuf) -> Result<Self> {
        let file = File::create(path).context(format!("create {}", path.display()))?;
        Ok(Self(Mutex::new(file)))
    }

    fn record(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(bytes)
    }

    fn tap<'a>(&'a self, stream: &'a TcpStream) -> Tapped<'a> {
        Tapped {
            stream,
            capture: self,
        }
    }
}

/// A connection of which every byte that arrives is recorded.
struct Tapped<'a> {
    stream: &'a TcpStream,
    capture: &'a Capture,
}

impl Read for Tapped<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(out)?;
        self.capture.record(&out[..count])?;
        Ok(count)
    }
}

impl Write for Tapped<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
