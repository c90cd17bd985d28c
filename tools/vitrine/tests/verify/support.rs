//! The program, run in a home of each test's own, and files that it is given.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::domain::{Domain, NOW, manifest, pki};

/// A directory of a test's own, which is also the home of what it runs.
pub fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("verify")
        .join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

pub fn verify(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vitrine"))
        .arg("verify")
        .args(arguments)
        .env("HOME", home)
        .env_remove("XDG_STATE_HOME")
        .env_remove("XDG_CACHE_HOME")
        .output()
        .unwrap()
}

/// The exit code, the JSON and the words on stderr.
pub fn json(home: &Path, arguments: &[&str]) -> (i32, Value, String) {
    let output = verify(home, &[arguments, &["--json"]].concat());
    let words = String::from_utf8(output.stderr).unwrap();
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{words}"));
    (output.status.code().unwrap(), value, words)
}

pub fn write(directory: &Path, name: &str, contents: impl AsRef<[u8]>) -> String {
    let path = directory.join(name);
    fs::write(&path, contents).unwrap();
    path.display().to_string()
}

/// Files of a sound domain under the test root, and the options that accept it.
pub struct Files {
    pub home: PathBuf,
    pub domain: Domain,
    pub certificate: String,
    pub root: String,
    pub collateral: String,
    pub manifest: String,
}

pub const DIGEST: &str = "0808080808080808080808080808080808080808080808080808080808080808";

impl Files {
    pub fn new(name: &str) -> Self {
        let home = directory(name);
        let domain = Domain::new();
        let evidence = pki().scenario(NOW).unwrap().build().unwrap();
        Self {
            certificate: write(&home, "server.der", domain.certificate()),
            root: write(&home, "root.pem", pki().root_pem()),
            collateral: write(&home, "collateral.json", evidence.collateral.to_json()),
            manifest: write(&home, "vitrine.json", manifest().encode()),
            domain,
            home,
        }
    }

    pub fn run(&self, arguments: &[&str]) -> (i32, Value, String) {
        let now = NOW.to_string();
        let common = ["--test-root", &self.root, "--at", &now];
        json(&self.home, &[&common, arguments].concat())
    }

    /// What accepts the domain, but for where collateral and evidence come from.
    pub fn pins(&self) -> [&str; 4] {
        ["--manifest", &self.manifest, "--model-digest", DIGEST]
    }
}
