//! The manifest's detached signature: Ed25519 in minisign's format, in a file beside it.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use minisign_verify::{PublicKey, Signature};

/// Why a signature does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureError {
    /// The public key is not one of minisign's.
    Key,
    /// The signature is not one of minisign's.
    Signature,
    /// The signature was made with another key, or over other bytes.
    Wrong,
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "the public key is not in minisign's format",
            Self::Signature => "the signature is not in minisign's format",
            Self::Wrong => "the signature was made with another key or over another file",
        })
    }
}

impl std::error::Error for SignatureError {}

/// Where the signature of a manifest is: beside it, with ".minisig" after the name.
pub fn path(manifest: &Path) -> PathBuf {
    let mut path = OsString::from(manifest);
    path.push(".minisig");
    path.into()
}

/// Checks a signature over `file`. `signature` and `key` are the texts of minisign's files; a key may also be its one line of base64.
///
/// # Errors
/// [`SignatureError`]; nothing of the file may be used then.
pub fn verify(file: &[u8], signature: &str, key: &str) -> Result<(), SignatureError> {
    let key = PublicKey::decode(key)
        .or_else(|_| PublicKey::from_base64(key.trim()))
        .map_err(|_| SignatureError::Key)?;
    let signature = Signature::decode(signature).map_err(|_| SignatureError::Signature)?;
    // Minisign's old format, which hashes the file by Ed25519 itself, is not accepted: nothing here ever made one.
    key.verify(file, &signature, false)
        .map_err(|_| SignatureError::Wrong)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Cursor;
    use std::process::{Command, Stdio};

    use minisign::KeyPair;

    use super::*;

    /// A signature in the format that the program minisign writes by default, and the key to check it with.
    fn sign(file: &[u8]) -> (String, String) {
        let pair = KeyPair::generate_unencrypted_keypair().expect("a key");
        let signature = minisign::sign(Some(&pair.pk), &pair.sk, Cursor::new(file), None, None);
        let key = pair.pk.to_box().expect("a key file");
        (signature.expect("a signature").to_string(), key.to_string())
    }

    #[test]
    fn only_the_right_key_over_the_right_bytes_counts() {
        let file = b"a manifest";
        let (signature, key) = sign(file);
        assert_eq!(verify(file, &signature, &key), Ok(()));
        let line = key.lines().nth(1).expect("the key's line");
        assert_eq!(verify(file, &signature, line), Ok(()));
        assert_eq!(
            verify(b"A manifest", &signature, &key),
            Err(SignatureError::Wrong)
        );
        let (other, other_key) = sign(file);
        for (signature, key) in [(&signature, &other_key), (&other, &key)] {
            assert_eq!(verify(file, signature, key), Err(SignatureError::Wrong));
        }
        // The comment is signed too.
        let comment = signature.replace("trusted comment: ", "trusted comment: really, ");
        assert!(verify(file, &comment, &key).is_err());
    }

    /// Whether the program minisign (Debian's package) succeeds in a folder; `None`, said aloud, where it is not here.
    fn minisign(folder: &Path, arguments: &[&str]) -> Option<bool> {
        let mut program = Command::new("minisign");
        program.current_dir(folder).args(arguments);
        let status = program.stdin(Stdio::null()).stdout(Stdio::null()).status();
        if status.is_err() {
            assert!(
                std::env::var("VITRINE_REQUIRE_ORACLES").as_deref() != Ok("1"),
                "minisign is not here"
            );
            eprintln!("SKIPPED: minisign is not here (Debian package minisign)");
        }
        Some(status.ok()?.success())
    }

    #[test]
    fn the_program_minisign_agrees_both_ways() {
        let folder = std::env::temp_dir().join(format!("minisign-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let file = crate::manifest::tests::example().encode();
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("a file");
        let read = |name: &str| fs::read_to_string(folder.join(name)).expect("a file");
        write("1.json", &file);

        // Ours, checked by the program.
        let (signature, key) = sign(file.as_bytes());
        write("key.pub", &key);
        write("1.json.minisig", &signature);
        let check = ["-V", "-p", "key.pub", "-m", "1.json"];
        if let Some(good) = minisign(&folder, &check) {
            assert!(good);
            write("1.json", &file.replace("1.2.3", "1.2.4"));
            assert_eq!(minisign(&folder, &check), Some(false));
            write("1.json", &file);

            // The program's, checked by us.
            let make_key = ["-G", "-W", "-f", "-p", "own.pub", "-s", "own.key"];
            assert_eq!(minisign(&folder, &make_key), Some(true));
            let sign = ["-S", "-W", "-s", "own.key", "-m", "1.json"];
            assert_eq!(minisign(&folder, &sign), Some(true));
            let (signature, key) = (read("1.json.minisig"), read("own.pub"));
            assert_eq!(verify(file.as_bytes(), &signature, &key), Ok(()));
            assert_eq!(
                verify(b"another file", &signature, &key),
                Err(SignatureError::Wrong)
            );
        }
        fs::remove_dir_all(&folder).expect("to remove it");
    }

    #[test]
    fn what_is_neither_key_nor_signature_is_refused() {
        let (signature, key) = sign(b"");
        assert_eq!(verify(b"", &signature, ""), Err(SignatureError::Key));
        for text in ["", "untrusted comment: x\nRUQ=\n", &key] {
            assert_eq!(verify(b"", text, &key), Err(SignatureError::Signature));
        }
    }

    #[test]
    fn the_signature_lies_beside_the_manifest() {
        let beside = path(Path::new("a/1.0.json"));
        assert_eq!(beside, Path::new("a/1.0.json.minisig"));
    }
}
