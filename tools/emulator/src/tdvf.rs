//! Building the TD: the sections of the image become its first pages (`tdx.md` 1.2; QEMU `tdx_finalize_vm`).

use measurements::{Metadata, MetadataError, PageOrder, SectionType};

use crate::hob::{self, HobError, Resource};
use crate::hostile::Host;
use crate::hostile::launch::hand_off_block;
use crate::memory::{Layout, Memory, PAGE, PageState};

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

    /// MRTD of the TD.
    pub fn mrtd(&self, image: &[u8], order: PageOrder) -> [u8; 48] {
        measurements::mrtd(image, &self.metadata, order)
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
            let contents = &image[section.data.clone()];
            memory
                .write(address, contents)
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
