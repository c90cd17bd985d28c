//! What was measured here against what was published: the first register that is not as it should be, by name.

use std::fmt;

use crate::manifest::{ConfigurationEntry, Manifest, Masked, ModelEntry, MrtdEntry};
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

/// What a manifest does not allow to be as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// A register would have another value.
    Register {
        /// Which register.
        register: Register,
        /// What it is.
        found: Sha384Hex,
        /// What the manifest knows, each with its name.
        known: Vec<(String, Sha384Hex)>,
    },
    /// MRTD is as published and the file is not: either the file was changed where nothing is measured, or the manifest was.
    File {
        /// SHA-384 of the file.
        found: Sha384Hex,
        /// What the manifest says.
        published: Sha384Hex,
    },
    /// The manifest demands something else of a register than this program knows to be needed.
    Condition {
        /// Which register.
        register: Register,
        /// What it must be.
        required: Masked,
        /// What the manifest says it must be.
        published: Masked,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register {
                register,
                found,
                known,
            } => {
                write!(
                    f,
                    "{register} would be {found}, which the manifest does not have"
                )?;
                for (name, value) in known {
                    write!(f, "\n  {value} {name}")?;
                }
                Ok(())
            }
            Self::File { found, published } => write!(
                f,
                "{} is as published, the file is not: its SHA-384 is {found}, the manifest says {published}",
                Register::Mrtd
            ),
            Self::Condition {
                register,
                required,
                published,
            } => write!(
                f,
                "{register} must satisfy & {} == {}, the manifest says & {} == {}",
                required.mask, required.value, published.mask, published.value
            ),
        }
    }
}

impl std::error::Error for Mismatch {}

impl Manifest {
    /// Whether a TD started from this image, with this configuration and, if one is given, this model, is one that the manifest
    /// describes, and whether it demands of such a TD what has to be demanded.
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
            Err(Mismatch::Register {
                register,
                found,
                known,
            })
        };
        for order in [PageOrder::PageByPage, PageOrder::AddThenExtend] {
            let (found, published) = (image.mrtd.get(order), self.mrtd.get(order));
            if found != published {
                return mismatch(Register::Mrtd, found, vec![(&self.version, published)]);
            }
        }
        if (image.bytes, image.sha384) != (self.image.bytes, self.image.sha384) {
            return Err(Mismatch::File {
                found: image.sha384,
                published: self.image.sha384,
            });
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
        if let Some(model) = model
            && !models.clone().any(|known| known.rtmr3 == model.rtmr3)
        {
            let known = models.map(|known| (&*known.name, known.rtmr3)).collect();
            return mismatch(Register::Rtmr3, model.rtmr3, known);
        }
        for (register, required, published) in [
            (Register::Attributes, Masked::ATTRIBUTES, self.attributes),
            (Register::Xfam, Masked::XFAM, self.xfam),
        ] {
            if published != required {
                return Err(Mismatch::Condition {
                    register,
                    required,
                    published,
                });
            }
        }
        Ok(())
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
