//! The final map: which addresses the guest sees, and what it may do with them.

use heapless::Vec;

use crate::elf::{self, Executable};
use crate::handoff::Span;
use crate::layout;
use crate::memory::{MAX_RANGES, MemoryRange, Use};
use crate::paging::{Access, Mapping};

/// Mappings the plan can have: memory, segments, devices and the image's parts.
const MAX_MAPPINGS: usize = MAX_RANGES + elf::MAX_SEGMENTS + 6;

/// All mappings, none overlapping another.
pub type Plan = Vec<Mapping, MAX_MAPPINGS>;

/// Plans the map: RAM as its use says, the guest segment by segment, devices uncached, the image read-only but for the loader itself,
/// whose data is at the physical address `data`.
pub fn plan(memory: &[MemoryRange], guest: &Executable<'_>, image: Span, data: u64) -> Plan {
    let ram = memory.iter().filter_map(|range| {
        let access = match range.usage {
            Use::Free | Use::Stack | Use::Tables => Access::ReadWrite,
            Use::Trampoline => Access::ReadExecute,
            // The loader's data is mapped at its own address below; the guest's segments have rights of their own.
            Use::Guest | Use::Loader | Use::TdHob | Use::Unmapped => return None,
        };
        Some(Mapping::identity(range.span, access))
    });
    let segments = guest
        .segments
        .iter()
        .map(|segment| Mapping::identity(segment.pages(), segment.access.into()));
    let fixed = [
        Mapping::identity(
            Span::between(layout::DEVICES, layout::DEVICES_END),
            Access::Device,
        ),
        Mapping::identity(Span::between(image.start, layout::LOADER), Access::Read),
        Mapping {
            memory: Span {
                start: layout::DATA,
                length: layout::DATA_SIZE,
            },
            physical: data,
            access: Access::ReadWrite,
        },
        Mapping::identity(
            Span {
                start: layout::RODATA,
                length: layout::RODATA_SIZE,
            },
            Access::Read,
        ),
        Mapping::identity(
            Span {
                start: layout::TEXT,
                length: layout::TEXT_SIZE,
            },
            Access::ReadExecute,
        ),
        Mapping::identity(Span::between(layout::TOP, layout::IMAGE_END), Access::Read),
    ];
    // There is room for all of them: `MAX_MAPPINGS` adds the three bounds.
    ram.chain(segments)
        .chain(fixed)
        .filter(|mapping| mapping.memory.length > 0)
        .collect()
}

impl From<elf::Access> for Access {
    fn from(access: elf::Access) -> Self {
        match access {
            elf::Access::Read => Self::Read,
            elf::Access::ReadWrite => Self::ReadWrite,
            elf::Access::ReadExecute => Self::ReadExecute,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::Segment;
    use crate::memory::{partition, reservations};
    use crate::paging::{PageTables, Table};
    use std::vec;

    fn guest() -> Executable<'static> {
        let segment = |start, length, access| Segment {
            memory: Span { start, length },
            file: 0..0,
            access,
        };
        let segments = [
            segment(layout::GUEST, 0x1800, elf::Access::ReadExecute),
            segment(layout::GUEST + 0x2000, 0x1000, elf::Access::Read),
            segment(layout::GUEST + 0x3000, 0x5_0001, elf::Access::ReadWrite),
        ];
        Executable {
            bytes: &[],
            entry: layout::GUEST,
            segments: segments.into_iter().collect(),
        }
    }

    #[test]
    fn everything_fits_and_nothing_twice() {
        let ram = [
            Span {
                start: 0,
                length: 0x8000_0000,
            },
            Span {
                start: layout::IMAGE_END,
                length: 1 << 32,
            },
        ];
        let memory = partition(&ram, &reservations(guest().span())).expect("a valid map");
        let image = Span::between(layout::IMAGE_END - (1 << 20), layout::IMAGE_END);
        let plan = plan(&memory, &guest(), image, layout::DATA_COPY);
        let mut pool = vec![Table::EMPTY; 64];
        let mut tables = PageTables::new(&mut pool, layout::TABLES, false).expect("a root");
        for mapping in &plan {
            tables.map(*mapping).expect("no overlap");
        }
        let access = |address: u64| {
            plan.iter()
                .find(|mapping| mapping.memory.start <= address && address < mapping.memory.end())
                .map(|mapping| mapping.access)
        };
        for (address, expected) in [
            (0, None),
            (layout::TRAMPOLINE, Some(Access::ReadExecute)),
            (layout::DATA_COPY, None),
            (layout::VIDEO_HOLE, None),
            (layout::STACK_GUARD, None),
            (layout::STACK, Some(Access::ReadWrite)),
            (layout::GUEST, Some(Access::ReadExecute)),
            (layout::GUEST + 0x2000, Some(Access::Read)),
            (layout::GUEST + 0x5_3000, Some(Access::ReadWrite)),
            (0x4000_0000, Some(Access::ReadWrite)),
            (0xfee0_0000, Some(Access::Device)),
            (0xffef_ffff, None),
            (image.start, Some(Access::Read)),
            (layout::DATA, Some(Access::ReadWrite)),
            (layout::TEXT, Some(Access::ReadExecute)),
            (layout::RESET, Some(Access::Read)),
            (0x1_7fff_ffff, Some(Access::ReadWrite)),
        ] {
            assert_eq!(access(address), expected, "at {address:#x}");
        }
    }
}
