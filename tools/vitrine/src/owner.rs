//! An owner's keys (Ed25519): the public one, whose endorsement clients can demand beside evidence, and the private one, which endorses
//! guests while they are given a model's key. `attestation::provisioning` says what is signed.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use attestation::provisioning::{Endorsement, PublicKey, release_message};
use client::{Request, Session};
use ring::signature::Ed25519KeyPair;
use seal::FileKey;
use serde_json::{Value, json};
use verifier::{MAX_ENDORSEMENT, endorsed_key};

use crate::failure::{Code, Failure};

/// A key file is far shorter.
const MAX_KEY: u64 = 16 << 10;
/// RFC 8410: what goes before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo.
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Whose word is demanded
#[derive(clap::Args, Debug)]
pub struct Owner {
    /// Demand an endorsement by this owner beside the evidence: an Ed25519 public key, 64 hexadecimal digits or PEM
    #[arg(
        long,
        value_name = "KEY|FILE",
        value_parser = public_key,
        help_heading = "What is accepted"
    )]
    owner_key: Option<PublicKey>,
}

impl Owner {
    /// The key, if an endorsement is demanded.
    pub fn key(&self) -> Option<PublicKey> {
        self.owner_key
    }
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    if let Ok(measurements::Hex(key)) = text.parse() {
        return Ok(key);
    }
    let pem = read(Path::new(text))
        .map_err(|error| format!("not 64 hexadecimal digits, and as a file: {error}"))?;
    let der = pem::parse(pem).map_err(|error| error.to_string())?;
    der.contents()
        .strip_prefix(&SPKI_PREFIX)
        .and_then(|key| key.try_into().ok())
        .ok_or_else(|| "not an Ed25519 public key (`openssl pkey -pubout` writes one)".to_owned())
}

/// An owner's private key.
pub struct Signer(Ed25519KeyPair);

impl Signer {
    /// Reads a key in PKCS#8, as `openssl genpkey -algorithm ed25519` writes it.
    ///
    /// # Errors
    /// The file cannot be read, or is something else.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let unusable =
            |error: &dyn core::fmt::Display| Failure::usage(format!("{}: {error}", path.display()));
        let pem = read(path).map_err(|error| unusable(&error))?;
        let der = pem::parse(pem).map_err(|error| unusable(&error))?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.contents());
        pair.map(Self).map_err(|_| {
            unusable(&"not an Ed25519 private key (`openssl genpkey -algorithm ed25519` makes one)")
        })
    }

    /// The signature that shows a guest, whose configuration may name a provisioner, that the key comes from that one.
    ///
    /// # Errors
    /// The TLS library has no exporter.
    pub fn release(&self, session: &Session, key: &FileKey) -> Result<String, Failure> {
        let exporter = session.export(attestation::provisioning::RELEASE_LABEL, key.expose())?;
        Ok(self.sign(&release_message(&exporter)))
    }

    /// Endorses the domain at the other end of a verified connection for the sealed model with this SHA-256, until `not_after`. Gives the
    /// connection back, with what `POST /model-key` takes.
    ///
    /// # Errors
    /// The domain's long-lived key does not vouch for the connection, or the connection was not verified.
    pub fn endorse(
        &self,
        session: Session,
        model: [u8; 32],
        not_after: u64,
    ) -> Result<(Session, Value), Failure> {
        let unverified = || Failure::usage("only a guest that was verified can be endorsed");
        let evidence = session.proof().ok_or_else(unverified)?.evidence.clone();
        let mut response = session.request(&Request::get("/endorsement"))?;
        let shown = response.read_whole(MAX_ENDORSEMENT)?;
        let public_key = endorsed_key(&evidence, &shown).map_err(|code| {
            let words = "the guest's long-lived key does not vouch for this connection";
            Failure::with_code(Code::EvidenceMismatch, format!("{words}: {code}"))
        })?;
        let endorsement = Endorsement {
            boot: evidence.claims.boot,
            public_key: attestation::sha384(&public_key),
            model,
            not_after,
        };
        let signature = self.sign(&endorsement.message());
        let session = response.into_session().ok_or(client::Error::Closed)?;
        Ok((
            session,
            json!({ "not_after": not_after, "signature": signature }),
        ))
    }

    fn sign(&self, message: &[u8]) -> String {
        let signature = self.0.sign(message);
        let digits = signature.as_ref().iter().map(|byte| format!("{byte:02x}"));
        digits.collect()
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_KEY).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// RFC 8410, 10.1 and 10.3.
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    const DIGITS: &str = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";

    fn file(name: &str, text: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("vitrine-owner-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn keys_are_read_as_openssl_writes_them() {
        use ring::signature::KeyPair;
        let (public, private) = (file("public", PUBLIC), file("private", PRIVATE));
        let key = public_key(public.to_str().unwrap()).unwrap();
        assert_eq!(public_key(DIGITS), Ok(key));
        let signer = Signer::read(&private).unwrap();
        assert_eq!(signer.0.public_key().as_ref(), key);
        assert!(public_key(private.to_str().unwrap()).is_err());
        assert!(Signer::read(&public).is_err());
        assert!(public_key("no such file").is_err());
        std::fs::remove_file(public).unwrap();
        std::fs::remove_file(private).unwrap();
    }
}
