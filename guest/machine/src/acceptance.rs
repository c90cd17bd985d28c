//! The RAM that a TD has not accepted yet: taken from the host a piece at a time, by all CPUs together, and given to the heap.
//!
//! Acceptance costs about as much as using the memory does, so a TD accepts what it will use and no more. It is visible to the host, so whoever
//! serves requests must have let go of the [`Reserve`] before: without it nothing can be accepted any more.

use core::fmt;
use core::ops::Range;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering};

use heapless::Vec;
use loader::handoff::Span;
use loader::memory::{MAX_RANGES, MemoryRange, Use};
use tdx::accept::{self, RangeError};
use tdx::address::LARGE_PAGE;

use crate::platform::{self, TrustDomain};
use crate::smp::Team;
use crate::sync::SpinLock;
use crate::{heap, println};

/// What a CPU accepts before it looks for more to do: seconds' worth of work must not end on one CPU.
const PIECE: u64 = 16 << 20;
/// Acceptance of more than this is worth a line for every tenth that is done.
const TELL: u64 = 1 << 30;

/// RAM that is this TD's to accept. Empty outside a TD, where all RAM is the heap's from the start.
#[derive(Debug)]
pub struct Reserve {
    spans: Vec<Span, MAX_RANGES>,
}

impl Reserve {
    /// What the loader left.
    ///
    /// # Safety
    /// `memory` is the loader's map of this machine, and this is the only reserve made of it.
    pub unsafe fn new(memory: &[MemoryRange]) -> Self {
        let spans = memory
            .iter()
            .filter(|range| range.usage == Use::Unaccepted)
            .map(|range| range.span)
            .collect();
        Self { spans }
    }

    /// Bytes left.
    pub fn bytes(&self) -> usize {
        self.spans.iter().map(|span| span.length as usize).sum()
    }

    /// Accepts `bytes` more on all CPUs and gives them to the heap: in one stretch if there is one so long, otherwise all that is left, as far as
    /// needed. Fewer come if there are no more: then it is the heap's turn to say so.
    ///
    /// # Errors
    /// [`RangeError`]: the machine must stop.
    pub fn take(&mut self, team: &Team, bytes: usize) -> Result<(), RangeError> {
        let Some(domain) = platform::trust_domain() else {
            return Ok(());
        };
        for span in self.choose(bytes as u64) {
            accept(domain, team, &span)?;
            let start = NonNull::new(ptr::with_exposed_provenance_mut(span.start as usize));
            if let Some(start) = start {
                // SAFETY: the loader maps the RAM writable, it is accepted now, and `choose` never gives it again.
                unsafe { heap::add(start, span.length as usize) }
            }
        }
        Ok(())
    }

    /// Takes spans of `bytes` in all out of the reserve: whole large pages, but for the ends of what there is.
    fn choose(&mut self, bytes: u64) -> Vec<Span, MAX_RANGES> {
        let mut chosen = Vec::new();
        let mut wanted = bytes;
        while wanted > 0 {
            let lengths = self.spans.iter().map(|span| span.length).enumerate();
            let best = lengths.max_by_key(|(index, length)| {
                // The first that is long enough, or else the longest.
                (
                    *length >= wanted,
                    if *length >= wanted { 0 } else { *length },
                    usize::MAX - index,
                )
            });
            let Some(span) = best.and_then(|(index, _)| self.spans.get_mut(index)) else {
                break;
            };
            let end = span
                .start
                .saturating_add(wanted)
                .next_multiple_of(LARGE_PAGE)
                .min(span.end());
            let piece = Span::between(span.start, end);
            *span = Span::between(end, span.end());
            self.spans.retain(|span| span.length > 0);
            wanted = wanted.saturating_sub(piece.length);
            // There are at most as many pieces as spans.
            let _ = chosen.push(piece);
        }
        chosen
    }
}

/// Accepts a span, every CPU a piece at a time.
fn accept(domain: TrustDomain, team: &Team, span: &Span) -> Result<(), RangeError> {
    let next = AtomicU64::new(span.start);
    let failure = SpinLock::new(None);
    team.run(&|cpu| {
        let mut told = 0;
        while failure.lock().is_none() {
            let Some(piece) = piece(&next, span.end()) else {
                break;
            };
            let done = (piece.start - span.start) * 10 / span.length;
            if cpu == 0 && span.length >= TELL && done > told {
                println!("vitrine: {}", Progress(done, span.length));
                told = done;
            }
            // SAFETY: the piece is part of the span, which is in nobody's use.
            let outcome = unsafe { accept::accept(domain.tdcall(), piece.start, piece.end) };
            if let Err(error) = outcome {
                *failure.lock() = Some(error);
            }
        }
    });
    failure.lock().take().map_or(Ok(()), Err)
}

/// The next piece that nobody has taken. Pieces begin at large pages, but for the first.
fn piece(next: &AtomicU64, end: u64) -> Option<Range<u64>> {
    let following = |start: u64| {
        (start / LARGE_PAGE * LARGE_PAGE)
            .saturating_add(PIECE)
            .min(end)
    };
    next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |start| {
        (start < end).then(|| following(start))
    })
    .ok()
    .map(|start| start..following(start))
}

struct Progress(u64, u64);

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accepted {} % of {} MiB", self.0 * 10, self.1 >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reserve(spans: &[(u64, u64)]) -> Reserve {
        let range = |(start, length): &(u64, u64)| MemoryRange {
            span: Span {
                start: *start,
                length: *length,
            },
            usage: Use::Unaccepted,
        };
        let mut memory: std::vec::Vec<_> = spans.iter().map(range).collect();
        memory.push(MemoryRange {
            usage: Use::Free,
            ..MemoryRange::EMPTY
        });
        // SAFETY: nothing is accepted in these tests.
        unsafe { Reserve::new(&memory) }
    }

    const LOW: (u64, u64) = (64 << 20, 64 << 20);
    const HIGH: (u64, u64) = (4 << 30, 1 << 30);

    #[test]
    fn one_stretch_is_preferred() {
        let mut reserve = reserve(&[LOW, HIGH]);
        let small = reserve.choose(1);
        assert_eq!(
            small,
            [Span {
                start: LOW.0,
                length: LARGE_PAGE
            }]
        );
        let large = reserve.choose(100 << 20);
        assert_eq!(
            large,
            [Span {
                start: HIGH.0,
                length: 100 << 20
            }]
        );
        assert_eq!(
            reserve.bytes() as u64,
            LOW.1 - LARGE_PAGE + HIGH.1 - (100 << 20)
        );
    }

    #[test]
    fn when_nothing_is_long_enough_all_of_it_is_taken() {
        let mut reserve = reserve(&[LOW, HIGH]);
        let chosen = reserve.choose(2 << 30);
        assert_eq!(
            chosen.iter().map(|span| span.length).sum::<u64>(),
            LOW.1 + HIGH.1
        );
        assert_eq!(reserve.bytes(), 0);
        assert!(reserve.choose(1).is_empty());
    }

    proptest! {
        #[test]
        fn nothing_is_taken_twice(
            wishes in proptest::collection::vec(0u64..1 << 26, 0..20),
            spans in proptest::collection::vec((0u64..64, 1u64..0x8000), 0..6),
        ) {
            let spans: std::vec::Vec<_> = spans
                .iter()
                .enumerate()
                .map(|(index, (start, pages))| ((index as u64) << 32 | start << 12, pages << 12))
                .collect();
            let mut reserve = reserve(&spans);
            let total = reserve.bytes();
            let mut taken = std::vec::Vec::new();
            for wish in wishes {
                let before = reserve.bytes() as u64;
                let chosen = reserve.choose(wish);
                let bytes: u64 = chosen.iter().map(|span| span.length).sum();
                prop_assert!(bytes >= wish.min(before));
                taken.extend(chosen);
            }
            let bytes: u64 = taken.iter().map(|span| span.length).sum();
            prop_assert_eq!(bytes as usize + reserve.bytes(), total);
            taken.sort_by_key(|span| span.start);
            prop_assert!(taken.windows(2).all(|pair| pair[0].end() <= pair[1].start));
        }

        #[test]
        fn pieces_cover_a_span(start in 0u64..2000, pages in 1u64..20_000) {
            let (start, end) = (start << 12, (start + pages) << 12);
            let next = AtomicU64::new(start);
            let mut position = start;
            while let Some(piece) = piece(&next, end) {
                prop_assert_eq!(piece.start, position);
                prop_assert!(piece.end > piece.start && piece.end <= end);
                position = piece.end;
            }
            prop_assert_eq!(position, end);
        }
    }
}
