//! A server on a loopback socket with a scripted engine, and a TLS client to talk to it.
#![allow(
    dead_code,
    unused_imports,
    reason = "every test file uses a different part"
)]

mod client;
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

use server::{Config, Health, Identity, Inference, Platform, Server, WallClock};

pub use client::{Client, Reply};
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

/// A server in a thread of its own; dropping it stops the thread.
pub struct Running {
    pub address: SocketAddr,
    /// The server's certificate, DER.
    pub certificate: Vec<u8>,
    /// What the engine has been asked to do.
    pub watch: Watch,
    health: mpsc::Sender<Health>,
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
        let engine = script.map(|script| engine::Engine::new(script, watch.clone()));
        Self::start_with(configuration, watch, move || engine)
    }

    /// A server with the engine that `make` makes in the server's thread, if it does.
    pub fn start_with<I: Inference>(
        configuration: &str,
        watch: Watch,
        make: impl FnOnce() -> Option<I> + Send + 'static,
    ) -> Self {
        let config = Config::parse(configuration.as_bytes()).expect("a valid configuration");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        listener
            .set_nonblocking(true)
            .expect("a non-blocking listener");
        let address = listener.local_addr().expect("an address");
        let identity = Identity::generate(HostClock.unix_time()).expect("an identity");
        let certificate = identity.certificate().to_vec();
        let stop = Arc::new(AtomicBool::new(false));
        let (health, changes) = mpsc::channel();
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let platform = Platform {
                    isa: "avx2".into(),
                    vcpus: 2,
                };
                let clock = Arc::new(HostClock);
                let mut server = Server::new(&config, identity, platform, clock).expect("a server");
                if let Some(engine) = make() {
                    server.install(engine);
                    server.set_health(Health::Ready { boot_ms: 7 });
                }
                serve(&mut server, &listener, &changes, &stop);
            }
        });
        Self {
            address,
            certificate,
            watch,
            health,
            stop,
            thread: Some(thread),
        }
    }

    pub fn set_health(&self, health: Health) {
        self.health.send(health).expect("a running server");
        std::thread::sleep(Duration::from_millis(20));
    }

    /// A new connection, TLS established.
    pub fn connect(&self) -> Client {
        Client::connect(self.address, &self.certificate)
    }
}

/// The loop a composition root has.
fn serve<I: Inference>(
    server: &mut Server<Socket, I>,
    listener: &TcpListener,
    changes: &mpsc::Receiver<Health>,
    stop: &AtomicBool,
) {
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept() {
            // A server at capacity closes the stream; the client sees that.
            let _ = server.attach(Socket::new(stream));
        }
        if let Ok(health) = changes.try_recv() {
            server.set_health(health);
        }
        if !server.poll(start.elapsed()) {
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
