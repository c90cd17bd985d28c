//! A client that leaves ends its answer, wherever that is waiting.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use client::Interrupter;

/// Where an answer is, as far as ending it goes.
#[derive(Default)]
enum State {
    /// At no server.
    #[default]
    Idle,
    /// At a server, whose connection this closes.
    Asking(Interrupter),
    /// Its client has gone.
    Cancelled,
}

/// Shared by the thread that gets an answer and the task that delivers it.
#[derive(Clone, Default)]
pub(crate) struct Cancel(Arc<Mutex<State>>);

impl Cancel {
    /// The answer is being got from a server now. False if nobody wants it any more.
    pub(crate) fn arm(&self, interrupter: Interrupter) -> bool {
        self.replace(State::Asking(interrupter))
    }

    /// The server's connection is needed for other things now. False if nobody wants the answer any more.
    pub(crate) fn disarm(&self) -> bool {
        self.replace(State::Idle)
    }

    fn replace(&self, next: State) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = !matches!(*state, State::Cancelled);
        if wanted {
            *state = next;
        }
        wanted
    }

    fn cancel(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Asking(interrupter) = mem::replace(&mut *state, State::Cancelled) {
            interrupter.interrupt();
        }
    }
}

/// Cancels when it is dropped: it goes where the answer goes, and lives no longer.
pub(crate) struct CancelOnDrop(pub(crate) Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
