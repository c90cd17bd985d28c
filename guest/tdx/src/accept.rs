//! Acceptance of whole ranges: large pages where the host mapped such, small ones where it did not.

use core::fmt;

use crate::address::{LARGE_PAGE, PAGE};
use crate::call::Tdcall;
use crate::leaf::{self, AcceptError, PageSize};

/// A range was not accepted as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeError {
    /// The page at which it ended.
    pub address: u64,
    /// Why.
    pub error: AcceptError,
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory at {:#x}: {}", self.address, self.error)
    }
}

impl core::error::Error for RangeError {}

/// Accepts the whole pages from `start` to `end`: 2 MiB at a time where a large page fits, and in 512 small pieces where the host has
/// mapped those (mainline KVM knows no others). A page that had been accepted before is an error: whose contents would it have?
///
/// # Errors
/// [`RangeError`]; everything below the address is accepted then.
///
/// # Safety
/// Nothing may rely on what is in the range.
pub unsafe fn accept(tdcall: &impl Tdcall, start: u64, end: u64) -> Result<(), RangeError> {
    let mut address = start;
    while address < end {
        let next = if address.is_multiple_of(LARGE_PAGE) && end - address >= LARGE_PAGE {
            // SAFETY: passed on from the caller.
            match unsafe { leaf::accept_page(tdcall, address, PageSize::Large) } {
                // SAFETY: passed on from the caller.
                Err(AcceptError::SizeMismatch) => unsafe {
                    accept_small(tdcall, address, address + LARGE_PAGE)?;
                },
                outcome => outcome.map_err(|error| RangeError { address, error })?,
            }
            address + LARGE_PAGE
        } else {
            let next = end.min(address.next_multiple_of(LARGE_PAGE).max(address + PAGE));
            // SAFETY: passed on from the caller.
            unsafe { accept_small(tdcall, address, next)? }
            next
        };
        address = next;
    }
    Ok(())
}

/// # Safety
/// As for [`accept`].
unsafe fn accept_small(tdcall: &impl Tdcall, start: u64, end: u64) -> Result<(), RangeError> {
    for address in (start..end).step_by(PAGE as usize) {
        // SAFETY: passed on from the caller.
        unsafe { leaf::accept_page(tdcall, address, PageSize::Small) }
            .map_err(|error| RangeError { address, error })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Call, Fake};
    use crate::status::{Error, Status};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    const MISMATCH: u64 = 0xc000_0b0b_0000_0001;

    /// A module that maps the large pages in `split` by small ones, and fails at `bad`. RCX of a call is the address and the size.
    fn module(split: Vec<u64>, bad: Option<(u64, u64)>) -> Fake {
        Fake::new(move |call| {
            let Call::Module(registers) = call else {
                panic!("a call to the host")
            };
            let (address, large) = (registers.rcx & !0xfff, registers.rcx & 1 == 1);
            registers.rax = match bad {
                Some((bad, status)) if bad == address => status,
                _ if large && split.contains(&address) => MISMATCH,
                _ => 0,
            };
            Status(0)
        })
    }

    /// How often each small page was accepted.
    fn accepted(fake: &Fake, split: &[u64]) -> BTreeMap<u64, u32> {
        let mut pages = BTreeMap::new();
        for call in fake.calls() {
            let Call::Module(registers) = call else {
                panic!("a call to the host")
            };
            let (address, large) = (registers.rcx & !0xfff, registers.rcx & 1 == 1);
            if large && split.contains(&address) {
                continue;
            }
            let end = address + if large { LARGE_PAGE } else { PAGE };
            for page in (address..end).step_by(PAGE as usize) {
                *pages.entry(page).or_default() += 1;
            }
        }
        pages
    }

    #[test]
    fn large_pages_are_tried_where_they_fit() {
        let fake = module(Vec::new(), None);
        // SAFETY: a fake module touches no memory.
        let outcome = unsafe { accept(&fake, LARGE_PAGE - 2 * PAGE, 3 * LARGE_PAGE + PAGE) };
        assert_eq!(outcome, Ok(()));
        let operands: Vec<u64> = fake
            .calls()
            .iter()
            .map(|call| match call {
                Call::Module(registers) => registers.rcx,
                Call::Host(_) => panic!("a call to the host"),
            })
            .collect();
        assert_eq!(
            operands,
            [
                LARGE_PAGE - 2 * PAGE,
                LARGE_PAGE - PAGE,
                LARGE_PAGE | 1,
                (2 * LARGE_PAGE) | 1,
                3 * LARGE_PAGE
            ]
        );
    }

    #[test]
    fn the_first_bad_page_ends_it() {
        for (status, error) in [
            (0x0000_0b0a_0000_0000, AcceptError::AlreadyAccepted),
            (
                0xc000_0100_0000_0001,
                AcceptError::Module(Error::OperandInvalid { operand: 1 }),
            ),
        ] {
            let address = LARGE_PAGE + 7 * PAGE;
            let fake = module([LARGE_PAGE].into(), Some((address, status)));
            // SAFETY: a fake module touches no memory.
            let outcome = unsafe { accept(&fake, 0, 3 * LARGE_PAGE) };
            assert_eq!(outcome, Err(RangeError { address, error }));
            assert_eq!(fake.calls().len(), 1 + 1 + 8);
        }
    }

    proptest! {
        #[test]
        fn every_page_is_accepted_exactly_once(
            start in 0u64..1600,
            pages in 0u64..1600,
            split in proptest::collection::vec(0u64..4, 0..4),
        ) {
            let split: Vec<u64> = split.into_iter().map(|index| index * LARGE_PAGE).collect();
            let fake = module(split.clone(), None);
            let (start, end) = (start * PAGE, (start + pages) * PAGE);
            // SAFETY: a fake module touches no memory.
            prop_assert_eq!(unsafe { accept(&fake, start, end) }, Ok(()));
            let accepted = accepted(&fake, &split);
            prop_assert!(accepted.keys().copied().eq((start..end).step_by(PAGE as usize)));
            prop_assert!(accepted.values().all(|times| *times == 1));
        }
    }
}
