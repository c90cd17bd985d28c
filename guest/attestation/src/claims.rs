//! The claims: what a trust domain says about itself in its certificate. `claims.cddl` is the format; this encodes and decodes it.
//!
//! Nothing here is true because it is claimed. A client compares each claim with the quote, whose REPORTDATA covers the encoded claims.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::Sha384;
use crate::cbor::{DecodeError, Reader, Writer};
use crate::events::{MAX_MODEL_NAME, ModelIdentity};

/// A canonical configuration is never longer.
pub const MAX_CONFIGURATION: usize = 4096;
/// No more advisories can be refused.
pub const MAX_ADVISORIES: usize = 64;
/// An advisory identifier, such as INTEL-SA-00837, is never longer.
pub const MAX_ADVISORY: usize = 32;
/// An encoded claims buffer is never longer.
pub const MAX_CLAIMS_BUFFER: usize = 8 << 10;

/// How long before it is made a certificate begins to be valid: room for a client's slow clock. Clients subtract it to know when the server
/// will have another one.
pub const BACKDATING: Duration = Duration::from_secs(2 * 60);

/// The name of our claims among those of CCC Interoperable RA-TLS.
const CLAIMS: &str = "vitrine.v1";
/// CCC Interoperable RA-TLS: the hash of the certificate's key.
const PUBLIC_KEY_HASH: &str = "pubkey-hash";
/// IANA, Named Information Hash Algorithm: SHA-384.
const SHA_384: u64 = 7;
const NO_MODEL: &str = "none";
const UNSEALED: &str = "unsealed";

/// The keys of the claims, in order.
#[derive(Clone, Copy)]
enum Key {
    Platform = 1,
    Compile,
    Configuration,
    Model,
    MinimumTcb,
    Boot,
    Validity,
    Fingerprint,
}
const KEYS: usize = 8;

/// What a trust domain says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// SHA-384 of the certificate's SubjectPublicKeyInfo in DER.
    pub public_key_hash: Sha384,
    /// [`crate::fingerprint::Registers::digest`] of the domain.
    pub platform: Sha384,
    /// SHA-384 of the guest executable as the loader copies it.
    pub compile: Sha384,
    /// The canonical configuration, at most [`MAX_CONFIGURATION`] bytes. RTMR\[2\] says whether it is the one.
    pub configuration: Vec<u8>,
    /// The model. RTMR\[3\] says whether it is the one.
    pub model: Model,
    /// What the domain's owner demands of the platform.
    pub minimum_tcb: MinimumTcb,
    /// Random, one per boot.
    pub boot: [u8; 16],
    /// The certificate's validity.
    pub validity: Validity,
    /// [`crate::fingerprint::fingerprint`] of the session.
    pub fingerprint: Sha384,
}

/// Which model the domain holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Model {
    /// None yet.
    None,
    /// One that is whole, opened and measured.
    Loaded {
        /// Which.
        identity: ModelIdentity,
        /// The owner raises it with every release; 0 where there is no such count.
        version: u64,
    },
}

/// The least a platform must be. Security version numbers of 0 demand nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MinimumTcb {
    /// Of the PCK certificate's sixteen SGX components; 0 and 1 are early and late microcode.
    pub cpu: [u8; 16],
    /// Of TEE_TCB_SVN: bytes 1 and 0 are the TDX module's major version and security version, compared in this order; byte 2 is late microcode.
    pub tdx: [u8; 16],
    /// Of `tcbEvaluationDataNumber`.
    pub evaluation: u32,
    /// Advisories a platform must not be subject to; sorted, each once, at most [`MAX_ADVISORIES`] of at most [`MAX_ADVISORY`] bytes.
    pub refused_advisories: Vec<String>,
}

/// When a certificate is valid, in seconds since 1970 by the domain's clock, which its host sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: u64,
    /// The last.
    pub not_after: u64,
}

impl Claims {
    /// Encodes the claims buffer. Strings and lists beyond their bounds give an encoding that no client decodes.
    pub fn encode(&self) -> Vec<u8> {
        let mut hash = Writer::default();
        hash.array(2);
        hash.unsigned(SHA_384);
        hash.bytes(&self.public_key_hash);

        let mut buffer = Writer::default();
        buffer.map(2);
        buffer.text(CLAIMS);
        buffer.bytes(&self.encode_claims());
        buffer.text(PUBLIC_KEY_HASH);
        buffer.bytes(&hash.finish());
        buffer.finish()
    }

    fn encode_claims(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.map(KEYS);
        writer.unsigned(Key::Platform as u64);
        writer.bytes(&self.platform);
        writer.unsigned(Key::Compile as u64);
        writer.bytes(&self.compile);
        writer.unsigned(Key::Configuration as u64);
        writer.bytes(&self.configuration);
        writer.unsigned(Key::Model as u64);
        self.model.encode(&mut writer);
        writer.unsigned(Key::MinimumTcb as u64);
        self.minimum_tcb.encode(&mut writer);
        writer.unsigned(Key::Boot as u64);
        writer.bytes(&self.boot);
        writer.unsigned(Key::Validity as u64);
        writer.array(2);
        writer.unsigned(self.validity.not_before);
        writer.unsigned(self.validity.not_after);
        writer.unsigned(Key::Fingerprint as u64);
        writer.bytes(&self.fingerprint);
        writer.finish()
    }

    /// Decodes a claims buffer.
    ///
    /// # Errors
    /// When the bytes are anything else than one set of claims in its only encoding.
    pub fn decode(buffer: &[u8]) -> Result<Self, DecodeError> {
        if buffer.len() > MAX_CLAIMS_BUFFER {
            return Err(DecodeError::OutOfBounds("the claims"));
        }
        let mut reader = Reader::new(buffer);
        reader.map(2, "the claims buffer")?;
        reader.constant(CLAIMS)?;
        let claims = reader.bytes(MAX_CLAIMS_BUFFER, "the claims")?;
        reader.constant(PUBLIC_KEY_HASH)?;
        let hash = reader.bytes(MAX_CLAIMS_BUFFER, "the key hash")?;
        reader.finish()?;

        let mut reader = Reader::new(hash);
        reader.tuple(2, "the key hash")?;
        reader.number(SHA_384, "the key hash's algorithm")?;
        let public_key_hash = reader.fixed("the key hash")?;
        reader.finish()?;

        Self::decode_claims(claims, public_key_hash)
    }

    fn decode_claims(claims: &[u8], public_key_hash: Sha384) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(claims);
        reader.map(KEYS, "the claims")?;
        let key = |reader: &mut Reader<'_>, key: Key| reader.number(key as u64, "a claim's key");
        key(&mut reader, Key::Platform)?;
        let platform = reader.fixed("the platform measurement")?;
        key(&mut reader, Key::Compile)?;
        let compile = reader.fixed("the compile hash")?;
        key(&mut reader, Key::Configuration)?;
        let configuration = reader
            .bytes(MAX_CONFIGURATION, "the configuration")?
            .to_vec();
        key(&mut reader, Key::Model)?;
        let model = Model::decode(&mut reader)?;
        key(&mut reader, Key::MinimumTcb)?;
        let minimum_tcb = MinimumTcb::decode(&mut reader)?;
        key(&mut reader, Key::Boot)?;
        let boot = reader.fixed("the boot id")?;
        key(&mut reader, Key::Validity)?;
        reader.tuple(2, "the validity")?;
        let validity = Validity {
            not_before: reader.unsigned("the validity")?,
            not_after: reader.unsigned("the validity")?,
        };
        key(&mut reader, Key::Fingerprint)?;
        let fingerprint = reader.fixed("the fingerprint")?;
        reader.finish()?;
        Ok(Self {
            public_key_hash,
            platform,
            compile,
            configuration,
            model,
            minimum_tcb,
            boot,
            validity,
            fingerprint,
        })
    }
}

impl Model {
    fn encode(&self, writer: &mut Writer) {
        let Self::Loaded { identity, version } = self else {
            return writer.text(NO_MODEL);
        };
        writer.array(4);
        writer.text(&identity.name);
        writer.unsigned(*version);
        match &identity.sealed {
            Some(digest) => writer.bytes(digest),
            None => writer.text(UNSEALED),
        }
        writer.bytes(&identity.plaintext);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.text_follows() {
            reader.constant(NO_MODEL)?;
            return Ok(Self::None);
        }
        reader.tuple(4, "the model")?;
        let name = reader.text(MAX_MODEL_NAME, "the model's name")?;
        if name.is_empty() {
            return Err(DecodeError::OutOfBounds("the model's name"));
        }
        let version = reader.unsigned("the model's version")?;
        let sealed = match reader.text_follows() {
            true => {
                reader.constant(UNSEALED)?;
                None
            }
            false => Some(reader.fixed("the sealed model's digest")?),
        };
        let plaintext = reader.fixed("the model's digest")?;
        Ok(Self::Loaded {
            identity: ModelIdentity {
                name: name.into(),
                sealed,
                plaintext,
            },
            version,
        })
    }
}

impl MinimumTcb {
    fn encode(&self, writer: &mut Writer) {
        writer.array(4);
        writer.bytes(&self.cpu);
        writer.bytes(&self.tdx);
        writer.unsigned(self.evaluation.into());
        writer.array(self.refused_advisories.len());
        for advisory in &self.refused_advisories {
            writer.text(advisory);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        const EVALUATION: &str = "the evaluation number";
        const ADVISORIES: &str = "the refused advisories";
        reader.tuple(4, "the minimum TCB")?;
        let cpu = reader.fixed("the CPU's SVNs")?;
        let tdx = reader.fixed("the TDX SVNs")?;
        let evaluation = u32::try_from(reader.unsigned(EVALUATION)?)
            .map_err(|_| DecodeError::OutOfBounds(EVALUATION))?;
        let mut refused_advisories: Vec<String> = Vec::new();
        for _ in 0..reader.array(MAX_ADVISORIES, ADVISORIES)? {
            let advisory = reader.text(MAX_ADVISORY, ADVISORIES)?;
            // The empty text is not greater than anything, so it is refused here as well.
            if advisory <= refused_advisories.last().map_or("", String::as_str) {
                return Err(DecodeError::NotDeterministic);
            }
            refused_advisories.push(advisory.into());
        }
        Ok(Self {
            cpu,
            tdx,
            evaluation,
            refused_advisories,
        })
    }
}

#[cfg(test)]
mod tests;
