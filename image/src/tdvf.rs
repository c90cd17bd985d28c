//! The TDVF metadata: what a TDX host loads and measures of the image.
//!
//! Two sections only. BFV is the whole image, measured, with as much data as memory, so that no two calculators can disagree about a gap.
//! TD_HOB is the page pair where the host describes the machine; it is host-chosen and therefore not measured. No other memory has
//! contents chosen by the host. PAGE.AUG is never set: mainline QEMU ignores it, calculators do not.

use loader::layout;

/// Announces the descriptor; a convention that other tools look for.
const DESCRIPTOR_GUID: [u8; 16] = guid(
    0xe9ea_f9f3,
    0x168e,
    0x44d5,
    [0xa8, 0xeb, 0x7f, 0x4d, 0x87, 0x38, 0xf6, 0xae],
);
/// The entry of the GUID table that leads to the descriptor.
const OFFSET_GUID: [u8; 16] = guid(
    0xe47a_6535,
    0x984a,
    0x4798,
    [0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2],
);
/// The end of the GUID table.
const FOOTER_GUID: [u8; 16] = guid(
    0x96b5_82de,
    0x1fb2,
    0x45f7,
    [0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d],
);

const SIGNATURE: [u8; 4] = *b"TDVF";
const VERSION: u32 = 1;
const SECTIONS: usize = 2;
const SECTION: usize = 32;
const DESCRIPTOR: usize = 16 + SECTION * SECTIONS;

const TYPE_BFV: u32 = 0;
const TYPE_TD_HOB: u32 = 2;
const ATTRIBUTE_EXTEND: u32 = 1;

/// Bytes of the metadata: the announcing GUID and the descriptor.
pub const METADATA: usize = 16 + DESCRIPTOR;
/// Bytes of the GUID table: one entry with four bytes of data, and the footer.
pub const GUID_TABLE: usize = (4 + 2 + 16) + (2 + 16);

const _: () = assert!(METADATA as u64 <= layout::METADATA_END - layout::METADATA);
const _: () = assert!(GUID_TABLE as u64 <= layout::GUID_TABLE_END - layout::GUID_TABLE);

/// The metadata of an image of `length` bytes, for [`layout::METADATA`].
pub fn metadata(length: u32) -> Vec<u8> {
    let bfv = section(
        length,
        layout::IMAGE_END - u64::from(length),
        u64::from(length),
        TYPE_BFV,
        ATTRIBUTE_EXTEND,
    );
    let td_hob = section(0, layout::TD_HOB, layout::TD_HOB_SIZE, TYPE_TD_HOB, 0);
    let head = [DESCRIPTOR as u32, VERSION, SECTIONS as u32]
        .map(u32::to_le_bytes)
        .concat();
    [&DESCRIPTOR_GUID[..], &SIGNATURE, &head, &bfv, &td_hob].concat()
}

/// The GUID table, which ends at [`layout::GUID_TABLE_END`] and is read backwards.
pub fn guid_table() -> Vec<u8> {
    let descriptor = layout::METADATA + DESCRIPTOR_GUID.len() as u64;
    // Both lie in the last page.
    let from_end = (layout::IMAGE_END - descriptor) as u32;
    let entry = [
        &from_end.to_le_bytes()[..],
        &22u16.to_le_bytes(),
        &OFFSET_GUID,
    ]
    .concat();
    [&entry[..], &(GUID_TABLE as u16).to_le_bytes(), &FOOTER_GUID].concat()
}

/// A section whose data, if any, starts at the start of the image.
fn section(data: u32, address: u64, memory: u64, kind: u32, attributes: u32) -> Vec<u8> {
    let fields = [
        &0u32.to_le_bytes()[..],
        &data.to_le_bytes(),
        &address.to_le_bytes(),
        &memory.to_le_bytes(),
    ];
    [
        &fields.concat()[..],
        &kind.to_le_bytes(),
        &attributes.to_le_bytes(),
    ]
    .concat()
}

/// A GUID in EFI's byte order: three little-endian numbers, then bytes.
const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let ([a0, a1, a2, a3], [b0, b1], [c0, c1]) =
        (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [
        a0, a1, a2, a3, b0, b1, c0, c1, d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7],
    ]
}
