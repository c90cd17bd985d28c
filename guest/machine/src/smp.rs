//! All CPUs: starting them, and the fork-join [`Team`] which gives each of them its part of a task.
//!
//! Between tasks a worker spins for a while, because the next layer of a model is microseconds away, and then halts, because an idle
//! guest must cost the host nothing. Whoever makes a sleeper's condition true looks at its `sleeping` flag afterwards and sends it an
//! interrupt; the sleeper sets the flag before it looks at the condition, with interrupts off, and an interrupt sent in between stays pending
//! until the halt, which it ends. So no wake-up is lost.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;

use loader::handoff::Mailbox;
use loader::layout::TRAMPOLINE;

use crate::sync::SpinLock;
use crate::{apic, clock, cpu, fatal, interrupts, paging, platform};

/// How long a CPU spins before it halts: longer than others take for their parts of a task, also where a host takes them away for a moment.
const SPIN: Duration = Duration::from_micros(500);
/// How long the leader halts at most before it looks again, and wakes all workers whatever their numbers are: the host delivers interrupts and
/// numbers CPUs, and may have lost one or lied.
const AGAIN: Duration = Duration::from_millis(25);
/// Whether that was ever needed. From then on a sleeper is woken with all others.
static MISLED: AtomicBool = AtomicBool::new(false);
/// How long CPUs get to appear. Real ones need a millisecond; emulated ones on a busy host much more.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// Each worker's stack, above a page that is not mapped.
const STACK_SIZE: usize = 256 << 10;

/// Who arrived, until the door closes.
static ARRIVALS: SpinLock<Arrivals> = SpinLock::new(Arrivals {
    open: true,
    workers: Vec::new(),
});
static JOB: Job = Job::new();
/// Workers that arrived in time.
static OTHERS: AtomicUsize = AtomicUsize::new(0);

struct Arrivals {
    open: bool,
    workers: Vec<&'static Sleeper>,
}

/// A CPU that may be asleep.
struct Sleeper {
    apic: AtomicU32,
    sleeping: AtomicBool,
}

impl Sleeper {
    const fn new() -> Self {
        Self {
            apic: AtomicU32::new(0),
            sleeping: AtomicBool::new(false),
        }
    }

    /// Returns when `ready` says so: after spinning for [`SPIN`] at most, then by `halt` until somebody calls [`Sleeper::wake`].
    fn wait_until(&self, ready: impl Fn() -> bool, halt: impl Fn()) {
        let (start, limit) = (clock::ticks(), clock::ticks_in(SPIN));
        while clock::ticks().wrapping_sub(start) < limit {
            if ready() {
                return;
            }
            spin_loop();
        }
        self.sleeping.store(true, Ordering::SeqCst);
        while !ready() {
            halt();
        }
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// To be called after the condition was made true.
    fn wake(&self) {
        if !self.sleeping.load(Ordering::SeqCst) {
            return;
        }
        if MISLED.load(Ordering::Relaxed) {
            apic::send_to_others(interrupts::WAKE_VECTOR);
        } else {
            apic::send(self.apic.load(Ordering::Relaxed), interrupts::WAKE_VECTOR);
        }
    }
}

/// The task being done, and how far it is.
struct Job {
    /// Written by the leader while no worker looks: before `number` changes and after `pending` is zero.
    task: UnsafeCell<Option<&'static (dyn Fn(usize) + Sync)>>,
    /// Counts tasks; a change is the signal to start.
    number: AtomicU64,
    /// Workers that are not done yet.
    pending: AtomicUsize,
    /// Whether a task is being done.
    busy: AtomicBool,
    leader: Sleeper,
}

// SAFETY: `task` is only read between the change of `number` and the end of `pending`, and only written outside; see there.
unsafe impl Sync for Job {}

impl Job {
    const fn new() -> Self {
        Self {
            task: UnsafeCell::new(None),
            number: AtomicU64::new(0),
            pending: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            leader: Sleeper::new(),
        }
    }
}

/// All CPUs as one fork-join machine. Index 0 is the boot processor, which must be the one that calls [`Team::run`].
pub struct Team {
    workers: Vec<&'static Sleeper>,
}

impl Team {
    /// How many CPUs take part, the caller included.
    pub fn count(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(i)` for every `i` below [`Team::count`], each on its own CPU, and returns when all are done. Called from within a task, it
    /// calls them one after the other.
    pub fn run(&self, task: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || JOB.busy.swap(true, Ordering::Acquire) {
            return (0..self.count()).for_each(task);
        }
        // SAFETY: the reference outlives its use, because this function returns only when every worker is done with it.
        let forever = unsafe {
            core::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(task)
        };
        // SAFETY: `busy` makes this the only leader, and no worker is between the change of `number` and the end of `pending`.
        unsafe { *JOB.task.get() = Some(forever) }
        JOB.pending.store(self.workers.len(), Ordering::SeqCst);
        JOB.number.fetch_add(1, Ordering::SeqCst);
        for worker in &self.workers {
            worker.wake();
        }
        task(0);
        let done = || JOB.pending.load(Ordering::SeqCst) == 0;
        JOB.leader.wait_until(done, || {
            let (start, limit) = (clock::ticks(), clock::ticks_in(AGAIN));
            apic::set_timer(AGAIN);
            interrupts::wait();
            // A device may have ended the halt before its time.
            if !done() && clock::ticks().wrapping_sub(start) >= limit {
                MISLED.store(true, Ordering::Relaxed);
                apic::send_to_others(interrupts::WAKE_VECTOR);
            }
        });
        JOB.busy.store(false, Ordering::Release);
    }
}

/// How many CPUs there are besides the boot processor.
pub fn others() -> usize {
    OTHERS.load(Ordering::SeqCst)
}

/// Starts the other CPUs through the loader's gate: in a TD they wait there already, elsewhere they are sent to it. `expected` counts all, this one included; fewer may come, and those are the team.
///
/// Needs the heap, the clock, [`interrupts::init`] and [`apic::init`] on this CPU. The CPUs that come must call [`join`].
pub fn start(mailbox: &'static Mailbox, expected: usize) -> Team {
    JOB.leader.apic.store(apic::id(), Ordering::Relaxed);
    if expected > 1 {
        // Index 0 is this CPU, which has a stack.
        let stacks: Vec<u64> = core::iter::once(0)
            .chain((1..expected).map(|_| new_stack()))
            .collect();
        mailbox.open(stacks.leak());
        if platform::trust_domain().is_some() {
            apic::others_have_started();
        } else {
            apic::start_others(TRAMPOLINE);
        }
        let start = clock::now();
        while ARRIVALS.lock().workers.len() + 1 < expected && clock::now() - start < START_TIMEOUT {
            spin_loop();
        }
        mailbox.close();
    }
    let mut arrivals = ARRIVALS.lock();
    arrivals.open = false;
    OTHERS.store(arrivals.workers.len(), Ordering::SeqCst);
    Team {
        workers: core::mem::take(&mut arrivals.workers),
    }
}

/// What an application processor does from its entry on: becomes a worker, for ever.
pub fn join() -> ! {
    cpu::init();
    apic::init_cpu();
    let sleeper: &'static Sleeper = Box::leak(Box::new(Sleeper::new()));
    sleeper.apic.store(apic::id(), Ordering::Relaxed);
    let index = {
        let mut arrivals = ARRIVALS.lock();
        if !arrivals.open {
            fatal::halt();
        }
        arrivals.workers.push(sleeper);
        arrivals.workers.len()
    };
    // No task can have started before the door closed, so the first one is number 1.
    interrupts::init(index as u32);
    for done in 0.. {
        sleeper.wait_until(
            || JOB.number.load(Ordering::SeqCst) > done,
            interrupts::wait,
        );
        // SAFETY: `number` changed after the task was written, and the leader does not touch it before `pending` is zero.
        if let Some(task) = unsafe { *JOB.task.get() } {
            task(index);
        }
        if JOB.pending.fetch_sub(1, Ordering::SeqCst) == 1 {
            JOB.leader.wake();
        }
    }
    fatal::halt()
}

/// Halts this CPU until something interrupts it, for `longest` at most. Returns early for any reason.
pub fn idle(longest: Duration) {
    apic::set_timer(longest);
    interrupts::wait();
    apic::clear_timer();
}

/// A stack above an unmapped page; returns its end.
fn new_stack() -> u64 {
    let stack = Box::leak(Box::<Stack>::new_uninit());
    let (guard, end) = (
        stack.as_ptr().addr(),
        stack.as_ptr().wrapping_add(1).expose_provenance(),
    );
    // SAFETY: the page belongs to the block just taken, which nothing else knows and which is never freed; no other CPU runs yet.
    unsafe { paging::unmap(guard) }
    end as u64
}

/// The memory of a worker's stack.
#[repr(C, align(4096))]
struct Stack {
    guard: [u8; 4096],
    stack: [u8; STACK_SIZE],
}
