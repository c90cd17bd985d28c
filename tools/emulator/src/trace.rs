//! One line for every exit of the guest, on request.

use std::fmt;
use std::io::Write;
use std::sync::Mutex;
use std::time::Instant;

/// Where lines go, if anywhere.
pub struct Trace {
    out: Option<Mutex<Box<dyn Write + Send>>>,
    started: Instant,
}

impl Trace {
    /// No lines.
    pub fn off() -> Self {
        Self {
            out: None,
            started: Instant::now(),
        }
    }

    /// Lines to `out`.
    pub fn to(out: Box<dyn Write + Send>) -> Self {
        Self {
            out: Some(Mutex::new(out)),
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
            let mut out = out.lock().unwrap_or_else(|lock| lock.into_inner());
            // A trace that cannot be written must not change what the guest does.
            let _ = writeln!(out, "{time:.6} vcpu{vcpu} {what}");
        }
    }
}
