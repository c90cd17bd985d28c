//! Why two images measure differently: the first step of building the TD in which they part.

use std::fmt;

use crate::metadata::{Metadata, SectionType};
use crate::mrtd::{PageOrder, Record, section_records};
use crate::register::Register;

const PAGE: u64 = 4096;

/// The first step in which two launches differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// How many steps are equal before it.
    pub record: usize,
    /// The section it belongs to in each image, counted from zero; `None` where an image has no more steps.
    pub sections: [Option<usize>; 2],
    /// What that section is for, where both have one and agree.
    pub kind: Option<SectionType>,
    /// What differs.
    pub cause: Cause,
}

/// What differs in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The same piece of the same page has other contents.
    Contents {
        /// Guest-physical address of the first byte that differs.
        address: u64,
        /// Where that byte is in each file.
        offsets: [usize; 2],
    },
    /// The steps are of different kinds, or about different pages.
    Step {
        /// Name and guest-physical address of each.
        steps: [(&'static str, u64); 2],
    },
    /// One image has fewer steps.
    End {
        /// Which image ends first: 0 or 1.
        image: usize,
    },
}

impl Divergence {
    /// The register in which it shows.
    pub const fn register(&self) -> Register {
        Register::Mrtd
    }

    /// The page it is about: of the first image, or of the second where the first has ended.
    pub fn page(&self) -> Option<u64> {
        let address = match self.cause {
            Cause::Contents { address, .. } => address,
            Cause::Step { steps } => steps[0].1,
            Cause::End { .. } => return None,
        };
        Some(address / PAGE * PAGE)
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, record {}", self.register(), self.record)?;
        match self.sections {
            [Some(one), Some(other)] if one == other => write!(f, ", section {one}")?,
            [Some(one), Some(other)] => write!(f, ", sections {one} and {other}")?,
            _ => {}
        }
        if let Some(kind) = self.kind {
            write!(f, " ({kind})")?;
        }
        if let Some(page) = self.page() {
            write!(f, ", page {page:#x}")?;
        }
        match self.cause {
            Cause::Contents {
                address,
                offsets: [one, other],
            } if one == other => write!(
                f,
                ": the contents differ from {address:#x} on, byte {one:#x} of the files"
            ),
            Cause::Contents {
                address,
                offsets: [one, other],
            } => write!(
                f,
                ": the contents differ from {address:#x} on, bytes {one:#x} and {other:#x} of the files"
            ),
            Cause::Step {
                steps: [(name, address), (other, elsewhere)],
            } => write!(
                f,
                ": {name} of {address:#x} in the first, {other} of {elsewhere:#x} in the second"
            ),
            Cause::End { image } => write!(
                f,
                ": the {} has no more records",
                ["first", "second"][image]
            ),
        }
    }
}

/// The first byte in which two files differ, or where the shorter one ends; `None` if they are the same.
pub fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    let equal = one
        .iter()
        .zip(other)
        .take_while(|(one, other)| one == other)
        .count();
    (equal < one.len().max(other.len())).then_some(equal)
}

/// The first step in which the launches of two images differ; `None` if both measure the same, which images may that differ only where
/// nothing is measured.
pub fn diff(images: [(&[u8], &Metadata); 2], order: PageOrder) -> Option<Divergence> {
    let [one, other] = images;
    let mut steps = [steps(one, order), steps(other, order)];
    let mut record = 0;
    loop {
        let [first, second] = &mut steps;
        let pair = [first.next(), second.next()];
        let sections = pair.map(|step| step.map(|(section, _)| section));
        let cause = match pair {
            [None, None] => return None,
            [None, Some(_)] => Cause::End { image: 0 },
            [Some(_), None] => Cause::End { image: 1 },
            [Some((_, first)), Some((_, second))] if first == second => {
                record += 1;
                continue;
            }
            [Some((section, first)), Some((elsewhere, second))] => {
                let starts = [(one.1, section, first), (other.1, elsewhere, second)]
                    .map(|(metadata, section, record)| offset(metadata, section, &record));
                cause(first, second, starts)
            }
        };
        let kind = |(_, metadata): (&[u8], &Metadata), section: Option<usize>| {
            section.and_then(|section| Some(metadata.sections.get(section)?.kind))
        };
        let kinds = [kind(one, sections[0]), kind(other, sections[1])];
        return Some(Divergence {
            record,
            sections,
            kind: kinds[0].filter(|_| kinds[0] == kinds[1]),
            cause,
        });
    }
}

/// The steps of one launch with the section each belongs to.
fn steps<'a>(
    (image, metadata): (&'a [u8], &'a Metadata),
    order: PageOrder,
) -> impl Iterator<Item = (usize, Record<'a>)> {
    let sections = metadata.sections.iter().enumerate();
    sections.flat_map(move |(index, section)| {
        section_records(image, section, order).map(move |record| (index, record))
    })
}

/// Where a step's contents begin in the file.
fn offset(metadata: &Metadata, section: usize, record: &Record<'_>) -> usize {
    metadata.sections.get(section).map_or(0, |section| {
        section.data.start + (record.address() - section.address) as usize
    })
}

fn cause(first: Record<'_>, second: Record<'_>, starts: [usize; 2]) -> Cause {
    if let (
        Record::Extend { address, contents },
        Record::Extend {
            address: elsewhere,
            contents: others,
        },
    ) = (first, second)
        && address == elsewhere
    {
        let equal = contents
            .iter()
            .zip(others)
            .take_while(|(one, other)| one == other)
            .count();
        return Cause::Contents {
            address: address + equal as u64,
            offsets: starts.map(|start| start + equal),
        };
    }
    Cause::Step {
        steps: [first, second].map(|record| (record.name(), record.address())),
    }
}
