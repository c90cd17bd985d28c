//! Building the TD: the sections of the image become its first pages (`tdx.md` 1.2; QEMU `tdx_finalize_vm`).

use measurements::{Metadata, MetadataError, PageOrder, SectionType};

use crate::hob::{self, HobError, Resource};
use crate::hostile::Host;
use crate::hostile::launch::hand_off_block;
use crate::measurement::{BuildMeasurement, PIECE};
use crate::memory::{Layout, Memory, PAGE, PageState};

/// The byte with which this host fills the memory that has no contents in the image, TEMP_MEM and TD_HOB: it is copied from the VMM's memory and
/// not measured (`tdx.md` 1.4), so a TD that takes it for zeros is wrong.
const UNMEASURED: u8 = 0xa5;

/// Why no TD can be built of this image and this much memory.
#[derive(Debug)]
pub enum LaunchError {
    Metadata(MetadataError),
    Hob(HobError),
    /// A section with contents lies outside RAM and image.
    Section {
        address: u64,
    },
}

impl std::fmt::Display for LaunchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Metadata(error) => error.fmt(f),
            Self::Hob(error) => error.fmt(f),
            Self::Section { address } => {
                write!(f, "the section at {address:#x} is in no memory of the TD")
            }
        }
    }
}

impl std::error::Error for LaunchError {}

/// What the VMM prepares before the first instruction.
pub struct Launch {
    metadata: Metadata,
    /// The memory it is going to tell the TD about; hostile hosts change it.
    pub resources: Vec<Resource>,
    hob: (u64, u64),
}

impl Launch {
    /// Reads the image's metadata and plans the hand-off block.
    ///
    /// # Errors
    /// [`LaunchError`] if QEMU would refuse the image.
    pub fn plan(image: &[u8], layout: &Layout) -> Result<Self, LaunchError> {
        let metadata = Metadata::parse(image).map_err(LaunchError::Metadata)?;
        let resources = hob::resources(&layout.ram(), &metadata).map_err(LaunchError::Hob)?;
        let hob = metadata
            .sections
            .iter()
            .find(|section| section.kind == SectionType::TdHob)
            .map(|section| (section.address, section.size))
            .expect("Metadata::parse requires a TD_HOB section");
        Ok(Self {
            metadata,
            resources,
            hob,
        })
    }

    /// The address of the hand-off block, which QEMU passes in RCX.
    pub fn hob_address(&self) -> u64 {
        self.hob.0
    }

    /// MRTD of the TD: what the module measures while the VMM adds the pages in its order.
    pub fn mrtd(&self, image: &[u8], order: PageOrder) -> [u8; 48] {
        let mut module = BuildMeasurement::new();
        for section in &self.metadata.sections {
            let pages = (0..section.size).step_by(PAGE as usize);
            let extend = |module: &mut BuildMeasurement, page: u64| {
                if !section.attributes.extend() {
                    return;
                }
                let start = section.data.start + page as usize;
                let (pieces, _) = image[start..start + PAGE as usize].as_chunks();
                for (address, piece) in (section.address + page..).step_by(PIECE).zip(pieces) {
                    module.extend(address, piece);
                }
            };
            match order {
                PageOrder::PageByPage => {
                    for page in pages {
                        module.add_page(section.address + page);
                        extend(&mut module, page);
                    }
                }
                PageOrder::AddThenExtend => {
                    for page in pages.clone() {
                        module.add_page(section.address + page);
                    }
                    for page in pages {
                        extend(&mut module, page);
                    }
                }
            }
        }
        module.finish()
    }

    /// Adds every section's pages.
    ///
    /// # Errors
    /// [`LaunchError`] if a section is in no memory, or the hand-off block does not fit.
    pub fn add_pages(&self, image: &[u8], memory: &Memory, host: &Host) -> Result<(), LaunchError> {
        for section in &self.metadata.sections {
            let address = section.address;
            let exists = (address..address + section.size)
                .step_by(PAGE as usize)
                .all(|page| memory.state(page).is_some());
            if !exists {
                return Err(LaunchError::Section { address });
            }
            memory.set_state(address, section.size, PageState::Private);
            let mut contents = image[section.data.clone()].to_vec();
            // What is not measured holds whatever the host wants.
            contents.resize(section.size as usize, UNMEASURED);
            memory
                .write(address, &contents)
                .map_err(|_| LaunchError::Section { address })?;
        }
        let (address, room) = self.hob;
        let mut list = hob::list(address, room, &self.resources).map_err(LaunchError::Hob)?;
        hand_off_block(host, &mut list);
        memory
            .write(address, &list)
            .map_err(|_| LaunchError::Section { address })
    }
}

#[cfg(test)]
#[allow(dead_code)] // other tests need more of it
#[path = "../../../measurements/src/handmade.rs"]
mod handmade;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_made_by_hand_measure_as_computed_elsewhere() {
        for example in handmade::examples() {
            let image = handmade::image(&example.sections);
            let launch = Launch::plan(&image, &Layout::new(1 << 30, image.len() as u64)).unwrap();
            let orders = [PageOrder::PageByPage, PageOrder::AddThenExtend];
            let mrtd = orders.map(|order| launch.mrtd(&image, order));
            let text = mrtd.map(|digest| measurements::Hex(digest).to_string());
            assert_eq!(text, example.mrtd);
        }
    }

    /// An image we did not make, with several sections, not all of them measured. The library that computes MRTD from files agrees, and so
    /// does a third program in its own tests.
    #[test]
    fn the_library_agrees_about_debians_ovmf() {
        const OVMF: &str = "/usr/share/ovmf/OVMF.fd";
        let Ok(image) = std::fs::read(OVMF) else {
            assert!(
                std::env::var("VITRINE_REQUIRE_ORACLES").as_deref() != Ok("1"),
                "{OVMF} is not here"
            );
            eprintln!("SKIPPED: {OVMF} is not here (Debian package ovmf)");
            return;
        };
        let launch = Launch::plan(&image, &Layout::new(1 << 30, image.len() as u64)).unwrap();
        for order in [PageOrder::PageByPage, PageOrder::AddThenExtend] {
            let expected = measurements::mrtd(&image, &launch.metadata, order);
            assert_eq!(launch.mrtd(&image, order), expected);
        }
    }
}
