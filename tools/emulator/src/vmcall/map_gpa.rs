//! TDVMCALL MapGPA: pages change between private and shared (`tdx.md` 1.6; KVM `tdx_map_gpa`, QEMU `kvm_convert_memory`).

use super::{Answer, HostStatus};
use crate::cpu::gpr::{R11, R12, R13};
use crate::emulate::Effect;
use crate::hostile::launch::map_gpa;
use crate::memory::{PAGE, PageState};
use crate::td::Td;

/// R12 is the start, whose shared bit says what to become; R13 the length in bytes. On failure R11 is the address where it failed.
pub fn call(td: &Td, host: &mut [u64; 16]) -> Answer {
    let (start, length) = (host[R12], host[R13]);
    let to_shared = start & td.shared_bit() != 0;
    let gpa = start & !td.shared_bit();
    host[R11] = start;
    if !start.is_multiple_of(PAGE) || !length.is_multiple_of(PAGE) {
        return HostStatus::AlignError.into();
    }
    let fits = gpa
        .checked_add(length)
        .is_some_and(|end| length > 0 && end <= td.shared_bit());
    if !fits {
        return HostStatus::InvalidOperand.into();
    }
    let state = if to_shared {
        PageState::Shared
    } else {
        PageState::Pending
    };
    let (mut length, mut again) = (length, None);
    if let Some((position, retry)) = map_gpa(&td.host, start, length) {
        if !retry {
            return HostStatus::InvalidOperand.into();
        }
        // What is said to be done is done.
        length = position.saturating_sub(start).min(length);
        again = Some(position);
    }
    let mut changed = false;
    for page in (gpa..gpa + length).step_by(PAGE as usize) {
        match td.memory.state(page) {
            // A page that is already what it should be keeps its contents.
            Some(PageState::Shared) if to_shared => {}
            Some(PageState::Private | PageState::Pending) if !to_shared => {}
            Some(_) => {
                td.memory.set_state(page, PAGE, state);
                changed = true;
            }
            // QEMU lets a TD share addresses without memory: they are device registers.
            None if to_shared => {}
            None => {
                host[R11] = page | (start & td.shared_bit());
                return HostStatus::InvalidOperand.into();
            }
        }
    }
    host[R11] = again.unwrap_or(0);
    Answer {
        status: again.map_or(HostStatus::Success, |_| HostStatus::Retry),
        effect: if changed {
            Effect::FlushEverywhere
        } else {
            Effect::Continue
        },
    }
}
