//! A thread for each device: it waits for doorbells and for the outside world, so that a notification costs the guest one short exit.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::{Events, Poll, Registry, Token, Waker};

use super::ring::Ring;

/// The token of doorbells; a backend's own tokens are smaller.
const DOORBELL: Token = Token(usize::MAX);
const EVENTS: usize = 64;
/// How often queues are looked at that the driver was told not to notify.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What makes a device of its kind: how it looks, and what it does with its queues.
pub trait Backend: Send + 'static {
    /// Virtio's number of the device type.
    fn device_type(&self) -> u16;
    /// Class, subclass and programming interface of its PCI function.
    fn class(&self) -> [u8; 3];
    /// The features of this device type that it offers.
    fn features(&self) -> u64;
    /// The largest size of each queue, powers of two.
    fn queues(&self) -> &'static [u16];
    /// Its configuration fields.
    fn config(&self) -> Vec<u8>;
    /// Announces what else it waits for than doorbells. Called once.
    fn register(&mut self, _registry: &Registry) -> io::Result<()> {
        Ok(())
    }
    /// Does what there is to do; `rings` are those of a running driver. Returns when to be called again if nothing happens.
    fn work(&mut self, events: &Events, rings: Option<&mut [Ring]>) -> Option<Duration>;
    /// The driver reset the device: whatever belonged to it is over.
    fn reset(&mut self) {}
}

/// What the transport and the thread share.
pub struct Link {
    session: Mutex<Session>,
    waker: Waker,
    stop: AtomicBool,
}

#[derive(Default)]
struct Session {
    rings: Option<Vec<Ring>>,
    was_reset: bool,
}

impl Link {
    /// Gives the device its queues: the driver is ready.
    pub fn start(&self, rings: Vec<Ring>) {
        self.lock().rings = Some(rings);
        self.ring();
    }

    /// Takes them away. When this returns the device touches no memory any more.
    pub fn reset(&self) {
        let mut session = self.lock();
        session.rings = None;
        session.was_reset = true;
        drop(session);
        self.ring();
    }

    /// Wakes the thread.
    pub fn ring(&self) {
        // The kernel's counter of wake-ups cannot overflow, and nothing else can fail.
        let _ = self.waker.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread, ended with this value.
pub struct Worker {
    link: Arc<Link>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread called `name` for a device. With `poll_queues` it also looks at its queues without being notified. It does nothing
    /// while `idle` says so.
    ///
    /// # Errors
    /// The kernel has no more threads or descriptors, or the device cannot wait for what it wants.
    pub fn start(
        name: &str,
        mut backend: impl Backend,
        poll_queues: bool,
        idle: impl Fn() -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let link = Arc::new(Link {
            session: Mutex::default(),
            waker: Waker::new(poll.registry(), DOORBELL)?,
            stop: AtomicBool::new(false),
        });
        backend.register(poll.registry())?;
        let shared = link.clone();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(poll, &shared, backend, poll_queues, idle))?;
        Ok(Self {
            link,
            thread: Some(thread),
        })
    }

    /// The way to the thread.
    pub fn link(&self) -> &Link {
        &self.link
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.link.stop.store(true, Ordering::Release);
        self.link.ring();
        if let Some(thread) = self.thread.take() {
            // A backend that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn run(
    mut poll: Poll,
    link: &Link,
    mut backend: impl Backend,
    poll_queues: bool,
    idle: impl Fn() -> bool,
) {
    let mut events = Events::with_capacity(EVENTS);
    let mut timeout = None;
    while !link.stop.load(Ordering::Acquire) {
        match poll.poll(&mut events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Waiting on descriptors of our own cannot fail otherwise; without it there is no device.
            Err(error) => return eprintln!("emulator: a device cannot wait for events: {error}"),
        }
        while idle() && !link.stop.load(Ordering::Acquire) {
            thread::sleep(POLL_INTERVAL);
        }
        let mut session = link.lock();
        if core::mem::take(&mut session.was_reset) {
            backend.reset();
        }
        let again = backend.work(&events, session.rings.as_deref_mut());
        let look = poll_queues.then_some(POLL_INTERVAL);
        timeout = [again, look].into_iter().flatten().min();
    }
}
