use crate::*;
use proptest::prelude::*;

const SIZE: usize = 64 << 10;
const DESCRIPTOR: usize = SIZE - 0x400;
const BASE: u64 = (1 << 32) - SIZE as u64;
const HOB: u64 = 0x80_0000;

fn section(offset: u32, raw: u32, address: u64, size: u64, kind: u32, attributes: u32) -> Vec<u8> {
    let fields = [
        &offset.to_le_bytes()[..],
        &raw.to_le_bytes(),
        &address.to_le_bytes(),
        &size.to_le_bytes(),
    ]
    .concat();
    [&fields[..], &kind.to_le_bytes(), &attributes.to_le_bytes()].concat()
}

fn bfv() -> Vec<u8> {
    section(0, SIZE as u32, BASE, SIZE as u64, 0, 1)
}

fn hob() -> Vec<u8> {
    section(0, 0, HOB, 0x2000, 2, 0)
}

/// A 64 KiB image made by hand: a pattern, a descriptor with the given sections, and the GUID table with a foreign entry in it.
fn image(sections: &[Vec<u8>]) -> Vec<u8> {
    let mut image: Vec<u8> = (0..SIZE)
        .map(|byte| (byte / 256 * 7 + byte) as u8)
        .collect();
    let length = (16 + 32 * sections.len()) as u32;
    let numbers = [length, 1, sections.len() as u32]
        .map(u32::to_le_bytes)
        .concat();
    let descriptor = [b"TDVF", &numbers[..], &sections.concat()].concat();
    image[DESCRIPTOR..DESCRIPTOR + descriptor.len()].copy_from_slice(&descriptor);
    let tdx = [
        &((SIZE - DESCRIPTOR) as u32).to_le_bytes()[..],
        &[
            22, 0, 0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7,
            0xbf, 0x8e, 0xc2,
        ],
    ];
    let foreign = [&[1u8, 2, 3][..], &[21, 0], &[9; 16]].concat();
    let footer = [
        0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08,
        0x2d,
    ];
    let length = (22 + 21 + 18u16).to_le_bytes();
    let table = [&tdx.concat()[..], &foreign, &length, &footer].concat();
    image[SIZE - 32 - table.len()..SIZE - 32].copy_from_slice(&table);
    image
}

fn refuse(sections: &[Vec<u8>]) -> MetadataError {
    Metadata::parse(&image(sections)).expect_err("bad metadata")
}

#[test]
fn finds_the_sections() {
    let metadata = Metadata::parse(&image(&[bfv(), hob()])).expect("valid metadata");
    assert_eq!(metadata.sections.len(), 2);
    let bfv = &metadata.sections[0];
    assert_eq!(
        (bfv.kind, bfv.data.clone(), bfv.address, bfv.size),
        (SectionType::Bfv, 0..SIZE, BASE, SIZE as u64)
    );
    assert!(bfv.attributes.extend());
    assert_eq!(metadata.sections[1].kind, SectionType::TdHob);
}

#[test]
fn refuses_what_qemu_refuses_or_calculators_dispute() {
    let bad = |section: Vec<u8>| refuse(&[section, hob()]);
    let size = SIZE as u64;
    assert_eq!(
        bad(section(0, SIZE as u32, BASE, size, 4, 1)),
        MetadataError::SectionType {
            section: 0,
            kind: 4
        }
    );
    assert_eq!(
        bad(section(0, SIZE as u32, BASE + 1, size, 0, 1)),
        MetadataError::SectionMemory { section: 0 }
    );
    assert_eq!(
        bad(section(0, 4095, BASE, 4095, 0, 1)),
        MetadataError::SectionMemory { section: 0 }
    );
    assert_eq!(
        bad(section(0, 4096, u64::MAX - 4095, 4096, 0, 1)),
        MetadataError::SectionMemory { section: 0 }
    );
    assert_eq!(
        bad(section(0, 0, BASE, size, 0, 1)),
        MetadataError::SectionData { section: 0 }
    );
    assert_eq!(
        bad(section(4096, SIZE as u32, BASE, size, 0, 1)),
        MetadataError::SectionData { section: 0 }
    );
    assert_eq!(
        bad(section(0, 8192, BASE, 4096, 0, 1)),
        MetadataError::SectionData { section: 0 }
    );
    assert_eq!(
        bad(section(0, 4096, BASE, size, 0, 1)),
        MetadataError::SectionGap { section: 0 }
    );
    assert_eq!(
        bad(section(0, SIZE as u32, BASE, size, 0, 3)),
        MetadataError::PageAug { section: 0 }
    );
    let host = |attributes| refuse(&[bfv(), section(0, 0, HOB, 0x2000, 2, attributes)]);
    assert_eq!(host(1), MetadataError::MeasuredHostMemory { section: 1 });
    assert_eq!(
        refuse(&[bfv(), section(0, 4096, HOB, 0x2000, 3, 0)]),
        MetadataError::SectionData { section: 1 }
    );
    assert_eq!(refuse(&[bfv()]), MetadataError::SectionCount(1));
    assert_eq!(
        refuse(&[bfv(), section(0, 0, HOB, 0x2000, 3, 0)]),
        MetadataError::TdHobCount(0)
    );
    assert_eq!(refuse(&[bfv(), hob(), hob()]), MetadataError::TdHobCount(2));
    assert_eq!(
        refuse(&[bfv(), hob(), section(0, 0, HOB + 0x1000, 0x1000, 3, 0)]),
        MetadataError::Overlap {
            section: 1,
            other: 2
        }
    );
}

#[test]
fn refuses_damaged_tables() {
    let change = |at: usize, value: u8| {
        let mut image = image(&[bfv(), hob()]);
        image[at] = value;
        Metadata::parse(&image).expect_err("bad metadata")
    };
    assert_eq!(change(SIZE - 33, 0), MetadataError::NoGuidTable);
    assert_eq!(change(SIZE - 50, 17), MetadataError::GuidTable);
    assert_eq!(change(SIZE - 50, 18), MetadataError::NoTdxEntry);
    assert_eq!(change(SIZE - 68, 0), MetadataError::GuidTable);
    assert_eq!(change(SIZE - 92, 0xff), MetadataError::Signature);
    assert_eq!(change(SIZE - 91, 0xff), MetadataError::Offset(0xff_0400));
    assert_eq!(change(DESCRIPTOR, 0), MetadataError::Signature);
    assert_eq!(
        change(DESCRIPTOR + 4, 0),
        MetadataError::Length {
            length: 0,
            sections: 2
        }
    );
    assert_eq!(change(DESCRIPTOR + 8, 2), MetadataError::Version(2));
    assert_eq!(
        change(DESCRIPTOR + 12, 3),
        MetadataError::Length {
            length: 80,
            sections: 3
        }
    );
    assert_eq!(
        change(DESCRIPTOR + 15, 1),
        MetadataError::SectionCount(0x100_0002)
    );
    for size in [0, 4096, SIZE - 1] {
        assert_eq!(
            Metadata::parse(&vec![0; size]),
            Err(MetadataError::ImageSize(size))
        );
    }
    assert_eq!(Metadata::parse(&[0; SIZE]), Err(MetadataError::NoGuidTable));
}

#[test]
fn records_come_in_both_orders() {
    let image = image(&[section(0x1000, 0x2000, BASE, 0x2000, 0, 1), hob()]);
    let metadata = Metadata::parse(&image).expect("valid metadata");
    let add = |address| Record::PageAdd { address };
    let extends = |page: usize| {
        let image = &image;
        (0..16usize).map(move |chunk| {
            let offset = 0x1000 * page + 256 * chunk;
            Record::Extend {
                address: BASE + offset as u64,
                contents: &image[0x1000 + offset..][..256],
            }
        })
    };
    let hob = [add(HOB), add(HOB + 0x1000)];
    let by_page: Vec<_> = records(&image, &metadata, PageOrder::PageByPage).collect();
    let expected: Vec<_> = [add(BASE)]
        .into_iter()
        .chain(extends(0))
        .chain([add(BASE + 0x1000)])
        .chain(extends(1))
        .chain(hob)
        .collect();
    assert_eq!(by_page, expected);
    let two_pass: Vec<_> = records(&image, &metadata, PageOrder::AddThenExtend).collect();
    let expected: Vec<_> = [add(BASE), add(BASE + 0x1000)]
        .into_iter()
        .chain(extends(0))
        .chain(extends(1))
        .chain(hob)
        .collect();
    assert_eq!(two_pass, expected);
}

#[test]
fn mrtd_is_the_hash_of_the_records() {
    let image = image(&[
        section(0x3000, 0x1000, BASE, 0x1000, 0, 1),
        section(0, 0x1000, BASE + 0x1000, 0x1000, 1, 0),
        hob(),
    ]);
    let metadata = Metadata::parse(&image).expect("valid metadata");
    let head = |name: &str, address: u64| {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(16, 0);
        bytes.extend(address.to_le_bytes());
        bytes.resize(128, 0);
        bytes
    };
    let mut stream = head("MEM.PAGE.ADD", BASE);
    for chunk in 0..16 {
        stream.extend(head("MR.EXTEND", BASE + 256 * chunk));
        stream.extend(&image[0x3000 + 256 * chunk as usize..][..256]);
    }
    for address in [BASE + 0x1000, HOB, HOB + 0x1000] {
        stream.extend(head("MEM.PAGE.ADD", address));
    }
    assert_eq!(
        mrtd(&image, &metadata, PageOrder::PageByPage),
        sha384(&stream)
    );
    // With one measured page per section the two orders are the same.
    assert_eq!(
        mrtd(&image, &metadata, PageOrder::AddThenExtend),
        sha384(&stream)
    );
}

#[test]
fn every_measured_byte_counts_and_no_other() {
    let sections = [
        section(0, 0x8000, BASE, 0x8000, 0, 1),
        section(0x8000, 0x1000, BASE + 0x8000, 0x1000, 1, 0),
        hob(),
    ];
    let original = image(&sections);
    let metadata = Metadata::parse(&original).expect("valid metadata");
    let hash = |image: &[u8]| mrtd(image, &metadata, PageOrder::PageByPage);
    for (position, counts) in [(0, true), (0x7fff, true), (0x8000, false), (0x9000, false)] {
        let mut changed = original.clone();
        changed[position] ^= 1;
        assert_eq!(
            hash(&changed) != hash(&original),
            counts,
            "byte {position:#x}"
        );
    }
}

proptest! {
    #[test]
    fn no_image_panics(changes in prop::collection::vec((0usize..0x400, any::<u8>()), 0..40)) {
        let mut image = image(&[bfv(), hob()]);
        for (position, value) in changes {
            image[DESCRIPTOR + position] = value;
        }
        if let Ok(metadata) = Metadata::parse(&image) {
            prop_assert!(metadata.sections.iter().all(|section| section.data.end <= image.len()));
        }
    }
}
