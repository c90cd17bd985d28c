//! A server on a loopback socket with a scripted engine, and a TLS client to talk to it.
#![allow(
    dead_code,
    unused_imports,
    reason = "every test file uses a different part"
)]

mod client;
mod domain;
mod engine;
mod socket;

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use attestation::events::ModelIdentity;
use server::{Config, Health, Inference, Platform, Server, TrustDomain, WallClock};

use seal::{Arrival, Envelope, FileKey};

pub use client::{Client, Reply};
pub use domain::Domain;
pub use engine::{Script, Watch};
pub use socket::Socket;

/// The host's clock.
#[derive(Debug)]
pub struct HostClock;

impl WallClock for HostClock {
    fn unix_time(&self) -> Duration {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock after 1970")
    }
}

/// A scripted engine.
pub fn engine(script: Script, watch: &Watch) -> engine::Engine {
    engine::Engine::new(script, watch.clone())
}

/// A server in a thread of its own; dropping it stops the thread.
pub struct Running {
    pub address: SocketAddr,
    /// The server's certificate, DER.
    pub certificate: Vec<u8>,
    /// What the engine has been asked to do.
    pub watch: Watch,
    changes: mpsc::Sender<Change>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// A ready server with the default configuration and an engine that answers at once.
    pub fn ready() -> Self {
        Self::start("", Some(Script::default()))
    }

    /// A server with the TOML `configuration`; ready at once if there is a `script`.
    pub fn start(configuration: &str, script: Option<Script>) -> Self {
        let watch = Watch::default();
        let engine = script.map(|script| engine(script, &watch));
        Self::start_with(configuration, watch, move || engine)
    }

    /// A server with the engine that `make` makes in the server's thread, if it does.
    pub fn start_with<I: Inference>(
        configuration: &str,
        watch: Watch,
        make: impl FnOnce() -> Option<I> + Send + 'static,
    ) -> Self {
        Self::start_in(None, configuration, watch, make)
    }

    /// The same in a trust domain.
    pub fn start_in<I: Inference>(
        domain: Option<Domain>,
        configuration: &str,
        watch: Watch,
        make: impl FnOnce() -> Option<I> + Send + 'static,
    ) -> Self {
        Self::launch(domain, configuration, watch, None, make)
    }

    /// A server in a trust domain whose scripted engine waits until this sealed file is opened.
    pub fn sealed(domain: Domain, configuration: &str, file: Vec<u8>) -> Self {
        let watch = Watch::default();
        let engine = engine(Script::default(), &watch);
        Self::launch(Some(domain), configuration, watch, Some(file), move || {
            Some(engine)
        })
    }

    fn launch<I: Inference>(
        domain: Option<Domain>,
        configuration: &str,
        watch: Watch,
        sealed: Option<Vec<u8>>,
        make: impl FnOnce() -> Option<I> + Send + 'static,
    ) -> Self {
        let config = Config::parse(configuration.as_bytes()).expect("a valid configuration");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        listener
            .set_nonblocking(true)
            .expect("a non-blocking listener");
        let address = listener.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let (changes, received) = mpsc::channel();
        let (certificate, first) = mpsc::channel();
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let platform = Platform {
                    isa: "avx2".into(),
                    vcpus: 2,
                };
                let clock = Arc::new(HostClock);
                let domain = domain.map(|domain| Box::new(domain) as Box<dyn TrustDomain>);
                let mut server = Server::new(&config, domain, platform, clock).expect("a server");
                let mut engine = make();
                if let Some(file) = &sealed {
                    server.seal(envelope(file));
                } else if let Some(engine) = engine.take() {
                    let model = model(config.model.name.as_deref().unwrap_or(engine.name()));
                    server.install(engine, model);
                }
                // Until it is ready, if it can be; the certificate is replaced on the way.
                for _ in 0..1000 {
                    server.poll(|| Duration::from_millis(7));
                    if server.health() != Health::Warming {
                        break;
                    }
                }
                let _ = certificate.send(server.certificate().to_vec());
                let mut model = sealed
                    .zip(engine)
                    .map(|(file, engine)| Sealed { file, engine });
                serve(&mut server, &mut model, &listener, &received, &stop);
            }
        });
        Self {
            address,
            certificate: first.recv().expect("a running server"),
            watch,
            changes,
            stop,
            thread: Some(thread),
        }
    }

    pub fn set_health(&self, health: Health) {
        self.change(Change::Health(health));
    }

    /// Lets so much time pass for the server, at once.
    pub fn pass(&self, time: Duration) {
        self.change(Change::Time(time));
    }

    /// Puts another sealed file in the place of the one the server waits to open.
    pub fn replace(&self, file: Vec<u8>) {
        self.change(Change::File(file));
    }

    fn change(&self, change: Change) {
        self.changes.send(change).expect("a running server");
        std::thread::sleep(Duration::from_millis(20));
    }

    /// A new connection to whoever answers.
    pub fn connect_to_anybody(&self) -> Client {
        Client::connect_to_anybody(self.address)
    }

    /// A new connection, TLS established.
    pub fn connect(&self) -> Client {
        Client::connect(self.address, &self.certificate)
    }
}

/// What a composition root does now and then.
enum Change {
    Health(Health),
    Time(Duration),
    File(Vec<u8>),
}

/// A model of this name, with digests of its own.
pub fn model(name: &str) -> ModelIdentity {
    ModelIdentity {
        name: name.into(),
        sealed: Some([5; 32]),
        plaintext: [6; 32],
    }
}

/// A sealed file with the engine that is to be had from it.
struct Sealed<I> {
    file: Vec<u8>,
    engine: I,
}

/// The envelope of a sealed file.
pub fn envelope(file: &[u8]) -> Envelope {
    let envelope = Envelope::read(file, file.len() as u64).expect("a sealed file");
    envelope.expect("a whole file")
}

/// Opens the file with a key that has come; without success the server waits for another.
fn open<I: Inference>(
    server: &mut Server<Socket, I>,
    model: &mut Option<Sealed<I>>,
    (sealed, key): (Envelope, FileKey),
) {
    let Sealed { file, engine } = model.take().expect("one key at most");
    let payload = sealed.length();
    let memory = vec![0; sealed.layout().plaintext_length() as usize];
    let mut arrival = Arrival::sealed(sealed, &key, memory).expect("the right key");
    let pushed = arrival.push(&file[payload..], &|task| task());
    match pushed.and_then(|()| arrival.finish(&|task| task())) {
        Ok(contents) => {
            let identity = ModelIdentity {
                name: engine.name().into(),
                sealed: contents.sealed,
                plaintext: contents.plaintext,
            };
            server.install(engine, identity);
        }
        Err(_) => {
            server.seal(envelope(&file));
            *model = Some(Sealed { file, engine });
        }
    }
}

/// The loop a composition root has.
fn serve<I: Inference>(
    server: &mut Server<Socket, I>,
    model: &mut Option<Sealed<I>>,
    listener: &TcpListener,
    changes: &mpsc::Receiver<Change>,
    stop: &AtomicBool,
) {
    let start = Instant::now();
    let mut passed = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept() {
            // A server at capacity closes the stream; the client sees that.
            let _ = server.attach(Socket::new(stream));
        }
        match changes.try_recv() {
            Ok(Change::Health(health)) => server.set_health(health),
            Ok(Change::Time(time)) => passed += time,
            Ok(Change::File(file)) => model.as_mut().expect("a sealed model").file = file,
            Err(_) => {}
        }
        if let Some(key) = server.take_key() {
            open(server, model, key);
        }
        if !server.poll(|| start.elapsed() + passed) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let outcome = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(!matches!(outcome, Some(Err(_))), "the server panicked");
        }
    }
}

/// Waits for `condition`, for a few seconds at most.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "not in time: {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}
