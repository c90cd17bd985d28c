//! The files to measure, read and understood.

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use attestation::events::{MAX_MODEL_NAME, ModelIdentity};
use engine::gguf::Gguf;
use measurements::{Manifest, Metadata, ModelEntry, Register, signature};
use server::Config;
use server::inference::UNNAMED;
use sha2::{Digest, Sha256};

use crate::failure::{Code, Failure};
use crate::host::ModelFile;

/// No host takes a larger one: an image ends at 4 GiB, below the devices.
const IMAGE_LIMIT: u64 = 64 << 20;
/// A configuration, a manifest, a key or a signature is much smaller.
const TEXT_LIMIT: u64 = 1 << 20;

/// An image with its metadata.
pub struct Image {
    path: PathBuf,
    pub bytes: Vec<u8>,
    pub metadata: Metadata,
}

impl Image {
    /// This image cannot be used.
    pub fn unusable(&self, error: impl fmt::Display) -> Failure {
        Failure::usage(format!("{}: {error}", self.path.display()))
    }
}

/// Reads an image that a host would start. Where it is `published`, one that no host starts is another one than that.
pub fn image(path: &Path, published: bool) -> Result<Image, Failure> {
    let bytes = firmware(path)?;
    let metadata = Metadata::parse(&bytes).map_err(|error| match published {
        false => Failure::usage(format!("{}: {error}", path.display())),
        true => Failure::with_code(
            Code::EvidenceMismatch,
            format!(
                "{}: no host starts {}: {error}",
                Register::Mrtd,
                path.display()
            ),
        ),
    })?;
    Ok(Image {
        path: path.to_owned(),
        bytes,
        metadata,
    })
}

/// Reads what may be an image.
pub fn firmware(path: &Path) -> Result<Vec<u8>, Failure> {
    read(path, IMAGE_LIMIT)
}

/// Reads a configuration file; without one, everything is at its default.
pub fn config(path: Option<&Path>) -> Result<Config, Failure> {
    let Some(path) = path else {
        return Ok(Config::default());
    };
    Config::parse(&read(path, TEXT_LIMIT)?)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// Reads and measures a model. It is measured under the name by which it is served.
pub fn model(path: &Path, sealed: Option<&Path>, config: &Config) -> Result<ModelEntry, Failure> {
    let file = ModelFile::read(path)?;
    let unusable =
        |error: &dyn fmt::Display| Failure::usage(format!("{}: {error}", path.display()));
    let gguf = Gguf::parse(file.bytes()).map_err(|error| unusable(&error))?;
    let own = gguf
        .string("general.name")
        .map_err(|error| unusable(&error))?
        .filter(|name| !name.is_empty());
    let name = config.model.name.as_deref().or(own).unwrap_or(UNNAMED);
    if name.len() > MAX_MODEL_NAME {
        return Err(unusable(&format!(
            "its name is longer than {MAX_MODEL_NAME} bytes; give it another one by `name` in [model] of the configuration"
        )));
    }
    Ok(ModelEntry::new(&ModelIdentity {
        name: name.to_owned(),
        sealed: sealed.map(sha256).transpose()?,
        plaintext: Sha256::digest(file.bytes()).into(),
    }))
}

/// Reads a manifest, and if a key is given, its signature first.
pub fn manifest(path: &Path, key: Option<&Path>) -> Result<Manifest, Failure> {
    let bytes = read(path, TEXT_LIMIT)?;
    if let Some(key) = key {
        let signature_path = signature::path(path);
        let [key, signature] = [key, &*signature_path].map(|path| {
            read(path, TEXT_LIMIT).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        });
        signature::verify(&bytes, &signature?, &key?).map_err(|error| {
            let message = format!("{}: {error}", signature_path.display());
            Failure::with_code(Code::PlatformUntrusted, message)
        })?;
    }
    Manifest::parse(&bytes).map_err(|error| {
        let message = format!("{}: {error}", path.display());
        Failure::with_code(Code::EvidenceMismatch, message)
    })
}

/// Reads a file that must not be larger than `limit`.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let cannot = |error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(cannot)?;
    if bytes.len() as u64 > limit {
        return Err(Failure::usage(format!(
            "{} is longer than {limit} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}

/// SHA-256 of a file of any length.
fn sha256(path: &Path) -> Result<[u8; 32], Failure> {
    let cannot = |error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let mut file = fs::File::open(path).map_err(cannot)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(cannot)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&buffer[..read]),
        }
    }
}
