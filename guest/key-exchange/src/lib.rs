//! X25519MLKEM768, the hybrid key exchange of TLS 1.3 (draft-ietf-tls-ecdhe-mlkem): X25519, and beside it ML-KEM-768 (FIPS 203), so that whoever
//! records a session today has to break both to read it one day.
//!
//! What the two ends send is a share of each, the one of ML-KEM first, and the session's secret is both secrets in the same order. *ring*
//! computes the classical half; it has no ML-KEM, which is here for rustls to use. The server and its clients share this crate.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::{boxed::Box, vec::Vec};

use ml_kem::{
    B32, EncapsulateDeterministic, Encoded, EncodedSizeUser, KemCore, MlKem768, kem::Decapsulate,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::{
    Error, NamedGroup, PeerMisbehaved, ProtocolVersion,
    crypto::{
        ActiveKeyExchange, CompletedKeyExchange, GetRandomFailed, SharedSecret, SupportedKxGroup,
        ring::kx_group::X25519,
    },
    ffdhe_groups::FfdheGroup,
};
use zeroize::{Zeroize, Zeroizing};

/// The group, for the list that a TLS end offers or accepts.
pub static X25519MLKEM768: &dyn SupportedKxGroup = &Group;

/// Bytes of the client's and of the server's share of ML-KEM.
const ENCAPSULATION_KEY: usize = 1184;
const CIPHERTEXT: usize = 1088;

type DecapsulationKey = <MlKem768 as KemCore>::DecapsulationKey;
type EncapsulationKey = <MlKem768 as KemCore>::EncapsulationKey;

#[derive(Debug)]
struct Group;

impl SupportedKxGroup for Group {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let (d, z) = (random()?, random()?);
        let (kem, encapsulation_key) = MlKem768::generate_deterministic(array(&d), array(&z));
        let classical = X25519.start()?;
        Ok(Box::new(Started {
            share: [&*encapsulation_key.as_bytes(), classical.pub_key()].concat(),
            kem,
            classical,
        }))
    }

    fn start_and_complete(&self, share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let (kem, classical) = split(share, ENCAPSULATION_KEY)?;
        let encoded: &Encoded<EncapsulationKey> = kem.try_into().map_err(|_| INVALID)?;
        let kem = EncapsulationKey::from_bytes(encoded);
        // The modulus check of FIPS 203, 7.2: a coefficient out of range does not come back as it was.
        if kem.as_bytes() != *encoded {
            return Err(INVALID);
        }
        let (ciphertext, mut secret) = kem
            .encapsulate_deterministic(array(&*random()?))
            .map_err(|()| INVALID)?;
        let classical = X25519.start_and_complete(classical)?;
        let completed = CompletedKeyExchange {
            group: self.name(),
            pub_key: [&*ciphertext, &classical.pub_key].concat(),
            secret: both(&secret, &classical.secret),
        };
        secret.as_mut_slice().zeroize();
        Ok(completed)
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

/// A client's exchange whose server has not answered.
struct Started {
    kem: DecapsulationKey,
    classical: Box<dyn ActiveKeyExchange>,
    share: Vec<u8>,
}

impl ActiveKeyExchange for Started {
    fn complete(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        let (ciphertext, classical) = split(share, CIPHERTEXT)?;
        let ciphertext = ciphertext.try_into().map_err(|_| INVALID)?;
        let mut secret = self.kem.decapsulate(ciphertext).map_err(|()| INVALID)?;
        let classical = self.classical.complete(classical)?;
        let completed = both(&secret, &classical);
        secret.as_mut_slice().zeroize();
        Ok(completed)
    }

    /// The same X25519 share also stands alone, for a server that knows nothing else.
    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((self.classical.group(), self.classical.pub_key()))
    }

    fn complete_hybrid_component(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        self.classical.complete(share)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

/// What a peer did who sends a share that is none.
const INVALID: Error = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);

/// A share's two parts. X25519 judges the length of its own.
fn split(share: &[u8], length: usize) -> Result<(&[u8], &[u8]), Error> {
    share.split_at_checked(length).ok_or(INVALID)
}

/// The session's secret.
fn both(kem: &[u8], classical: &SharedSecret) -> SharedSecret {
    SharedSecret::from([kem, classical.secret_bytes()].concat())
}

/// The same bytes, as the library has them.
fn array(bytes: &[u8; 32]) -> &B32 {
    bytes.into()
}

/// Random bytes, overwritten when they are dropped.
fn random() -> Result<Zeroizing<[u8; 32]>, Error> {
    let mut bytes = Zeroizing::new([0; 32]);
    let filled = SystemRandom::new().fill(&mut *bytes);
    filled.map_err(|_| GetRandomFailed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
