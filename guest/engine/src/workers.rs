//! Sharing work between threads without knowing what a thread is.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use spin::Mutex;

/// A fixed set of threads that can be called together.
pub trait Workers: Sync {
    /// How many threads there are, the caller included; at least 1.
    fn count(&self) -> usize;

    /// Calls `task(i)` once for every `i` in `0..count()`, possibly at the same time, and returns when all have returned.
    fn run(&self, task: &(dyn Fn(usize) + Sync));
}

impl<W: Workers + ?Sized> Workers for &W {
    fn count(&self) -> usize {
        (**self).count()
    }

    fn run(&self, task: &(dyn Fn(usize) + Sync)) {
        (**self).run(task);
    }
}

/// No threads but the caller's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleThread;

impl Workers for SingleThread {
    fn count(&self) -> usize {
        1
    }

    fn run(&self, task: &(dyn Fn(usize) + Sync)) {
        task(0);
    }
}

/// Calls `task` once with every part. Which thread takes which part is open, so a part carries everything its
/// result depends on, and what it may write to.
pub(crate) fn for_each<T: Send>(
    workers: &impl Workers,
    parts: impl IntoIterator<Item = T>,
    task: impl Fn(T) + Sync,
) {
    if workers.count() == 1 {
        return parts.into_iter().for_each(task);
    }
    let mut parts = parts.into_iter();
    let Some(first) = parts.next() else { return };
    let Some(second) = parts.next() else {
        return task(first);
    };
    // Each lock is taken once and held for a move: it hands the part over and is never waited for.
    let parts: Vec<_> = [first, second]
        .into_iter()
        .chain(parts)
        .map(|part| Mutex::new(Some(part)))
        .collect();
    let next = AtomicUsize::new(0);
    workers.run(&|_| {
        while let Some(slot) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            let part = slot.lock().take();
            if let Some(part) = part {
                task(part);
            }
        }
    });
}

/// The part of `0..total` that is the `index`th of `count` nearly equal ones, at multiples of `step` but for the end.
pub(crate) fn share(
    total: usize,
    count: usize,
    index: usize,
    step: usize,
) -> core::ops::Range<usize> {
    let steps = total.div_ceil(step);
    let at = |index: usize| (steps * index / count * step).min(total);
    at(index)..at(index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_everything_once() {
        for total in [0, 1, 15, 16, 17, 100, 2048] {
            for count in 1..9 {
                let mut end = 0;
                for index in 0..count {
                    let range = share(total, count, index, 16);
                    assert_eq!(range.start, end);
                    assert!(range.start.is_multiple_of(16) || range.start == total);
                    end = range.end;
                }
                assert_eq!(end, total);
            }
        }
    }
}
