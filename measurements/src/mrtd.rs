//! MRTD: the TDX module's running SHA-384 over how the TD was built (`tdh_mem_page_add.c`, `tdh_mr_extend.c` of the module).

use sha2::{Digest, Sha384};

use crate::Hash;
use crate::metadata::{Metadata, Section};

const PAGE: u64 = 4096;
/// Contents are measured in pieces of this size.
const CHUNK: usize = 256;
const RECORD: usize = 128;

/// In which order a host adds the pages of a section and extends their contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageOrder {
    /// Each page is added and extended before the next one: mainline KVM, 6.16 and later.
    PageByPage,
    /// All pages of a section are added, then all are extended: the out-of-tree hosts of QEMU 8.
    AddThenExtend,
}

/// One step of building the TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A page exists. Its contents do not count.
    PageAdd {
        /// Guest-physical address.
        address: u64,
    },
    /// 256 bytes of a page are measured.
    Extend {
        /// Guest-physical address.
        address: u64,
        /// The 256 bytes.
        contents: &'a [u8],
    },
}

/// The steps in order.
pub fn records<'a>(
    image: &'a [u8],
    metadata: &'a Metadata,
    order: PageOrder,
) -> impl Iterator<Item = Record<'a>> {
    metadata
        .sections
        .iter()
        .flat_map(move |section| section_records(image, section, order))
}

impl Record<'_> {
    /// "MEM.PAGE.ADD" or "MR.EXTEND".
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PageAdd { .. } => "MEM.PAGE.ADD",
            Self::Extend { .. } => "MR.EXTEND",
        }
    }

    /// The guest-physical address it is about.
    pub const fn address(&self) -> u64 {
        match *self {
            Self::PageAdd { address } | Self::Extend { address, .. } => address,
        }
    }
}

/// MRTD of the TD that a host builds from `image`, whose metadata is `metadata`.
pub fn mrtd(image: &[u8], metadata: &Metadata, order: PageOrder) -> Hash {
    let mut hash = Sha384::new();
    for record in records(image, metadata, order) {
        hash.update(head(&record));
        if let Record::Extend { contents, .. } = record {
            hash.update(contents);
        }
    }
    hash.finalize().into()
}

pub(crate) fn section_records<'a>(
    image: &'a [u8],
    section: &'a Section,
    order: PageOrder,
) -> Box<dyn Iterator<Item = Record<'a>> + 'a> {
    let add = move |page: u64| Record::PageAdd {
        address: section.address + page * PAGE,
    };
    let extend = move |page: u64| {
        let start = section.data.start + (page * PAGE) as usize;
        // `Metadata::parse` made sure that a section with contents has as many bytes as memory; a shorter image simply ends early.
        let contents = image
            .get(start..start + PAGE as usize)
            .filter(|_| section.attributes.extend())
            .unwrap_or(&[]);
        contents
            .chunks_exact(CHUNK)
            .enumerate()
            .map(move |(chunk, contents)| Record::Extend {
                address: section.address + page * PAGE + (chunk * CHUNK) as u64,
                contents,
            })
    };
    let pages = 0..section.size / PAGE;
    match order {
        PageOrder::PageByPage => {
            Box::new(pages.flat_map(move |page| core::iter::once(add(page)).chain(extend(page))))
        }
        PageOrder::AddThenExtend => Box::new(pages.clone().map(add).chain(pages.flat_map(extend))),
    }
}

/// The 128 bytes that a step contributes besides contents: its name, and the address at byte 16.
fn head(record: &Record<'_>) -> [u8; RECORD] {
    let mut head = [0; RECORD];
    let name = record.name().as_bytes();
    head[..name.len()].copy_from_slice(name);
    head[16..24].copy_from_slice(&record.address().to_le_bytes());
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification of TDH.MEM.PAGE.ADD: the measurement is extended with a buffer of 128 bytes, of which bytes 0 to 11 hold the ASCII
    /// text MEM.PAGE.ADD, bytes 16 to 23 the page's guest-physical address, least significant byte first, and all others zero. Of
    /// TDH.MR.EXTEND: the same with the text MR.EXTEND in bytes 0 to 8 and the address of the chunk, followed by the 256 bytes of the chunk.
    /// (Intel TDX Module Base Architecture Specification, "MRTD: Build-Time Measurement Register".)
    #[test]
    fn records_are_laid_out_as_specified() {
        let address: u64 = 0x1122_3344_5566_7000;
        let specified = |text: &[u8], address: u64| {
            core::array::from_fn::<u8, 128, _>(|byte| match byte {
                16..=23 => (address >> (8 * (byte - 16))) as u8,
                _ => text.get(byte).copied().unwrap_or(0),
            })
        };
        let add = head(&Record::PageAdd { address });
        assert_eq!(add, specified(b"MEM.PAGE.ADD", address));
        assert_eq!(add[..12], *b"MEM.PAGE.ADD");
        assert_eq!(add[12..16], [0; 4]);
        let bytes = [0x00, 0x70, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11];
        assert_eq!(add[16..24], bytes);
        assert_eq!(add[24..], [0; 104]);
        let extend = head(&Record::Extend {
            address: address + 0x100,
            contents: &[0xff; CHUNK],
        });
        assert_eq!(extend, specified(b"MR.EXTEND", address + 0x100));
        assert_eq!(extend[..9], *b"MR.EXTEND");
        assert_eq!(extend[9..16], [0; 7]);
        assert_eq!(extend[16..18], [0x00, 0x71]);
    }
}
