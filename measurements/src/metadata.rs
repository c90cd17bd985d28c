//! The TDVF metadata of an image, found and checked as mainline QEMU does, and stricter where calculators are known to disagree.

use std::fmt;
use std::ops::Range;

const PAGE: u64 = 4096;
/// The image ends here.
const IMAGE_END: u64 = 1 << 32;
/// QEMU takes images in this unit only.
const IMAGE_UNIT: usize = 64 << 10;

/// GUIDs in EFI's byte order.
const FOOTER: [u8; 16] = [
    0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d,
];
const TDX_OFFSET: [u8; 16] = [
    0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2,
];
/// The footer ends this far from the end of the image.
const FOOTER_FROM_END: usize = 32;
/// A length and a GUID: the fixed part of every entry, the footer included.
const ENTRY: usize = 2 + 16;

const DESCRIPTOR: usize = 16;
const SECTION: usize = 32;
const SIGNATURE: [u8; 4] = *b"TDVF";
const VERSION: u32 = 1;
/// More sections than any image has; bounds what a hostile file makes us allocate.
const MAX_SECTIONS: u32 = 64;

/// What a section is for. Mainline QEMU knows no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionType {
    /// Boot firmware volume: code and data.
    Bfv,
    /// Configuration firmware volume.
    Cfv,
    /// Where the host describes the machine.
    TdHob,
    /// Memory with contents of the host's choice.
    TempMem,
}

impl fmt::Display for SectionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bfv => "BFV",
            Self::Cfv => "CFV",
            Self::TdHob => "TD_HOB",
            Self::TempMem => "TEMP_MEM",
        })
    }
}

/// A section's attribute bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes(pub u32);

impl Attributes {
    const EXTEND: u32 = 1;
    const PAGE_AUG: u32 = 2;

    /// Whether the contents are measured, not only the addresses.
    pub fn extend(self) -> bool {
        self.0 & Self::EXTEND != 0
    }
}

/// One section: a piece of memory that exists before the first instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What for.
    pub kind: SectionType,
    /// Its bytes in the image; empty if the host fills it.
    pub data: Range<usize>,
    /// Its guest-physical address.
    pub address: u64,
    /// Its size in memory, a multiple of 4 KiB.
    pub size: u64,
    /// Its attributes.
    pub attributes: Attributes,
}

/// The sections of an image, in the order in which they are measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// In order of the file.
    pub sections: Vec<Section>,
}

/// What is wrong with an image's metadata. Sections are counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataError {
    /// The image is empty, larger than 4 GiB or not a multiple of 64 KiB.
    ImageSize(usize),
    /// There is no GUID table at the end.
    NoGuidTable,
    /// The GUID table is longer than the image, or an entry longer than the table.
    GuidTable,
    /// The GUID table has no entry for TDX.
    NoTdxEntry,
    /// The TDX entry points outside the image.
    Offset(u32),
    /// The descriptor does not start with "TDVF".
    Signature,
    /// A version nobody knows.
    Version(u32),
    /// The descriptor's length does not fit its number of sections.
    Length {
        /// What it says.
        length: u32,
        /// How many sections it says it has.
        sections: u32,
    },
    /// Fewer than two sections, or unreasonably many.
    SectionCount(u32),
    /// A type that mainline QEMU refuses.
    SectionType {
        /// Which section.
        section: usize,
        /// Its type.
        kind: u32,
    },
    /// An address or size that is not a multiple of 4 KiB, or wraps around.
    SectionMemory {
        /// Which section.
        section: usize,
    },
    /// Bytes outside the image, missing where there must be some, or present where there must be none.
    SectionData {
        /// Which section.
        section: usize,
    },
    /// Fewer bytes than memory: QEMU copies past the section's data, and calculators disagree.
    SectionGap {
        /// Which section.
        section: usize,
    },
    /// PAGE.AUG is set: QEMU ignores it, other calculators do not.
    PageAug {
        /// Which section.
        section: usize,
    },
    /// Memory is measured whose contents the host chooses.
    MeasuredHostMemory {
        /// Which section.
        section: usize,
    },
    /// Two sections share memory.
    Overlap {
        /// The first section.
        section: usize,
        /// The second one.
        other: usize,
    },
    /// There must be exactly one TD_HOB section.
    TdHobCount(usize),
}

impl fmt::Display for MetadataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ImageSize(size) => write!(
                f,
                "an image of {size} bytes is impossible; it must be a multiple of 64 KiB"
            ),
            Self::NoGuidTable => f.write_str("no GUID table at the end: not a firmware image"),
            Self::GuidTable => f.write_str("the GUID table is damaged"),
            Self::NoTdxEntry => {
                f.write_str("the GUID table has no TDX entry: not an image for a TD")
            }
            Self::Offset(offset) => write!(
                f,
                "the TDX entry points {offset:#x} bytes before the end, outside the image"
            ),
            Self::Signature => {
                f.write_str("there is no TDVF descriptor where the TDX entry points")
            }
            Self::Version(version) => write!(f, "TDVF version {version} is unknown"),
            Self::Length { length, sections } => write!(
                f,
                "a TDVF descriptor of {length} bytes cannot have {sections} sections"
            ),
            Self::SectionCount(count) => {
                write!(f, "{count} TDVF sections; 2 to {MAX_SECTIONS} are possible")
            }
            Self::SectionType { section, kind } => write!(
                f,
                "section {section} has type {kind}, which mainline QEMU refuses"
            ),
            Self::SectionMemory { section } => {
                write!(f, "section {section} does not cover whole pages")
            }
            Self::SectionData { section } => {
                write!(f, "section {section} has the wrong bytes, or none")
            }
            Self::SectionGap { section } => {
                write!(f, "section {section} has fewer bytes than memory")
            }
            Self::PageAug { section } => write!(
                f,
                "section {section} asks for PAGE.AUG, which mainline QEMU ignores"
            ),
            Self::MeasuredHostMemory { section } => {
                write!(f, "section {section} measures bytes of the host's choice")
            }
            Self::Overlap { section, other } => write!(f, "sections {section} and {other} overlap"),
            Self::TdHobCount(count) => write!(f, "{count} TD_HOB sections instead of one"),
        }
    }
}

impl std::error::Error for MetadataError {}

impl Metadata {
    /// Where a byte of the file is loaded: the section, counted from zero, and the guest-physical address; of several places the first.
    /// `None` for a byte that no section takes.
    pub fn place(&self, offset: usize) -> Option<(usize, u64)> {
        let mut sections = self.sections.iter().enumerate();
        sections.find_map(|(index, section)| {
            let inside = section.data.contains(&offset);
            inside.then(|| {
                (
                    index,
                    section.address + (offset - section.data.start) as u64,
                )
            })
        })
    }

    /// Finds and checks the metadata.
    ///
    /// # Errors
    /// [`MetadataError`] naming the first thing that is wrong.
    pub fn parse(image: &[u8]) -> Result<Self, MetadataError> {
        if image.is_empty()
            || !image.len().is_multiple_of(IMAGE_UNIT)
            || image.len() as u64 > IMAGE_END
        {
            return Err(MetadataError::ImageSize(image.len()));
        }
        let from_end = tdx_entry(image)?;
        let start = image
            .len()
            .checked_sub(from_end as usize)
            .ok_or(MetadataError::Offset(from_end))?;
        let descriptor = image
            .get(start..)
            .filter(|rest| rest.len() >= DESCRIPTOR)
            .ok_or(MetadataError::Offset(from_end))?;
        if !descriptor.starts_with(&SIGNATURE) {
            return Err(MetadataError::Signature);
        }
        let [length, version, count] = [4, 8, 12].map(|field| number(descriptor, field, 4) as u32);
        if version != VERSION {
            return Err(MetadataError::Version(version));
        }
        if !(2..=MAX_SECTIONS).contains(&count) {
            return Err(MetadataError::SectionCount(count));
        }
        let expected = DESCRIPTOR + SECTION * count as usize;
        if length as usize != expected || descriptor.len() < expected {
            return Err(MetadataError::Length {
                length,
                sections: count,
            });
        }
        let entries = descriptor[DESCRIPTOR..expected]
            .chunks_exact(SECTION)
            .enumerate();
        let sections = entries
            .map(|(index, entry)| Section::parse(index, entry, image.len()))
            .collect::<Result<Vec<_>, _>>()?;
        check_together(&sections)?;
        Ok(Self { sections })
    }
}

/// Walks the GUID table backwards from its footer, as it is built; returns the data of the TDX entry.
fn tdx_entry(image: &[u8]) -> Result<u32, MetadataError> {
    let end = image.len() - FOOTER_FROM_END;
    if image[end - 16..end] != FOOTER {
        return Err(MetadataError::NoGuidTable);
    }
    let length = number(image, end - ENTRY, 2) as usize;
    let mut table = length
        .checked_sub(ENTRY)
        .and_then(|_| image.get(end.checked_sub(length)?..end - ENTRY))
        .ok_or(MetadataError::GuidTable)?;
    while let Some(fixed) = table.len().checked_sub(ENTRY) {
        let length = number(table, fixed, 2) as usize;
        let start = table
            .len()
            .checked_sub(length)
            .filter(|_| length >= ENTRY)
            .ok_or(MetadataError::GuidTable)?;
        let (rest, entry) = table.split_at(start);
        if entry.ends_with(&TDX_OFFSET) {
            return if length == ENTRY + 4 {
                Ok(number(entry, 0, 4) as u32)
            } else {
                Err(MetadataError::GuidTable)
            };
        }
        table = rest;
    }
    Err(MetadataError::NoTdxEntry)
}

impl Section {
    fn parse(section: usize, entry: &[u8], image: usize) -> Result<Self, MetadataError> {
        let (offset, raw) = (number(entry, 0, 4) as usize, number(entry, 4, 4) as usize);
        let (address, size) = (number(entry, 8, 8), number(entry, 16, 8));
        let (kind, attributes) = (
            number(entry, 24, 4) as u32,
            Attributes(number(entry, 28, 4) as u32),
        );
        let kind = match kind {
            0 => SectionType::Bfv,
            1 => SectionType::Cfv,
            2 => SectionType::TdHob,
            3 => SectionType::TempMem,
            kind => return Err(MetadataError::SectionType { section, kind }),
        };
        let whole_pages = address.is_multiple_of(PAGE) && size.is_multiple_of(PAGE) && size > 0;
        if !whole_pages || address.checked_add(size).is_none() {
            return Err(MetadataError::SectionMemory { section });
        }
        if attributes.0 & Attributes::PAGE_AUG != 0 {
            return Err(MetadataError::PageAug { section });
        }
        let from_image = matches!(kind, SectionType::Bfv | SectionType::Cfv);
        if from_image != (raw != 0) || raw as u64 > size {
            return Err(MetadataError::SectionData { section });
        }
        if !from_image {
            return match attributes.extend() {
                true => Err(MetadataError::MeasuredHostMemory { section }),
                false => Ok(Self {
                    kind,
                    data: 0..0,
                    address,
                    size,
                    attributes,
                }),
            };
        }
        if raw as u64 != size {
            return Err(MetadataError::SectionGap { section });
        }
        let end = offset
            .checked_add(raw)
            .filter(|end| *end <= image)
            .ok_or(MetadataError::SectionData { section })?;
        Ok(Self {
            kind,
            data: offset..end,
            address,
            size,
            attributes,
        })
    }
}

fn check_together(sections: &[Section]) -> Result<(), MetadataError> {
    let count = sections
        .iter()
        .filter(|section| section.kind == SectionType::TdHob)
        .count();
    if count != 1 {
        return Err(MetadataError::TdHobCount(count));
    }
    for (other, second) in sections.iter().enumerate() {
        let overlaps = |first: &Section| {
            first.address < second.address + second.size
                && second.address < first.address + first.size
        };
        if let Some(section) = sections[..other].iter().position(overlaps) {
            return Err(MetadataError::Overlap { section, other });
        }
    }
    Ok(())
}

/// A little-endian number; the callers checked the bounds.
fn number(bytes: &[u8], offset: usize, length: usize) -> u64 {
    bytes[offset..offset + length]
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}
