//! The final map: which addresses the guest sees, and what it may do with them.

use heapless::Vec;
use tdx::address::AddressWidth;

use crate::elf::{self, Executable};
use crate::handoff::Span;
use crate::layout;
use crate::memory::{MAX_RANGES, MemoryRange, Use};
use crate::paging::{Access, Mapping};

/// Mappings the plan can have: memory, segments, devices and the image's parts.
const MAX_MAPPINGS: usize = MAX_RANGES + elf::MAX_SEGMENTS + 7;

/// All mappings, none overlapping another.
pub type Plan = Vec<Mapping, MAX_MAPPINGS>;

/// Plans the map: RAM as its use says, the guest segment by segment, the image read-only but for the loader itself, and what devices see in a
/// window of its own. `trust_domain` is the address width of a TD: there the loader's data is where it was linked, what devices see is
/// shared with the host, and device registers are not mapped, because an access to one is a hypercall.
pub fn plan(
    memory: &[MemoryRange],
    guest: &Executable<'_>,
    image: Span,
    trust_domain: Option<AddressWidth>,
) -> Plan {
    let (data, shared, devices) = match trust_domain {
        None => (layout::DATA_COPY, layout::SHARED, layout::DEVICES_END),
        Some(width) => (
            layout::DATA,
            width.share(layout::SHARED).get(),
            layout::DEVICES,
        ),
    };
    let ram = memory.iter().filter_map(|range| {
        let access = match range.usage {
            Use::Free | Use::Stack | Use::Tables | Use::Unaccepted => Access::ReadWrite,
            Use::Trampoline => Access::ReadExecute,
            // The loader's data and what devices see are mapped at their own addresses below; the guest's segments have rights of their own.
            Use::Guest | Use::Loader | Use::Shared | Use::TdHob | Use::Unmapped => return None,
        };
        Some(Mapping::identity(range.span, access))
    });
    let segments = guest
        .segments
        .iter()
        .map(|segment| Mapping::identity(segment.pages(), segment.access.into()));
    let fixed = [
        Mapping::identity(Span::between(layout::DEVICES, devices), Access::Device),
        Mapping {
            memory: Span {
                start: layout::SHARED_WINDOW,
                length: layout::SHARED_SIZE,
            },
            physical: shared,
            access: Access::ReadWrite,
        },
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
    use crate::handoff::Mode;
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

    /// The plan for 6 GiB of RAM.
    fn plan_for(trust_domain: Option<AddressWidth>) -> (Plan, Span) {
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
        let mode = match trust_domain {
            None => Mode::Plain,
            Some(_) => Mode::TrustDomain,
        };
        let memory = partition(&ram, &reservations(guest().span(), mode)).expect("a valid map");
        let image = Span::between(layout::IMAGE_END - (1 << 20), layout::IMAGE_END);
        (plan(&memory, &guest(), image, trust_domain), image)
    }

    /// What the plan makes of an address: the physical one, and what may be done there.
    fn at(plan: &Plan, address: u64) -> Option<(u64, Access)> {
        plan.iter()
            .find(|mapping| mapping.memory.start <= address && address < mapping.memory.end())
            .map(|mapping| {
                (
                    mapping.physical + (address - mapping.memory.start),
                    mapping.access,
                )
            })
    }

    #[test]
    fn everything_fits_and_nothing_twice() {
        for trust_domain in [None, Some(AddressWidth::Bits48), Some(AddressWidth::Bits52)] {
            let (plan, _) = plan_for(trust_domain);
            let mut pool = vec![Table::EMPTY; 64];
            let mut tables = PageTables::new(&mut pool, layout::TABLES, false).expect("a root");
            for mapping in &plan {
                tables.map(*mapping).expect("no overlap");
            }
        }
    }

    #[test]
    fn addresses_may_be_used_as_planned() {
        let (plan, image) = plan_for(None);
        let access = |address| at(&plan, address).map(|(_, access)| access);
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
            (layout::SHARED, None),
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
        assert_eq!(
            at(&plan, layout::DATA),
            Some((layout::DATA_COPY, Access::ReadWrite))
        );
        assert_eq!(
            at(&plan, layout::SHARED_WINDOW),
            Some((layout::SHARED, Access::ReadWrite))
        );
    }

    #[test]
    fn a_trust_domain_shares_one_window_and_maps_no_devices() {
        for width in [AddressWidth::Bits48, AddressWidth::Bits52] {
            let (plan, image) = plan_for(Some(width));
            for address in [layout::DEVICES, 0xfee0_0000, layout::SHARED, layout::TD_HOB] {
                assert_eq!(at(&plan, address), None);
            }
            assert_eq!(
                at(&plan, layout::DATA),
                Some((layout::DATA, Access::ReadWrite))
            );
            assert_eq!(at(&plan, image.start), Some((image.start, Access::Read)));
            let shared = |mapping: &&Mapping| mapping.physical & width.shared_bit() != 0;
            let windows: vec::Vec<_> = plan.iter().filter(shared).collect();
            assert_eq!(windows.len(), 1);
            assert_eq!(windows[0].memory.start, layout::SHARED_WINDOW);
            assert_eq!(windows[0].memory.length, layout::SHARED_SIZE);
        }
    }
}
