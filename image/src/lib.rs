//! `vitrine.fd` from the loader's and the guest's executables: a pure function of bytes, and a gate.
//!
//! The image ends at 4 GiB. From its start: the guest executable as the loader copies it, zeros up to the loader, the loader's segments at
//! their addresses, and in the last page the image header, the TDVF metadata and the reset vector. Addresses come from
//! `loader::layout`, the metadata's form from the TDVF rules that mainline QEMU applies (`tdvf.rs`).
//!
//! Whatever would make the image depend on something unmeasured or allow it to rewrite its code is refused: undefined symbols,
//! dynamic linking, thread-local storage, writable code, sections nobody planned.
#![forbid(unsafe_code)]

mod inspect;
mod tdvf;

use std::fmt;

use loader::elf::{ElfError, Executable};
use loader::handoff::Span;
use loader::header::Header;
use loader::layout;

/// One of the two programs in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The first stage.
    Loader,
    /// What it starts.
    Guest,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loader => "loader",
            Self::Guest => "guest",
        })
    }
}

/// Why there is no image: what is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// The program is not an executable that the loader accepts.
    Executable(Program, ElfError),
    /// The program's section table cannot be read.
    SectionTable(Program),
    /// The program has a section that nobody planned.
    Section(Program, String),
    /// The program has no symbol table, so nobody can tell whether symbols are undefined.
    NoSymbols(Program),
    /// The program needs a symbol that nothing defines.
    UndefinedSymbol(Program, String),
    /// The loader has bytes where the image builder writes.
    Occupied {
        /// Address of the first such byte.
        address: u64,
    },
    /// The loader does not start at the reset vector.
    Entry(u64),
    /// The image would be larger than fits below the local APIC.
    TooLarge {
        /// Bytes it would have.
        bytes: u64,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Executable(program, error) => write!(f, "{program}: {error}"),
            Self::SectionTable(program) => {
                write!(f, "{program}: the section table is damaged or missing")
            }
            Self::Section(program, name) => write!(
                f,
                "{program}: unexpected section {name:?}; name it in link.ld or drop what needs it"
            ),
            Self::NoSymbols(program) => {
                write!(f, "{program}: no symbol table; link without stripping")
            }
            Self::UndefinedSymbol(program, name) => {
                write!(f, "{program}: undefined symbol {name:?}")
            }
            Self::Occupied { address } => write!(
                f,
                "loader: the bytes at {address:#x} belong to the image builder"
            ),
            Self::Entry(entry) => write!(
                f,
                "loader: starts at {entry:#x} instead of the reset vector {:#x}",
                layout::RESET
            ),
            Self::TooLarge { bytes } => write!(
                f,
                "the image would have {bytes} bytes, {} are possible",
                layout::IMAGE_MAX
            ),
        }
    }
}

impl std::error::Error for ImageError {}

/// Builds the image. The result depends on nothing but the two files.
///
/// # Errors
/// [`ImageError`] naming the first thing that is wrong.
pub fn build(loader_elf: &[u8], guest_elf: &[u8]) -> Result<Vec<u8>, ImageError> {
    let room = Span::between(layout::LOADER, layout::IMAGE_END);
    let loader = executable(Program::Loader, loader_elf, room)?;
    if loader.entry != layout::RESET {
        return Err(ImageError::Entry(loader.entry));
    }
    let guest = guest_as_loaded(guest_elf)?;

    let bytes = (layout::LOADER_SIZE + guest.len() as u64).next_multiple_of(layout::IMAGE_UNIT);
    let (length, true) = (bytes as usize, bytes <= layout::IMAGE_MAX) else {
        return Err(ImageError::TooLarge { bytes });
    };
    let start = layout::IMAGE_END - bytes;
    let mut image = vec![0; length];
    image[..guest.len()].copy_from_slice(&guest);
    for segment in &loader.segments {
        put(
            &mut image,
            start,
            segment.memory.start,
            &loader_elf[segment.file.clone()],
        );
    }
    for reserved in [
        Span::between(layout::HEADER, layout::METADATA_END),
        Span::between(layout::GUID_TABLE, layout::GUID_TABLE_END),
    ] {
        let room = (reserved.start - start) as usize..(reserved.end() - start) as usize;
        if let Some(offset) = image[room].iter().position(|byte| *byte != 0) {
            return Err(ImageError::Occupied {
                address: reserved.start + offset as u64,
            });
        }
    }
    // Both lengths are at most 16 MiB.
    let header = Header {
        image_length: bytes as u32,
        guest_offset: 0,
        guest_length: guest.len() as u32,
    };
    put(&mut image, start, layout::HEADER, &header.encode());
    put(
        &mut image,
        start,
        layout::METADATA,
        &tdvf::metadata(bytes as u32),
    );
    put(
        &mut image,
        start,
        layout::GUID_TABLE_END - tdvf::GUID_TABLE as u64,
        &tdvf::guid_table(),
    );
    Ok(image)
}

/// The guest executable as it stands in the image and as the loader reads it: headers and segments, without sections and symbols.
/// The compile hash is the SHA-384 of these bytes.
///
/// # Errors
/// [`ImageError`] if the executable is not one for the image.
pub fn guest_as_loaded(guest_elf: &[u8]) -> Result<Vec<u8>, ImageError> {
    let guest = executable(
        Program::Guest,
        guest_elf,
        Span::between(layout::GUEST, layout::GUEST_END),
    )?;
    let end = guest
        .segments
        .iter()
        .map(|segment| segment.file.end)
        .max()
        .unwrap_or(0);
    let headers =
        inspect::program_headers_end(guest_elf).ok_or(ImageError::SectionTable(Program::Guest))?;
    let mut loaded = guest_elf
        .get(..end.max(headers))
        .ok_or(ImageError::SectionTable(Program::Guest))?
        .to_vec();
    inspect::forget_sections(&mut loaded);
    Ok(loaded)
}

fn executable(program: Program, elf: &[u8], room: Span) -> Result<Executable<'_>, ImageError> {
    let executable =
        Executable::parse(elf, room).map_err(|error| ImageError::Executable(program, error))?;
    inspect::sections_and_symbols(program, elf)?;
    Ok(executable)
}

/// Writes `bytes` at `address` of an image that starts at `start`. The layout puts every address inside.
fn put(image: &mut [u8], start: u64, address: u64, bytes: &[u8]) {
    let offset = (address - start) as usize;
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests;
