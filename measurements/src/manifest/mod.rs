//! The published manifest: what a release measures as, in one canonical JSON file (`measurements/published/VERSION.json`).
//!
//! There is one spelling of every manifest: [`Manifest::encode`] writes it and [`Manifest::parse`] takes nothing else, so that two files
//! are equal when what they say is. Registers that follow from other fields of the manifest are recomputed while parsing; one that does
//! not follow is refused by its name.

mod error;
#[cfg(test)]
pub(crate) mod tests;

use attestation::events::{self, ModelIdentity};
use serde::{Deserialize, Serialize};

use crate::configuration::CanonicalConfiguration;
use crate::hex::{BitsHex, Hex, Sha256Hex, Sha384Hex};
use crate::mrtd::PageOrder;
use crate::register::Register;

pub use error::ManifestError;

/// The only schema so far. A change of the fields or of their meaning takes a new number.
pub const SCHEMA: &str = "vitrine-manifest/1";
/// Longer files are not read.
pub const MAX_BYTES: usize = 1 << 20;

/// What a release measures as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: String,
    /// The release.
    pub version: String,
    /// The image file.
    pub image: ImageEntry,
    /// Its measurement by the TDX module, by kind of host.
    pub mrtd: MrtdEntry,
    /// RTMR[0]: zero.
    pub rtmr0: Sha384Hex,
    /// RTMR[1]: zero.
    pub rtmr1: Sha384Hex,
    /// The configurations known by name, sorted by it; "default" is among them.
    pub configurations: Vec<ConfigurationEntry>,
    /// The models known by name, sorted by it.
    pub models: Vec<ModelEntry>,
    /// What ATTRIBUTES must be.
    pub attributes: Masked,
    /// What XFAM must be.
    pub xfam: Masked,
    /// What it was built from.
    pub source: Source,
    /// What it was built with.
    pub toolchain: Toolchain,
    /// How much has to be trusted.
    pub tcb: TcbSummary,
}

/// The image file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageEntry {
    /// Its length.
    pub bytes: u64,
    /// SHA-384 of the file.
    pub sha384: Sha384Hex,
    /// The compile hash: SHA-384 of the guest executable as the loader copies it.
    pub guest_sha384: Sha384Hex,
}

/// MRTD in both orders found in the field ([`PageOrder`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MrtdEntry {
    /// Mainline KVM, 6.16 and later.
    pub page_by_page: Sha384Hex,
    /// Out-of-tree hosts of QEMU 8.
    pub add_then_extend: Sha384Hex,
}

/// A configuration and the register it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigurationEntry {
    /// What it is called here.
    pub name: String,
    /// The canonical configuration, as it travels with the evidence.
    pub canonical: String,
    /// The digest extended into RTMR[2].
    pub digest: Sha384Hex,
    /// RTMR[2] afterwards.
    pub rtmr2: Sha384Hex,
}

/// A model and the register it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    /// Its name, part of the measurement.
    pub name: String,
    /// SHA-256 of the sealed file; null for a model that is not sealed.
    pub sealed_sha256: Option<Sha256Hex>,
    /// SHA-256 of the GGUF file: the digest model hubs show.
    pub sha256: Sha256Hex,
    /// The digest extended into RTMR[3].
    pub digest: Sha384Hex,
    /// RTMR[3] afterwards.
    pub rtmr3: Sha384Hex,
}

/// A condition on the bits of a register: `register & mask == value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Masked {
    /// The bits that count.
    pub mask: BitsHex,
    /// Their values.
    pub value: BitsHex,
}

/// What the image was built from. A file cannot name the commit it is part of; the digest does not depend on git.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// How many files of the repository the image build reads.
    pub files: u64,
    /// SHA-384 over their names and contents; `cargo xtask sources` lists them and says how it is computed.
    pub sha384: Sha384Hex,
}

/// What the image was built with. Another compiler gives an image that works and is not the published one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Toolchain {
    /// First line of `rustc --version`; the linker, rust-lld, comes with it.
    pub rustc: String,
    /// First line of `cargo --version`.
    pub cargo: String,
    /// First line of `gcc --version`.
    pub gcc: String,
    /// First line of `as --version`: the assembler of what gcc compiles.
    pub binutils: String,
}

/// How much has to be trusted; `tcb.json` beside the manifest says it in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcbSummary {
    /// Packages linked into the image, ours included.
    pub crates: u64,
    /// Lines of code compiled into it, in every language.
    pub lines: u64,
    /// Lines inside `unsafe`.
    pub unsafe_lines: u64,
}

impl Masked {
    /// A TD must not be debugged, profiled or migrated, and must be killed rather than told when a page is missing
    /// (SEPT_VE_DISABLE, bit 28). Protection keys for supervisor pages (bit 30) are not used and may be offered.
    pub const ATTRIBUTES: Self = Self {
        mask: BitsHex::of(!(1 << 30)),
        value: BitsHex::of(1 << 28),
    };

    /// x87, SSE and AVX are needed. AVX-512 (5 to 7), PKRU (9), CET (11, 12) and AMX (17, 18) may be offered; anything else, such as
    /// processor trace or last-branch records, may not.
    pub const XFAM: Self = Self {
        mask: BitsHex::of(!(0b111 << 5 | 1 << 9 | 0b11 << 11 | 0b11 << 17)),
        value: BitsHex::of(0b111),
    };

    /// Whether a register satisfies the condition.
    pub const fn allows(self, register: u64) -> bool {
        register & self.mask.bits() == self.value.bits()
    }
}

impl ConfigurationEntry {
    /// A configuration called `name`, measured.
    pub fn new(name: &str, canonical: &str) -> Self {
        let digest = events::configuration_digest(canonical.as_bytes());
        Self {
            name: name.to_owned(),
            canonical: canonical.to_owned(),
            digest: Hex(digest),
            rtmr2: Hex(events::extend(&events::UNEXTENDED, &digest)),
        }
    }
}

impl ModelEntry {
    /// A model, measured.
    pub fn new(model: &ModelIdentity) -> Self {
        let digest = events::model_digest(model);
        Self {
            name: model.name.clone(),
            sealed_sha256: model.sealed.map(Hex),
            sha256: Hex(model.plaintext),
            digest: Hex(digest),
            rtmr3: Hex(events::extend(&events::UNEXTENDED, &digest)),
        }
    }

    /// What is measured of it.
    pub fn identity(&self) -> ModelIdentity {
        ModelIdentity {
            name: self.name.clone(),
            sealed: self.sealed_sha256.map(|digest| digest.0),
            plaintext: self.sha256.0,
        }
    }
}

impl MrtdEntry {
    /// The value for one kind of host.
    pub const fn get(&self, order: PageOrder) -> Sha384Hex {
        match order {
            PageOrder::PageByPage => self.page_by_page,
            PageOrder::AddThenExtend => self.add_then_extend,
        }
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`ManifestError`]: not the one spelling, another schema, or a register that does not follow from the other fields.
    pub fn parse(file: &[u8]) -> Result<Self, ManifestError> {
        if file.len() > MAX_BYTES {
            return Err(ManifestError::TooLong);
        }
        // A newer schema has other fields; say that it is newer rather than that they are unknown.
        #[derive(Deserialize)]
        struct Head {
            schema: String,
        }
        let head: Head = serde_json::from_slice(file).map_err(ManifestError::json)?;
        if head.schema != SCHEMA {
            return Err(ManifestError::Schema(head.schema));
        }
        let manifest: Self = serde_json::from_slice(file).map_err(ManifestError::json)?;
        if manifest.encode().as_bytes() != file {
            return Err(ManifestError::NotCanonical);
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// The one spelling: two spaces of indentation, fields in the order of declaration, a line feed at the end.
    pub fn encode(&self) -> String {
        // Strings, numbers and lists only: nothing that JSON could not say.
        let text = serde_json::to_string_pretty(self).expect("a manifest is plain data");
        text + "\n"
    }

    /// The configuration of that name.
    pub fn configuration(&self, name: &str) -> Option<&ConfigurationEntry> {
        self.configurations.iter().find(|entry| entry.name == name)
    }

    /// The model of that name.
    pub fn model(&self, name: &str) -> Option<&ModelEntry> {
        self.models.iter().find(|entry| entry.name == name)
    }

    /// Checks everything that follows from something else.
    fn check(&self) -> Result<(), ManifestError> {
        let doctored = |register, entry: &str| {
            Err(ManifestError::Inconsistent {
                register,
                entry: entry.to_owned(),
            })
        };
        for (register, value) in [(Register::Rtmr0, self.rtmr0), (Register::Rtmr1, self.rtmr1)] {
            if value.0 != events::UNEXTENDED {
                return doctored(register, "");
            }
        }
        for entry in &self.configurations {
            CanonicalConfiguration::parse(&entry.canonical).map_err(|error| {
                ManifestError::Configuration {
                    entry: entry.name.clone(),
                    error,
                }
            })?;
            if *entry != ConfigurationEntry::new(&entry.name, &entry.canonical) {
                return doctored(Register::Rtmr2, &entry.name);
            }
        }
        for entry in &self.models {
            if *entry != ModelEntry::new(&entry.identity()) {
                return doctored(Register::Rtmr3, &entry.name);
            }
        }
        for (register, condition) in [
            (Register::Attributes, self.attributes),
            (Register::Xfam, self.xfam),
        ] {
            // A value outside its mask allows nothing at all.
            if condition.value.bits() & !condition.mask.bits() != 0 {
                return doctored(register, "");
            }
        }
        let configurations: Vec<&str> = self
            .configurations
            .iter()
            .map(|entry| &*entry.name)
            .collect();
        let models: Vec<&str> = self.models.iter().map(|entry| &*entry.name).collect();
        if !configurations.is_sorted_by(|one, other| one < other)
            || !models.is_sorted_by(|one, other| one < other)
        {
            return Err(ManifestError::Order);
        }
        if self.configuration("default").is_none() {
            return Err(ManifestError::NoDefault);
        }
        Ok(())
    }
}
