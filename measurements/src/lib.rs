//! What a TDX host will measure of an image, from the image's bytes alone: no host, no clock, no configuration.
//!
//! [`Metadata::parse`] reads the TDVF metadata by the rules of mainline QEMU (`hw/i386/pc_sysfw_ovmf.c`, `hw/i386/tdvf.c`), and
//! [`mrtd`] replays the launch: one record per page added and per chunk extended, into one SHA-384, as the TDX module does. Two orders of
//! those records exist in the field, so there are two values to publish ([`PageOrder`]); [`diff`] says where two launches part. What the
//! TD itself extends is defined in `attestation::events`; [`Manifest`] is the file in which all of it is published.
#![forbid(unsafe_code)]

mod comparison;
mod configuration;
pub mod corim;
mod diff;
mod hex;
pub mod manifest;
mod metadata;
mod mrtd;
mod register;
pub mod signature;
mod td_info;

pub use comparison::{ImageMeasurement, Mismatch};
pub use configuration::{CanonicalConfiguration, ConfigurationError};
pub use diff::{Cause, Divergence, diff, first_difference};
pub use hex::{BitsHex, Hex, HexError, Sha256Hex, Sha384Hex};
pub use manifest::{ConfigurationEntry, Manifest, ManifestError, ModelEntry};
pub use metadata::{Attributes, Metadata, MetadataError, Section, SectionType};
pub use mrtd::{PageOrder, Record, mrtd, records};
pub use register::Register;
pub use td_info::ExpectedTdInfo;

use sha2::{Digest, Sha384};

/// A SHA-384 digest.
pub type Hash = [u8; 48];

/// SHA-384 of some bytes: of the whole image for the manifest, of the guest executable for the compile hash.
pub fn sha384(bytes: &[u8]) -> Hash {
    Sha384::digest(bytes).into()
}

#[cfg(test)]
mod handmade;
#[cfg(test)]
mod tests;
