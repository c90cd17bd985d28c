//! The hand-off block (HOB) list in which the VMM tells the TD what memory there is, byte for byte as mainline QEMU writes it
//! (`hw/i386/tdvf-hob.c`; UEFI Platform Initialization specification, vol. 3).

use measurements::{Metadata, SectionType};

use crate::memory::Region;

/// Bytes of each kind of entry.
const HANDOFF: usize = 56;
const RESOURCE: usize = 48;
const END: usize = 8;

// HOB types and version (UEFI Platform Initialization specification, vol. 3; `tdx.md` 1.2).
const TYPE_HANDOFF: u16 = 1;
const TYPE_RESOURCE: u16 = 3;
const TYPE_END: u16 = 0xffff;
const HANDOFF_VERSION: u32 = 9;
/// PRESENT, INITIALIZED, TESTED.
const ATTRIBUTES: u32 = 7;

/// What a stretch of memory is when the TD starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ResourceType {
    /// Added before the start, ready to use.
    SystemMemory = 0,
    /// To be accepted before use.
    Unaccepted = 7,
}

/// One stretch of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    pub kind: ResourceType,
    pub start: u64,
    pub length: u64,
}

/// The host cannot describe its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HobError {
    /// A section lies in no single stretch of RAM.
    Outside {
        /// Its address.
        address: u64,
    },
    /// The list does not fit the TD_HOB section.
    Overflow {
        /// Bytes of the section.
        room: u64,
    },
}

impl std::fmt::Display for HobError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Outside { address } => write!(
                f,
                "the section at {address:#x} is not in RAM; give the TD more memory"
            ),
            Self::Overflow { room } => {
                write!(f, "the hand-off block does not fit its {room} bytes")
            }
        }
    }
}

impl std::error::Error for HobError {}

/// RAM split at the sections that the host adds to it, in ascending order.
///
/// # Errors
/// [`HobError::Outside`] for a section that is not within one stretch of `ram`.
pub fn resources(ram: &[Region], metadata: &Metadata) -> Result<Vec<Resource>, HobError> {
    let mut resources: Vec<Resource> = ram
        .iter()
        .map(|(start, length)| Resource {
            kind: ResourceType::Unaccepted,
            start: *start,
            length: *length,
        })
        .collect();
    for section in &metadata.sections {
        if !matches!(section.kind, SectionType::TdHob | SectionType::TempMem) {
            continue;
        }
        let (start, end) = (section.address, section.address + section.size);
        let inside = |resource: &Resource| {
            resource.kind == ResourceType::Unaccepted
                && resource.start <= start
                && end <= resource.start + resource.length
        };
        let index = resources
            .iter()
            .position(inside)
            .ok_or(HobError::Outside { address: start })?;
        let whole = resources[index];
        let piece = |kind, start: u64, end: u64| Resource {
            kind,
            start,
            length: end - start,
        };
        let pieces = [
            piece(ResourceType::Unaccepted, whole.start, start),
            piece(ResourceType::SystemMemory, start, end),
            piece(ResourceType::Unaccepted, end, whole.start + whole.length),
        ];
        let pieces = pieces.into_iter().filter(|piece| piece.length > 0);
        resources.splice(index..=index, pieces);
    }
    Ok(resources)
}

/// The list at guest-physical `address`, in at most `room` bytes.
///
/// # Errors
/// [`HobError::Overflow`] if it is longer.
pub fn list(address: u64, room: u64, resources: &[Resource]) -> Result<Vec<u8>, HobError> {
    let length = HANDOFF + RESOURCE * resources.len() + END;
    if length as u64 > room {
        return Err(HobError::Overflow { room });
    }
    let mut list = head(TYPE_HANDOFF, HANDOFF);
    list.extend(HANDOFF_VERSION.to_le_bytes());
    // Boot mode, and four addresses of memory that QEMU leaves to the firmware.
    list.extend([0; 4 + 4 * 8]);
    list.extend((address + length as u64).to_le_bytes());
    for resource in resources {
        list.extend(head(TYPE_RESOURCE, RESOURCE));
        // Nobody owns it.
        list.extend([0; 16]);
        list.extend((resource.kind as u32).to_le_bytes());
        list.extend(ATTRIBUTES.to_le_bytes());
        list.extend(resource.start.to_le_bytes());
        list.extend(resource.length.to_le_bytes());
    }
    list.extend(head(TYPE_END, END));
    Ok(list)
}

fn head(kind: u16, length: usize) -> Vec<u8> {
    let mut head = Vec::from(kind.to_le_bytes());
    head.extend((length as u16).to_le_bytes());
    head.extend([0; 4]);
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use measurements::{Attributes, Section};

    fn metadata(sections: &[(SectionType, u64, u64)]) -> Metadata {
        let sections = sections
            .iter()
            .map(|(kind, address, size)| Section {
                kind: *kind,
                data: 0..0,
                address: *address,
                size: *size,
                attributes: Attributes(0),
            })
            .collect();
        Metadata { sections }
    }

    #[test]
    fn ram_is_split_at_what_was_added() {
        let hob = (SectionType::TdHob, 0x80_0000, 0x2000);
        let table = [
            // No section splits at the edges; several split in any order; the image is not RAM.
            (vec![(0, 0x80_0000 + 0x2000)], vec![hob], 2),
            (vec![(0, 1 << 30)], vec![hob], 3),
            (vec![(0, 1 << 30), (1 << 32, 1 << 30)], vec![hob], 4),
            (
                vec![(0, 1 << 30)],
                vec![
                    hob,
                    (SectionType::TempMem, 0x80_2000, 0x1000),
                    (SectionType::TempMem, 0, 0x1000),
                    (SectionType::Bfv, 0xffff_0000, 0x1_0000),
                ],
                5,
            ),
        ];
        for (ram, sections, count) in table {
            let resources = resources(&ram, &metadata(&sections)).unwrap();
            assert_eq!(resources.len(), count, "{resources:x?}");
            let total: u64 = resources.iter().map(|resource| resource.length).sum();
            assert_eq!(total, ram.iter().map(|region| region.1).sum::<u64>());
            let ends = resources.iter().map(|resource| resource.start);
            assert!(ends.is_sorted());
        }
    }

    #[test]
    fn sections_outside_ram_are_refused() {
        let outside = |ram: &[Region], address, size| {
            let sections = metadata(&[(SectionType::TdHob, address, size)]);
            resources(ram, &sections).unwrap_err()
        };
        let error = HobError::Outside { address: 0x80_0000 };
        assert_eq!(outside(&[(0, 0x80_0000)], 0x80_0000, 0x2000), error);
        assert_eq!(outside(&[(0, 0x80_1000)], 0x80_0000, 0x2000), error);
        let split = [(0, 0x80_1000), (0x80_1000, 0x1000)];
        assert_eq!(outside(&split, 0x80_0000, 0x2000), error);
    }

    /// Offsets from the specification: a handoff entry of version 9, one resource, the end.
    #[test]
    fn the_list_is_laid_out_as_qemu_does() {
        let resource = Resource {
            kind: ResourceType::Unaccepted,
            start: 0x1_0000_0000,
            length: 0x4000_0000,
        };
        let list = list(0x80_0000, 0x2000, &[resource]).unwrap();
        assert_eq!(list.len(), 56 + 48 + 8);
        let number = |offset: usize| {
            u64::from_le_bytes(list[offset..offset + 8].try_into().expect("eight bytes"))
        };
        let table = [
            ("handoff head", 0, 56 << 16 | 1),
            ("version, boot mode", 8, 9),
            ("memory top", 16, 0),
            ("free memory bottom", 40, 0),
            ("end of the list", 48, 0x80_0000 + 112),
            ("resource head", 56, 48 << 16 | 3),
            ("owner", 64, 0),
            ("type, attributes", 80, 7 << 32 | 7),
            ("start", 88, 0x1_0000_0000),
            ("length", 96, 0x4000_0000),
            ("end head", 104, 8 << 16 | 0xffff),
        ];
        for (name, offset, expected) in table {
            assert_eq!(number(offset), expected, "{name}");
        }
    }

    #[test]
    fn a_list_that_does_not_fit_is_refused() {
        let resource = Resource {
            kind: ResourceType::SystemMemory,
            start: 0,
            length: 4096,
        };
        assert!(list(0, 112, &[resource]).is_ok());
        assert_eq!(
            list(0, 111, &[resource]),
            Err(HobError::Overflow { room: 111 })
        );
    }
}
