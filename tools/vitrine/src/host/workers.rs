//! The engine's fork-join on this machine's threads.
//!
//! A pool of threads that look for work a while before they sleep: the engine calls them several hundred times a token. The caller
//! should itself run in the pool ([`HostWorkers::within`]); from outside every call would wake and wait for it.

use engine::Workers;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::failure::Failure;

/// A fixed number of threads.
pub struct HostWorkers {
    pool: ThreadPool,
}

impl HostWorkers {
    /// Starts `count` threads.
    pub fn new(count: usize) -> Result<Self, Failure> {
        ThreadPoolBuilder::new()
            .num_threads(count)
            .build()
            .map(|pool| Self { pool })
            .map_err(|error| Failure::new(format!("cannot start {count} threads: {error}")))
    }

    /// Runs `work` on one of the threads.
    pub fn within<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }
}

impl Workers for HostWorkers {
    fn count(&self) -> usize {
        self.pool.current_num_threads()
    }

    fn run(&self, task: &(dyn Fn(usize) + Sync)) {
        if self.count() == 1 {
            task(0);
        } else {
            self.pool.broadcast(|thread| task(thread.index()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_index_is_called_once_and_awaited() {
        for count in [1, 2, 5] {
            let workers = HostWorkers::new(count).unwrap();
            let calls: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            let task = |index: usize| {
                calls[index].fetch_add(1, Ordering::Relaxed);
            };
            workers.run(&task);
            workers.within(|| (0..100).for_each(|_| workers.run(&task)));
            assert!(
                calls
                    .iter()
                    .all(|calls| calls.load(Ordering::Relaxed) == 101)
            );
        }
    }
}
