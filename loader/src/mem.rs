//! The five functions that compiled code expects from a C library. Shared by the loader and the guest, as source: a library would
//! impose them on host programs too.
//!
//! They move 64 bytes a turn through vector registers: near the speed of memory on silicon, and far ahead of string instructions
//! where the processor is emulated. They are assembly because the compiler would turn a loop into a call of the very function.

use core::arch::asm;

/// # Safety
/// As in C: both regions valid for `length` bytes, not overlapping.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: the caller vouches for both regions; every access lies below `length`.
    unsafe { copy_up(to, from, length) }
    to
}

/// # Safety
/// As in C: both regions valid for `length` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: the caller vouches for both regions. Upwards, no byte of the source is overwritten before it is read unless the
    // destination starts inside the source; then the copy goes downwards.
    unsafe {
        if to.addr().wrapping_sub(from.addr()) >= length {
            copy_up(to, from, length);
        } else {
            copy_down(to, from, length);
        }
    }
    to
}

/// # Safety
/// As in C: the region valid for `length` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, length: usize) -> *mut u8 {
    // SAFETY: the caller vouches for the region; every access lies below `length`.
    unsafe {
        asm!(
            "cmp rcx, 64",
            "jb 3f",
            "movq xmm0, rax",
            "punpcklqdq xmm0, xmm0",
            "2:",
            "movups [rdi], xmm0",
            "movups [rdi + 16], xmm0",
            "movups [rdi + 32], xmm0",
            "movups [rdi + 48], xmm0",
            "add rdi, 64",
            "sub rcx, 64",
            "cmp rcx, 64",
            "jae 2b",
            "3:",
            "mov edx, ecx",
            "shr ecx, 3",
            "rep stosq",
            "mov ecx, edx",
            "and ecx, 7",
            "rep stosb",
            inout("rcx") length => _,
            inout("rdi") to => _,
            in("rax") u64::from_ne_bytes([byte as u8; 8]),
            out("rdx") _,
            out("xmm0") _,
            options(nostack),
        );
    }
    to
}

/// Copies from the first byte to the last.
///
/// # Safety
/// Both regions valid for `length` bytes; `to` must not lie inside the source, unless it is its start.
unsafe fn copy_up(to: *mut u8, from: *const u8, length: usize) {
    // SAFETY: the caller vouches for both regions; every access lies below `length`, and each turn reads before it writes.
    unsafe {
        asm!(
            "cmp rcx, 64",
            "jb 3f",
            "2:",
            "movups xmm0, [rsi]",
            "movups xmm1, [rsi + 16]",
            "movups xmm2, [rsi + 32]",
            "movups xmm3, [rsi + 48]",
            "movups [rdi], xmm0",
            "movups [rdi + 16], xmm1",
            "movups [rdi + 32], xmm2",
            "movups [rdi + 48], xmm3",
            "add rsi, 64",
            "add rdi, 64",
            "sub rcx, 64",
            "cmp rcx, 64",
            "jae 2b",
            "3:",
            "mov edx, ecx",
            "shr ecx, 3",
            "rep movsq",
            "mov ecx, edx",
            "and ecx, 7",
            "rep movsb",
            inout("rcx") length => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            out("rdx") _,
            out("xmm0") _,
            out("xmm1") _,
            out("xmm2") _,
            out("xmm3") _,
            options(nostack),
        );
    }
}

/// Copies from the last byte to the first.
///
/// # Safety
/// Both regions valid for `length` bytes; the source must not start inside the destination, unless at its start.
unsafe fn copy_down(to: *mut u8, from: *const u8, length: usize) {
    // SAFETY: the caller vouches for both regions; every access lies below `length`, and each turn reads before it writes.
    unsafe {
        asm!(
            "cmp rcx, 32",
            "jb 3f",
            "2:",
            "movups xmm0, [rsi + rcx - 16]",
            "movups xmm1, [rsi + rcx - 32]",
            "movups [rdi + rcx - 16], xmm0",
            "movups [rdi + rcx - 32], xmm1",
            "sub rcx, 32",
            "cmp rcx, 32",
            "jae 2b",
            "3:",
            "test rcx, rcx",
            "jz 4f",
            "mov al, [rsi + rcx - 1]",
            "mov [rdi + rcx - 1], al",
            "dec rcx",
            "jmp 3b",
            "4:",
            inout("rcx") length => _,
            in("rdi") to,
            in("rsi") from,
            out("al") _,
            out("xmm0") _,
            out("xmm1") _,
            options(nostack),
        );
    }
}

/// # Safety
/// As in C: both regions valid for `length` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, length: usize) -> i32 {
    let mut at = 0;
    // SAFETY: the caller vouches for both regions, and `at` stays below `length` by the size of each access.
    unsafe {
        while at + 8 <= length {
            let (x, y) = (
                a.add(at).cast::<u64>().read_unaligned(),
                b.add(at).cast::<u64>().read_unaligned(),
            );
            if x != y {
                return if x.swap_bytes() < y.swap_bytes() {
                    -1
                } else {
                    1
                };
            }
            at += 8;
        }
        while at < length {
            // Volatile, or the compiler may recognise the loop and call `memcmp`.
            let (x, y) = (a.add(at).read_volatile(), b.add(at).read_volatile());
            if x != y {
                return i32::from(x) - i32::from(y);
            }
            at += 1;
        }
    }
    0
}

/// # Safety
/// As in C: both regions valid for `length` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, length: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(a, b, length) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const ROOM: usize = 400;

    /// Every length up to a few turns of each loop, at distances that overlap in both directions and not at all.
    fn cases() -> impl Iterator<Item = (usize, usize, usize)> {
        let places = [
            (0, 0),
            (0, 1),
            (1, 0),
            (3, 40),
            (40, 3),
            (0, 200),
            (200, 0),
            (7, 70),
            (71, 8),
        ];
        (0..200).flat_map(move |length| places.map(|(from, to)| (length, from, to)))
    }

    fn pattern() -> Vec<u8> {
        (0..ROOM)
            .map(|byte| (byte * 7 + byte / 256) as u8)
            .collect()
    }

    #[test]
    fn moves_copies_and_fills_touch_exactly_their_bytes() {
        for (length, from, to) in cases() {
            let (mut ours, mut expected) = (pattern(), pattern());
            // SAFETY: both regions lie inside `ours`.
            unsafe { memmove(ours.as_mut_ptr().add(to), ours.as_ptr().add(from), length) };
            expected.copy_within(from..from + length, to);
            assert_eq!(ours, expected, "move {length} from {from} to {to}");

            let source = pattern();
            // SAFETY: each region lies inside its own buffer.
            unsafe { memcpy(ours.as_mut_ptr().add(to), source.as_ptr().add(from), length) };
            expected[to..to + length].copy_from_slice(&source[from..from + length]);
            assert_eq!(ours, expected, "copy {length} from {from} to {to}");

            // SAFETY: the region lies inside `ours`.
            unsafe { memset(ours.as_mut_ptr().add(to), 0x1a5, length) };
            expected[to..to + length].fill(0xa5);
            assert_eq!(ours, expected, "fill {length} at {to}");
        }
    }

    #[test]
    fn comparison_is_that_of_slices() {
        let compare = |a: &[u8], b: &[u8]| {
            // SAFETY: both slices have the length of the first.
            unsafe {
                (
                    memcmp(a.as_ptr(), b.as_ptr(), a.len()).cmp(&0),
                    bcmp(a.as_ptr(), b.as_ptr(), a.len()).cmp(&0),
                )
            }
        };
        for length in 0..40 {
            let a = &pattern()[..length];
            assert_eq!(compare(a, a), (a.cmp(a), a.cmp(a)));
            for position in 0..length {
                let mut b = a.to_vec();
                b[position] = !b[position];
                assert_eq!(
                    compare(a, &b),
                    (a.cmp(&b), a.cmp(&b)),
                    "{position} of {length}"
                );
            }
        }
    }
}
