//! What the loader cannot see in an executable, because it reads only program headers: sections and symbols.

use crate::{ImageError, Program};

/// Sections that the two linker scripts produce.
const SECTIONS: [&str; 10] = [
    ".text",
    ".rodata",
    ".got",
    ".data",
    ".bss",
    ".real_mode",
    ".reset",
    ".symtab",
    ".strtab",
    ".shstrtab",
];

const SECTION_HEADER: usize = 64;
const SYMBOL: usize = 24;
const SHT_SYMTAB: u64 = 2;
const SHT_NOBITS: u64 = 8;

struct Section<'a> {
    name: u64,
    kind: u64,
    link: u64,
    /// Empty for sections without bytes in the file.
    bytes: &'a [u8],
}

/// Refuses sections nobody planned and symbols nobody defined.
pub fn sections_and_symbols(program: Program, elf: &[u8]) -> Result<(), ImageError> {
    let damaged = ImageError::SectionTable(program);
    let sections = sections(elf).ok_or(damaged.clone())?;
    let names = number(elf, 62, 2)
        .and_then(|index| sections.get(index as usize))
        .ok_or(damaged.clone())?
        .bytes;
    // The first header is always empty.
    for section in sections.iter().skip(1) {
        let name = text(names, section.name).ok_or(damaged.clone())?;
        if !SECTIONS.contains(&name.as_str()) {
            return Err(ImageError::Section(program, name));
        }
    }
    let symbols = sections
        .iter()
        .find(|section| section.kind == SHT_SYMTAB)
        .ok_or(ImageError::NoSymbols(program))?;
    let names = sections
        .get(symbols.link as usize)
        .ok_or(damaged.clone())?
        .bytes;
    // The first symbol is always empty.
    for symbol in symbols.bytes.chunks_exact(SYMBOL).skip(1) {
        const UNDEFINED: u64 = 0;
        if number(symbol, 6, 2) == Some(UNDEFINED) {
            let name = number(symbol, 0, 4)
                .and_then(|name| text(names, name))
                .ok_or(damaged.clone())?;
            return Err(ImageError::UndefinedSymbol(program, name));
        }
    }
    Ok(())
}

/// Where the program headers end in the file.
pub fn program_headers_end(elf: &[u8]) -> Option<usize> {
    let (start, size, count) = (
        number(elf, 32, 8)?,
        number(elf, 54, 2)?,
        number(elf, 56, 2)?,
    );
    usize::try_from(start.checked_add(size * count)?).ok()
}

/// Takes the reference to the section table out of the file header: the table is left behind.
pub fn forget_sections(elf: &mut [u8]) {
    for field in [40..48, 58..60, 60..62, 62..64] {
        if let Some(bytes) = elf.get_mut(field) {
            bytes.fill(0);
        }
    }
    // The size of a section header stays what the format says it is.
    if let Some(size) = elf.get_mut(58) {
        *size = SECTION_HEADER as u8;
    }
}

fn sections(elf: &[u8]) -> Option<Vec<Section<'_>>> {
    let start = usize::try_from(number(elf, 40, 8)?).ok()?;
    let (size, count) = (number(elf, 58, 2)? as usize, number(elf, 60, 2)? as usize);
    if size != SECTION_HEADER || count == 0 {
        return None;
    }
    let table = elf.get(start..start.checked_add(size * count)?)?;
    let section = |header: &[u8]| {
        let kind = number(header, 4, 4)?;
        let (offset, length) = (
            usize::try_from(number(header, 24, 8)?).ok()?,
            usize::try_from(number(header, 32, 8)?).ok()?,
        );
        let bytes = if kind == SHT_NOBITS {
            &[]
        } else {
            elf.get(offset..offset.checked_add(length)?)?
        };
        Some(Section {
            name: number(header, 0, 4)?,
            kind,
            link: number(header, 40, 4)?,
            bytes,
        })
    };
    table.chunks_exact(SECTION_HEADER).map(section).collect()
}

/// The zero-terminated name at `offset` of a string table.
fn text(names: &[u8], offset: u64) -> Option<String> {
    let rest = names.get(usize::try_from(offset).ok()?..)?;
    let length = rest.iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(&rest[..length]).into_owned())
}

/// A little-endian number of up to eight bytes.
fn number(bytes: &[u8], offset: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(offset..offset.checked_add(length)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)),
    )
}
