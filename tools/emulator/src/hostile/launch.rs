//! What a hostile host tells a TD of its memory, and how it answers the hypercalls that change it. With an honest host everything here passes
//! through unchanged.

use super::{Attack, Host, Target};

const PAGE: u64 = 4096;
/// Where the hand-off block's first entry keeps the end of the list (UEFI Platform Initialization specification, vol. 3:
/// EFI_HOB_HANDOFF_INFO_TABLE, EfiEndOfHobList).
const LIST_END: usize = 48;
/// Bytes of the first entry, and of each that describes memory (the same: EFI_HOB_RESOURCE_DESCRIPTOR).
const FIRST: usize = 56;
const RESOURCE: usize = 48;
/// In a resource: kind of entry (HobType), kind of memory (ResourceType), PhysicalStart, ResourceLength.
const ENTRY_KIND: usize = 0;
const MEMORY_KIND: usize = 24;
const START: usize = 32;
const LENGTH: usize = 40;
/// The entry that ends the list.
const END: usize = 8;
/// Less memory than there is.
const WITHHELD: u64 = 64 << 20;
const FOUR_GIB: u64 = 1 << 32;
/// x87, SSE and AVX state (SDM vol. 1, 13.1).
const XFAM_AVX: u64 = 7;

/// The hand-off block as the TD finds it.
pub fn hand_off_block(host: &Host, list: &mut Vec<u8>) {
    let strikes = |attack| host.is_hostile() && host.strikes(attack, Target::Launch);
    let last = list.len() - END - RESOURCE;
    let number = |list: &[u8], at: usize| {
        let bytes = list[at..at + 8].iter().rev();
        bytes.fold(0, |value, byte| value << 8 | u64::from(*byte))
    };
    if strikes(Attack::MemoryPresent) {
        set(list, FIRST + MEMORY_KIND, &[0]);
    }
    if strikes(Attack::MemoryEntryKind) {
        set(list, FIRST + ENTRY_KIND, &[7]);
    }
    if strikes(Attack::MemoryOverlaps) {
        set(list, last + START, &0u64.to_le_bytes());
    }
    if strikes(Attack::MemoryOverImage) {
        let length = FOUR_GIB - number(list, last + START);
        set(list, last + LENGTH, &length.to_le_bytes());
    }
    if strikes(Attack::MemoryWithheld) {
        let length = number(list, last + LENGTH).saturating_sub(WITHHELD);
        set(list, last + LENGTH, &length.to_le_bytes());
    }
    if strikes(Attack::MemoryListEnd) {
        list[LIST_END] = list[LIST_END].wrapping_add(8);
    }
    if strikes(Attack::MemoryListContinues) {
        list.extend([0xa5; 100]);
    }
}

fn set(list: &mut [u8], at: usize, value: &[u8]) {
    list[at..at + value.len()].copy_from_slice(value);
}

/// The APIC identifier that the host names to a processor.
pub fn apic_id(host: &Host, index: u32) -> u64 {
    if host.is_hostile() && host.strikes(Attack::ApicIdRandom, Target::Launch) {
        host.below(u64::MAX)
    } else {
        index.into()
    }
}

/// The extended features (XFAM) with which the host makes the TD, on a processor that has `all`.
pub fn xfam(host: &Host, all: u64) -> u64 {
    if host.is_hostile() && host.strikes(Attack::FeaturesWithheld, Target::Launch) {
        all & XFAM_AVX
    } else {
        all
    }
}

/// An answer to MapGPA that is not the honest one: R11, and whether it is a request to try again rather than a refusal.
pub fn map_gpa(host: &Host, start: u64, length: u64) -> Option<(u64, bool)> {
    if !host.is_hostile() {
        return None;
    }
    let strikes = |attack| host.strikes(attack, Target::Launch);
    if strikes(Attack::ConversionStuck) {
        Some((start, true))
    } else if strikes(Attack::ConversionTurnsBack) {
        Some((start.wrapping_sub(PAGE), true))
    } else if strikes(Attack::ConversionRefused) {
        Some((start, false))
    } else if length > PAGE && strikes(Attack::ConversionInPieces) {
        Some((start + PAGE, true))
    } else {
        None
    }
}
