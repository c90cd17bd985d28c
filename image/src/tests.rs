use crate::*;
use loader::elf::ElfError;
use measurements::{Metadata, SectionType};
use proptest::prelude::*;

const RX: u32 = 5;
const R: u32 = 4;
const RW: u32 = 6;

/// A hand-made executable: segments of (kind, flags, address, contents, size in memory), sections by name, symbols of (name, section).
struct Elf {
    entry: u64,
    segments: Vec<(u32, u32, u64, Vec<u8>, u64)>,
    sections: Vec<&'static str>,
    symbols: Vec<(&'static str, u16)>,
}

impl Elf {
    fn guest() -> Self {
        let segments = vec![
            (1, RX, layout::GUEST, vec![0xf4; 0x1234], 0x1234),
            (1, R, layout::GUEST + 0x2000, vec![1; 0x800], 0x800),
            (1, RW, layout::GUEST + 0x3000, vec![2; 0x10], 0x5000),
        ];
        Self {
            entry: layout::GUEST,
            segments,
            sections: vec![".text", ".rodata", ".data", ".bss"],
            symbols: vec![("guest_entry", 1)],
        }
    }

    fn loader() -> Self {
        let segments = vec![
            (1, RW, layout::DATA, vec![3; 0x2000], 0x3000),
            (1, RX, layout::TEXT, vec![4; 0x100], 0x100),
            (1, RX, layout::RESET, vec![5; 16], 16),
        ];
        Self {
            entry: layout::RESET,
            segments,
            sections: vec![".data", ".text", ".reset"],
            symbols: vec![("reset_vector", 3)],
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut file = vec![0; 64 + 56 * self.segments.len()];
        let mut programs = vec![];
        for (kind, flags, address, contents, memory) in &self.segments {
            let offset = file.len() as u64;
            file.extend(contents);
            programs.extend(
                [
                    &kind.to_le_bytes()[..],
                    &flags.to_le_bytes(),
                    &offset.to_le_bytes(),
                ]
                .concat(),
            );
            for value in [*address, *address, contents.len() as u64, *memory, 4096] {
                programs.extend(value.to_le_bytes());
            }
        }
        let mut names = vec![0];
        let mut name = |text: &str| {
            let offset = names.len() as u32;
            names.extend(text.bytes().chain([0]));
            offset
        };
        let mut symbols = vec![0; 24];
        for (symbol, section) in &self.symbols {
            symbols.extend(
                [
                    &name(symbol).to_le_bytes()[..],
                    &[0x10, 0],
                    &section.to_le_bytes(),
                    &[0; 16],
                ]
                .concat(),
            );
        }
        let mut headers = vec![[0; 64]];
        let mut header = |text: &str, kind: u32, offset: usize, length: usize, link: u32| {
            let mut bytes = [0; 64];
            bytes[..4].copy_from_slice(&name(text).to_le_bytes());
            bytes[4..8].copy_from_slice(&kind.to_le_bytes());
            bytes[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            bytes[32..40].copy_from_slice(&(length as u64).to_le_bytes());
            bytes[40..44].copy_from_slice(&link.to_le_bytes());
            headers.push(bytes);
        };
        for section in &self.sections {
            header(section, 1, 64, 0, 0);
        }
        let strings = self.sections.len() as u32 + 2;
        header(".symtab", 2, file.len(), symbols.len(), strings);
        file.extend(&symbols);
        header(".strtab", 3, file.len(), 0, 0);
        let strings_header = headers.len() - 1;
        headers[strings_header][32..40].copy_from_slice(&(names.len() as u64).to_le_bytes());
        file.extend(&names);
        let table = file.len() as u64;
        file.extend(headers.concat());

        file[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        file[16..20].copy_from_slice(&[2, 0, 62, 0]);
        file[24..32].copy_from_slice(&self.entry.to_le_bytes());
        file[32] = 64;
        file[40..48].copy_from_slice(&table.to_le_bytes());
        for (field, value) in [
            (54, 56),
            (56, self.segments.len()),
            (58, 64),
            (60, headers.len()),
            (62, strings as usize),
        ] {
            file[field..field + 2].copy_from_slice(&(value as u16).to_le_bytes());
        }
        file[64..64 + programs.len()].copy_from_slice(&programs);
        file
    }
}

fn built() -> Vec<u8> {
    build(&Elf::loader().bytes(), &Elf::guest().bytes()).expect("good executables")
}

fn refuse_guest(change: impl FnOnce(&mut Elf)) -> ImageError {
    let mut guest = Elf::guest();
    change(&mut guest);
    build(&Elf::loader().bytes(), &guest.bytes()).expect_err("a bad guest")
}

#[test]
fn everything_is_in_its_place() {
    let image = built();
    assert_eq!(image.len() as u64 % layout::IMAGE_UNIT, 0);
    let at = |address: u64, length: usize| {
        &image[image.len() - (layout::IMAGE_END - address) as usize..][..length]
    };
    assert_eq!(at(layout::RESET, 16), [5; 16]);
    assert_eq!(at(layout::TEXT, 0x101), [&[4; 0x100][..], &[0]].concat());
    assert_eq!(at(layout::DATA + 0x1fff, 2), [3, 0]);

    let header = Header::decode(
        at(layout::HEADER, loader::header::SIZE)
            .try_into()
            .expect("the size"),
    )
    .expect("a header");
    assert_eq!(header.image_length as usize, image.len());
    let guest = at(header.guest_start(), header.guest_length as usize);
    assert_eq!(
        guest,
        guest_as_loaded(&Elf::guest().bytes()).expect("a good guest")
    );
    let room = Span::between(layout::GUEST, layout::GUEST_END);
    let executable = Executable::parse(guest, room).expect("what the loader does");
    assert_eq!(guest[executable.segments[1].file.clone()], [1; 0x800]);
    assert_eq!(guest.len(), executable.segments[2].file.end);
}

#[test]
fn the_metadata_says_what_it_should() {
    let image = built();
    let metadata = Metadata::parse(&image).expect("QEMU's rules");
    let [bfv, hob] = &metadata.sections[..] else {
        panic!("two sections")
    };
    assert_eq!((bfv.kind, hob.kind), (SectionType::Bfv, SectionType::TdHob));
    assert_eq!(
        (bfv.data.clone(), bfv.address),
        (0..image.len(), layout::IMAGE_END - image.len() as u64)
    );
    assert!(bfv.attributes.extend() && !hob.attributes.extend());
    assert_eq!(
        (hob.address, hob.size),
        (layout::TD_HOB, layout::TD_HOB_SIZE)
    );
}

#[test]
fn symbols_do_not_change_the_image() {
    let mut guest = Elf::guest();
    guest.symbols.push(("another", 1));
    assert_eq!(build(&Elf::loader().bytes(), &guest.bytes()), Ok(built()));
}

#[test]
fn bad_guests_are_named() {
    use ImageError::*;
    let guest = Program::Guest;
    assert_eq!(
        refuse_guest(|elf| elf.symbols.push(("open", 0))),
        UndefinedSymbol(guest, "open".into())
    );
    assert_eq!(
        refuse_guest(|elf| elf.sections.push(".tdata")),
        Section(guest, ".tdata".into())
    );
    assert_eq!(
        refuse_guest(|elf| elf.sections.push(".dynamic")),
        Section(guest, ".dynamic".into())
    );
    for kind in [2, 3, 7] {
        let error = refuse_guest(|elf| elf.segments.push((kind, R, 0, vec![], 0)));
        assert_eq!(error, Executable(guest, ElfError::UnexpectedKind(kind)));
    }
    let error = refuse_guest(|elf| elf.segments[2].1 = 7);
    assert_eq!(
        error,
        Executable(
            guest,
            ElfError::Flags {
                address: layout::GUEST + 0x3000,
                flags: 7
            }
        )
    );
    let error = refuse_guest(|elf| elf.segments[0].2 = 0x1000);
    assert!(matches!(
        error,
        Executable(Program::Guest, ElfError::Placement(_))
    ));
    let error = refuse_guest(|elf| {
        elf.segments[1] = (1, R, layout::GUEST + 0x2000, vec![0; 16 << 20], 16 << 20)
    });
    assert!(matches!(
        error,
        Executable(Program::Guest, ElfError::SharedPage(..))
    ));
    let error = refuse_guest(|elf| {
        elf.segments[2] = (1, RW, layout::GUEST + 0x3000, vec![0; 16 << 20], 16 << 20)
    });
    assert!(matches!(error, TooLarge { .. }));
}

#[test]
fn stripped_files_are_refused() {
    let mut file = Elf::guest().bytes();
    let table = u64::from_le_bytes(file[40..48].try_into().expect("eight bytes")) as usize;
    file[table + 64 * 5 + 4] = 3;
    assert_eq!(
        build(&Elf::loader().bytes(), &file),
        Err(ImageError::NoSymbols(Program::Guest))
    );
    file[60] = 0;
    assert_eq!(
        build(&Elf::loader().bytes(), &file),
        Err(ImageError::SectionTable(Program::Guest))
    );
}

#[test]
fn the_loader_leaves_room_for_the_metadata() {
    let build =
        |loader: &Elf| build(&loader.bytes(), &Elf::guest().bytes()).expect_err("a bad loader");
    let mut loader = Elf::loader();
    loader.segments[2] = (1, RX, layout::TOP, vec![0xcc; 4096], 4096);
    assert_eq!(
        build(&loader),
        ImageError::Occupied {
            address: layout::HEADER
        }
    );
    let mut loader = Elf::loader();
    loader.entry = layout::TEXT;
    assert_eq!(build(&loader), ImageError::Entry(layout::TEXT));
    loader.segments[0].2 = layout::DATA - 4096;
    assert!(matches!(
        build(&loader),
        ImageError::Executable(Program::Loader, ElfError::Placement(_))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn damaged_files_give_an_error_or_an_image(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        in_headers: bool,
        cut in prop::option::of(any::<prop::sample::Index>()),
        guest: bool,
    ) {
        let (mut loader, mut other) = (Elf::loader().bytes(), Elf::guest().bytes());
        let file = if guest { &mut other } else { &mut loader };
        let tail = file.len() - 64 * 8;
        for (index, value) in changes {
            let position = if in_headers { index.index(64 + 3 * 56) } else { tail + index.index(64 * 8) };
            file[position] = value;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        if let Ok(image) = build(&loader, &other) {
            prop_assert!(Metadata::parse(&image).is_ok());
            prop_assert!(image.len() as u64 <= layout::IMAGE_MAX);
        }
    }
}
