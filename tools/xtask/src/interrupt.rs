//! Ctrl-C and its kin: a flag that every wait looks at, so that what was started is ended in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::failure::{Context, Failure, Result};

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// The exit code of a program a signal ended.
pub const EXIT_CODE: i32 = 130;

/// Starts watching. A second signal ends the program at once.
pub fn watch() -> Result<()> {
    let interrupted = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_shutdown(signal, EXIT_CODE, Arc::clone(interrupted))
            .and_then(|_| flag::register(signal, Arc::clone(interrupted)))
            .context("watch signals")?;
    }
    Ok(())
}

/// Whether a signal came.
pub fn interrupted() -> bool {
    INTERRUPTED
        .get()
        .is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Fails once a signal came.
pub fn check() -> Result<()> {
    if interrupted() {
        return Err(Failure::new("interrupted"));
    }
    Ok(())
}
