//! Exported keying material (RFC 8446, section 7.5): what binds a message inside a session to that session.
//!
//! rustls computes it only in its buffered interface. The unbuffered one reveals the exporter's master secret through the key
//! log, meant for debugging; an [`Exporter`] is a key log of one connection that keeps this secret, refuses all others, and does
//! the last two steps of the key schedule itself. The secret gives away nothing that was or will be encrypted.

use alloc::vec::Vec;
use core::fmt;

use ring::{
    digest,
    hkdf::{self, KeyType, Prk},
};
use rustls::KeyLog;
use spin::Mutex;
use zeroize::{Zeroize, Zeroizing};

/// The name rustls and the NSS key log format have for it.
const EXPORTER_SECRET: &str = "EXPORTER_SECRET";

/// The exporter secret of one connection, once there is one; overwritten when the connection ends.
#[derive(Default)]
pub(super) struct Exporter(Mutex<Zeroizing<Vec<u8>>>);

impl Exporter {
    /// TLS-Exporter(label, context, 32). None before the handshake is complete.
    pub(super) fn export(&self, label: &str, context: &[u8]) -> Option<[u8; 32]> {
        let secret = self.0.lock();
        // The length tells the cipher suite's hash.
        let (hkdf, digest) = match secret.len() {
            32 => (hkdf::HKDF_SHA256, &digest::SHA256),
            48 => (hkdf::HKDF_SHA384, &digest::SHA384),
            _ => return None,
        };
        let nothing = digest::digest(digest, b"");
        let mut derived = Zeroizing::new([0; digest::MAX_OUTPUT_LEN]);
        let derived = derived.get_mut(..digest.output_len())?;
        expand_label(hkdf, &secret, label.as_bytes(), nothing.as_ref(), derived)?;
        let context = digest::digest(digest, context);
        let mut exported = [0; 32];
        let label = b"exporter";
        expand_label(hkdf, derived, label, context.as_ref(), &mut exported)?;
        Some(exported)
    }
}

/// HKDF-Expand-Label (RFC 8446, section 7.1).
fn expand_label(
    algorithm: hkdf::Algorithm,
    secret: &[u8],
    label: &[u8],
    context: &[u8],
    output: &mut [u8],
) -> Option<()> {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    const PREFIX: &[u8] = b"tls13 ";
    let length = u16::try_from(output.len()).ok()?.to_be_bytes();
    let label_length = [u8::try_from(PREFIX.len() + label.len()).ok()?];
    let context_length = [u8::try_from(context.len()).ok()?];
    let info = [
        &length[..],
        &label_length,
        PREFIX,
        label,
        &context_length,
        context,
    ];
    let key = Prk::new_less_safe(algorithm, secret);
    let material = key.expand(&info, Length(output.len())).ok()?;
    material.fill(output).ok()
}

impl KeyLog for Exporter {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if label == EXPORTER_SECRET {
            let mut kept = self.0.lock();
            kept.zeroize();
            kept.extend_from_slice(secret);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == EXPORTER_SECRET
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter")
    }
}
