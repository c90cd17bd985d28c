//! The cryptography TLS may use here: only what a TLS 1.3 server with one P-256 key needs.
//!
//! rustls' stock provider also verifies certificates and loads RSA, Ed25519 and P-384 keys. This server
//! does neither, and what it does not name is not linked: less code to trust, and a smaller image.

use alloc::{sync::Arc, vec};

use key_exchange::X25519MLKEM768;
use ring::rand::SystemRandom;
use rustls::{
    Error,
    crypto::{
        CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms,
        ring::{cipher_suite, kx_group},
    },
    pki_types::PrivateKeyDer,
    sign::SigningKey,
};

/// The provider for all connections.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        // The client's order decides; ours put the first one first.
        kx_groups: vec![X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
        // Clients do not authenticate with certificates.
        signature_verification_algorithms: WebPkiSupportedAlgorithms {
            all: &[],
            mapping: &[],
        },
        secure_random: &Entropy,
        key_provider: &NoStoredKeys,
    }
}

/// The CPU's entropy, by way of *ring*.
#[derive(Debug)]
struct Entropy;

impl SecureRandom for Entropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        ring::rand::SecureRandom::fill(&SystemRandom::new(), buffer).map_err(|_| GetRandomFailed)
    }
}

/// Every key is generated here; none is ever loaded.
#[derive(Debug)]
struct NoStoredKeys;

impl KeyProvider for NoStoredKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("keys are not loaded here".into()))
    }
}
