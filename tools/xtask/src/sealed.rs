//! Sealed models, made with the commands that users have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use crate::failure::Result;
use crate::process;

/// For encrypting or hashing a model.
const LIMIT: Duration = Duration::from_secs(600);

/// A model sealed with `vitrine seal`.
#[derive(Debug, Deserialize)]
pub struct SealedModel {
    #[serde(rename = "sealed")]
    pub file: PathBuf,
    /// The age identity that opens it.
    pub identity: PathBuf,
    /// SHA-256 of the sealed file, in hexadecimal digits.
    pub sealed_sha256: String,
    /// SHA-256 of the model.
    pub plaintext_sha256: String,
}

impl SealedModel {
    /// Seals a model into `directory`, under a fresh identity.
    pub fn make(vitrine: &Path, model: &Path, directory: &Path) -> Result<Self> {
        let name = model.file_name().unwrap_or(model.as_os_str());
        let beside = |extension: &str| {
            let mut name = name.to_owned();
            name.push(extension);
            directory.join(name)
        };
        let (file, identity) = (beside(".age"), beside(".key"));
        for old in [&file, &identity] {
            // Neither is ever overwritten by `vitrine seal`.
            let _ = fs::remove_file(old);
        }
        let mut seal = Command::new(vitrine);
        seal.arg("seal").arg(model).arg("--json");
        seal.arg("--out")
            .arg(&file)
            .arg("--identity")
            .arg(&identity);
        Ok(serde_json::from_str(&process::text(&mut seal, LIMIT)?)?)
    }
}

/// What RTMR[3] of an unconfigured machine is going to be, computed from files alone.
pub fn expected_rtmr3(
    vitrine: &Path,
    image: &Path,
    model: &Path,
    sealed: &SealedModel,
) -> Result<String> {
    #[derive(Deserialize)]
    struct Measured {
        model: Entry,
    }
    #[derive(Deserialize)]
    struct Entry {
        rtmr3: String,
    }
    let mut measure = Command::new(vitrine);
    measure.arg("measure").arg(image).arg("--json");
    measure.arg("--model").arg(model);
    measure.arg("--sealed").arg(&sealed.file);
    let measured: Measured = serde_json::from_str(&process::text(&mut measure, LIMIT)?)?;
    Ok(measured.model.rtmr3)
}
