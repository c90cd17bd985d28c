//! One line for every exit of the guest, on request.

use std::fmt;
use std::io::Write;
use std::sync::Mutex;
use std::time::Instant;

use crate::td::lock;

/// Where text of the emulator goes.
pub type Sink = Box<dyn Write + Send>;

/// Where the emulator's words go: lines about every exit, if anywhere, and notes about what its user must know.
pub struct Trace {
    out: Option<Mutex<Sink>>,
    notes: Mutex<Sink>,
    started: Instant,
}

impl Trace {
    /// Lines to `out`, notes to `notes`.
    pub fn new(out: Option<Sink>, notes: Sink) -> Self {
        Self {
            out: out.map(Mutex::new),
            notes: Mutex::new(notes),
            started: Instant::now(),
        }
    }

    /// Whether lines are worth preparing.
    pub fn is_on(&self) -> bool {
        self.out.is_some()
    }

    /// A line about a vCPU: the time since the start, who, what.
    pub fn line(&self, vcpu: u32, what: fmt::Arguments<'_>) {
        if let Some(out) = &self.out {
            let time = self.started.elapsed().as_secs_f64();
            let mut out = lock(out);
            // A trace that cannot be written must not change what the guest does.
            let _ = writeln!(out, "{time:.6} vcpu{vcpu} {what}");
        }
    }

    /// Makes all lines so far readable.
    pub fn flush(&self) {
        if let Some(out) = &self.out {
            // As above.
            let _ = lock(out).flush();
        }
    }

    /// Something that the user must know.
    pub fn note(&self, vcpu: u32, what: &str) {
        self.line(vcpu, format_args!("{what}"));
        // As above.
        let _ = writeln!(lock(&self.notes), "emulator: {what}");
    }
}
