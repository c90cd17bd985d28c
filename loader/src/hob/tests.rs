//! Hand-off blocks as QEMU writes them, every way to deviate from that, and arbitrary bytes.

use super::*;
use proptest::prelude::*;
use std::vec::Vec as Bytes;

const SIZE: usize = layout::TD_HOB_SIZE as usize;
const HOB_END: u64 = layout::TD_HOB + layout::TD_HOB_SIZE;

/// A resource: type, attributes, start, length.
type Resource = (u32, u32, u64, u64);

/// What QEMU writes for a machine of 4 GiB.
const HONEST: [Resource; 4] = [
    (UNACCEPTED, 7, 0, layout::TD_HOB),
    (SYSTEM_MEMORY, 7, layout::TD_HOB, layout::TD_HOB_SIZE),
    (UNACCEPTED, 7, HOB_END, 0x8000_0000 - HOB_END),
    (UNACCEPTED, 7, layout::IMAGE_END, 0x8000_0000),
];

fn header(kind: u16, length: u16) -> Bytes<u8> {
    [&kind.to_le_bytes()[..], &length.to_le_bytes(), &[0; 4]].concat()
}

/// The bytes of a block by the layout of the UEFI PI specification.
fn encode(resources: &[Resource]) -> [u8; SIZE] {
    let mut bytes = header(PHIT, 56);
    bytes.extend(9u32.to_le_bytes());
    bytes.extend([0; 36]);
    let end = layout::TD_HOB + 56 + 48 * resources.len() as u64 + 8;
    bytes.extend(end.to_le_bytes());
    for (kind, attributes, start, length) in resources {
        bytes.extend(header(RESOURCE, 48));
        bytes.extend([0; 16]);
        bytes.extend(kind.to_le_bytes());
        bytes.extend(attributes.to_le_bytes());
        bytes.extend(start.to_le_bytes());
        bytes.extend(length.to_le_bytes());
    }
    bytes.extend(header(END, 8));
    bytes.resize(SIZE, 0);
    bytes.try_into().expect("two pages")
}

fn parse_48(bytes: &[u8; SIZE]) -> Result<Ram, HobError> {
    parse(bytes, AddressWidth::Bits48)
}

/// The honest list with one entry replaced.
fn with(index: usize, resource: Resource) -> Result<Ram, HobError> {
    let mut resources = HONEST;
    resources[index] = resource;
    parse_48(&encode(&resources))
}

#[test]
fn what_qemu_writes_is_understood() {
    let ram = parse_48(&encode(&HONEST)).expect("an honest block");
    let expected = HONEST.map(|(_, _, start, length)| Span { start, length });
    assert_eq!(ram, expected);
    assert!(parse_48(&encode(&HONEST[..3])).is_ok());
}

#[test]
fn ranges_are_checked_one_by_one() {
    let span = |start, length| Span { start, length };
    for (index, resource, error) in [
        (0, (1, 7, 0, 0x1000), HobError::Resource(1)),
        (
            0,
            (UNACCEPTED, 0x407, 0, 0x1000),
            HobError::Attributes(0x407),
        ),
        (0, (UNACCEPTED, 3, 0, 0x1000), HobError::Attributes(3)),
        (0, (UNACCEPTED, 0, 0, 0x1000), HobError::Attributes(0)),
        (0, (8, 7, 0, 0x1000), HobError::Resource(8)),
        (0, (UNACCEPTED, 7, 0, 0), HobError::Range(span(0, 0))),
        (
            0,
            (UNACCEPTED, 7, 0x800, 0x1000),
            HobError::Range(span(0x800, 0x1000)),
        ),
        (
            0,
            (UNACCEPTED, 7, 0, 0x1001),
            HobError::Range(span(0, 0x1001)),
        ),
        (
            3,
            (UNACCEPTED, 7, layout::IMAGE_END, u64::MAX - 0xfff),
            HobError::Range(span(layout::IMAGE_END, u64::MAX - 0xfff)),
        ),
        (
            3,
            (UNACCEPTED, 7, 1 << 46, (1 << 46) + 0x1000),
            HobError::Range(span(1 << 46, (1 << 46) + 0x1000)),
        ),
        (
            3,
            (UNACCEPTED, 7, 1 << 47, 0x1000),
            HobError::Range(span(1 << 47, 0x1000)),
        ),
        (
            2,
            (UNACCEPTED, 7, 0, 0x1000),
            HobError::Order(span(0, 0x1000)),
        ),
        (
            2,
            (UNACCEPTED, 7, HOB_END - 0x1000, 0x2000),
            HobError::Order(span(HOB_END - 0x1000, 0x2000)),
        ),
        (
            3,
            (UNACCEPTED, 7, HOB_END, 0x1000),
            HobError::Order(span(HOB_END, 0x1000)),
        ),
        (
            2,
            (UNACCEPTED, 7, layout::TD_HOB, 0x1000),
            HobError::Order(span(layout::TD_HOB, 0x1000)),
        ),
        (
            2,
            (SYSTEM_MEMORY, 7, HOB_END, 0x1000),
            HobError::Present(span(HOB_END, 0x1000)),
        ),
        (
            1,
            (SYSTEM_MEMORY, 7, layout::TD_HOB, 0x3000),
            HobError::Present(span(layout::TD_HOB, 0x3000)),
        ),
        (
            0,
            (SYSTEM_MEMORY, 7, 0, layout::TD_HOB),
            HobError::Present(span(0, layout::TD_HOB)),
        ),
        (
            1,
            (SYSTEM_MEMORY, 7, layout::TD_HOB, 0x1000),
            HobError::Present(span(layout::TD_HOB, 0x1000)),
        ),
        (
            1,
            (UNACCEPTED, 7, layout::TD_HOB, layout::TD_HOB_SIZE),
            HobError::Missing,
        ),
        (
            3,
            (UNACCEPTED, 7, layout::IMAGE_END - 0x1000, 0x1000),
            HobError::Misplaced(span(layout::IMAGE_END - 0x1000, 0x1000)),
        ),
        // The PCI window, the I/O APIC, the local APIC.
        (
            3,
            (UNACCEPTED, 7, layout::DEVICES, 0x1000),
            HobError::Misplaced(span(layout::DEVICES, 0x1000)),
        ),
        (
            3,
            (UNACCEPTED, 7, 0xfec0_0000, 0x1000),
            HobError::Misplaced(span(0xfec0_0000, 0x1000)),
        ),
        (
            3,
            (UNACCEPTED, 7, 0xfee0_0000, 0x1000),
            HobError::Misplaced(span(0xfee0_0000, 0x1000)),
        ),
        (
            3,
            (UNACCEPTED, 7, 0xb000_0000, 0x1000_1000),
            HobError::Misplaced(span(0xb000_0000, 0x1000_1000)),
        ),
        (
            3,
            (UNACCEPTED, 7, layout::IMAGE_END, RAM_MAX),
            HobError::TooMuch(RAM_MAX + 0x8000_0000),
        ),
    ] {
        assert_eq!(with(index, resource), Err(error), "{resource:x?}");
    }
}

#[test]
fn the_limits_themselves_are_within() {
    for (index, resource) in [
        // Up to the devices; from the image's end to the last private address; no RAM below the block.
        (2, (UNACCEPTED, 7, HOB_END, layout::DEVICES - HOB_END)),
        (3, (UNACCEPTED, 7, (1 << 47) - 0x1000, 0x1000)),
        (3, (UNACCEPTED, 7, layout::IMAGE_END, RAM_MAX - 0x8000_0000)),
        (0, (UNACCEPTED, 7, layout::TD_HOB - 0x1000, 0x1000)),
    ] {
        assert!(with(index, resource).is_ok(), "{resource:x?}");
    }
}

#[test]
fn the_private_half_depends_on_the_address_width() {
    let far = (UNACCEPTED, 7, 1 << 47, 0x1000);
    let bytes = encode(&[HONEST[0], HONEST[1], HONEST[2], far]);
    assert!(matches!(parse_48(&bytes), Err(HobError::Range(_))));
    assert!(parse(&bytes, AddressWidth::Bits52).is_ok());
}

#[test]
fn the_list_has_one_form() {
    let honest = encode(&HONEST);
    let end = 56 + 48 * HONEST.len();
    let changed = |at: usize, bytes: &[u8]| {
        let mut changed = honest;
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        parse_48(&changed)
    };
    for (at, bytes) in [
        (0, [2, 0]),
        (0, [3, 0]),
        (0, [0xff, 0xff]),
        (2, [48, 0]),
        (2, [64, 0]),
        (8, [8, 0]),
        (8, [10, 0]),
        (10, [1, 0]),
    ] {
        assert_eq!(changed(at, &bytes), Err(HobError::Start), "byte {at}");
    }
    // A second information table, memory allocation, a GUID extension, a CPU, a firmware volume, nothing.
    for kind in [1u16, 2, 4, 5, 6, 7, 9, 0xfffe] {
        let error = HobError::Block { kind, length: 48 };
        assert_eq!(changed(56, &kind.to_le_bytes()), Err(error));
    }
    for length in [0u16, 8, 47, 49, 8184, u16::MAX] {
        let error = HobError::Block { kind: 3, length };
        assert_eq!(changed(58, &length.to_le_bytes()), Err(error));
    }
    assert_eq!(
        changed(end + 2, &[16, 0]),
        Err(HobError::Block {
            kind: END,
            length: 16
        })
    );
    assert_eq!(
        changed(end, &[0; 4]),
        Err(HobError::Block { kind: 0, length: 0 })
    );
    // The end of the list may be the start or the end of its last block.
    let last = layout::TD_HOB + end as u64;
    assert!(changed(48, &last.to_le_bytes()).is_ok());
    for wrong in [0, last - 8, last + 16, u64::MAX] {
        assert_eq!(changed(48, &wrong.to_le_bytes()), Err(HobError::End(wrong)));
    }
}

#[test]
fn the_list_is_bounded() {
    let pages = |count: u64| -> Bytes<Resource> {
        let above = |index| (UNACCEPTED, 7, layout::IMAGE_END + index * 0x2000, 0x1000);
        [HONEST[1]]
            .into_iter()
            .chain((1..count).map(above))
            .collect()
    };
    assert!(parse_48(&encode(&pages(MAX_RANGES as u64))).is_ok());
    assert_eq!(
        parse_48(&encode(&pages(MAX_RANGES as u64 + 1))),
        Err(HobError::TooManyRanges)
    );
}

proptest! {
    #[test]
    fn any_bytes_are_survived(tail in proptest::collection::vec(any::<u8>(), 0..400), honest: bool) {
        let mut bytes = if honest { encode(&HONEST) } else { encode(&[]) };
        let from = if honest { 56 } else { 0 };
        bytes[from..from + tail.len()].copy_from_slice(&tail);
        if let Ok(ram) = parse_48(&bytes) {
            prop_assert!(ram.windows(2).all(|pair| pair[0].end() <= pair[1].start));
        }
    }

    #[test]
    fn whatever_passes_is_sorted_apart_and_out_of_the_way(
        cuts in proptest::collection::vec((0u32..9, 0u64..0x2_0000, 0u64..0x2_0000), 0..6),
    ) {
        let mut resources: Bytes<Resource> = cuts
            .into_iter()
            .map(|(kind, start, length)| (kind, 7, start * 0x1_0000, length * 0x1_0000))
            .collect();
        resources.push(HONEST[1]);
        resources.sort_by_key(|resource| resource.2);
        if let Ok(ram) = parse_48(&encode(&resources)) {
            let devices = Span::between(layout::DEVICES, layout::IMAGE_END);
            prop_assert!(ram.iter().all(|span| span.length > 0 && !span.overlaps(&devices)));
            prop_assert!(ram.windows(2).all(|pair| pair[0].end() <= pair[1].start));
        }
    }
}
