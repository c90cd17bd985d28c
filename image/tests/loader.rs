//! Property tests of the loader's parsers and plans. They live here because the loader's own workspace, whose lockfile is the bill of
//! materials of the trusted code, stays free of test libraries.
#![forbid(unsafe_code)]

use loader::e820::{self, ENTRY, MAX_ENTRIES};
use loader::elf::{self, Executable, Segment};
use loader::handoff::{Mode, Span};
use loader::header::{self, Header};
use loader::layout;
use loader::memory::{self, Use};
use loader::paging::{Access, PageTables, Table};
use loader::plan::plan;
use proptest::prelude::*;
use tdx::address::AddressWidth;

const GIB: u64 = 1 << 30;

fn guest() -> Executable<'static> {
    let segment = |start, length, access| Segment {
        memory: Span { start, length },
        file: 0..0,
        access,
    };
    let segments = [
        segment(layout::GUEST, 0x12_3456, elf::Access::ReadExecute),
        segment(layout::GUEST + 0x12_4000, 0x4_0000, elf::Access::Read),
        segment(layout::GUEST + 0x16_4000, 0x10_0001, elf::Access::ReadWrite),
    ];
    Executable {
        bytes: &[],
        entry: layout::GUEST,
        segments: segments.into_iter().collect(),
    }
}

/// Maps that a host could give: low RAM, some more above 4 GiB, reserved ranges, in any order and with odd edges.
fn memory_map() -> impl Strategy<Value = Vec<(u64, u64, u32)>> {
    let start = prop_oneof![9 => Just(0), 1 => 0..0x2000u64];
    let low = (start, (48 << 20)..0xb000_0000u64, Just(1));
    let high = (4 * GIB..5 * GIB, 0..64 * GIB, 1..3u32);
    let other = (0xfd_0000_0000..0xfe_0000_0000u64, 0..GIB, 0..6u32);
    (
        low,
        prop::collection::vec(high, 0..2),
        prop::collection::vec(other, 0..2),
    )
        .prop_map(|(low, high, other)| {
            let mut map = [vec![low], high, other].concat();
            map.reverse();
            map
        })
}

fn encode(map: &[(u64, u64, u32)]) -> Vec<u8> {
    let entry = |(start, length, kind): &(u64, u64, u32)| {
        [
            &start.to_le_bytes()[..],
            &length.to_le_bytes(),
            &kind.to_le_bytes(),
        ]
        .concat()
    };
    map.iter().flat_map(entry).collect()
}

proptest! {
    #[test]
    fn any_memory_map_gives_sorted_whole_pages_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..ENTRY * (MAX_ENTRIES + 2))) {
        if let Ok(ram) = e820::parse(&bytes) {
            prop_assert!(ram.windows(2).all(|pair| pair[0].end() <= pair[1].start));
            prop_assert!(ram.iter().all(|span| span.length > 0 && (span.start | span.length).is_multiple_of(layout::PAGE)));
        }
    }

    #[test]
    fn any_header_that_decodes_encodes_to_itself(mut bytes: [u8; header::SIZE], good_start: bool) {
        if good_start {
            bytes[..12].copy_from_slice(&Header { image_length: 0, guest_offset: 0, guest_length: 0 }.encode()[..12]);
            bytes[12..14].fill(0);
            bytes[15] = 0;
        }
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
            prop_assert!(header.guest_start() + u64::from(header.guest_length) <= layout::LOADER);
        }
    }

    #[test]
    fn any_bytes_are_an_executable_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..600), good_start: bool) {
        if good_start && bytes.len() > 64 {
            bytes[..20].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0]);
            bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
            bytes[54..58].copy_from_slice(&[56, 0, 2, 0]);
        }
        let room = Span::between(layout::GUEST, layout::GUEST_END);
        if let Ok(executable) = Executable::parse(&bytes, room) {
            prop_assert!(executable.segments.iter().all(|segment| segment.file.end <= bytes.len()));
        }
    }

    /// All RAM is accounted for, what is free and nothing else of it is writable memory of the guest's, and no address is mapped twice.
    #[test]
    fn any_usable_memory_map_leads_to_a_sound_plan(map in memory_map(), gigabyte_leaves: bool, trust_domain: bool) {
        let (mode, width) = match trust_domain {
            true => (Mode::TrustDomain, Some(AddressWidth::Bits48)),
            false => (Mode::Plain, None),
        };

        let ram = e820::parse(&encode(&map)).expect("ranges that do not touch");
        let Ok(memory) = memory::partition(&ram, &memory::reservations(guest().span(), mode)) else { return Ok(()) };
        prop_assert!(memory.windows(2).all(|pair| pair[0].span.end() <= pair[1].span.start));
        let bytes = |spans: &mut dyn Iterator<Item = Span>| spans.map(|span| span.length).sum::<u64>();
        prop_assert_eq!(bytes(&mut memory.iter().map(|range| range.span)), bytes(&mut ram.iter().copied()));

        let image = Span::between(layout::IMAGE_END - (2 << 20), layout::IMAGE_END);
        let plan = plan(&memory, &guest(), image, width);
        let mut pool = vec![Table::EMPTY; (layout::TABLES_SIZE / layout::PAGE) as usize];
        let mut tables = PageTables::new(&mut pool, layout::TABLES, gigabyte_leaves).expect("a root");
        for mapping in &plan {
            prop_assert_eq!(tables.map(*mapping), Ok(()));
        }
        for range in &memory {
            let over: Vec<_> = plan.iter().filter(|mapping| mapping.memory.overlaps(&range.span)).collect();
            match range.usage {
                Use::Free | Use::Unaccepted | Use::Stack | Use::Tables => prop_assert!(over.iter().all(|mapping| mapping.access == Access::ReadWrite)),
                Use::Trampoline => prop_assert!(over.iter().all(|mapping| mapping.access == Access::ReadExecute)),
                Use::Guest => prop_assert_eq!(over.len(), 3),
                Use::Loader | Use::Shared | Use::TdHob | Use::Unmapped => prop_assert!(over.is_empty()),
            }
        }
    }
}
