//! Workers made of operating system threads, started anew for every call: slow, simple, and in no fixed order.

use engine::Workers;

/// So many threads.
pub struct Threads(pub usize);

impl Workers for Threads {
    fn count(&self) -> usize {
        self.0
    }

    fn run(&self, task: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for index in 1..self.0 {
                scope.spawn(move || task(index));
            }
            task(0);
        });
    }
}
