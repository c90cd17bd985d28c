use std::path::Path;
use std::process::Command;

use crate::handmade::{BASE, DESCRIPTOR, HOB, SIZE, bfv, examples, hob, image, section};
use crate::*;
use proptest::prelude::*;

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

#[test]
fn a_difference_is_found_in_its_page() {
    let sections = [
        section(0x2000, 0x3000, BASE, 0x3000, 0, 1),
        section(0x8000, 0x1000, BASE + 0x8000, 0x1000, 1, 0),
        hob(),
    ];
    let compare = |other: &[u8], order| {
        let original = image(&sections);
        let metadata = Metadata::parse(&original).expect("valid metadata");
        let others = Metadata::parse(other).expect("valid metadata");
        diff([(&original, &metadata), (other, &others)], order)
    };
    for order in [PageOrder::PageByPage, PageOrder::AddThenExtend] {
        assert_eq!(compare(&image(&sections), order), None);
        let mut changed = image(&sections);
        changed[0x8000] ^= 1;
        assert_eq!(compare(&changed, order), None, "not measured");
        changed[0x4fff] ^= 1;
        changed[0x3123] ^= 1;
        let found = compare(&changed, order).expect("a difference");
        // One page, or all three of the section, were added before; the first page's 16 pieces are equal, and one of the second.
        let added = match order {
            PageOrder::PageByPage => 2,
            PageOrder::AddThenExtend => 3,
        };
        assert_eq!(
            found,
            Divergence {
                record: added + 16 + 1,
                sections: [Some(0); 2],
                kind: Some(SectionType::Bfv),
                cause: Cause::Contents {
                    address: BASE + 0x1123,
                    offsets: [0x3123; 2],
                },
            }
        );
        assert_eq!(
            found.to_string(),
            format!(
                "MRTD, record {}, section 0 (BFV), page 0xffff1000: the contents differ from 0xffff1123 on, byte 0x3123 of the files",
                added + 17
            )
        );
    }
    let order = PageOrder::PageByPage;
    let moved = [sections[0].clone(), hob(), sections[1].clone()];
    let found = compare(&image(&moved), order).expect("a difference");
    assert_eq!((found.sections, found.kind), ([Some(1); 2], None));
    assert_eq!(
        found.cause,
        Cause::Step {
            steps: [("MEM.PAGE.ADD", BASE + 0x8000), ("MEM.PAGE.ADD", HOB)]
        }
    );
    let longer = [&sections[..], &[section(0, 0, 0, 0x1000, 3, 0)]].concat();
    let found = compare(&image(&longer), order).expect("a difference");
    assert_eq!(found.cause, Cause::End { image: 0 });
    assert_eq!((found.sections, found.page()), ([None, Some(3)], None));
}

/// Every byte of such an image is in exactly one record, so that none can change and MRTD not.
#[test]
fn every_byte_of_an_image_that_is_measured_whole_is_in_one_record() {
    let image = image(&[bfv(), hob()]);
    let metadata = Metadata::parse(&image).expect("valid metadata");
    for order in [PageOrder::PageByPage, PageOrder::AddThenExtend] {
        let extended: Vec<u8> = records(&image, &metadata, order)
            .filter_map(|record| match record {
                Record::Extend { contents, .. } => Some(contents),
                Record::PageAdd { .. } => None,
            })
            .flatten()
            .copied()
            .collect();
        assert!(extended == image);
    }
}

#[test]
fn the_first_byte_that_differs_is_found_in_its_page() {
    let sections = [section(0x2000, 0x3000, BASE, 0x3000, 0, 1), hob()];
    let original = image(&sections);
    let metadata = Metadata::parse(&original).expect("valid metadata");
    assert_eq!(metadata.place(0x2000), Some((0, BASE)));
    assert_eq!(metadata.place(0x4fff), Some((0, BASE + 0x2fff)));
    for offset in [0, 0x1fff, 0x5000, SIZE] {
        assert_eq!(metadata.place(offset), None);
    }
    assert_eq!(first_difference(&original, &original), None);
    assert_eq!(first_difference(&original, &original[..9]), Some(9));
    let mut changed = original.clone();
    changed[0x2345] ^= 1;
    changed[0x3456] ^= 1;
    assert_eq!(first_difference(&original, &changed), Some(0x2345));
}

/// What the Python program beside this crate says of an image.
fn python(arguments: &[&str]) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/mrtd.py");
    let output = Command::new("python3")
        .arg(program)
        .args(arguments)
        .output()
        .expect("python3");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn agree(image: &[u8], path: &str) {
    let said: serde_json::Value = serde_json::from_str(&python(&[path])).expect("JSON");
    let metadata = Metadata::parse(image).expect("valid metadata");
    let value = |order| Hex(mrtd(image, &metadata, order)).to_string();
    assert_eq!(said["sha384"], Hex(sha384(image)).to_string());
    assert_eq!(said["mrtd"]["page_by_page"], value(PageOrder::PageByPage));
    assert_eq!(
        said["mrtd"]["add_then_extend"],
        value(PageOrder::AddThenExtend)
    );
}

#[test]
fn images_made_by_hand_measure_as_computed_elsewhere_and_python_agrees() {
    for (number, example) in examples().into_iter().enumerate() {
        let image = image(&example.sections);
        let measured = ImageMeasurement::of(&image).expect("valid metadata").mrtd;
        assert_eq!(measured.page_by_page.to_string(), example.mrtd[0]);
        assert_eq!(measured.add_then_extend.to_string(), example.mrtd[1]);
        let path = std::env::temp_dir().join(format!("mrtd-{}-{number}.fd", std::process::id()));
        std::fs::write(&path, &image).expect("write an image");
        agree(&image, path.to_str().expect("a path in UTF-8"));
        std::fs::remove_file(&path).expect("remove it");
    }
}

/// An image we did not make: several sections of every type, not in order of address, one with contents that are not measured.
#[test]
fn python_agrees_about_debians_ovmf() {
    const OVMF: &str = "/usr/share/ovmf/OVMF.fd";
    let Ok(image) = std::fs::read(OVMF) else {
        assert!(
            std::env::var("VITRINE_REQUIRE_ORACLES").as_deref() != Ok("1"),
            "{OVMF} is not here"
        );
        eprintln!("SKIPPED: {OVMF} is not here (Debian package ovmf)");
        return;
    };
    agree(&image, OVMF);
    expect(&image);
    let metadata = Metadata::parse(&image).expect("valid metadata");
    assert!(metadata.sections.len() > 4);
    assert!(
        !metadata
            .sections
            .is_sorted_by_key(|section| section.address)
    );
}

/// Images by the SHA-384 of the file, with the two values of MRTD: page by page, and all added first.
const EXPECTED: [[&str; 3]; 1] = [[
    // Debian's ovmf 2022.11-6+deb12u2
    "fa0dd56f4e3156e03cb377d56b5785bda51999a9c01fcf4e3d00e8848d6fe02a94d95e2c1fab707a000bb08674a7ce6a",
    "4c7206f0f483c524f12c366c711e9049030a8d47c471ee5aa9c4999a08de4057fb887fed0744d5631a212967fb231c47",
    "acccbcc870a381adab0d3919d90a7f268ac3b0364771f202ed4bb4e892d045b33db3b32e6924cba830a724eed443f7e1",
]];

fn expect(image: &[u8]) {
    let measured = ImageMeasurement::of(image).expect("valid metadata");
    let file = measured.sha384.to_string();
    if let Some([_, by_page, added]) = EXPECTED.iter().find(|[known, _, _]| *known == file) {
        assert_eq!(measured.mrtd.page_by_page.to_string(), *by_page);
        assert_eq!(measured.mrtd.add_then_extend.to_string(), *added);
    }
}

#[test]
fn python_agrees_about_extensions() {
    use attestation::events::{UNEXTENDED, extend};
    let digests = [[7; 48], [0xa5; 48]];
    let value = digests
        .iter()
        .fold(UNEXTENDED, |register, digest| extend(&register, digest));
    let texts = digests.map(|digest| Hex(digest).to_string());
    assert_eq!(
        python(&["--rtmr", &texts[0], &texts[1]]).trim(),
        Hex(value).to_string()
    );
}

proptest! {
    #[test]
    fn a_changed_byte_changes_mrtd_and_its_page_is_found(position in 0..SIZE, change in 1u8..) {
        let original = image(&[bfv(), hob()]);
        let metadata = Metadata::parse(&original).expect("valid metadata");
        let mut changed = original.clone();
        changed[position] ^= change;
        // The metadata itself is part of the image; where it is damaged, no host starts a TD.
        if let Ok(others) = Metadata::parse(&changed) {
            for order in [PageOrder::PageByPage, PageOrder::AddThenExtend] {
                prop_assert_ne!(mrtd(&changed, &others, order), mrtd(&original, &metadata, order));
                let found = diff([(&original, &metadata), (&changed, &others)], order);
                prop_assert!(found.is_some());
                if metadata == others {
                    let page = BASE + position as u64 / 4096 * 4096;
                    prop_assert_eq!(found.and_then(|found| found.page()), Some(page));
                }
            }
        }
        let difference = first_difference(&original, &changed).and_then(|offset| metadata.place(offset));
        prop_assert_eq!(difference, Some((0, BASE + position as u64)));
    }

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
