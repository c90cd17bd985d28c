//! A bounded byte queue.

use alloc::boxed::Box;
use alloc::vec;

/// A queue of bytes with a fixed capacity: what does not fit is not taken.
pub struct Ring {
    bytes: Box<[u8]>,
    start: usize,
    length: usize,
}

impl Ring {
    /// An empty queue for up to `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Self {
            bytes: vec![0; capacity].into_boxed_slice(),
            start: 0,
            length: 0,
        }
    }

    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether no byte waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.bytes.len() - self.length
    }

    /// Appends the front of `from`, as much as fits, and returns how much that was.
    pub fn push(&mut self, from: &[u8]) -> usize {
        let count = from.len().min(self.room());
        let (first, second) = from[..count].split_at(count.min(self.until_wrap(self.length)));
        let at = self.index(self.length);
        self.bytes[at..at + first.len()].copy_from_slice(first);
        self.bytes[..second.len()].copy_from_slice(second);
        self.length += count;
        count
    }

    /// Moves bytes to the front of `into`, as many as there are and fit, and returns how many that was.
    pub fn pop(&mut self, into: &mut [u8]) -> usize {
        let count = into.len().min(self.length);
        let split = count.min(self.until_wrap(0));
        let (first, second) = into[..count].split_at_mut(split);
        first.copy_from_slice(&self.bytes[self.start..self.start + split]);
        second.copy_from_slice(&self.bytes[..count - split]);
        self.drop_front(count);
        count
    }

    /// The longest run of bytes at the front that lie together.
    pub fn front(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length.min(self.until_wrap(0))]
    }

    /// Removes `count` bytes from the front, at most all.
    pub fn drop_front(&mut self, count: usize) {
        let count = count.min(self.length);
        self.start = self.index(count);
        self.length -= count;
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.drop_front(self.length);
    }

    /// Where the byte `offset` behind the front lies.
    fn index(&self, offset: usize) -> usize {
        let index = self.start + offset;
        if index >= self.bytes.len() {
            index - self.bytes.len()
        } else {
            index
        }
    }

    /// Bytes from there to the end of the storage.
    fn until_wrap(&self, offset: usize) -> usize {
        self.bytes.len() - self.index(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        /// Against the standard queue, for every mix of operations.
        #[test]
        fn behaves_like_a_bounded_queue(
            capacity in 1usize..20,
            steps in proptest::collection::vec((0u8..3, 0usize..25), 0..200),
        ) {
            let mut ring = Ring::new(capacity);
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut next = 0u8;
            for (what, count) in steps {
                match what {
                    0 => {
                        let bytes: Vec<u8> = (0..count).map(|index| next.wrapping_add(index as u8)).collect();
                        let taken = ring.push(&bytes);
                        prop_assert_eq!(taken, count.min(capacity - model.len()));
                        model.extend(&bytes[..taken]);
                        next = next.wrapping_add(taken as u8);
                    }
                    1 => {
                        let mut bytes = vec![0; count];
                        let got = ring.pop(&mut bytes);
                        prop_assert_eq!(got, count.min(model.len()));
                        prop_assert!(bytes[..got].iter().copied().eq(model.drain(..got)));
                    }
                    _ => {
                        let front = ring.front().len();
                        prop_assert!(ring.front().iter().eq(model.iter().take(front)));
                        prop_assert_eq!(front == 0, model.is_empty());
                        ring.drop_front(count.min(front));
                        model.drain(..count.min(front));
                    }
                }
                prop_assert_eq!((ring.len(), ring.room()), (model.len(), capacity - model.len()));
            }
        }
    }
}
