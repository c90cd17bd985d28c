//! What was measured here against what was published: the first register that is not as it should be, by name.

use std::fmt;

use crate::manifest::{ConfigurationEntry, Manifest, ModelEntry, MrtdEntry};
use crate::metadata::{Metadata, MetadataError};
use crate::mrtd::{PageOrder, mrtd};
use crate::{Hex, Register, Sha384Hex, sha384};

/// What an image measures as, from its bytes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageMeasurement {
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-384 of the file.
    pub sha384: Sha384Hex,
    /// MRTD of a TD started from it.
    pub mrtd: MrtdEntry,
}

impl ImageMeasurement {
    /// Measures an image.
    ///
    /// # Errors
    /// [`MetadataError`] if no host would start a TD from it.
    pub fn of(image: &[u8]) -> Result<Self, MetadataError> {
        let metadata = Metadata::parse(image)?;
        let value = |order| Hex(mrtd(image, &metadata, order));
        Ok(Self {
            bytes: image.len() as u64,
            sha384: Hex(sha384(image)),
            mrtd: MrtdEntry {
                page_by_page: value(PageOrder::PageByPage),
                add_then_extend: value(PageOrder::AddThenExtend),
            },
        })
    }
}

/// A register that a manifest does not allow to be what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Which register.
    pub register: Register,
    /// What it is.
    pub found: Sha384Hex,
    /// What the manifest knows, each with its name.
    pub known: Vec<(String, Sha384Hex)>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} would be {}, which the manifest does not have",
            self.register, self.found
        )?;
        for (name, value) in &self.known {
            write!(f, "\n  {value} {name}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mismatch {}

impl Manifest {
    /// Whether a TD started from this image, with this configuration and, if one is given, this model, is one that the manifest
    /// describes.
    ///
    /// # Errors
    /// The first register that is not.
    pub fn admits(
        &self,
        image: &ImageMeasurement,
        configuration: &ConfigurationEntry,
        model: Option<&ModelEntry>,
    ) -> Result<(), Mismatch> {
        let mismatch = |register, found, known: Vec<(&str, Sha384Hex)>| {
            let known = known
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            Err(Mismatch {
                register,
                found,
                known,
            })
        };
        if image.mrtd != self.mrtd {
            return mismatch(
                Register::Mrtd,
                image.mrtd.page_by_page,
                vec![(&self.version, self.mrtd.page_by_page)],
            );
        }
        let configurations = self.configurations.iter();
        if !configurations
            .clone()
            .any(|known| known.rtmr2 == configuration.rtmr2)
        {
            return mismatch(
                Register::Rtmr2,
                configuration.rtmr2,
                configurations
                    .map(|known| (&*known.name, known.rtmr2))
                    .collect(),
            );
        }
        let models = self.models.iter();
        match model {
            Some(model) if !models.clone().any(|known| known.rtmr3 == model.rtmr3) => mismatch(
                Register::Rtmr3,
                model.rtmr3,
                models.map(|known| (&*known.name, known.rtmr3)).collect(),
            ),
            _ => Ok(()),
        }
    }

    /// The first register, in the order of [`Register::ALL`], for which two manifests publish different values, and of which entry; the
    /// entry is empty for registers with one value. `None` if only other things differ, or nothing.
    pub fn first_difference(&self, other: &Self) -> Option<(Register, String)> {
        if self.mrtd != other.mrtd {
            return Some((Register::Mrtd, String::new()));
        }
        let entries = |manifest: &Self| {
            let configurations = manifest
                .configurations
                .iter()
                .map(|entry| (Register::Rtmr2, entry.name.clone(), entry.rtmr2));
            let models = manifest
                .models
                .iter()
                .map(|entry| (Register::Rtmr3, entry.name.clone(), entry.rtmr3));
            configurations.chain(models).collect::<Vec<_>>()
        };
        let (ours, theirs) = (entries(self), entries(other));
        let missing = |from: &[(Register, String, Sha384Hex)], entry| !from.contains(entry);
        let mut unshared: Vec<_> = ours
            .iter()
            .filter(|entry| missing(&theirs, entry))
            .chain(theirs.iter().filter(|entry| missing(&ours, entry)))
            .map(|(register, name, _)| (*register, name.clone()))
            .collect();
        for (register, same) in [
            (Register::Attributes, self.attributes == other.attributes),
            (Register::Xfam, self.xfam == other.xfam),
        ] {
            if !same {
                unshared.push((register, String::new()));
            }
        }
        unshared.sort();
        unshared.into_iter().next()
    }
}
