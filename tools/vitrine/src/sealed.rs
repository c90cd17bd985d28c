//! Sealed files on this machine: their envelopes, and the key that an identity takes out of one.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ::seal::{Envelope, FileKey, HEADER_LIMIT, Kind};
use age::IdentityFile;
use age::secrecy::ExposeSecret;
use age_core::format::Stanza;
use sha2::{Digest, Sha256};

use crate::failure::Failure;
use crate::progress::Progress;

/// Bytes of a file that are hashed at a time.
const PIECE: usize = 4 << 20;

/// A file whose beginning has been read.
pub struct Contents {
    path: PathBuf,
    /// At the first byte that is the model's: after the envelope, if there is one.
    pub file: File,
    /// Bytes of the file.
    pub length: u64,
    /// `None` if it is not sealed.
    pub envelope: Option<Envelope>,
}

impl Contents {
    /// Opens a file, sealed or not.
    ///
    /// # Errors
    /// It cannot be read, or begins like a sealed file and is none.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let io = |error| unusable(path, &error);
        let mut file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(unusable(path, &"not a file"));
        }
        let length = metadata.len();
        let mut start = Vec::new();
        (&mut file)
            .take(2 * HEADER_LIMIT as u64)
            .read_to_end(&mut start)
            .map_err(io)?;
        let envelope = match Envelope::identify(&start, length) {
            Ok(Kind::Plain) => None,
            Ok(Kind::Sealed(envelope)) => Some(envelope),
            Ok(Kind::Unclear) => return Err(unusable(path, &"its age header does not end")),
            Err(error) => return Err(unusable(path, &error)),
        };
        let begin = envelope.as_ref().map_or(0, Envelope::length);
        file.seek(SeekFrom::Start(begin as u64)).map_err(io)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
            envelope,
        })
    }

    /// The key of a sealed file, as one of the identities in a file opens it.
    ///
    /// # Errors
    /// The file is not sealed, not for any of them, or its header was changed.
    pub fn key(&self, identity: &Path) -> Result<FileKey, Failure> {
        let Some(envelope) = &self.envelope else {
            return Err(unusable(&self.path, &"not a sealed file (age v1)"));
        };
        let stanzas: Vec<_> = envelope
            .header()
            .stanzas
            .iter()
            .map(|stanza| Stanza {
                tag: stanza.kind.clone(),
                args: stanza.arguments.clone(),
                body: stanza.body.clone(),
            })
            .collect();
        let identities = IdentityFile::from_file(identity.display().to_string())
            .map_err(|error| unusable(identity, &error))?
            .into_identities()
            .map_err(|error| unusable(identity, &error))?;
        let key = identities
            .iter()
            .find_map(|identity| identity.unwrap_stanzas(&stanzas))
            .ok_or_else(|| {
                let words = format!("no identity in it opens {}", self.path.display());
                unusable(identity, &words)
            })?
            .map_err(|error| unusable(&self.path, &error))?;
        let key = FileKey::from(*key.expose_secret());
        envelope
            .check(&key)
            .map_err(|error| unusable(&self.path, &error))?;
        Ok(key)
    }
}

/// SHA-256 of a file, with the progress.
///
/// # Errors
/// It cannot be read.
pub fn digest(path: &Path) -> Result<[u8; 32], Failure> {
    let cannot = |error| unusable(path, &error);
    let mut file = File::open(path).map_err(cannot)?;
    let mut progress = Progress::new(file.metadata().map_err(cannot)?.len());
    let mut digest = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece).map_err(cannot)? {
            0 => return Ok(digest.finalize().into()),
            count => {
                digest.update(&piece[..count]);
                progress.advance(count as u64);
            }
        }
    }
}

fn unusable(path: &Path, error: &dyn core::fmt::Display) -> Failure {
    Failure::usage(format!("{}: {error}", path.display()))
}
