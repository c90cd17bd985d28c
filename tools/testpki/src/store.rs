//! A PKI in a directory, so that an emulator and its clients share a root.
//!
//! `root.pem` and `collateral.json` are for clients. The `*.key` files sign anything this PKI can say: mode 0600.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::pki::{Certificates, Keys};
use crate::{Collateral, Error, Key, Platform, TestPki};

/// The trust anchor; written last, so that its presence says that all is there.
const ROOT: &str = "root.pem";
const COLLATERAL: &str = "collateral.json";
const PLATFORM: &str = "platform.json";
const REPORT_KEY: &str = "report.key";
/// An hour: collateral is dated back by it, because clients' clocks differ.
const BACKDATED_SECONDS: u64 = 3600;

impl TestPki {
    /// The PKI kept in `directory`, made there if there is none; its collateral is issued anew for `now` (seconds since 1970).
    pub fn open(directory: &Path, now: u64) -> Result<Self, Error> {
        let pki = if Self::root_path(directory).exists() {
            Self::load(directory)?
        } else {
            let pki = Self::generate(Platform::default())?;
            pki.save(directory)?;
            pki
        };
        let collateral = Collateral::issue(&pki, now.saturating_sub(BACKDATED_SECONDS))?;
        replace(&Self::collateral_path(directory), &collateral.to_json())?;
        Ok(pki)
    }

    /// Where a PKI kept in `directory` has its trust anchor (PEM).
    pub fn root_path(directory: &Path) -> PathBuf {
        directory.join(ROOT)
    }

    /// Where a PKI kept in `directory` has its collateral (`QuoteCollateralV3` JSON).
    pub fn collateral_path(directory: &Path) -> PathBuf {
        directory.join(COLLATERAL)
    }

    /// Writes keys and certificates to `directory`, which is made if need be.
    pub fn save(&self, directory: &Path) -> Result<(), Error> {
        fs::create_dir_all(directory).map_err(|error| Error::File(directory.into(), error))?;
        let Keys {
            root,
            platform_ca,
            pck,
            tcb_signing,
            attestation,
            report,
        } = &self.keys;
        for (name, key) in [
            ("root.key", root),
            ("platform-ca.key", platform_ca),
            ("pck.key", pck),
            ("tcb-signing.key", tcb_signing),
            ("attestation.key", attestation),
        ] {
            write(&directory.join(name), &key.to_pem(), 0o600)?;
        }
        write(&directory.join(REPORT_KEY), &hex::encode(report), 0o600)?;
        let platform = serde_json::to_string(&self.platform).expect("plain structures serialise");
        write(&directory.join(PLATFORM), &platform, 0o644)?;
        for (name, certificate) in [
            ("platform-ca.pem", &self.certificates.platform_ca),
            ("pck.pem", &self.certificates.pck),
            ("tcb-signing.pem", &self.certificates.tcb_signing),
            (ROOT, &self.certificates.root),
        ] {
            write(&directory.join(name), certificate, 0o644)?;
        }
        Ok(())
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(directory: &Path) -> Result<Self, Error> {
        let text = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(|error| Error::File(path, error))
        };
        let content = |name: &str| Error::Content(directory.join(name));
        let key = |name: &str| Key::from_pem(&text(name)?).map_err(|_| content(name));
        let certificate = |name: &str| {
            let text = text(name)?;
            pem::parse(&text).map_err(|_| content(name))?;
            Ok::<_, Error>(text)
        };
        let mut report = [0; 32];
        hex::decode_to_slice(text(REPORT_KEY)?.trim(), &mut report)
            .map_err(|_| content(REPORT_KEY))?;
        Ok(Self {
            platform: serde_json::from_str(&text(PLATFORM)?).map_err(|_| content(PLATFORM))?,
            keys: Keys {
                root: key("root.key")?,
                platform_ca: key("platform-ca.key")?,
                pck: key("pck.key")?,
                tcb_signing: key("tcb-signing.key")?,
                attestation: key("attestation.key")?,
                report,
            },
            certificates: Certificates {
                root: certificate(ROOT)?,
                platform_ca: certificate("platform-ca.pem")?,
                pck: certificate("pck.pem")?,
                tcb_signing: certificate("tcb-signing.pem")?,
            },
        })
    }
}

/// Writes a file that nobody reads half.
fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    write(&new, text, 0o644)?;
    fs::rename(&new, path).map_err(|error| Error::File(path.into(), error))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Error::File(path.into(), error))
}
